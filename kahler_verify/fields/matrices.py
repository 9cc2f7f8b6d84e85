"""Distances between all pairs of codes, by tiles of the matrix, into a store, by an engine."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

import kahler_verify
from kahler_verify.curves.proved.enclosure import known_layers
from kahler_verify.errors import InputError
from kahler_verify.fields import points as where
from kahler_verify.fields.engines import Processes
from kahler_verify.fields.log import Log
from kahler_verify.fields.mending import MendJob, ThirdJob, thirds
from kahler_verify.fields.plan import FORMAT, versions
from kahler_verify.fields.points import Codes
from kahler_verify.fields.sources import MEMORY, Source
from kahler_verify.fields.stores import (
    add_variables,
    marked,
    opened,
    remove_drafts,
    require_store,
)
from kahler_verify.fields.tiles import BOUNDS, MEANINGS, TILE, DistanceJob, real_metric
from kahler_verify.fields.work import Engine, Progress, Summary, carry_out


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

    When all tiles are there, pairs to which a way over a third code is shorter are searched again
    from that way, once: by the call that finds all tiles done.

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
        _mend(job, engine, summary, say)
        with suppress(OSError):
            remove_drafts(path)
    return summary


def _mend(
    job: DistanceJob, engine: Engine, summary: Summary, say: Callable[[str], None] | None
) -> None:
    """Two more passes, where some pairs have shorter ways over a third code, or none yet."""
    found = open_distances(job.path)
    noted, mended = ThirdJob(job), MendJob(job)
    wanted = found.detours() or np.isnan(found["length"]).any()
    if not (wanted or noted.third.name in opened(job.path)):
        return
    add_variables(job.path, [noted.third, mended.mark])
    for more in (noted, mended):
        again = carry_out(more, engine, Log(job.path, say))
        summary.notes += again.notes
        summary.seconds += again.seconds
        summary.stopped |= again.stopped
        if again.kept + len(again.done) < more.count:
            return


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

    def detours(self) -> int:
        """Of how many pairs the way over a third code is shorter: longer curves were found."""
        length = self["length"]
        longer = (thirds(length, slice(None), slice(None)) >= 0) & np.isfinite(length)
        return int(np.triu(longer, 1).sum())


def open_distances(path: str | Path) -> DistanceMatrix:
    """Distances that are in a store, all or a part.

    Raises:
        InputError: there are none.
    """
    plan = marked(Path(path))["plan"]
    if plan.get("kind") != "distances":
        raise InputError(f"store: expected distances at {path}, got {plan.get('kind')}")
    return DistanceMatrix(Path(path), plan)
