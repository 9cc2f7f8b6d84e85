"""How an array of points is cut: into chunks, shards of chunks, and blocks, which tasks own.

Blocks and chunks are (1, …, 1, c, n, …, n) of the points' shape, so that each is a range of the
points in the order of their last axis first; a chunk is what is read, a block is what is written.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np

SHARDS_FROM = 10**7  # points
CHUNK = 50_000  # points
LEAST = 1_000  # points of a chunk, where there are few
PARTS = 32  # chunks of a small store
CHUNK_BYTES = 16 * 2**20
SHARD_CHUNKS = 20
SHARD_BYTES = 64 * 2**20


@dataclass(frozen=True)
class Layout:
    """The cut of an array.

    Attributes:
        shape: of the points.
        chunks: as many points along each axis.
        shards: as many along each axis, multiples of the chunks; None where a chunk is a file.
    """

    shape: tuple[int, ...]
    chunks: tuple[int, ...]
    shards: tuple[int, ...] | None = None

    @property
    def blocks(self) -> tuple[int, ...]:
        """What a task owns."""
        return self.shards or self.chunks

    @property
    def grid(self) -> tuple[int, ...]:
        """How many blocks there are along each axis."""
        return tuple(-(-n // b) for n, b in zip(self.shape, self.blocks, strict=True))

    @property
    def count(self) -> int:
        """How many blocks there are."""
        return math.prod(self.grid)

    def index(self, task: int) -> tuple[int, ...]:
        """The place of a block among blocks."""
        return tuple(int(i) for i in np.unravel_index(task, self.grid))

    def slices(self, task: int) -> tuple[slice, ...]:
        """What a block is of the array."""
        starts = [i * b for i, b in zip(self.index(task), self.blocks, strict=True)]
        stops = [min(s + b, n) for s, b, n in zip(starts, self.blocks, self.shape, strict=True)]
        return tuple(slice(a, b) for a, b in zip(starts, stops, strict=True))

    def rows(self, task: int) -> tuple[int, int]:
        """The first point of a block, and the one behind its last, as numbers of points."""
        slices = self.slices(task)
        start = int(np.ravel_multi_index([s.start for s in slices], self.shape))
        return start, start + math.prod(s.stop - s.start for s in slices)

    @property
    def piece(self) -> int:
        """Points in a chunk."""
        return math.prod(self.chunks)


def chunk_for(points: int, bytes_each: int) -> int:
    """How many points a chunk has by default."""
    few = max(LEAST, -(-points // PARTS))
    return max(1, min(CHUNK, few, CHUNK_BYTES // bytes_each))


def laid_out(shape: tuple[int, ...], chunk: int, bytes_each: int) -> Layout:
    """The layout of points of a shape, in chunks of at most so many points.

    Args:
        shape: of the points.
        chunk: points in one.
        bytes_each: of a point's value.
    """
    points = math.prod(shape)
    chunks, left = [], chunk
    for n in reversed(shape):
        c = max(1, min(n, left))
        chunks.append(c)
        left = left // n if c == n else 0
    cut = tuple(reversed(chunks))
    if points < SHARDS_FROM:
        return Layout(shape, cut)
    together = max(1, min(SHARD_CHUNKS, SHARD_BYTES // (math.prod(cut) * bytes_each)))
    split = [k for k, (c, n) in enumerate(zip(cut, shape, strict=True)) if c < n]
    axis = split[-1] if split else 0  # behind it all axes are whole
    most = -(-shape[axis] // cut[axis])
    shards = list(cut)
    shards[axis] *= min(together, most)
    return Layout(shape, cut, tuple(shards))
