"""Run the experiment: ``python -m experiments.kahler_vae``.

What is done is kept under ``--out``; a second run does only what is missing there, and gives the
same numbers.
"""

from __future__ import annotations

import argparse
import shutil
import time
from dataclasses import replace
from pathlib import Path

import numpy as np
import torch
from scipy.stats import gamma as gamma_law

from benchmarks.machine import describe
from experiments.kahler_vae import declaration, page, plots, statistics
from experiments.kahler_vae.declaration import (
    ARMS,
    FULL,
    PRIMARY,
    QUICK,
    SECONDARY,
    STRENGTHS,
    Cell,
    Sizes,
)
from experiments.kahler_vae.experiment import Say, Workshop, pilot, run_cell
from experiments.kahler_vae.models import metric_plane
from experiments.store import Json, write_json
from kahler_verify.errors import InputError

ROOT = Path(__file__).resolve().parents[2]
SHOWN = (  # as samples
    "vanilla",
    "regularised+",
    "regularised-",
    "weighted+",
    "weighted-",
    "regularised+weighted+",
    "temperature",
    "beta",
    "mixture",
)
MAPPED = ("plain", "logdet_up", "logdet_down")


def run(folder: Path, cells: list[Cell], sizes: Sizes, say: Say, *, with_pilot: bool) -> Json:
    """The whole report, from disk as far as it was computed before."""
    report: Json = {
        "claims": {},
        "declaration": declaration.as_json(sizes),
        "pilot": pilot(folder, say) if with_pilot else None,
        "cells": {},
    }
    for cell in cells:
        found = run_cell(cell, folder, sizes, say)
        report["cells"][cell.name] = {**found, "differences": statistics.differences(found)}
    report["claims"]["G8"] = statistics.claim(report["cells"][PRIMARY.name])
    facts = describe(torch.device("cpu"))
    report["machine"] = {
        **{key: facts[key] for key in ("processor", "threads", "torch", "python")},
        "minutes": sum(sum(cell["cpu_seconds"]) for cell in report["cells"].values()) / 60,
    }
    return report


def draw(report: Json, folder: Path, sizes: Sizes, plots_folder: Path) -> None:
    """Write the three pictures of the primary cell; samples and maps are its first seed's."""
    seed = PRIMARY.seeds[0]
    workshop = Workshop(PRIMARY, seed, folder, sizes)
    trainings = declaration.trainings(STRENGTHS, sizes.epochs)
    models = {name: workshop.model(*trainings[name]) for name in MAPPED}
    rows: dict[str, np.ndarray] = {"real": workshop.images.held_out}
    for name in SHOWN:
        model = workshop.model(*trainings[ARMS[name].training])
        z, _ = model.latents(ARMS[name].sampling, STRENGTHS, seed)
        rows[ARMS[name].label] = model.decode(z)
    plots.draw_samples(rows, plots_folder / "kahler_vae_samples.png")
    plots.draw_forest(report["cells"][PRIMARY.name], plots_folder / "kahler_vae_differences.png")
    radius = float(np.sqrt(gamma_law.ppf(STRENGTHS.mass, PRIMARY.latent_dim)))
    planes = {page.TRAININGS[name]: metric_plane(model, 3.0, 161) for name, model in models.items()}
    plots.draw_maps(planes, radius, plots_folder / "kahler_vae_volume.png")


def main() -> None:
    """Parse the options and run."""
    parser = argparse.ArgumentParser(prog="python -m experiments.kahler_vae", description=__doc__)
    parser.add_argument("--out", type=Path, default=ROOT / "build" / "kahler_vae")
    parser.add_argument("--seeds", type=int, help="the first so many seeds of each cell only")
    parser.add_argument(
        "--quick",
        action="store_true",
        help="a smoke test: two epochs, one seed, no pilot; everything is written under --out",
    )
    parser.add_argument("--page", type=Path, default=ROOT / "docs" / "does-geometry-help.md")
    parser.add_argument("--plots", type=Path, default=ROOT / "docs" / "assets")
    parser.add_argument(
        "--json", type=Path, default=ROOT / "benchmarks" / "results" / "kahler_vae.json"
    )
    options = parser.parse_args()
    torch.set_num_threads(1)
    sizes, cells, folder = FULL, [PRIMARY, *SECONDARY], options.out
    page_path, plots_folder, json_path = options.page, options.plots, options.json
    if options.quick:
        sizes, cells, folder = QUICK, [replace(PRIMARY, seeds=PRIMARY.seeds[:1])], folder / "quick"
        page_path, json_path, plots_folder = (
            folder / page_path.name,
            folder / json_path.name,
            folder,
        )
        folder.mkdir(parents=True, exist_ok=True)
        shutil.copyfile(options.page, page_path)
    if options.seeds is not None:
        if options.seeds < 1:
            raise InputError(f"seeds: expected a positive number, got {options.seeds}")
        cells = [replace(cell, seeds=cell.seeds[: options.seeds]) for cell in cells]
    report = run(folder, cells, sizes, _say, with_pilot=not options.quick)
    write_json(json_path, report)
    draw(report, folder, sizes, plots_folder)
    page.rewrite(page_path, report)
    print(report["claims"]["G8"]["finding"])


def _say(line: str) -> None:
    print(f"{time.strftime('%H:%M:%S')} {line}", flush=True)


if __name__ == "__main__":
    main()
