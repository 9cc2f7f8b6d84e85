"""Run the experiment: ``python -m experiments.land``.

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

import torch

from benchmarks.machine import describe
from experiments import page, paired
from experiments.land import densities
from experiments.land.declaration import (
    ARMS,
    DATA,
    EQUAL,
    FACTOR,
    FULL,
    MEASURES,
    QUICK,
    SEEDS,
    TITLES,
    Sizes,
    as_json,
)
from experiments.land.report import blocks
from experiments.store import Json, remembered, write_json
from kahler_verify.errors import InputError

ROOT = Path(__file__).resolve().parents[2]


def run(folder: Path, seeds: Sequence[int], sizes: Sizes, say: Callable[[str], None]) -> Json:
    """The whole report, from disk as far as it was computed before."""
    rows: dict[str, list[Json]] = {}
    for name, (_, most) in DATA.items():
        for seed in seeds:
            depends = {"seed": seed, "factor": FACTOR, "most": most, "sizes": asdict(sizes)}
            row = remembered(
                folder,
                f"{name}-{seed}",
                depends,
                lambda name=name, seed=seed: densities.compared(name, seed, sizes),  # type: ignore[misc]
            )
            rows.setdefault(name, []).append(row)
            say(f"{name}, seed {seed}: {row['cpu_seconds']:.0f} s")
    values: Json = {
        "free": {
            arm: {name: [row["free"][arm] for row in rows[name]] for name in DATA}
            for arm in ("mixture", *ARMS["free"][1])
        },
        "equal": {
            arm: {
                f"{name}_{k}": [row["equal"][arm][i] for row in rows[name]]
                for name in DATA
                for i, k in enumerate(EQUAL)
            }
            for arm in ("mixture", *ARMS["equal"][1])
        },
    }
    facts = describe(torch.device("cpu"))
    return {
        "declaration": as_json(sizes),
        "cells": {
            cell: {
                "title": TITLES[cell],
                "seeds": list(seeds),
                "values": values[cell],
                "differences": paired.differences(
                    values[cell], [(a, baseline, m) for a in arms for m in MEASURES[cell]]
                ),
            }
            for cell, (baseline, arms) in ARMS.items()
        },
        "chosen": {name: [row["chosen"] for row in rows[name]] for name in DATA},
        "unreached": {
            name: sum(each["unreached"] for row in rows[name] for each in row["lands"].values())
            for name in DATA
        },
        "failed": {
            name: sum("failure" in each for row in rows[name] for each in row["lands"].values())
            for name in DATA
        },
        "machine": {
            **{key: facts[key] for key in ("processor", "threads", "torch", "python")},
            "minutes": sum(row["cpu_seconds"] for own in rows.values() for row in own) / 60,
        },
    }


def main() -> None:
    """Parse the options and run."""
    parser = argparse.ArgumentParser(prog="python -m experiments.land", description=__doc__)
    parser.add_argument("--out", type=Path, default=ROOT / "build" / "land")
    parser.add_argument("--seeds", type=int, help="the first so many seeds only")
    parser.add_argument("--quick", action="store_true", help="a smoke test under --out")
    parser.add_argument(
        "--pilot", action="store_true", help="only validate σ, at a seed of its own"
    )
    parser.add_argument("--page", type=Path, default=ROOT / "docs" / "land.md")
    parser.add_argument(
        "--json", type=Path, default=ROOT / "benchmarks" / "results" / "land_l6.json"
    )
    options = parser.parse_args()
    torch.set_num_threads(1)
    if options.pilot:
        _say(str(densities.pilot(FULL)))
        return
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
    page.rewrite(page_path, "land", blocks(report))


def _say(line: str) -> None:
    print(f"{time.strftime('%H:%M:%S')} {line}", flush=True)


if __name__ == "__main__":
    main()
