"""The cut of an array: blocks are ranges of points, without gap or overlap, also in shards."""

import math

import numpy as np
import pytest

from kahler_verify.fields import layout
from kahler_verify.fields.layout import chunk_for, laid_out


@pytest.mark.parametrize("shards_from", [10**7, 1])
@pytest.mark.parametrize(
    ("shape", "chunk"),
    [((1000,), 7), ((12, 10, 9), 20), ((4, 3, 50), 9), ((9, 5), 45), ((6, 1), 2)],
)
def test_blocks_are_ranges_that_make_the_whole(
    shape: tuple[int, ...], chunk: int, shards_from: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(layout, "SHARDS_FROM", shards_from)
    cut = laid_out(shape, chunk, 8)
    numbers = np.arange(math.prod(shape)).reshape(shape)
    own = [numbers[cut.slices(task)].ravel() for task in range(cut.count)]
    assert [(each[0], each[-1] + 1) for each in own] == [cut.rows(t) for t in range(cut.count)]
    assert all(np.array_equal(each, np.arange(each[0], each[-1] + 1)) for each in own)
    assert np.array_equal(np.concatenate(own), np.arange(numbers.size))
    assert cut.piece <= chunk
    assert (cut.shards is not None) == (shards_from == 1)
    assert all(b % c == 0 for b, c in zip(cut.blocks, cut.chunks, strict=True))


def test_what_a_default_cut_is_in_the_large() -> None:
    """As the page counts it: 10^8 points are 2000 chunks in 100 files."""
    cut = laid_out((10**8,), chunk_for(10**8, 8), 8)
    assert (cut.piece, cut.count, cut.blocks) == (50_000, 100, (10**6,))
    assert laid_out((10**7 - 1,), 50_000, 8).shards is None
    assert chunk_for(10**4, 8) == 1000
    assert chunk_for(10**8, 2**20) == 16
