"""A box of the plane in triangles, and what a metric is at least on each of them."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import product

import numpy as np
import scipy.sparse as sp
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from kahler_verify.curves.energy import unchecked
from kahler_verify.curves.proved.enclosure import ROUNDING, Enclosure, Jets, exactly, through
from kahler_verify.geometry.riemannian import RiemannianMetric

# of what is below g, that are tried for the parts given up
LOSSES = (1e-4, 1e-3, 0.01, 0.02, 0.04, 0.08, 0.16, 0.32)
PARTS = 1  # of a cell along each axis, in which the metric is enclosed
SAMPLES = 4  # along each axis of a cell, where the metric's change is only sampled
Array = NDArray[np.float64]


class Grid:
    """Cells of a box, each cut along its diagonal into two triangles, and their vertices.

    The triangles of a cell are (0, 1, 2), of its corners (0, 0), (1, 0), (1, 1), and (0, 2, 3),
    with (0, 1); their gradients of φ are exact up to rounding.
    """

    def __init__(self, box: Tensor, cells: int):
        self.box, self.cells = box, cells
        part = torch.arange(cells + 1, dtype=torch.float64) / cells
        # the axes are the grid, whatever they are rounded to
        self.axes = [low + part * (high - low) for low, high in zip(*box, strict=True)]
        for axis, high in zip(self.axes, box[1], strict=True):
            axis[-1] = high
        self.size = [axis.diff() for axis in self.axes]
        index = np.arange((cells + 1) ** 2).reshape(cells + 1, cells + 1)
        self.corners = np.stack(
            [index[:-1, :-1], index[1:, :-1], index[1:, 1:], index[:-1, 1:]], -1
        ).reshape(-1, 4)
        self.middle = torch.stack(
            torch.meshgrid(*[(x[1:] + x[:-1]) / 2 for x in self.axes], indexing="ij"), -1
        ).reshape(-1, 2)
        self.half = torch.stack(torch.meshgrid(*self.size, indexing="ij"), -1).reshape(-1, 2) / 2

    def gradient(self, upper: int) -> tuple[sp.csr_array, sp.csr_array]:
        """∂φ of one triangle of each cell, [cells², vertices], by each coordinate."""
        rows = np.arange(len(self.corners))
        edges = ((0, 1), (1, 2)) if not upper else ((3, 2), (0, 3))
        parts = []
        for axis, (first, last) in enumerate(edges):
            entry = 1 / (2 * self.half[:, axis].numpy())
            place = (
                np.concatenate([rows, rows]),
                np.concatenate([self.corners[:, first], self.corners[:, last]]),
            )
            shape = (len(rows), (self.cells + 1) ** 2)
            parts.append(sp.csr_array((np.concatenate([-entry, entry]), place), shape=shape))
        return parts[0], parts[1]

    def at(self, z: Tensor) -> tuple[NDArray[np.int64], Array]:
        """The vertices of z's triangle, and the weights that they have in φ(z)."""
        cell, part = [], []
        for x, axis in zip(z.tolist(), self.axes, strict=True):
            k = int(torch.searchsorted(axis, x, right=True).clamp(1, self.cells)) - 1
            cell.append(k)
            part.append((x - float(axis[k])) / float(axis[k + 1] - axis[k]))
        corner = self.corners[cell[0] * self.cells + cell[1]]
        u, v = (min(max(p, 0.0), 1.0) for p in part)
        if u >= v:
            return corner[[0, 1, 2]], np.array([1 - u, u - v, v])
        return corner[[0, 2, 3]], np.array([1 - v, u, v - u])


def enclosed(layers: Sequence[nn.Module], grid: Grid) -> Tensor:
    """Matrices M ⪯ g on each triangle, [2, cells², 2, 2], of g = JᵀJ for known layers.

    Parts of a cell are enclosed one by one; M is a multiple of a matrix from the middle that is
    below g on all parts that meet the triangle.
    """
    found = []
    for middle, half in zip(grid.middle.split(1024), grid.half.split(1024), strict=True):
        least: list[Tensor | None] = [None, None]
        base, factor = None, None
        for i, k in sorted(product(range(PARTS), repeat=2), key=lambda at: abs(at[0] - at[1])):
            shift = half.new_tensor([2 * i + 1 - PARTS, 2 * k + 1 - PARTS]) / PARTS
            below, g = _part(layers, middle + half * shift, half / PARTS)
            if base is None or factor is None:
                base = g
                factor = torch.linalg.cholesky_ex(base)[0]
            scale = torch.stack([_scale(m, base, factor) for m in below]).amin(0)
            for upper in (0, 1):
                if i == k or (i < k) == bool(upper):
                    known = least[upper]
                    least[upper] = scale if known is None else torch.minimum(known, scale)
        assert base is not None
        both = torch.stack([x for x in least if x is not None])
        found.append(both[..., None, None] * base)
    return torch.cat(found, 1)


def _part(layers: Sequence[nn.Module], middle: Tensor, half: Tensor) -> tuple[list[Tensor], Tensor]:
    """Matrices of which each v has one with vᵀMv ≤ g(v, v) within a box, and g at its middle.

    J(z) = J + δH + R with J and H = ∂J in the middle; R is bounded by how far H is elsewhere from
    there.  As |Jv + δHv|² ≥ |Jv|² + 2 δ⟨Jv, Hv⟩, and that is least at a corner, corners are enough.
    """
    axes = [exactly(axis.expand(middle.shape)) for axis in torch.eye(2, dtype=middle.dtype)]
    nothing = exactly(torch.zeros_like(middle))
    h = half * (1 + 1e-12) + 1e-12 * (1 + middle.abs())  # also for the middle's own rounding
    there = through(layers, Jets(exactly(middle), axes, [nothing] * 3))
    around = through(layers, Jets(Enclosure(middle, h), axes, [nothing] * 3))
    change = [(there.first[a].radius.norm(dim=-1)) for a in (0, 1)]
    for a, c in product((0, 1), repeat=2):
        here, box = there.second[a + c], around.second[a + c]
        apart = (box.centre - here.centre).abs() + box.radius + here.radius
        change[a] = change[a] + h[:, c] * apart.norm(dim=-1)
    j = torch.stack([part.centre for part in there.first], 1)  # [b, 2, D]
    bend = torch.stack([part.centre for part in there.second], 1)[:, [[0, 1], [1, 2]]]
    slope = bend @ j.mT[:, None]  # ⟨∂_a∂_c f, ∂_e f⟩ as [b, c, a, e]
    slope = slope + slope.mT
    g, terms = j @ j.mT, j.shape[-1]
    size = g.diagonal(dim1=1, dim2=2).sum(-1) + 4 * (
        h.sum(-1) * bend.norm(dim=-1).sum((1, 2)) * j.norm(dim=-1).sum(-1)
    )
    rounding = 8 * (terms + 16) * ROUNDING * size
    room = torch.stack(change, -1) * (1 + 1e-9)
    corners = [
        g + sign * h[:, 0, None, None] * slope[:, 0] + other * h[:, 1, None, None] * slope[:, 1]
        for sign, other in product((1, -1), repeat=2)
    ]
    return [_below(corner, room, rounding) for corner in corners], g


def _below(g: Tensor, change: Tensor, rounding: Tensor) -> Tensor:
    """M with |Jv + Ev|² ≥ vᵀMv where |Jv|² ≥ g(v, v), for all columns |E_a| ≤ change_a.

    |Jv + Ev|² ≥ (1 - τ) |Jv|² - (1/τ - 1) |Ev|², and |Ev|² ≤ 2 Σ change_a² v_a², by the best of a
    few losses τ.
    """
    squares, unit = torch.diag_embed(2 * change**2), torch.eye(2, dtype=g.dtype)
    best, largest = -unit.expand_as(g), torch.full_like(g[:, 0, 0], -torch.inf)
    for loss in LOSSES:
        trial = (1 - loss) * g - (1 / loss - 1) * (1 + 1e-12) * squares
        trial = trial - rounding[:, None, None] * unit
        least = torch.linalg.eigvalsh(trial)[:, 0]
        worth = torch.where(least > 0, trial.det().clamp_min(0).sqrt(), least)
        best = torch.where((worth > largest)[:, None, None], trial, best)
        largest = torch.maximum(largest, worth)
    return best


def _scale(below: Tensor, base: Tensor, factor: Tensor) -> Tensor:
    """t with t base ⪯ below, [b]; 0 where there is none above 0."""
    half = torch.linalg.solve_triangular(factor, below, upper=False)
    whole = torch.linalg.solve_triangular(factor, half.mT, upper=False)
    t = torch.linalg.eigvalsh(whole.nan_to_num(-1))[:, 0].clamp_min(0) * (1 - 1e-9)
    rest = below - t[:, None, None] * base  # is it positive, for certain?
    size = below.abs() + t[:, None, None] * base.abs()
    diagonal = rest.diagonal(dim1=1, dim2=2) - 4 * ROUNDING * size.diagonal(dim1=1, dim2=2)
    across = rest[:, 0, 1].abs() + 4 * ROUNDING * size[:, 0, 1]
    sure = (diagonal > 0).all(-1) & (diagonal.prod(-1) * (1 - 1e-14) > across**2)
    return torch.where(sure, t, 0)


def sampled(metric: RiemannianMetric, grid: Grid, dtype: torch.dtype) -> Tensor:
    """Matrices t g(middle) that are below g at samples of each triangle, [2, cells², 2, 2]."""
    quiet = unchecked(metric)
    middle = quiet.metric_matrix(grid.middle.to(dtype)).double()
    factor = torch.linalg.cholesky_ex(middle)[0]
    least = torch.ones_like(middle[:, 0, 0]).repeat(2, 1)
    for u, v in product(torch.linspace(-1, 1, SAMPLES).tolist(), repeat=2):
        place = grid.middle + grid.half * torch.tensor([u, v], dtype=torch.float64)
        g = quiet.metric_matrix(place.to(dtype)).double()
        scale = _scale(g.nan_to_num(0), middle, factor)
        for upper in (0, 1):
            if u == v or (u < v) == bool(upper):
                least[upper] = torch.minimum(least[upper], scale)
    return least[..., None, None] * middle.nan_to_num(0)
