"""Where fits begin: medoids of points by shortest paths on the graph of their neighbours."""

from __future__ import annotations

import numpy as np
import torch
from scipy.sparse import csr_array
from scipy.sparse.csgraph import dijkstra, minimum_spanning_tree
from scipy.spatial import cKDTree
from scipy.spatial.distance import pdist, squareform
from torch import Tensor

from kahler_verify.curves.energy import unchecked
from kahler_verify.geometry.riemannian import RiemannianMetric

NEIGHBOURS = 8
MOST = 1000  # points of which medoids are sought
STARTS, SWEEPS = 20, 20


def graph_distances(metric: RiemannianMetric, x: Tensor, columns: Tensor) -> Tensor:
    """Lengths [N, M] of shortest paths from points x [N, d] to those of them numbered ``columns``.

    Edges join neighbours and, so that all is one piece, a minimum spanning tree's ends; their
    lengths are by the metric half way.
    """
    points = x.numpy()
    count = min(NEIGHBOURS + 1, len(points))
    near = cKDTree(points).query(points, count)[1].reshape(len(points), count)
    pairs = np.stack([np.repeat(np.arange(len(points)), count - 1), near[:, 1:].ravel()], 1)
    graph = csr_array((np.ones(len(pairs)), (pairs[:, 0], pairs[:, 1])), shape=[len(points)] * 2)
    pieces = _joined(points, graph)
    pairs = np.concatenate([pairs, pieces])
    ends = torch.from_numpy(pairs)
    a, b = x[ends[:, 0]], x[ends[:, 1]]
    lengths = unchecked(metric).norm(b - a, (a + b) / 2).nan_to_num(1e300).numpy()
    pairs.sort(1)
    pairs, first = np.unique(pairs, axis=0, return_index=True)
    graph = csr_array(
        (np.maximum(lengths[first], 1e-300), (pairs[:, 0], pairs[:, 1])), shape=[len(points)] * 2
    )
    found = dijkstra(graph, directed=False, indices=columns.numpy())
    return torch.from_numpy(found.T.copy())


def _joined(points: np.ndarray, graph: csr_array) -> np.ndarray:
    """Edges [E, 2] that join the graph's pieces, by their nearest points."""
    from scipy.sparse.csgraph import connected_components

    count, label = connected_components(graph, directed=False)
    if count == 1:
        return np.empty((0, 2), dtype=np.int64)
    middles = np.stack([points[label == k].mean(0) for k in range(count)])
    tree = minimum_spanning_tree(squareform(pdist(middles)) + 1e-300).tocoo()
    edges = []
    for a, b in zip(tree.row, tree.col, strict=True):
        first, second = np.flatnonzero(label == a), np.flatnonzero(label == b)
        far, at = cKDTree(points[second]).query(points[first])
        edges.append((first[far.argmin()], second[at[far.argmin()]]))
    return np.array(edges, dtype=np.int64)


def medoids(
    metric: RiemannianMetric, x: Tensor, count: int, seed: int
) -> tuple[Tensor, Tensor, Tensor]:
    """Medoids of points x [N, d]: their numbers, distances [N, count] to them, the nearest [N]."""
    random = np.random.default_rng(seed)
    some = np.arange(len(x))
    if len(x) > MOST:
        some = np.sort(random.choice(len(x), MOST, replace=False))
    part = x[torch.from_numpy(some)]
    square = graph_distances(metric, part, torch.arange(len(part))).numpy() ** 2
    best, chosen = np.inf, np.arange(count)
    for _ in range(STARTS if count > 1 else 1):
        centres = random.choice(len(part), count, replace=False)
        for _ in range(SWEEPS):
            label = square[:, centres].argmin(1)
            moved = centres.copy()
            for k in range(count):
                own = np.flatnonzero(label == k)
                if len(own):
                    moved[k] = own[square[np.ix_(own, own)].sum(1).argmin()]
            if (moved == centres).all():
                break
            centres = moved
        cost = square[:, centres].min(1).sum()
        if cost < best:
            best, chosen = cost, centres
    numbers = torch.from_numpy(some[chosen])
    distances = graph_distances(metric, x, numbers)
    return numbers, distances, distances.argmin(1)
