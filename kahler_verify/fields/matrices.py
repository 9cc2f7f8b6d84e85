"""Distances between all pairs of codes, by tiles of the matrix, into a store, by an engine."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from contextlib import suppress
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
import torch

import kahler_verify
from kahler_verify.curves import Status, distances
from kahler_verify.curves.proved.enclosure import known_layers
from kahler_verify.errors import InputError
from kahler_verify.fields import points as where
from kahler_verify.fields.engines import Processes
from kahler_verify.fields.layout import Layout
from kahler_verify.fields.log import Log
from kahler_verify.fields.plan import FORMAT, versions
from kahler_verify.fields.points import Codes
from kahler_verify.fields.sources import MEMORY, Source
from kahler_verify.fields.stores import (
    Variable,
    differences,
    marked,
    opened,
    remove_block,
    remove_drafts,
    require_store,
    state_of,
    write_block,
)
from kahler_verify.fields.work import Done, Engine, Progress, State, Summary, carry_out
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
    def _side(self) -> int:
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
        return self._side * (self._side + 1) // 2

    def _tile(self, task: int) -> tuple[int, int]:
        """The row and column, row ≤ column, in the order 0 0, 0 1, 1 1, 0 2, 1 2."""
        column = (math.isqrt(8 * task + 1) - 1) // 2
        return task - column * (column + 1) // 2, column

    def _blocks(self, task: int) -> list[int]:
        """Of the matrix: the mirror image and the tile itself, which is written last."""
        row, column = self._tile(task)
        own, mirror = row * self._side + column, column * self._side + row
        return [own] if row == column else [mirror, own]

    def _rows(self, number: int) -> slice:
        return slice(number * self.tile, min((number + 1) * self.tile, self.codes))

    def amount(self, task: int) -> int:
        """Pairs of a task."""
        n, m = (s.stop - s.start for s in map(self._rows, self._tile(task)))
        row, column = self._tile(task)
        return n * (n - 1) // 2 if row == column else n * m

    def state(self, task: int) -> State:
        """Of its tiles; one without the other counts as damaged."""
        group, blocks = opened(self.path), self._blocks(task)
        found = state_of(self.path, group, self.variables, blocks[-1])
        if found is not State.WHOLE or len(blocks) == 1:
            return found
        if state_of(self.path, group, self.variables, blocks[0]) is State.WHOLE:
            return State.WHOLE
        remove_block(self.path, self.variables, blocks[-1])
        return State.DAMAGED

    @one_thread()
    def run(self, task: int, attempt: int) -> Done:
        """Find the distances of a tile, and write it."""
        group = opened(self.path)
        x = torch.from_numpy(np.asarray(group["z"][...]))  # type: ignore[index]
        row, column = self._tile(task)
        rows, columns = x[self._rows(row)], x[self._rows(column)]
        with torch.no_grad():
            found = distances(
                self._metric,
                rows,
                None if row == column else columns,
                segments=self.segments,
                pairs_at_once=max(1, PAIRS_AT_ONCE // 4**attempt),
                raise_on_failure=False,
            )
        for block in self._blocks(task):
            for variable in self.variables:
                name = variable.name
                answer = found.lengths if name == "length" else getattr(found.report, name)
                values = answer.numpy().astype(variable.dtype)
                own = block == self._blocks(task)[-1]
                write_block(self.path, group, variable, block, values if own else values.T)
        lost = int((found.report.status != Status.MINIMUM).sum())
        lost //= 2 if row == column else 1
        return Done([f"{lost} of {self.amount(task)} pairs ended at no minimum"] if lost else ())

    @cached_property
    def _metric(self) -> RiemannianMetric:
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


def compute_distances(
    source: Source,
    codes: Codes,
    out: str | Path,
    *,
    tile: int = TILE,
    segments: int = 0,
    engine: Engine | None = None,
    memory: int = MEMORY,
    progress: Callable[[Progress], None] | None = None,
    say: Callable[[str], None] | None = None,
) -> Summary:
    """Find what distances between codes are not in the store yet.

    Args:
        source: of the metric.
        codes: see :func:`kahler_verify.fields.codes`.
        out: the store; a new one, or one of these very codes, which is gone on with.
        tile: codes along a side of what a task owns; codes that are near come into one.
        segments: of curves, for bounds, which are proved where
            :func:`kahler_verify.curves.bounds` proves them.
        engine: who does it; a process for each core where it is not said.
        memory: bytes of a worker's metric.
        progress: told after each task, of pairs.
        say: told what a user should know at once.

    Raises:
        InputError: there is something else at ``out``, or nothing can be written.
        FieldError: some tasks could not be finished.
    """
    if tile < 1:
        raise InputError(f"tile: expected at least 1 code, got {tile}")
    if segments < 0:
        raise InputError(f"segments: expected a number of segments or 0, got {segments}")
    path, engine = Path(out).absolute(), engine or Processes()
    engine.require()
    tile = min(tile, codes.count)
    job = DistanceJob(path, source, codes.count, tile, segments, memory)
    metric = source.metric("float64", memory)
    proved = known_layers(real_metric(metric)) is not None
    plan = {
        "format": FORMAT,
        "kind": "distances",
        "model": source.to_json(metric, "float64"),
        "points": where.to_json(codes),
        "tile": tile,
        "segments": segments,
        "versions": versions(),
    }
    x = np.asarray(codes.codes)
    order = tile_order(x, tile)
    number: Mapping[str, Any] = {"long_name": "place among the codes that were given", "units": "1"}
    names = ", ".join(where.coordinate_names(source.space))
    about: Mapping[str, Any] = {"long_name": f"codes in real coordinates ({names})", "units": "1"}
    require_store(
        path,
        plan,
        job.variables,
        {
            "z": (("code", "coordinate"), x[order], about),
            "code": (("code",), order, number),
            "other": (("other",), order, number),
        },
        {
            "title": f"distances between codes, of {source.name}",
            "model": source.name,
            "conventions": "lengths in the real metric; see docs/conventions.md",
            "bounds": "proved by intervals" if proved else "estimated",
            "source": f"kahler_verify {kahler_verify.__version__}",
        },
    )
    summary = carry_out(job, engine, Log(path, say), progress=progress)
    if summary.kept + len(summary.done) == job.count:
        with suppress(OSError):
            remove_drafts(path)
    return summary


def tile_order(x: np.ndarray, tile: int) -> np.ndarray:
    """An order [N] of codes x [N, d] in which those of a tile are near each other.

    They are cut across the direction in which they vary most, where tiles meet, and so on.
    """
    order, tiles = np.arange(len(x)), -(-len(x) // tile)
    if tiles < 2:
        return order
    away = x - x.mean(0)
    along = np.linalg.svd(away, full_matrices=False)[2][0]
    order, half = np.argsort(away @ along, kind="stable"), tiles // 2 * tile
    parts = order[:half], order[half:]
    return np.concatenate([part[tile_order(x[part], tile)] for part in parts])


@dataclass(frozen=True)
class DistanceMatrix:
    """Distances in a store, in the order in which the codes were given.

    Arrays are read when they are asked for.  The store itself has them in the order of its tiles,
    with each code's place in its coordinates ``code`` and ``other``, by which xarray selects.

    Attributes:
        path: of the store.
        plan: all that its numbers depend on.
    """

    path: Path
    plan: dict[str, Any]

    @property
    def names(self) -> list[str]:
        """Of the matrices that there are."""
        return [name for name in MEANINGS if self.plan["segments"] or name not in BOUNDS]

    def __getitem__(self, name: str) -> np.ndarray:
        """Lengths, statuses, gaps, evaluations or bounds [N, N], or the codes ``z`` [N, d].

        Raises:
            InputError: there is no such array.
        """
        if name not in (*self.names, "z"):
            raise InputError(f"name: expected z or one of {self.names}, got {name!r}")
        group = opened(self.path, "r")
        values, order = (np.asarray(group[each][...]) for each in (name, "code"))  # type: ignore[index]
        place = np.argsort(order)
        return values[place][:, place] if name in MEANINGS else values[place]

    def detours(self, tolerance: float = 1e-6) -> int:
        """Of how many pairs the way over a third code is shorter: longer curves were found."""
        length = self["length"]
        shortest = length.copy()
        for middle in range(len(length)):
            shortest = np.fmin(shortest, length[:, middle : middle + 1] + length[middle])
        return int(np.triu(shortest < length * (1 - tolerance), 1).sum())


def open_distances(path: str | Path) -> DistanceMatrix:
    """Distances that are in a store, all or a part.

    Raises:
        InputError: there are none.
    """
    plan = marked(Path(path))["plan"]
    if plan.get("kind") != "distances":
        raise InputError(f"store: expected distances at {path}, got {plan.get('kind')}")
    return DistanceMatrix(Path(path), plan)
