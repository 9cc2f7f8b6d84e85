"""Tiles of a matrix of distances between codes: what a task finds, and where it is kept."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
import torch

from kahler_verify.curves import Status, distances
from kahler_verify.errors import InputError
from kahler_verify.fields.layout import Layout
from kahler_verify.fields.plan import versions
from kahler_verify.fields.sources import MEMORY, Source
from kahler_verify.fields.stores import (
    Variable,
    differences,
    marked,
    opened,
    remove_block,
    state_of,
    write_block,
)
from kahler_verify.fields.work import Done, State
from kahler_verify.geometry.metric import HermitianMetric
from kahler_verify.geometry.riemannian import RiemannianMetric
from kahler_verify.processes import one_thread

TILE = 64  # codes along a side
PAIRS_AT_ONCE = 256
MEANINGS = {  # what a matrix is of, its units and type; the lengths are written last
    "status": ("how the search ended: " + ", ".join(f"{s} {s.name}" for s in Status), "1", "int8"),
    "gap": ("estimated excess of length, relative", "1", "float64"),
    "evaluations": ("points at which the metric was asked for", "1", "int64"),
    "lower": ("length that no curve is shorter than", "nat^½", "float64"),
    "upper": ("length that the curve found has at most", "nat^½", "float64"),
    "length": ("length of the shortest geodesic found; NaN where none is", "nat^½", "float64"),
}
BOUNDS = ("lower", "upper")  # that are there where they are asked for; proved or not, says "bounds"


@dataclass(frozen=True)
class DistanceJob:
    """A matrix's tasks: each finds the distances of one tile, and writes it with its mirror image.

    Inside a tile a search begins at what was found of its neighbours.

    Attributes:
        path: of the store.
        source: of the metric.
        codes: how many.
        tile: codes along a side.
        segments: of curves, for bounds; 0 for none.
        memory: bytes of a worker's metric.
    """

    path: Path
    source: Source
    codes: int
    tile: int
    segments: int = 0
    memory: int = MEMORY

    @property
    def side(self) -> int:
        """Tiles along an edge of the matrix."""
        return -(-self.codes // self.tile)

    @property
    def layout(self) -> Layout:
        """How the matrix is cut."""
        side = min(self.tile, self.codes)
        return Layout((self.codes, self.codes), (side, side))

    @property
    def variables(self) -> list[Variable]:
        """What a task writes."""
        return [
            Variable(
                name,
                self.layout,
                ("code", "other"),
                kind,
                attributes={"long_name": words, "units": units},
            )
            for name, (words, units, kind) in MEANINGS.items()
            if self.segments or name not in BOUNDS
        ]

    @property
    def count(self) -> int:
        """Tiles on and above the diagonal."""
        return self.side * (self.side + 1) // 2

    def place(self, task: int) -> tuple[int, int]:
        """The row and column, row ≤ column, in the order 0 0, 0 1, 1 1, 0 2, 1 2."""
        column = (math.isqrt(8 * task + 1) - 1) // 2
        return task - column * (column + 1) // 2, column

    def blocks(self, task: int) -> list[int]:
        """Of the matrix: the mirror image and the tile itself, which is written last."""
        row, column = self.place(task)
        own, mirror = row * self.side + column, column * self.side + row
        return [own] if row == column else [mirror, own]

    def rows(self, number: int) -> slice:
        """Codes of a row or column of tiles."""
        return slice(number * self.tile, min((number + 1) * self.tile, self.codes))

    def amount(self, task: int) -> int:
        """Pairs of a task."""
        n, m = (s.stop - s.start for s in map(self.rows, self.place(task)))
        row, column = self.place(task)
        return n * (n - 1) // 2 if row == column else n * m

    def state(self, task: int) -> State:
        """Of its tiles."""
        return self.state_of(self.variables, task)

    def state_of(self, variables: list[Variable], task: int) -> State:
        """Of some arrays' tiles; one without the other counts as damaged."""
        group, blocks = opened(self.path), self.blocks(task)
        found = state_of(self.path, group, variables, blocks[-1])
        if found is not State.WHOLE or len(blocks) == 1:
            return found
        if state_of(self.path, group, variables, blocks[0]) is State.WHOLE:
            return State.WHOLE
        remove_block(self.path, variables, blocks[-1])
        return State.DAMAGED

    @one_thread()
    def run(self, task: int, attempt: int) -> Done:
        """Find the distances of a tile, and write it."""
        group = opened(self.path)
        x = torch.from_numpy(np.asarray(group["z"][...]))  # type: ignore[index]
        row, column = self.place(task)
        rows, columns = x[self.rows(row)], x[self.rows(column)]
        with torch.no_grad():
            found = distances(
                self.metric,
                rows,
                None if row == column else columns,
                segments=self.segments,
                pairs_at_once=max(1, PAIRS_AT_ONCE // 4**attempt),
                raise_on_failure=False,
            )
        answers = vars(found.report) | {"length": found.lengths}
        values = {each.name: answers[each.name].numpy() for each in self.variables}
        self.write(task, self.variables, values)
        lost = int((found.report.status != Status.MINIMUM).sum())
        lost //= 2 if row == column else 1
        return Done([f"{lost} of {self.amount(task)} pairs ended at no minimum"] if lost else ())

    def write(self, task: int, variables: list[Variable], values: Mapping[str, np.ndarray]) -> None:
        """Write a tile of arrays, and their mirror images before it; lengths come last."""
        group, blocks = opened(self.path), self.blocks(task)
        for block in blocks:
            for variable in variables:
                own = values[variable.name].astype(variable.dtype)
                whole = own if block == blocks[-1] else own.T
                write_block(self.path, group, variable, block, whole)

    @cached_property
    def metric(self) -> RiemannianMetric:
        """The real metric, if it is what the plan says."""
        metric = self.source.metric("float64", self.memory)
        plan = marked(self.path)["plan"]
        here = {"model": self.source.to_json(metric, "float64"), "versions": versions()}
        apart = differences({name: plan[name] for name in here}, here)
        if apart:
            raise InputError(f"model: another one than the work began with: {'; '.join(apart)}")
        return real_metric(metric)

    def __getstate__(self) -> dict[str, Any]:
        """What it is told, and no metric that was loaded."""
        return {name: getattr(self, name) for name in self.__dataclass_fields__}


def real_metric(metric: Any) -> RiemannianMetric:
    """On real coordinates, where curves are."""
    found = metric.riemannian() if isinstance(metric, HermitianMetric) else metric
    assert isinstance(found, RiemannianMetric)
    return found
