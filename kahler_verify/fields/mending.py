"""Pairs of a distance matrix to whom the way over a third code is shorter, searched again from it.

Tiles are found each for itself.  When all are there, one more pass over the store notes for which
pairs a way over a code of another tile is shorter, and when all are noted, a last one begins their
search at the two curves over it.  So no search depends on which others were there before.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import torch

from kahler_verify.curves.pairs import LONGER, over_third
from kahler_verify.fields.layout import Layout
from kahler_verify.fields.stores import Variable, opened, state_of, write_block
from kahler_verify.fields.tiles import DistanceJob
from kahler_verify.fields.work import Done, State
from kahler_verify.processes import one_thread

AT_ONCE = 256  # pairs


def thirds(length: np.ndarray, rows: slice, columns: slice) -> np.ndarray:
    """For each pair of a tile the code over which the way is shortest, -1 where none is shorter.

    Pairs of which no curve was found have one, where there is such a way.

    Args:
        length: of all pairs [N, N], NaN where none was found.
        rows: of the tile.
        columns: of the tile.
    """
    own = length[rows, columns]
    shortest, third = np.full(own.shape, np.inf), np.full(own.shape, -1)
    for middle in range(len(length)):
        way = length[rows, middle, None] + length[middle, None, columns]
        better = way < shortest
        shortest, third = np.where(better, way, shortest), np.where(better, middle, third)
    return np.where(np.isfinite(shortest) & ~(own <= shortest / (1 - LONGER)), third, -1)


@dataclass(frozen=True)
class _OfTiles:
    """A pass over all tiles of a matrix.

    Attributes:
        tiles: the job that found them.
    """

    tiles: DistanceJob

    @property
    def count(self) -> int:
        """As many as there are tiles."""
        return self.tiles.count

    def amount(self, task: int) -> int:
        """Pairs of a tile."""
        return self.tiles.amount(task)

    def array(self, name: str) -> np.ndarray:
        """Of the store."""
        return np.asarray(opened(self.tiles.path)[name][...])  # type: ignore[index]


@dataclass(frozen=True)
class ThirdJob(_OfTiles):
    """Tasks that note a tile's detours."""

    @property
    def third(self) -> Variable:
        """Codes by their place in the store."""
        about = {"long_name": "code over which a way was shorter when all tiles were found, or -1"}
        return Variable("third", self.tiles.layout, ("code", "other"), "int32", attributes=about)

    def state(self, task: int) -> State:
        """Of a tile's notes."""
        return self.tiles.state_of([self.third], task)

    @one_thread()
    def run(self, task: int, attempt: int) -> Done:  # noqa: ARG002
        """Look at a tile's triangles."""
        row, column = (self.tiles.rows(number) for number in self.tiles.place(task))
        self.tiles.write(task, [self.third], {"third": thirds(self.array("length"), row, column)})
        return Done()


@dataclass(frozen=True)
class MendJob(_OfTiles):
    """Tasks that search a tile's detours again, once, and then say that they did."""

    @property
    def mark(self) -> Variable:
        """How many pairs of a tile were mended, which is written last."""
        about = {"long_name": "pairs of a tile that were found shorter over a third code"}
        sides = Layout((self.tiles.side, self.tiles.side), (1, 1))
        return Variable("mended", sides, ("tile", "other_tile"), "int64", attributes=about)

    def state(self, task: int) -> State:
        """Of a tile's mark."""
        return state_of(
            self.tiles.path, opened(self.tiles.path), [self.mark], self.tiles.blocks(task)[-1]
        )

    @one_thread()
    def run(self, task: int, attempt: int) -> Done:  # noqa: ARG002
        """Search a tile's detours again, and keep what is shorter."""
        tiles = self.tiles
        row, column = (tiles.rows(number) for number in tiles.place(task))
        known = {each.name: self.array(each.name)[row, column] for each in tiles.variables}
        third = self.array("third")[row, column]
        i, k = np.nonzero((np.triu(third + 1, 1) if row == column else third + 1) > 0)
        mended = 0
        for some in np.split(np.arange(len(i)), range(AT_ONCE, len(i), AT_ONCE)):
            if len(some):
                mended += self._search(known, row, column, i[some], k[some], third)
        if len(i):
            tiles.write(task, tiles.variables, known)
        own = tiles.blocks(task)[-1]
        write_block(tiles.path, opened(tiles.path), self.mark, own, np.array([[mended]]))
        if not len(i):
            return Done()
        return Done([f"{mended} of {len(i)} pairs became shorter over a third code"])

    def _search(
        self,
        known: dict[str, np.ndarray],
        row: slice,
        column: slice,
        i: np.ndarray,
        k: np.ndarray,
        third: np.ndarray,
    ) -> int:
        """Search pairs at places i, k of a tile again; how many became shorter, in ``known``."""
        x = torch.from_numpy(self.array("z"))
        report = over_third(
            self.tiles.metric,
            x[row][i],
            x[third[i, k]],
            x[column][k],
            segments=self.tiles.segments,
        )
        better = report.converged.numpy() & ~(report.length.numpy() >= known["length"][i, k])
        for name, values in known.items():
            new = getattr(report, name).numpy().astype(values.dtype)
            if name == "evaluations":
                values[i, k] += new
            else:
                values[i, k] = np.where(better, new, values[i, k])
            if row == column:
                values.T[i, k] = values[i, k]
        return int(better.sum())
