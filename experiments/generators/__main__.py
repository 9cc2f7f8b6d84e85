"""Run the experiment: ``python -m experiments.generators``.

What is done is kept under ``--out``; a second run does only what is missing there, and gives the
same numbers.
"""

from __future__ import annotations

import argparse
import shutil
import time
from collections.abc import Callable, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

import torch

from benchmarks.machine import describe
from experiments import page, paired
from experiments.generators import declaration, measures
from experiments.generators.ablation import trained
from experiments.generators.declaration import ARMS, FULL, MEASURES, QUICK, SEEDS, TITLES, Sizes
from experiments.generators.report import blocks
from experiments.store import Json, fingerprint, remembered, write_json
from kahler_verify.errors import InputError
from kahler_verify.models import (
    RealVAE,
    TrainingOptions,
    load_checkpoint,
    load_data,
    train,
    uniformity,
)

ROOT = Path(__file__).resolve().parents[2]
VARIANCES = ("mlp", "rbf", "constant")
ABLATIONS = {
    "neither": {"noise": False, "kl": False},
    "noise": {"noise": True, "kl": False},
    "kl": {"noise": False, "kl": True},
    "both": {"noise": True, "kl": True},
}


def model_of(folder: Path, seed: int, variance: str, sizes: Sizes) -> RealVAE:
    """A trained model in double precision, from disk if it was trained before."""
    config = declaration.config(seed, variance)
    options = TrainingOptions(epochs=sizes.epochs)
    name = fingerprint({**config.to_dict(), **asdict(options)})
    path = folder / "models" / f"{variance}-{seed}-{name}.safetensors"
    if not path.exists():
        path.parent.mkdir(parents=True, exist_ok=True)
        train(config, load_data("digits-images", seed), path, options=options)
    model: Any = load_checkpoint(path).model
    return model.double().requires_grad_(False)


class Seed:
    """What is measured at one seed: a method for each cell, from arm to measure to value."""

    def __init__(self, folder: Path, seed: int, sizes: Sizes) -> None:
        self.folder, self.seed, self.sizes = folder, seed, sizes
        self.data = load_data("digits-images", seed)
        self.test = self.data.test.x.double()

    def model(self, variance: str) -> RealVAE:
        """A trained model, from disk if it was trained before."""
        return model_of(self.folder, self.seed, variance, self.sizes)

    def variance(self) -> Json:
        """Likelihoods, and σ away from data."""
        values = {}
        for name in VARIANCES:
            model = self.model(name)
            values[name] = {
                **measures.log_likelihood(model, self.test, self.sizes),
                "rise": measures.rise(model, measures.codes_of(model, self.test)),
            }
        return values

    def flatness(self) -> Json:
        """Lengths and curvature, beside a flat manifold's."""
        model = self.model("rbf")
        codes = measures.codes_of(model, self.test)
        values = {
            name: measures.flatness(metric, codes, self.sizes, self.seed)
            for name, metric in measures.metrics(model).items()
        }
        return {**values, "flat": dict.fromkeys(MEASURES["flatness"], 0.0)}

    def clusters(self) -> Json:
        """Geodesic and Euclidean k-means."""
        model, other = self.model("rbf"), self.model("mlp")
        x, labels = measures.joined(self.data.validation, self.data.test)
        return measures.clustering(
            measures.metrics(model)["expected"],
            measures.codes_of(model, x),
            measures.codes_of(other, x),
            labels,
            self.sizes,
            self.seed,
        )

    def uniformity(self) -> Json:
        """Codes of autoencoders with noise, with KL, with both and with neither."""
        values = {}
        for name, parts in ABLATIONS.items():
            model = trained(self.data, self.seed, self.sizes, **parts).double()
            with torch.no_grad():
                mean, log_variance = model.encoder(self.data.train.x.double())
            deviation = float((log_variance / 2).exp().mean() / mean.std(0).mean())
            values[name] = {**uniformity(mean.numpy())._asdict(), "deviation": deviation}
        return values


def measured(folder: Path, seed: int, cell: str, sizes: Sizes) -> Json:
    """A cell at one seed, from disk if it was computed before."""
    depends = {"seed": seed, "declaration": declaration.as_json(sizes)}
    compute = getattr(Seed(folder, seed, sizes), cell)
    return remembered(folder, f"{cell}-{seed}", depends, compute)


def one(seed: int, cell: str, quick: bool = False) -> Json:
    """A cell at one seed, for ``kahler-verify sweep``: where the experiment looks for it later."""
    folder = ROOT / "build" / "generators"
    return measured(folder / "quick" if quick else folder, seed, cell, QUICK if quick else FULL)


def run(folder: Path, seeds: Sequence[int], sizes: Sizes, say: Callable[[str], None]) -> Json:
    """The whole report, from disk as far as it was computed before."""
    declared = declaration.as_json(sizes)
    cells: Json = {}
    seconds = 0.0
    for cell, (baseline, arms) in ARMS.items():
        rows = []
        for seed in seeds:
            rows.append(measured(folder, seed, cell, sizes))
            seconds += rows[-1]["cpu_seconds"]
            say(f"{cell}, seed {seed}: {rows[-1]['cpu_seconds']:.0f} s")
        values = {
            arm: {m: [row[arm][m] for row in rows] for m in MEASURES[cell]}
            for arm in (baseline, *arms)
        }
        compared = [(arm, baseline, m) for arm in arms for m in MEASURES[cell]]
        cells[cell] = {
            "title": TITLES[cell],
            "seeds": list(seeds),
            "values": values,
            "differences": paired.differences(values, compared),
        }
    facts = describe(torch.device("cpu"))
    return {
        "declaration": declared,
        "cells": cells,
        "machine": {
            **{key: facts[key] for key in ("processor", "threads", "torch", "python")},
            "minutes": seconds / 60,
        },
    }


def main() -> None:
    """Parse the options and run."""
    parser = argparse.ArgumentParser(prog="python -m experiments.generators", description=__doc__)
    parser.add_argument("--out", type=Path, default=ROOT / "build" / "generators")
    parser.add_argument("--seeds", type=int, help="the first so many seeds only")
    parser.add_argument("--quick", action="store_true", help="a smoke test under --out")
    parser.add_argument("--page", type=Path, default=ROOT / "docs" / "claims-on-generators.md")
    parser.add_argument(
        "--json", type=Path, default=ROOT / "benchmarks" / "results" / "generators.json"
    )
    options = parser.parse_args()
    torch.set_num_threads(1)
    seeds, sizes, folder = SEEDS, FULL, options.out
    page_path, json_path = options.page, options.json
    if options.quick:
        seeds, sizes, folder = SEEDS[:2], QUICK, folder / "quick"
        page_path, json_path = folder / page_path.name, folder / json_path.name
        folder.mkdir(parents=True, exist_ok=True)
        shutil.copyfile(options.page, page_path)
    if options.seeds is not None:
        if options.seeds < 1:
            raise InputError(f"seeds: expected a positive number, got {options.seeds}")
        seeds = seeds[: options.seeds]
    report = run(folder, seeds, sizes, _say)
    write_json(json_path, report)
    page.rewrite(page_path, "generators", blocks(report))


def _say(line: str) -> None:
    print(f"{time.strftime('%H:%M:%S')} {line}", flush=True)


if __name__ == "__main__":
    main()
