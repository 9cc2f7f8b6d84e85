"""A metric of two coordinates read off a table: C⁴ splines in the place of what is dear.

g = U D Uᵀ with U unit lower triangular: log D and U's entry are interpolated, so that the result is
positive definite, and as exact where g is small as where it is large.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import cache
from typing import Literal, NamedTuple

import numpy as np
import torch
from torch import Tensor

from kahler_verify.errors import InputError
from kahler_verify.geometry.base import MetricJet
from kahler_verify.geometry.riemannian import RiemannianMetric

DEGREE = 5
MARGIN = 24  # nodes beyond the box: what the edge does to a spline falls by .43 at each of them
MOST = 4_000_000  # nodes
_DERIVATIVES = ((0, 0), (1, 0), (0, 1), (2, 0), (1, 1), (0, 2))  # by x and by y, as stacked
_BENDS = [[3, 4], [4, 5]]  # where those of second order are
TRIALS = 2000  # random points that the error is measured at
COARSEST, RIGHT = (
    48,
    0.01,
)  # of a table about points: nodes along their extent, relative error there


class _Jet(NamedTuple):
    """A function's value [B], slopes [B, 2] and bends [B, 2, 2]."""

    value: Tensor
    slope: Tensor
    bend: Tensor

    def __mul__(self, other: _Jet) -> _Jet:  # type: ignore[override]
        a, b = self, other
        mixed = a.slope[:, :, None] * b.slope[:, None]
        return _Jet(
            a.value * b.value,
            a.slope * b.value[:, None] + a.value[:, None] * b.slope,
            a.bend * b.value[:, None, None]
            + a.value[:, None, None] * b.bend
            + mixed
            + mixed.transpose(1, 2),
        )

    def exp(self) -> _Jet:
        """e to its power."""
        value = self.value.exp()
        bend = self.bend + self.slope[:, :, None] * self.slope[:, None]
        return _Jet(value, value[:, None] * self.slope, value[:, None, None] * bend)

    def plus(self, other: _Jet) -> _Jet:
        """The sum."""
        return _Jet(*[a + b for a, b in zip(self, other, strict=True)])


class TabulatedMetric(RiemannianMetric):
    """Another metric, interpolated inside a box; outside of it, that metric itself, or none.

    It is a metric of its own, with exact derivatives: how far it is from the other one is measured.
    Evaluations cost the same for any number of data or outputs behind the other metric.

    Args:
        metric: of two coordinates.
        low: the box's lower corner, [2].
        high: its upper corner.
        spacing: of the table's nodes, in coordinates; an eighth of a kernel's σ is good.
        outside: "metric", or "nothing": then the box is all of the space, g is NaN elsewhere, and
            geodesics that leave it end.
        validate_args: see :class:`Metric`.

    Attributes:
        metric: the other one.
        error: the largest relative error of g, as a form, at random points of the box.

    Raises:
        InputError: the box is none, or the metric is not positive definite on it.
    """

    def __init__(
        self,
        metric: RiemannianMetric,
        low: Tensor,
        high: Tensor,
        spacing: float,
        *,
        outside: Literal["metric", "nothing"] = "metric",
        validate_args: bool = True,
    ):
        super().__init__(2, validate_args=validate_args, memory_budget=metric.memory_budget)
        if low.shape != (2,) or high.shape != (2,) or not bool((low < high).all()):
            raise InputError(
                f"low, high: expected corners [2] of a box, got {low.tolist()} and {high.tolist()}"
            )
        if not 0 < spacing < float((high - low).min()):
            raise InputError(f"spacing: expected less than the box and positive, got {spacing!r}")
        sizes = [int(np.ceil(float(s) / spacing)) + 1 + 2 * MARGIN for s in (high - low)]
        if sizes[0] * sizes[1] > MOST:
            raise InputError(
                f"spacing: {sizes[0]} × {sizes[1]} nodes are more than {MOST}; take wider ones"
            )
        if outside not in ("metric", "nothing"):
            raise InputError(f"outside: expected 'metric' or 'nothing', got {outside!r}")
        self.metric, self.spacing, self.outside = metric, spacing, outside
        self.low, self.high = low.double(), high.double()
        self._first = self.low - MARGIN * spacing
        axes = [
            self._first[i] + spacing * torch.arange(n, dtype=torch.float64)
            for i, n in enumerate(sizes)
        ]
        with torch.no_grad():
            g = metric._on_grid(*axes)
            parts = torch.stack(_parts(g), -1).reshape(*sizes, 3)
            if not bool(parts.isfinite().all()):
                raise InputError(
                    "metric: expected a positive definite metric on the box and "
                    f"{MARGIN} nodes about it"
                )
            self._table = _filtered(parts)
            trial = torch.rand(
                TRIALS, 2, dtype=torch.float64, generator=torch.Generator().manual_seed(0)
            )
            points = self.low + trial * (self.high - self.low)
            self.error = float(self.errors_at(points).max())

    def errors_at(self, z: Tensor) -> Tensor:
        """Relative errors of g [n], as a form, at points z [n, 2] of the box."""
        with torch.no_grad():
            exact = self.metric.metric_matrix(z)
            root = torch.linalg.cholesky(exact)
            gap = torch.linalg.solve_triangular(root, self.jet(z, 0).g - exact, upper=False)
            gap = torch.linalg.solve_triangular(root, gap.mT, upper=False)
            return torch.linalg.matrix_norm(gap, 2)

    def _move(self, move: Callable[[Tensor], Tensor]) -> None:  # noqa: ARG002
        raise InputError("to: a table is float64 on the CPU; tabulate the moved metric instead")

    def _points_at_once(self, z: Tensor, order: int) -> int:
        return max(1, self.memory_budget // (200 * (1 + order) * z.element_size()))

    def jet(self, z: Tensor, order: int) -> MetricJet:
        """See :meth:`Metric.jet`."""
        inside = ((z >= self.low) & (z <= self.high)).all(-1)
        table = self._interpolated(torch.where(inside[:, None], z, self.low), order)
        if bool(inside.all()):
            return table
        if self.outside == "nothing":
            for part in table:
                if part is not None:
                    part[~inside] = torch.nan
            return table
        other = self.metric.jet(z[~inside], order)
        pairs = zip(table, other, strict=True)
        for mine, theirs in [(a, b) for a, b in pairs if a is not None and b is not None]:
            mine[~inside] = theirs
        return table

    def _interpolated(self, z: Tensor, order: int) -> MetricJet:
        place = (z - self._first) / self.spacing
        cell = place.floor()
        weights = _weights(place - cell)
        reach = torch.arange(-2, 4)
        i = cell.long()[:, :, None] + reach
        own = self._table[i[:, 0, :, None], i[:, 1, None, :]].flatten(1, 2)  # [B, 36, 3]
        taken = _DERIVATIVES[: (1, 3, 6)[order]]
        scales = [self.spacing ** -(n + m) for n, m in taken]
        both = [
            (weights[:, 0, n, :, None] * weights[:, 1, m, None, :]).flatten(1) * scale
            for (n, m), scale in zip(taken, scales, strict=True)
        ]
        found = torch.stack(both, 1) @ own  # [B, derivatives, 3]
        parts = found[:, 0]
        if order == 0:
            return MetricJet(_matrix_of_logs(*parts.unbind(-1)))
        slopes = found[:, 1:3]
        bends = torch.zeros(len(z), 2, 2, 3, dtype=z.dtype)
        if order > 1:
            bends = found[:, _BENDS]
        along, lean, rest = (_Jet(parts[:, k], slopes[..., k], bends[..., k]) for k in range(3))
        first = along.exp()
        mixed_part = lean * first
        second = (lean * mixed_part).plus(rest.exp())
        g, d, dd = (_matrix(a, b, c) for a, b, c in zip(first, mixed_part, second, strict=True))
        return MetricJet(g, d, dd if order > 1 else None)


def table_about(metric: RiemannianMetric, x: Tensor, *, finest: int = 384) -> TabulatedMetric:
    """A table about points x [N, 2], whose box, an extent of theirs beyond them, is all of space.

    It is as fine as they need: nodes along that extent are doubled, from 48 to ``finest``, until g
    is right to a hundredth at the points and half way between them.  Farther out it may be wrong,
    where a decoder's variance has a wall.

    Raises:
        InputError: see :class:`TabulatedMetric`.
    """
    low, high = x.amin(0), x.amax(0)
    wide = (high - low).max()
    order = torch.randperm(len(x), generator=torch.Generator().manual_seed(0))
    places, nodes = torch.cat([x, (x + x[order]) / 2]), COARSEST
    while True:
        table = TabulatedMetric(
            metric, low - wide, high + wide, float(wide) / nodes, outside="nothing"
        )
        if 2 * nodes > finest or bool((table.errors_at(places) < RIGHT).all()):
            return table
        nodes *= 2


def _parts(g: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """log D_1, U_21 and log D_2 of g [..., 2, 2] = U D Uᵀ."""
    first, lean = g[..., 0, 0], g[..., 0, 1] / g[..., 0, 0]
    return first.log(), lean, (g[..., 1, 1] - lean * g[..., 0, 1]).log()


def _matrix(first: Tensor, mixed: Tensor, second: Tensor) -> Tensor:
    """[[a, b], [b, c]] as [..., 2, 2]; derivatives' axes stay before."""
    rows = (torch.stack([first, mixed], -1), torch.stack([mixed, second], -1))
    return torch.stack(rows, -2)


def _matrix_of_logs(first: Tensor, lean: Tensor, rest: Tensor) -> Tensor:
    a = first.exp()
    return _matrix(a, lean * a, lean**2 * a + rest.exp())


def _filtered(parts: Tensor) -> Tensor:
    """Coefficients of B-splines [n, m, 3] of values at the nodes."""
    from scipy.ndimage import spline_filter

    layers = [spline_filter(parts[..., k].numpy(), order=DEGREE, mode="mirror") for k in range(3)]
    return torch.from_numpy(np.stack(layers, -1))


@cache
def _basis() -> tuple[Tensor, ...]:
    """Polynomials on [0, 1) that weigh the nodes -2 … 3, [6, 6] by powers, and two derivatives."""
    from scipy.interpolate import BSpline, PPoly

    spline = PPoly.from_spline(BSpline.basis_element(np.arange(DEGREE + 2.0), extrapolate=False))
    pieces = {round(x): spline.c[::-1, k] for k, x in enumerate(spline.x[:-1])}
    matrix = np.stack([pieces[3 - m] for m in range(-2, 4)])
    out = [matrix]
    for _ in range(2):
        matrix = np.concatenate([matrix[:, 1:] * np.arange(1, DEGREE + 1), 0 * matrix[:, :1]], 1)
        out.append(matrix)
    return tuple(torch.from_numpy(m) for m in out)


def _weights(t: Tensor) -> Tensor:
    """Of six nodes at t [B, 2] in [0, 1), and their first two derivatives, [B, 2, 3, 6]."""
    powers = torch.stack([t**k for k in range(DEGREE + 1)], -1)
    return (powers @ torch.cat(_basis()).mT).unflatten(-1, (3, DEGREE + 1))
