"""Cells of an experiment: arms against a baseline, seed after seed, with what is kept on disk.

And the command that runs one: options, a smoke test, the report as JSON and as a page.
"""

from __future__ import annotations

import argparse
import shutil
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch

from benchmarks.machine import describe
from experiments import page, paired
from experiments.store import Json, remembered, write_json
from kahler_verify.errors import InputError

ROOT = Path(__file__).resolve().parents[1]

Arms = Mapping[str, tuple[str, Mapping[str, str]]]  # by cell: the baseline, and others' words
Measures = Mapping[str, Mapping[str, tuple[str, int]]]  # by cell: titles, and digits
Say = Callable[[str], None]


def report(
    folder: Path,
    seeds: Sequence[int],
    declared: Json,
    compute: Callable[[str, int], Json],
    arms: Arms,
    measures: Measures,
    titles: Mapping[str, str],
    say: Say,
) -> Json:
    """All cells, from disk as far as they were computed before.

    Args:
        folder: where state is kept.
        seeds: of the comparisons.
        declared: everything that decides the results.
        compute: of a cell and a seed, the values of its measures by arm.
        arms: by cell.
        measures: by cell.
        titles: by cell.
        say: told of each unit of work.
    """
    cells: Json = {}
    seconds = 0.0
    for cell, (baseline, others) in arms.items():
        rows = []
        for seed in seeds:
            row = measured(folder, cell, seed, declared, compute)
            rows.append(row)
            seconds += row["cpu_seconds"]
            say(f"{cell}, seed {seed}: {row['cpu_seconds']:.0f} s")
        values = {
            arm: {m: [row[arm][m] for row in rows] for m in measures[cell]}
            for arm in (baseline, *others)
        }
        compared = [(arm, baseline, m) for arm in others for m in measures[cell]]
        cells[cell] = {
            "title": titles[cell],
            "seeds": list(seeds),
            "values": values,
            "differences": paired.differences(values, compared),
        }
    return {"declaration": declared, "cells": cells, "machine": machine(seconds)}


def measured(
    folder: Path, cell: str, seed: int, declared: Json, compute: Callable[[str, int], Json]
) -> Json:
    """A cell at one seed, from disk if it was computed before; arguments as of :func:`report`."""
    depends = {"seed": seed, "declaration": declared}
    return remembered(folder, f"{cell}-{seed}", depends, lambda: compute(cell, seed))


def machine(seconds: float) -> Json:
    """Where it ran, and the minutes of CPU time."""
    facts = describe(torch.device("cpu"))
    kept = {key: facts[key] for key in ("processor", "threads", "torch", "python")}
    return {**kept, "minutes": seconds / 60}


def machine_words(report: Json) -> str:
    """The same as a sentence of the page."""
    facts = report["machine"]
    return (
        f"{facts['processor']}, {facts['threads']} thread, torch {facts['torch']}: "
        f"{facts['minutes']:.0f} minutes of CPU time."
    )


@dataclass(frozen=True)
class Experiment:
    """What the command ``python -m experiments.NAME`` runs.

    Attributes:
        name: of the experiment, and of its markers on the page.
        doc: what it is.
        seeds: that are reported.
        full, quick: sizes of a run and of a smoke test.
        run: of a folder, seeds, sizes and ``say``; the report.
        blocks: of the report, the page's blocks.
        page: in docs.
        results: in benchmarks/results.
        pictures: of a folder, of sizes and of where pictures go; drawn after the run.
    """

    name: str
    doc: str
    seeds: tuple[int, ...]
    full: Any
    quick: Any
    run: Callable[[Path, Sequence[int], Any, Say], Json]
    blocks: Callable[[Json], dict[str, str]]
    page: str
    results: str
    pictures: Callable[[Path, Any, Path], None] | None = None

    def main(self, argv: Sequence[str] | None = None) -> None:
        """Parse the options and run."""
        parser = argparse.ArgumentParser(
            prog=f"python -m experiments.{self.name}", description=self.doc
        )
        results = ROOT / "benchmarks" / "results"
        parser.add_argument("--out", type=Path, default=ROOT / "build" / self.name)
        parser.add_argument("--seeds", type=int, help="the first so many seeds only")
        parser.add_argument("--quick", action="store_true", help="a smoke test under --out")
        parser.add_argument("--page", type=Path, default=ROOT / "docs" / self.page)
        parser.add_argument("--json", type=Path, default=results / self.results)
        options = parser.parse_args(argv)
        torch.set_num_threads(1)
        seeds, sizes, folder = self.seeds, self.full, options.out
        page_path, json_path, assets = options.page, options.json, options.page.parent / "assets"
        if options.quick:
            seeds, sizes, folder = self.seeds[:2], self.quick, folder / "quick"
            page_path, json_path = folder / page_path.name, folder / json_path.name
            assets = folder
            folder.mkdir(parents=True, exist_ok=True)
            shutil.copyfile(options.page, page_path)
        if options.seeds is not None:
            if options.seeds < 1:
                raise InputError(f"seeds: expected a positive number, got {options.seeds}")
            seeds = seeds[: options.seeds]
        found = self.run(folder, seeds, sizes, say)
        write_json(json_path, found)
        page.rewrite(page_path, self.name, self.blocks(found))
        if self.pictures is not None:
            self.pictures(folder, sizes, assets)


def say(line: str) -> None:
    """A line with the time."""
    print(f"{time.strftime('%H:%M:%S')} {line}", flush=True)
