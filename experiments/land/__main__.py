"""Run the experiment: ``python -m experiments.land``.

What is done is kept under ``--out``; a second run does only what is missing there, and gives the
same numbers.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import asdict
from pathlib import Path

from experiments import cells, paired
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
from experiments.store import Json, remembered


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
        "machine": cells.machine(sum(row["cpu_seconds"] for own in rows.values() for row in own)),
    }


EXPERIMENT = cells.Experiment(
    name="land",
    doc=str(__doc__),
    seeds=SEEDS,
    full=FULL,
    quick=QUICK,
    run=run,
    blocks=blocks,
    page="land.md",
    results="land_l6.json",
)

if __name__ == "__main__":
    EXPERIMENT.main()
