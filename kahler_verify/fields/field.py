"""A quantity of a metric at many points, into a store, by an engine."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from contextlib import suppress
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
import torch

import kahler_verify
from kahler_verify.errors import InputError
from kahler_verify.fields.engines import Processes
from kahler_verify.fields.evaluation import values_at
from kahler_verify.fields.log import Log
from kahler_verify.fields.plan import Plan, versions
from kahler_verify.fields.points import Codes, Grid
from kahler_verify.fields.sources import MEMORY, Source
from kahler_verify.fields.stores import (
    differences,
    opened,
    remove_drafts,
    require_store,
    state_of,
    write_block,
)
from kahler_verify.fields.work import Done, Engine, Progress, State, Summary, carry_out
from kahler_verify.geometry.base import Metric
from kahler_verify.processes import one_thread

FEWER = 4  # a piece is cut into so many, where memory was refused


@dataclass(frozen=True)
class FieldJob:
    """A field's tasks: each evaluates the points of one block, and writes it.

    Attributes:
        path: of the store, as every process finds it.
        source: of the metric.
        memory: bytes of a worker's metric.
    """

    path: Path
    source: Source
    memory: int = MEMORY

    def __getstate__(self) -> dict[str, Any]:
        """What it is told; a plan is read anew, as its quantity is a function."""
        return {"path": self.path, "source": self.source, "memory": self.memory}

    @cached_property
    def plan(self) -> Plan:
        """As the store has it."""
        return Plan.from_json(dict(opened(self.path, "r").attrs)["kahler_verify"]["plan"])  # type: ignore[arg-type, call-overload, index]

    @property
    def count(self) -> int:
        """How many tasks there are."""
        return self.plan.layout.count

    def amount(self, task: int) -> int:
        """Points of a task."""
        start, stop = self.plan.layout.rows(task)
        return stop - start

    def state(self, task: int) -> State:
        """Of its chunks."""
        return state_of(self.path, opened(self.path), self.plan.variables, task)

    @one_thread()
    def run(self, task: int, attempt: int) -> Done:
        """Evaluate a block, and write it."""
        plan = self.plan
        metric = self._metric()
        group = opened(self.path)
        points = plan.points
        if isinstance(points, Codes):
            points = Codes(points.count, points.sha256, group["z"])
        start, stop = plan.layout.rows(task)
        notes: list[str] = []
        piece = max(1, plan.layout.piece // FEWER**attempt)
        places, values = [], []
        for low in range(start, stop, plan.layout.piece):
            x = points.rows(low, min(low + plan.layout.piece, stop))
            if plan.place is not None:
                places.append(x)
            found, said, piece = self._evaluated(metric, x, piece)
            values.append(found)
            notes += said
        for variable, parts in zip(
            plan.variables, [places, values][-len(plan.variables) :], strict=True
        ):
            block = np.concatenate(parts)
            shape = [s.stop - s.start for s in variable.layout.slices(task)]
            write_block(self.path, group, variable, task, block.reshape(*shape, *block.shape[1:]))
        return Done(notes)

    def _evaluated(
        self, metric: Metric, x: np.ndarray, piece: int
    ) -> tuple[np.ndarray, list[str], int]:
        """Values at real coordinates [n, d], lines for the log, and the piece that memory took."""
        plan, notes = self.plan, []
        kind = getattr(torch, plan.dtype)
        z = plan.space.from_real(torch.from_numpy(x).to(kind))
        vectors = [torch.tensor(each, dtype=kind) for each in plan.plane]
        with torch.no_grad():
            while True:
                try:
                    values, said = values_at(plan.of, metric, z, vectors, piece)
                    break
                except MemoryError:
                    if piece == 1:
                        raise
                    piece = max(1, min(piece, len(z)) // FEWER)
                    notes.append(f"memory was refused; now {piece} points at a time")
        return values.resolve_conj().numpy(), notes + said, piece

    def _metric(self) -> Metric:
        """The metric, if it is what the plan says."""
        metric = self.source.metric(self.plan.dtype, self.memory)
        here = {"model": self.source.to_json(metric, self.plan.dtype), "versions": versions()}
        then = {"model": dict(self.plan.model), "versions": dict(self.plan.made_by)}
        apart = differences(then, here)
        if apart:
            raise InputError(f"model: another one than the work began with: {'; '.join(apart)}")
        return metric


def compute(
    source: Source,
    plan: Plan,
    out: str | Path,
    *,
    engine: Engine | None = None,
    memory: int = MEMORY,
    progress: Callable[[Progress], None] | None = None,
    say: Callable[[str], None] | None = None,
) -> Summary:
    """Evaluate what of a plan is not in the store yet.

    Args:
        source: of the metric.
        plan: see :func:`plan_for`.
        out: the store; a new one, or one of this very plan, which is gone on with.
        engine: who does it; a process for each core where it is not said.
        memory: bytes of a worker's metric.
        progress: told after each task.
        say: told what a user should know at once.

    Raises:
        InputError: there is something else at ``out``, or nothing can be written.
        FieldError: some tasks could not be finished.
    """
    path = Path(out).absolute()
    engine = engine or Processes()
    engine.require()
    require_store(
        path, plan.to_json(), plan.variables, _coordinates(plan), _attributes(source, plan)
    )
    job = FieldJob(path, source, memory)
    summary = carry_out(job, engine, Log(path, say), progress=progress)
    whole = summary.kept + len(summary.done) == job.count
    if whole:
        with suppress(OSError):
            remove_drafts(path)
    return summary


def _coordinates(plan: Plan) -> dict[str, tuple[tuple[str, ...], np.ndarray, Mapping[str, Any]]]:
    found: dict[str, tuple[tuple[str, ...], np.ndarray, Mapping[str, Any]]] = {}
    if isinstance(plan.points, Grid):
        axes = zip(plan.points.names, plan.points.axes(), plan.points.directions, strict=True)
        for name, values, vector in axes:
            about = {"long_name": f"step along {list(vector)}", "units": "1"}
            found[name] = ((name,), values, about)
        found["origin"] = (("coordinate",), np.array(plan.points.origin), plan.about_points)
    if isinstance(plan.points, Codes):
        found["z"] = (("point", "coordinate"), np.asarray(plan.points.codes), plan.about_points)
    return found


def _attributes(source: Source, plan: Plan) -> dict[str, Any]:
    complex_ = plan.space.complex
    conventions = (
        "z = x + iy, real coordinates (x1 … xd, y1 … yd); the first index of g is holomorphic; the "
        "volume is that of 2 Re g(u, ū) + 2 Re k(u, u)"
        if complex_
        else "real coordinates z1 … zd"
    )
    return {
        "title": f"{plan.of.meaning}, of {source.name}",
        "model": source.name,
        "conventions": conventions,
        "source": f"kahler_verify {kahler_verify.__version__}",
    }
