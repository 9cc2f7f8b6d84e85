"""Bounds on degrees: a matrix product by kinds of entries is the one by entries."""

import random

import numpy as np
import pytest

from kahler_verify.evidence.numbers.arrays import array
from kahler_verify.evidence.proofs.schwartz_zippel import Degree, degrees

BELOW = [(1, (2, 1)), (2, (3, 1)), (3, (1, 2))]


@pytest.mark.parametrize("seed", range(30))
def test_products_by_kinds_are_products_by_entries(seed: int) -> None:
    draws = random.Random(seed)

    def draw() -> Degree:
        return Degree(draws.choice([None, 0, 1, 2]), dict(draws.sample(BELOW, draws.randint(0, 2))))

    rows, inner, columns = (draws.randint(1, 6) for _ in range(3))
    x = array([draw() for _ in range(rows * inner)], (rows, inner))
    y = array([draw() for _ in range(inner * columns)], (inner, columns))
    assert degrees.matmul is not None
    ours, plain = degrees.matmul(x, y), np.matmul(np.asarray(x), np.asarray(y))
    for one, other in zip(np.asarray(ours).ravel(), plain.ravel(), strict=True):
        assert one.top == other.top
        assert one.top is None or one.below == other.below
    entries = np.asarray(ours).ravel().tolist()
    assert len({id(entry) for entry in entries}) == len(entries)  # each may become a denominator
