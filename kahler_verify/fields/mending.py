"""Pairs of a distance matrix to whom the way over a third code is shorter, searched again from it.

Tiles are found each for itself.  When all are there, one more pass over the store looks for pairs
that a code of another tile would help, and begins their search at the two curves over it.
"""

from __future__ import annotations

from contextlib import suppress
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
import torch

from kahler_verify.curves.pairs import LONGER, over_third
from kahler_verify.fields.layout import Layout
from kahler_verify.fields.stores import Variable, opened, state_of, write_block, zarr_library
from kahler_verify.fields.tiles import DistanceJob
from kahler_verify.fields.work import Done, State
from kahler_verify.processes import one_thread

AT_ONCE = 256  # pairs


class Detours(NamedTuple):
    """Pairs of a tile, by their places in it, and the codes over which a way is shorter."""

    rows: np.ndarray
    columns: np.ndarray
    third: np.ndarray


def detours(length: np.ndarray, rows: slice, columns: slice, *, upper: bool) -> Detours:
    """The pairs of a tile of lengths [N, N] to which some way over a third code is shorter.

    Pairs of which no curve was found are among them, where there is such a way.

    Args:
        length: of all pairs, NaN where none was found.
        rows: of the tile.
        columns: of the tile.
        upper: only pairs above the tile's diagonal, where it is the matrix's own.
    """
    own = length[rows, columns]
    shortest, third = np.full(own.shape, np.inf), np.full(own.shape, -1)
    for middle in range(len(length)):
        way = length[rows, middle, None] + length[middle, None, columns]
        better = way < shortest
        shortest, third = np.where(better, way, shortest), np.where(better, middle, third)
    wrong = np.isfinite(shortest) & ~(own <= shortest / (1 - LONGER))
    i, k = np.nonzero(np.triu(wrong, 1) if upper else wrong)
    return Detours(i, k, third[i, k])


@dataclass(frozen=True)
class MendJob:
    """Tasks that search a tile's detours again, once, and then say that they did.

    Attributes:
        tiles: the job that found the tiles.
    """

    tiles: DistanceJob

    @property
    def mark(self) -> Variable:
        """How many pairs of a tile were mended, which is written last."""
        about = {"long_name": "pairs of a tile that were found shorter over a third code"}
        sides = Layout((self.tiles.side, self.tiles.side), (1, 1))
        return Variable("mended", sides, ("tile", "other_tile"), "int64", attributes=about)

    def create(self) -> None:
        """Make room for marks in the store, if there is none."""
        mark = self.mark
        with suppress(zarr_library().errors.ContainsArrayError):
            opened(self.tiles.path).create_array(
                mark.name,
                shape=mark.layout.shape,
                chunks=mark.layout.chunks,
                dtype=mark.dtype,
                fill_value=-1,
                dimension_names=mark.dims,
                attributes=dict(mark.attributes),
                config={"write_empty_chunks": True},
            )

    @property
    def count(self) -> int:
        """As many as there are tiles."""
        return self.tiles.count

    def amount(self, task: int) -> int:
        """Pairs of a tile."""
        return self.tiles.amount(task)

    def state(self, task: int) -> State:
        """Of a tile's mark."""
        group = opened(self.tiles.path)
        return state_of(self.tiles.path, group, [self.mark], self.tiles.blocks(task)[-1])

    @one_thread()
    def run(self, task: int, attempt: int) -> Done:  # noqa: ARG002
        """Search a tile's detours again, and keep what is shorter."""
        tiles, group = self.tiles, opened(self.tiles.path)
        row, column = (tiles.rows(number) for number in tiles.place(task))
        length = self._array("length")
        found = detours(length, row, column, upper=row == column)
        mended = np.zeros(len(found.rows), dtype=bool)
        for some in np.array_split(np.arange(len(mended)), -(-len(mended) // AT_ONCE) or 1):
            if len(some):
                mended[some] = self._search(task, Detours(*[part[some] for part in found]))
        write_block(
            tiles.path, group, self.mark, tiles.blocks(task)[-1], np.array([[mended.sum()]])
        )
        if not len(mended):
            return Done()
        return Done([f"{mended.sum()} of {len(mended)} pairs became shorter over a third code"])

    def _search(self, task: int, some: Detours) -> np.ndarray:
        """Search some pairs again; which of them became shorter."""
        tiles = self.tiles
        row, column = (tiles.rows(number) for number in tiles.place(task))
        x = torch.from_numpy(self._array("z"))
        report = over_third(
            tiles.metric,
            x[row][some.rows],
            x[some.third],
            x[column][some.columns],
            segments=tiles.segments,
        )
        known = {
            variable.name: self._array(variable.name)[row, column] for variable in tiles.variables
        }
        before = known["length"][some.rows, some.columns]
        better = report.converged.numpy() & ~(report.length.numpy() >= before)
        at = some.rows, some.columns
        known["evaluations"][at] += report.evaluations.numpy()
        for name, values in known.items():
            if name != "evaluations":
                new = np.where(better, getattr(report, name).numpy(), values[at])
                values[at] = new.astype(values.dtype)
            if row == column:
                values.T[at] = values[at]
        tiles.write(task, known)
        return better

    def _array(self, name: str) -> np.ndarray:
        return np.asarray(opened(self.tiles.path)[name][...])  # type: ignore[index]
