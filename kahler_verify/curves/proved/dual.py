"""Lower bounds of distances in the plane, by a potential: the dual of the shortest path.

If |∇φ|_{g⁻¹} ≤ 1 in a box, every curve there from a to b is at least φ(b) - φ(a) long.  φ is linear
on the triangles of a grid, and maximised with a matrix M ⪯ g for each; any φ whatever gives a bound
once it is divided by its largest slope, so that the search need not be exact.

Source: the dual of a convex problem with second-order cones, solved by the alternating direction
method of multipliers (Boyd, Parikh, Chu, Peleato, Eckstein, 2011), with one sparse factorisation.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
import scipy.sparse as sp
import torch
from scipy.sparse.linalg import splu
from torch import Tensor

from kahler_verify.curves.proved.enclosure import ROUNDING, known_layers
from kahler_verify.curves.proved.triangles import Array, Grid, enclosed, sampled
from kahler_verify.errors import InputError
from kahler_verify.geometry.riemannian import RiemannianMetric

MARGIN = 0.3  # of the end points' extent, that the box reaches beyond them
COARSEST = 20  # cells of a grid that guesses come from


class DualBound(NamedTuple):
    """Of the distances between points, among curves that stay in a box.

    Attributes:
        lower: [B].
        box: the least and the largest coordinates, [2, 2].
        proved: whether the metric was enclosed on every triangle; else it was sampled.
        potential: φ at the grid's vertices, [B, n + 1, n + 1], with slopes of at most 1.
    """

    lower: Tensor
    box: Tensor
    proved: bool
    potential: Tensor


def dual_bound(
    metric: RiemannianMetric,
    a: Tensor,
    b: Tensor,
    *,
    box: Tensor | None = None,
    cells: int = 128,
    iterations: int = 200,
) -> DualBound:
    """Lower bounds of the lengths of all curves from a to b [B, 2] within a box.

    Args:
        metric: of a latent plane.  Where it is a pull-back by layers that are known, the bound is
            proved: all rounding is held.
        a: where curves begin.
        b: where they end.
        box: the least and the largest coordinates [2, 2]; about all points by default.
        cells: along each axis; the bound's own gap falls like 1/cells.
        iterations: of the search for each φ, on each grid.

    Raises:
        InputError: the space is no plane, points lie outside the box, or counts are not positive.
    """
    for name, x in (("a", a), ("b", b)):
        metric.space.check(name, x)
        if x.ndim != 2 or x.shape[1] != 2 or not bool(x.isfinite().all()):
            raise InputError(f"{name}: expected finite points [B, 2], got {list(x.shape)}")
    if a.shape != b.shape:
        raise InputError(f"b: expected {list(a.shape)} as a has, got {list(b.shape)}")
    for name, count in (("cells", cells), ("iterations", iterations)):
        if not isinstance(count, int) or count < 1:
            raise InputError(f"{name}: expected a positive number, got {count!r}")
    ends = torch.stack([a, b]).detach().double()
    grid = Grid(_box(ends, box), cells)
    layers = known_layers(metric)
    with torch.no_grad():
        below = enclosed(layers, grid) if layers else sampled(metric, grid, a.dtype)
    searches = [_Search(grid, below)]
    while cells % 2 == 0 and cells > COARSEST:  # guesses come from coarser grids
        cells //= 2
        below = below.unflatten(1, (cells, 2, cells, 2))[:, :, 0, :, 0].flatten(1, 2)
        searches.insert(0, _Search(Grid(grid.box, cells), below))
    found = [_potential(searches, first, last, iterations) for first, last in ends.unbind(1)]
    lower = a.new_tensor([one[0] for one in found])
    if a.dtype != torch.float64:
        lower = lower * (1 - 1e-6)
    phi = torch.stack([one[1] for one in found]) if found else ends.new_empty(0)
    return DualBound(lower, grid.box, layers is not None, phi)


def _box(ends: Tensor, box: Tensor | None) -> Tensor:
    low, high = ends.flatten(0, 1).amin(0), ends.flatten(0, 1).amax(0)
    if box is None:
        room = MARGIN * torch.maximum(high - low, (high - low).amax().clamp_min(1e-3) / 2)
        return torch.stack([low - room, high + room])
    box = torch.as_tensor(box).double()
    if box.shape != (2, 2) or not bool((box[0] < box[1]).all()):
        raise InputError(f"box: expected least and largest coordinates [2, 2], got {box.tolist()}")
    if not bool(((low >= box[0]) & (high <= box[1])).all()):
        raise InputError("box: expected one that holds all points")
    return box


def _potential(
    searches: Sequence[_Search], a: Tensor, b: Tensor, iterations: int
) -> tuple[float, Tensor]:
    """A bound that holds, and the φ that gives it, by way of coarser grids."""
    state = None
    for search in searches:
        aim = search.aim(a, b)
        phi, state = search.searched(aim, iterations, state)
    return searches[-1].certified(phi, aim)


class _State(NamedTuple):
    """Of a search: slopes within bounds [2, triangles], their multipliers, and the penalty."""

    split: Array
    dual: Array
    weight: float

    def finer(self) -> _State:
        """On a grid of half the cells' size."""
        cells = round((self.split.shape[1] / 2) ** 0.5)
        parts = [
            part.reshape(2, 2, cells, cells).repeat(2, 2).repeat(2, 3).reshape(2, -1)
            for part in self[:2]
        ]
        return _State(parts[0], parts[1] / 4, self.weight)


class _Search:
    """Potentials of bounded slope, by alternating projections with one factorisation."""

    def __init__(self, grid: Grid, below: Tensor):
        self.grid, self.below = grid, below
        values, vectors = torch.linalg.eigh(below)
        # where nothing is known of g no slope is allowed: a small matrix in its place
        known = values[..., 0] > 0
        floor = 1e-6 * values[known].amax() if bool(known.any()) else torch.tensor(1.0)
        root = torch.where(known[..., None], values, floor).rsqrt()
        inverse = ((vectors * root[..., None, :]) @ vectors.mT).numpy()
        parts: list[list[sp.csr_array]] = [[], []]
        for upper in (0, 1):
            x, y = grid.gradient(upper)
            for row in (0, 1):
                part = inverse[upper, :, row]
                parts[row].append(sp.diags_array(part[:, 0]) @ x + sp.diags_array(part[:, 1]) @ y)
        # φ is known up to a constant: the first vertex has 0
        self.slopes = [sp.vstack(part).tocsr()[:, 1:] for part in parts]
        x, y = self.slopes
        self.factor = splu((x.T @ x + y.T @ y).tocsc())

    def aim(self, a: Tensor, b: Tensor) -> Array:
        """What φ(b) - φ(a) is of φ at the vertices."""
        aim = np.zeros((self.grid.cells + 1) ** 2)
        for z, sign in ((b, 1), (a, -1)):
            vertices, weights = self.grid.at(z)
            np.add.at(aim, vertices, sign * weights)
        return aim

    def searched(self, aim: Array, iterations: int, state: _State | None) -> tuple[Array, _State]:
        """The best φ that was met, and where the search stands."""
        x, y = self.slopes
        split = np.zeros((2, x.shape[0]))
        dual, weight = np.zeros_like(split), 1.0
        if state is not None:
            split, dual, weight = state.finer()
        best, found = -np.inf, np.zeros(len(aim) - 1)
        for iteration in range(iterations):
            pulled = x.T @ (split[0] - dual[0]) + y.T @ (split[1] - dual[1])
            phi = self.factor.solve(pulled + aim[1:] / weight)
            slope = np.stack([x @ phi, y @ phi])
            steepest = np.sqrt((slope**2).sum(0).max())
            value = aim[1:] @ phi / steepest if steepest > 0 else 0.0
            if value > best:
                best, found = value, phi
            moved = slope + dual
            before, split = split, moved / np.maximum(np.sqrt((moved**2).sum(0)), 1)
            dual = moved - split
            if iteration % 10 == 9:
                primal = np.sqrt(((slope - split) ** 2).sum())
                change = weight * np.sqrt(((split - before) ** 2).sum())
                if primal > 5 * change:
                    weight, dual = 2 * weight, dual / 2
                elif change > 5 * primal:
                    weight, dual = weight / 2, 2 * dual
        return np.concatenate([[0.0], found]), _State(split, dual, weight)

    def certified(self, phi: Array, aim: Array) -> tuple[float, Tensor]:
        """(φ(b) - φ(a)) over φ's largest slope, rounded downwards.

        pᵀM⁻¹p of each triangle is taken from p's own differences; a cell of which nothing is known
        must have p = 0.
        """
        n = self.grid.cells + 1
        largest = 0.0
        spread = np.abs(phi).max()
        for upper in (0, 1):
            m = self.below[upper].numpy()
            size = m[:, 0, 0] * m[:, 1, 1] + m[:, 0, 1] ** 2
            # what rounding leaves of the determinant for certain
            det = m[:, 0, 0] * m[:, 1, 1] - m[:, 0, 1] ** 2 - 8 * ROUNDING * size
            x, y = self.grid.gradient(upper)
            p, q = x @ phi, y @ phi
            reach = 1 / (2 * self.grid.half.numpy())
            error = 8 * ROUNDING * (2 * spread * reach)  # of p and q
            p, q = np.abs(p) + error[:, 0], np.abs(q) + error[:, 1]
            cross = -2 * m[:, 0, 1] * (x @ phi) * (y @ phi)
            slack = 4 * np.abs(m[:, 0, 1]) * (p * error[:, 1] + q * error[:, 0])
            form = m[:, 1, 1] * p * p + m[:, 0, 0] * q * q + cross + slack
            room = 32 * ROUNDING * (m[:, 1, 1] * p * p + m[:, 0, 0] * q * q + np.abs(cross))
            flat = (x @ phi == 0) & (y @ phi == 0)
            with np.errstate(divide="ignore", invalid="ignore"):
                squared = np.where(det > 0, (form + room) / det, np.inf)
            largest = max(largest, float(np.where(flat, 0, squared).max()))
        if not 0 < largest < np.inf:
            return 0.0, torch.zeros(n, n, dtype=torch.float64)
        steepest = largest**0.5 * (1 + 16 * ROUNDING)
        # and what the weights of a and b are off by
        size = max(float(axis.abs().max() / axis.diff().min()) for axis in self.grid.axes)
        value = float(aim @ phi) - 64 * ROUNDING * (1 + size) * float(spread)
        shape = torch.from_numpy(phi / steepest).reshape(n, n)
        return max(value / steepest * (1 - 16 * ROUNDING), 0.0), shape
