"""An order of pairs of points in which each pair comes after some that are close to it."""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
import torch
from scipy.sparse.csgraph import breadth_first_order, minimum_spanning_tree
from torch import Tensor

from kahler_verify.curves.energy import unchecked
from kahler_verify.geometry.riemannian import RiemannianMetric

NEIGHBOURS = 6  # of a point, beside the one that comes before it


class Places(NamedTuple):
    """Points [N, d], how they hang together by short steps, and the metric there.

    Attributes:
        x: the points.
        g: the metric, [N, d, d].
        depth: steps to the middlemost point along the shortest tree that joins all, [N].
        near: neighbours of each point, [N, k].
    """

    x: Tensor
    g: Tensor
    depth: Tensor
    near: Tensor


def places(metric: RiemannianMetric, x: Tensor) -> Places:
    """Points with their neighbours, as near as √(½(g + g')(Δ, Δ)) says."""
    x, count = x.detach(), len(x)
    with torch.no_grad():
        g = unchecked(metric).metric_matrix(x)
    lengths = x.new_zeros(count, count)
    for row in range(count):
        step = x - x[row]
        squared = torch.einsum("na,nac,nc->n", step, (g + g[row]) / 2, step)
        lengths[row] = squared.clamp_min(0).sqrt()  # NaN outside the domain
    known = lengths[lengths.isfinite()]
    far = 2 * float(known.amax()) if known.numel() else 1.0
    # csgraph takes 0 for no edge
    edges = lengths.nan_to_num(far, far).double().cpu().numpy() + np.finfo(float).tiny
    np.fill_diagonal(edges, 0)
    near = np.argsort(edges, 1, kind="stable")[:, 1 : 1 + NEIGHBOURS]  # the point itself is first
    depth = np.zeros(count, dtype=int)
    if count > 1:
        root = int(edges.sum(0).argmin())
        order, before = breadth_first_order(minimum_spanning_tree(edges), root, directed=False)
        for point in order[1:]:
            depth[point] = depth[before[point]] + 1
        before[root] = order[1]
        near = np.concatenate([near, before[:, None]], 1)
    return Places(x, g, torch.from_numpy(depth), torch.from_numpy(near).long())


class Tour:
    """Pairs (x_i, y_k) in waves: those to which the tree's next points belong come before a pair.

    Args:
        metric: of the latent space.
        x: points [N, d].
        y: points [M, d]; None for pairs of x with itself, each of which comes once.

    Attributes:
        sides: the points x and y.
        rows: i of each pair, in the order in which they are to be searched.
        columns: k of each pair.
        place: of a pair in that order, [N, M].
        ends: where waves end.
    """

    def __init__(self, metric: RiemannianMetric, x: Tensor, y: Tensor | None):
        self.mirrored = y is None
        first = places(metric, x)
        self.sides = (first, first if y is None else places(metric, y))
        shape = tuple(len(side.x) for side in self.sides)
        if y is None:
            rows, columns = torch.triu_indices(*shape).unbind(0)
        else:
            rows, columns = (
                grid.flatten() for grid in torch.meshgrid(*map(torch.arange, shape), indexing="ij")
            )
        wave = self.sides[0].depth[rows] + self.sides[1].depth[columns]
        if y is None:
            wave = torch.where(rows == columns, 0, wave)
        order = wave.argsort(stable=True)
        self.rows, self.columns = rows[order], columns[order]
        self.ends = torch.bincount(wave).cumsum(0).tolist()
        self.place = torch.empty(shape, dtype=torch.long)
        self.place[self.rows, self.columns] = torch.arange(len(rows))
        if y is None:
            self.place[self.columns, self.rows] = torch.arange(len(rows))

    def batches(self, done: int, most: int) -> list[slice]:
        """What is left after the first pairs, in pieces that begin and end within waves."""
        pieces, start = [], done
        for end in self.ends:
            while start < end:
                pieces.append(slice(start, min(start + most, end)))
                start = pieces[-1].stop
        return pieces

    def neighbours(self, pairs: Tensor) -> tuple[Tensor, Tensor, int]:
        """Neighbours (i', k') of pairs [B] by their places in the order: i' and k' [B, S].

        In the first slots, whose number is the third answer, i' alone differs; in the others k'.
        """
        i, k = self.rows[pairs], self.columns[pairs]
        first, second = self.sides[0].near[i], self.sides[1].near[k]
        rows = torch.cat([first, i[:, None].expand(second.shape)], 1)
        columns = torch.cat([k[:, None].expand(first.shape), second], 1)
        return rows, columns, first.shape[1]
