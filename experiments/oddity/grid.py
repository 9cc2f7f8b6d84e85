"""k-means with shortest paths on a grid: what all subsets of a model's codes share is made once."""

from __future__ import annotations

import math

import numpy as np
import torch
from scipy.sparse import csr_array
from scipy.sparse.csgraph import dijkstra
from torch import Tensor

from kahler_verify.geometry import RiemannianMetric, TabulatedMetric

REACH = 3  # of edges, in nodes: all 32 directions of coprime steps


def directions() -> list[tuple[int, int]]:
    """Steps to other nodes, each without its opposite."""
    steps = [(i, k) for i in range(REACH + 1) for k in range(-REACH, REACH + 1)]
    return [(i, k) for i, k in steps if math.gcd(i, k) == 1 and (i, k) > (0, 0)]


class Grid:
    """Nodes of a box [low, high], with distances along edges whose lengths are Simpson's.

    Args:
        metric: of two coordinates.
        low: a corner of the box, [2].
        high: the opposite one.
        count: of nodes along the longer side.
    """

    def __init__(self, metric: RiemannianMetric, low: Tensor, high: Tensor, count: int) -> None:
        extent = high - low
        sizes = [1 + round(float(side / extent.max()) * (count - 1)) for side in extent]
        part = [torch.linspace(0, 1, n, dtype=low.dtype) for n in sizes]
        axes = [torch.lerp(low[i], high[i], part[i]) for i in range(2)]
        self.nodes = torch.cartesian_prod(*axes)
        index = np.arange(len(self.nodes)).reshape(sizes)
        edges = []
        for i, k in directions():
            first = index[: sizes[0] - i, max(0, -k) : sizes[1] - max(0, k)]
            second = index[i:, max(0, k) : sizes[1] + min(0, k)]
            edges.append(np.stack([first.ravel(), second.ravel()]))
        a, b = np.concatenate(edges, 1)
        step = self.nodes[b] - self.nodes[a]
        middle = self.nodes[a] + step / 2
        speeds = [
            metric.squared_norm(step, z).sqrt() for z in (self.nodes[a], middle, self.nodes[b])
        ]
        lengths = ((speeds[0] + 4 * speeds[1] + speeds[2]) / 6).numpy()
        self.graph = csr_array((lengths, (a, b)), shape=(index.size, index.size))

    def nearest(self, points: Tensor) -> np.ndarray:
        """The node at each point [n, 2]."""
        return torch.cdist(points, self.nodes).argmin(1).numpy()

    def distances(self, rows: np.ndarray) -> np.ndarray:
        """From nodes [n] to all nodes, [n, N]."""
        return np.asarray(dijkstra(self.graph, directed=False, indices=rows))


def k_means(
    squares: np.ndarray, own: np.ndarray, clusters: int, runs: int, seed: int
) -> np.ndarray:
    """Labels [n] of the best of some runs of Lloyd's steps, first centres by k-means++.

    Args:
        squares: squared distances [n, N] from points to nodes, which centres are taken from.
        own: the node of each point, [n].
        clusters: how many.
        runs: from other first centres.
        seed: of these.
    """
    random = np.random.default_rng(seed)
    best, labels = math.inf, np.zeros(len(squares), int)
    for _ in range(runs):
        centres = own[[random.integers(len(own))]]
        while len(centres) < clusters:
            weights = squares[:, centres].min(1)
            new = random.choice(own, p=weights / weights.sum())
            centres = np.append(centres, new)
        inertia = math.inf
        while True:
            found = squares[:, centres].argmin(1)
            lower = float(squares[:, centres].min(1).sum())
            if lower >= inertia:
                break
            inertia = lower
            for k in set(found):
                centres[k] = squares[found == k].sum(0).argmin()
        if inertia < best:
            best, labels = inertia, found
    return labels


def table(metric: RiemannianMetric, codes: Tensor, room: float, nodes: int) -> TabulatedMetric:
    """A metric in a box about codes [n, 2], so that the many points of a grid cost nothing."""
    low, high = codes.amin(0), codes.amax(0)
    extent = (high - low).max()
    wide = room * extent
    spacing = float(extent + 2 * wide) / nodes
    return TabulatedMetric(metric, low - wide, high + wide, spacing, outside="nothing")
