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
from typing import Any, Protocol

import torch

from benchmarks.machine import describe
from experiments import page, paired
from experiments.store import Json, remembered, write_json
from kahler_verify.errors import InputError

ROOT = Path(__file__).resolve().parents[1]

Say = Callable[[str], None]


class Declaration(Protocol):
    """What an experiment's ``declaration`` module fixes before it is run.

    Attributes:
        SEEDS: of the comparisons.
        FULL, QUICK: sizes of a run, and of a smoke test.
        ARMS: by cell, the baseline, and the others' words.
        MEASURES: by cell, titles, and digits.
        TITLES: of the cells.
    """

    SEEDS: Sequence[int]
    FULL: Any
    QUICK: Any
    ARMS: Mapping[str, tuple[str, Mapping[str, str]]]
    MEASURES: Mapping[str, Mapping[str, tuple[str, int]]]
    TITLES: Mapping[str, str]

    def as_json(self, sizes: Any) -> Json:
        """Everything that decides the results."""

    def words(self, declared: Json) -> str:
        """The same for readers of the page."""


@dataclass(frozen=True)
class Experiment:
    """What the command ``python -m experiments.NAME`` runs.

    Attributes:
        name: of the experiment, and of its markers on the page.
        doc: what it is.
        declaration: the module of that name.
        compute: of a folder where it may keep what it makes, a seed, a cell and sizes: values of
            the cell's measures by arm, and ``details`` where the page has more to tell.
        page: in docs.
        results: in benchmarks/results.
        more: of the report, other blocks of the page.
        pictures: of a folder, of sizes and of where pictures go; drawn after the run.
    """

    name: str
    doc: str
    declaration: Declaration
    compute: Callable[[Path, int, str, Any], Json]
    page: str
    results: str
    more: Callable[[Json], dict[str, str]] = lambda _: {}
    pictures: Callable[[Path, Any, Path], None] | None = None

    def folder(self, quick: bool) -> Path:
        """Where state is kept, where nothing else is said."""
        folder = ROOT / "build" / self.name
        return folder / "quick" if quick else folder

    def measured(self, folder: Path, seed: int, cell: str, sizes: Any) -> Json:
        """A cell at one seed, from disk if it was computed before."""
        depends = {"seed": seed, "declaration": self.declaration.as_json(sizes)}
        return remembered(
            folder, f"{cell}-{seed}", depends, lambda: self.compute(folder, seed, cell, sizes)
        )

    def one(self, seed: int, cell: str, quick: bool = False) -> Json:
        """A cell at one seed, for ``kahler-verify sweep``: where the command looks for it later."""
        torch.set_num_threads(1)
        declared = self.declaration
        if cell not in declared.ARMS:
            raise InputError(f"cell: expected one of {', '.join(declared.ARMS)}, got {cell!r}")
        sizes = declared.QUICK if quick else declared.FULL
        return self.measured(self.folder(quick), seed, cell, sizes)

    def report(self, folder: Path, seeds: Sequence[int], sizes: Any, say: Say) -> Json:
        """All cells, from disk as far as they were computed before.

        Args:
            folder: where state is kept.
            seeds: of the comparisons.
            sizes: how much of everything.
            say: told of each unit of work.
        """
        declared, cells, seconds = self.declaration, {}, 0.0
        for cell, (baseline, others) in declared.ARMS.items():
            rows = []
            for seed in seeds:
                row = self.measured(folder, seed, cell, sizes)
                rows.append(row)
                seconds += row["cpu_seconds"]
                say(f"{cell}, seed {seed}: {row['cpu_seconds']:.0f} s")
            measures = declared.MEASURES[cell]
            values = {
                arm: {m: [row[arm][m] for row in rows] for m in measures}
                for arm in (baseline, *others)
            }
            compared = [(arm, baseline, m) for arm in others for m in measures]
            cells[cell] = {
                "title": declared.TITLES[cell],
                "seeds": list(seeds),
                "values": values,
                "differences": paired.differences(values, compared),
            }
            if "details" in rows[0]:
                cells[cell]["details"] = [row["details"] for row in rows]
        return {
            "declaration": declared.as_json(sizes),
            "cells": cells,
            "machine": machine(seconds),
        }

    def blocks(self, report: Json) -> dict[str, str]:
        """Of the page: a table for each cell, what was declared, and where it ran."""
        declared = self.declaration
        tables = {
            name: page.table(cell, *declared.ARMS[name], declared.MEASURES[name])
            for name, cell in report["cells"].items()
        }
        seeds = len(next(iter(report["cells"].values()))["seeds"])
        words = (
            f"{declared.words(report['declaration'])} {seeds} seeds; intervals of "
            f"{1 - report['declaration']['level']:.0%} by t; p of paired t-tests, by Holm over a "
            "cell's comparisons."
        )
        return {
            **tables,
            "declared": words,
            "machine": machine_words(report),
            **self.more(report),
        }

    def main(self, argv: Sequence[str] | None = None) -> None:
        """Parse the options and run."""
        parser = argparse.ArgumentParser(
            prog=f"python -m experiments.{self.name}", description=self.doc
        )
        results = ROOT / "benchmarks" / "results"
        parser.add_argument("--out", type=Path, default=self.folder(quick=False))
        parser.add_argument("--seeds", type=int, help="the first so many seeds only")
        parser.add_argument("--quick", action="store_true", help="a smoke test under --out")
        parser.add_argument("--page", type=Path, default=ROOT / "docs" / self.page)
        parser.add_argument("--json", type=Path, default=results / self.results)
        options = parser.parse_args(argv)
        torch.set_num_threads(1)
        declared, folder = self.declaration, options.out
        seeds, sizes = declared.SEEDS, declared.FULL
        page_path, json_path = options.page, options.json
        if options.quick:
            seeds, sizes, folder = seeds[:2], declared.QUICK, folder / "quick"
            page_path, json_path = folder / page_path.name, folder / json_path.name
            folder.mkdir(parents=True, exist_ok=True)
            shutil.copyfile(options.page, page_path)
        if options.seeds is not None:
            if options.seeds < 1:
                raise InputError(f"seeds: expected a positive number, got {options.seeds}")
            seeds = seeds[: options.seeds]
        found = self.report(folder, seeds, sizes, say)
        write_json(json_path, found)
        page.rewrite(page_path, self.name, self.blocks(found))
        if self.pictures is not None and not options.quick:  # such models have none to show
            self.pictures(folder, sizes, options.page.parent / "assets")


def say(line: str) -> None:
    """A line with the time."""
    print(f"{time.strftime('%H:%M:%S')} {line}", flush=True)


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
