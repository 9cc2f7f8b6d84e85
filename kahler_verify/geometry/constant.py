"""The metric that is the same everywhere."""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor

from kahler_verify.errors import InputError
from kahler_verify.geometry.base import MEMORY_BUDGET, MetricJet
from kahler_verify.geometry.riemannian import RiemannianMetric


class ConstantMetric(RiemannianMetric):
    """g(z) = G: flat, with straight geodesics.

    Args:
        matrix: G [d, d], symmetric and positive definite.
        validate_args: see :class:`Metric`.
        memory_budget: see :class:`Metric`.

    Raises:
        InputError: the matrix is not of that kind.
    """

    def __init__(
        self,
        matrix: Tensor,
        *,
        validate_args: bool = True,
        memory_budget: int = MEMORY_BUDGET,
    ):
        square = isinstance(matrix, Tensor) and matrix.ndim == 2
        if not square or matrix.shape[0] != matrix.shape[1] or not matrix.is_floating_point():
            raise InputError("matrix: expected a real floating-point tensor [d, d]")
        if not torch.equal(matrix, matrix.mT) or int(torch.linalg.cholesky_ex(matrix)[1]):
            raise InputError("matrix: expected a symmetric, positive definite one")
        super().__init__(len(matrix), validate_args=validate_args, memory_budget=memory_budget)
        self.matrix = matrix

    def _move(self, move: Callable[[Tensor], Tensor]) -> None:
        self.matrix = move(self.matrix)

    def jet(self, z: Tensor, order: int) -> MetricJet:
        """See :meth:`Metric.jet`."""
        count, d = z.shape
        g = self.matrix.expand(count, d, d).clone()
        zeros = [z.new_zeros(count, *[d] * (2 + n)) for n in range(1, order + 1)]
        return MetricJet(g, *zeros)
