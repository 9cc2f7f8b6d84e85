"""The real geometry of Hermitian metrics, on R^{2d} with coordinates (x_1 … x_d, y_1 … y_d).

With z = x + iy, ∂/∂x_c = ∂_c + ∂_c̄ and ∂/∂y_c = i (∂_c - ∂_c̄), and ∂_c̄ g_{ab̄} is the conjugate of
∂_c g_{bā}.  Where k = 0 first derivatives are therefore the metric's own; second ones, and those of
k, are taken in forward mode along the real axes.
"""

from __future__ import annotations

import copy
from collections.abc import Callable

import torch
from torch import Tensor
from torch.func import jvp

from kahler_verify.geometry.base import MetricJet
from kahler_verify.geometry.metric import HermitianMetric
from kahler_verify.geometry.riemannian import RiemannianMetric
from kahler_verify.spaces import COMPLEX
from kahler_verify.torch_state import alone


class RealForm(RiemannianMetric):
    """g_ℝ(u, u) = 2 Re g(u, ū) + 2 Re k(u, u); see :meth:`HermitianMetric.riemannian`."""

    def __init__(self, hermitian: HermitianMetric):
        dimension = hermitian.space.real_dimension
        super().__init__(
            dimension,
            validate_args=hermitian.validate_args,
            memory_budget=hermitian.memory_budget,
        )
        self.hermitian = hermitian

    def _move(self, move: Callable[[Tensor], Tensor]) -> None:
        self.hermitian = copy.copy(self.hermitian)
        self.hermitian._move(move)

    def _points_at_once(self, z: Tensor, order: int) -> int:
        point = COMPLEX.from_real(z)
        return max(1, self.hermitian._points_at_once(point, min(order, 2)) // (1 + 2 * order))

    @alone()  # forward-mode levels belong to the process
    def jet(self, z: Tensor, order: int) -> MetricJet:
        """See :meth:`Metric.jet`."""
        g, k = self.hermitian._parts(COMPLEX.from_real(z))
        value = self.hermitian._real(g, k)
        if order == 0:
            return MetricJet(value)
        axes = torch.eye(z.shape[-1], dtype=z.dtype, device=z.device)
        along = [axis.expand_as(z) for axis in axes]
        if k is None:
            if order == 1:
                return MetricJet(value, self._slopes(z))
            bends = [jvp(self._slopes, (z,), (axis,)) for axis in along]
            return MetricJet(value, bends[0][0], torch.stack([b[1] for b in bends], -4))
        if order == 1:
            return MetricJet(value, torch.stack([self._slope(z, axis) for axis in along], -3))
        d, dd = [], [[value] * len(along) for _ in along]
        for c, first in enumerate(along):
            for e in range(c + 1):
                slope, second = jvp(lambda z, by=first: self._slope(z, by), (z,), (along[e],))[:2]
                dd[c][e] = dd[e][c] = second
            d.append(slope)
        rows = [torch.stack(row, -3) for row in dd]
        return MetricJet(value, torch.stack(d, -3), torch.stack(rows, -4))

    def _slopes(self, z: Tensor) -> Tensor:
        """∂_c g_ℝ [..., 2d, 2d, 2d] where k = 0, by the map from Wirtinger's derivatives."""
        d = self.hermitian._metric_d(COMPLEX.from_real(z))  # ∂_c g_{ab̄}
        conjugate = d.mH
        real = self.hermitian._real
        return torch.cat([real(d + conjugate, None), real(1j * (d - conjugate), None)], -3)

    def _slope(self, z: Tensor, direction: Tensor) -> Tensor:
        def whole(z: Tensor) -> Tensor:
            return self.hermitian._real(*self.hermitian._parts(COMPLEX.from_real(z)))

        out: Tensor = jvp(whole, (z,), (direction,))[1]
        return out
