"""A table of a latent plane's metric, fine enough to be used, and how far it can be trusted."""

from __future__ import annotations

from typing import NamedTuple

import torch
from torch import Tensor

from kahler_verify.errors import InputError
from kahler_verify.geometry import TabulatedMetric
from kahler_verify.geometry.riemannian import RiemannianMetric

NODES = (192, 384)  # along the longer side; the finer where the first is not good enough
PLACES = 1000
SHARE = 0.99  # of places, whose errors are at most the one that is told
GOOD = 5e-3


class Table(NamedTuple):
    """A metric read off a table; ``error`` is g's, relative, at 99% of random places in its box."""

    metric: TabulatedMetric
    error: float


def table_of(metric: RiemannianMetric, low: Tensor, high: Tensor) -> Table | None:
    """A table within a box; None where none is good: it is not smooth, or not a metric all over."""
    generator = torch.Generator().manual_seed(0)
    places = low + torch.rand(PLACES, 2, dtype=torch.float64, generator=generator) * (high - low)
    for nodes in NODES:
        try:
            table = TabulatedMetric(metric, low, high, float((high - low).max()) / nodes)
        except InputError:
            return None
        error = float(table.errors_at(places).quantile(SHARE))
        if error < GOOD:
            return Table(table, error)
    return None
