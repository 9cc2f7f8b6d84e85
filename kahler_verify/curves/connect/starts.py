"""First guesses: lines, lines that go aside or round a period, and shortest paths on graphs.

A minimum that Newton's method finds depends on where it begins, and no one beginning is always the
best.  All of them are searched from; see :class:`~kahler_verify.curves.connect.solver.Solver`.
"""

from __future__ import annotations

from dataclasses import dataclass
from itertools import product
from typing import NamedTuple

import numpy as np
import torch
from scipy.sparse import csr_array
from scipy.sparse.csgraph import dijkstra
from scipy.spatial import cKDTree
from torch import Tensor

from kahler_verify.errors import InputError
from kahler_verify.geometry.riemannian import RiemannianMetric

TIMES = 33  # points of a guess, at equal times
MARGIN = 0.25  # of the end points' box, that a grid reaches beyond it
PERIODIC = 1e-6  # relative, that a metric may differ by after a period


class Guesses(NamedTuple):
    """First guesses for pairs [B].

    Attributes:
        points: [S, B, T, d] at equal times, end points included; NaN for a guess that does not
            exist, as between parts of a graph that no edge joins.  The first always exists.
        paths: how many of them, the last ones, took the metric into account.
        evaluations: of the metric that they took, [B].
    """

    points: Tensor
    paths: int
    evaluations: Tensor


@dataclass(frozen=True)
class Starts:
    """Which guesses a search begins from, the straight line always among them.

    Attributes:
        bends: lines that go aside by these parts of their length, half way.
        grid: vertices along each axis of a grid about the end points, d ≤ 2, on which a shortest
            path is another guess; 0 for none.  A metric costs grid^d evaluations for a whole batch.
        codes: points [N, d], such as encoded data: a shortest path on the graph of their neighbours
            is another guess, in any dimension.
        neighbours: that each code is joined with.
        periods: of each coordinate, 0 where it has none; then lines to b's neighbouring translates
            are guesses too, and a curve may end at b plus a period.
    """

    bends: tuple[float, ...] = (0.3, -0.3)
    grid: int = 32
    codes: Tensor | None = None
    neighbours: int = 8
    periods: tuple[float, ...] = ()

    def guesses(self, metric: RiemannianMetric, a: Tensor, b: Tensor) -> Guesses:
        """All the guesses.

        Args:
            metric: of the latent space; it answers NaN where it is not defined.
            a: where curves begin, [B, d].
            b: where they end.

        Raises:
            InputError: codes or periods do not suit the space, or g is not periodic.
        """
        d = a.shape[-1]
        found = [straight(a, b)]
        evaluations = torch.zeros(len(a), dtype=torch.long, device=a.device)
        if d > 1:
            found += [bent(a, b, bend) for bend in self.bends]
        found += [straight(a, b + shift) for shift in self._translates(metric, b)]
        graphs = []
        if self.grid and d == 2:
            graphs.append(_grid(torch.cat([a, b]), self.grid))
        if self.codes is not None:
            codes = metric.space.check("codes", self.codes)
            if codes.ndim != 2 or codes.shape[1] != d or codes.dtype != a.dtype:
                raise InputError(
                    f"codes: expected points [N, {d}] of {a.dtype}, got {codes.dtype} "
                    f"{list(codes.shape)}"
                )
            graphs.append(
                (codes.detach(), _nearest(codes.detach(), codes.detach(), self.neighbours))
            )
        for points, edges in graphs:
            found.append(_shortest(metric, points, edges, a, b))
            evaluations += -(-(len(points) + 2 * len(a)) // len(a))
        return Guesses(torch.stack(found), len(graphs), evaluations)

    def _translates(self, metric: RiemannianMetric, b: Tensor) -> list[Tensor]:
        if not self.periods:
            return []
        d = b.shape[-1]
        if len(self.periods) != d or not all(0 <= p < np.inf for p in self.periods):
            raise InputError(
                f"periods: expected {d} finite numbers, 0 for a coordinate without period, "
                f"got {self.periods!r}"
            )
        here = metric.metric_matrix(b[:1])
        for axis, period in enumerate(self.periods):
            shift = torch.zeros_like(b[:1])
            shift[:, axis] = period
            gap = (metric.metric_matrix(b[:1] + shift) - here).abs().amax()
            if not bool(gap <= PERIODIC * here.abs().amax()):
                raise InputError(
                    f"periods: expected the metric to repeat, but along coordinate {axis} g "
                    f"changes by {gap.item():.3g} over {period}"
                )
        turns = product(*[(0, 1, -1) if period else (0,) for period in self.periods])
        size = b.new_tensor(self.periods)
        return [b.new_tensor(turn) * size for turn in turns if any(turn)]


STRAIGHT = Starts(bends=(), grid=0)


def straight(a: Tensor, b: Tensor, times: int = TIMES) -> Tensor:
    """Points [B, T, d] of the lines from a to b."""
    t = torch.linspace(0, 1, times).to(a)[:, None]
    points = a[:, None] + t * (b - a)[:, None]
    points[:, -1] = b
    return points


def bent(a: Tensor, b: Tensor, bend: float) -> Tensor:
    """Lines [B, T, d] that go aside by ``bend`` times their length, half way."""
    along = b - a
    length = along.norm(dim=-1, keepdim=True)
    axis = torch.zeros_like(along).scatter_(-1, along.abs().argmin(-1, keepdim=True), 1.0)
    aside = axis - (axis * along).sum(-1, keepdim=True) * along / length**2
    aside = aside / aside.norm(dim=-1, keepdim=True) * length
    wave = (torch.pi * torch.linspace(0, 1, TIMES, dtype=torch.float64)).sin().to(a)[:, None]
    wave[-1] = 0
    return straight(a, b) + bend * wave * aside[:, None]


def moved(points: Tensor, a: Tensor, b: Tensor) -> Tensor:
    """Points [B, T, d] moved to begin at a and end at b [B, d]: by their ends' moves between."""
    t = torch.linspace(0, 1, points.shape[1]).to(a)[:, None]
    out = points + (1 - t) * (a - points[:, 0])[:, None] + t * (b - points[:, -1])[:, None]
    out[:, 0], out[:, -1] = a, b
    return out


def resampled(points: Tensor, times: Tensor) -> Tensor:
    """The polygons through points [..., T, d] at equal times, at other ``times`` [n] in [0, 1]."""
    position = times * (points.shape[-2] - 1)
    before = position.floor().clamp(max=points.shape[-2] - 2).long()
    part = (position - before).to(points)[:, None]
    out = (1 - part) * points[..., before, :] + part * points[..., before + 1, :]
    out[..., 0, :], out[..., -1, :] = points[..., 0, :], points[..., -1, :]
    return out


def _grid(ends: Tensor, count: int) -> tuple[Tensor, np.ndarray]:
    """Vertices [n², 2] of a grid about points, and edges [m, 2] in sixteen directions."""
    low, high = ends.amin(0), ends.amax(0)
    room = MARGIN * torch.maximum(high - low, (high - low).amax() / 2)
    part = torch.linspace(0, 1, count).to(ends)[:, None]
    x, y = ((low - room) + part * (high - low + 2 * room)).unbind(-1)
    points = torch.stack(torch.meshgrid(x, y, indexing="ij"), -1).reshape(-1, 2)
    index = np.arange(count * count).reshape(count, count)
    edges = []
    for i, k in ((1, 0), (0, 1), (1, 1), (1, -1), (2, 1), (1, 2), (2, -1), (1, -2)):
        first = index[: count - i, max(0, -k) : count - max(0, k)]
        second = index[i:, max(0, k) : count + min(0, k)]
        edges.append(np.stack([first.ravel(), second.ravel()], -1))
    return points, np.concatenate(edges)


def _nearest(points: Tensor, others: Tensor, count: int) -> np.ndarray:
    """Edges [m, 2] from each of the points to the nearest ``count`` of the others."""
    count = min(count, len(others))
    tree = cKDTree(others.double().cpu().numpy())
    found = tree.query(points.double().cpu().numpy(), k=count)[1].reshape(len(points), count)
    return np.stack([np.repeat(np.arange(len(points)), count), found.ravel()], -1)


def _shortest(
    metric: RiemannianMetric, points: Tensor, edges: np.ndarray, a: Tensor, b: Tensor
) -> Tensor:
    """Shortest paths [B, T, d] from a to b, joined to the graph's nearest vertices."""
    count, pairs = len(points), len(a)
    joined = _nearest(torch.cat([a, b]), points, 4) + np.array([count, 0])
    everything = torch.cat([points, a, b])
    edges = np.concatenate([edges, joined])
    g = metric.metric_matrix(everything)
    first, second = torch.from_numpy(edges).to(a.device).unbind(-1)
    step = everything[second] - everything[first]
    squares = [torch.einsum("na,nac,nc->n", step, g[end], step) for end in (first, second)]
    lengths = ((squares[0] + squares[1]) / 2).sqrt().double().cpu().numpy()
    known = np.isfinite(lengths) & (edges[:, 0] != edges[:, 1])
    lengths = np.maximum(lengths, np.finfo(float).tiny)  # an explicit 0 would be no edge
    both = np.concatenate([edges[known], edges[known][:, ::-1]])
    weights = np.concatenate([lengths[known]] * 2)
    # of an edge that is named twice the sum would be taken
    _, once = np.unique(both, axis=0, return_index=True)
    size = len(everything)
    graph = csr_array((weights[once], (both[once, 0], both[once, 1])), shape=(size, size))
    place = everything.double().cpu().numpy()
    out = np.full((pairs, TIMES, a.shape[-1]), np.nan)
    for row in range(pairs):
        distance, before = dijkstra(graph, indices=count + row, return_predecessors=True)
        end = count + pairs + row
        if not np.isfinite(distance[end]):
            continue
        path = [end]
        while path[-1] != count + row:
            path.append(int(before[path[-1]]))
        path.reverse()
        times = distance[path] / distance[end]
        for axis in range(a.shape[-1]):
            out[row, :, axis] = np.interp(np.linspace(0, 1, TIMES), times, place[path, axis])
    guess = torch.from_numpy(out).to(a)
    guess[:, 0] = torch.where(guess[:, 0].isnan(), guess[:, 0], a)
    guess[:, -1] = torch.where(guess[:, -1].isnan(), guess[:, -1], b)
    return guess
