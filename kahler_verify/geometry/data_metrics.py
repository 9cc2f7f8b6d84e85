"""Metrics that data give to a latent space: small near data, large away from them, or as weighted.

Mind the sign.  LAND's metric and an inverse of weighted precisions have their SMALLEST volume near
data, so that geodesics keep to the data; see each class.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from typing import Literal

import torch
from torch import Tensor

from kahler_verify.errors import InputError
from kahler_verify.geometry.base import MEMORY_BUDGET, MetricJet
from kahler_verify.geometry.riemannian import RiemannianMetric
from kahler_verify.linear_algebra.cholesky import factored
from kahler_verify.linear_algebra.products import is_transformed
from kahler_verify.running.kernel_set import KernelSet

DATA_AT_ONCE = 1000  # on a grid


class _DataMetric(RiemannianMetric):
    """A metric of the differences z - x_k to data or centres x [K, d]."""

    def __init__(self, points: Tensor, name: str, *, validate_args: bool, memory_budget: int):
        if not isinstance(points, Tensor) or not points.is_floating_point() or points.ndim != 2:
            got = (
                f"{points.dtype} {list(points.shape)}"
                if isinstance(points, Tensor)
                else type(points).__name__
            )
            raise InputError(f"{name}: expected a real floating-point tensor [N, d], got {got}")
        if 0 in points.shape:
            raise InputError(
                f"{name}: expected at least one point of at least one coordinate, got "
                f"shape {list(points.shape)}"
            )
        if validate_args and not bool(torch.isfinite(points).all()):
            raise InputError(f"{name}: expected finite values, got NaN or infinities")
        super().__init__(points.shape[1], validate_args=validate_args, memory_budget=memory_budget)
        self._points = points

    def _move(self, move: Callable[[Tensor], Tensor]) -> None:
        moved: dict[int, Tensor] = {}  # the points have two names
        for name, x in vars(self).items():
            if isinstance(x, Tensor):
                moved.setdefault(id(x), move(x))
                setattr(self, name, moved[id(x)])

    def _width(self) -> int:
        return len(self._points) * self._points.shape[1]

    def _points_at_once(self, z: Tensor, order: int) -> int:
        count, d = self._points.shape
        numbers = 6 * count * d ** max(1, order) + 20 * d ** (2 + order)
        return max(1, self.memory_budget // (numbers * z.element_size()))

    def _differences(self, z: Tensor) -> Tensor:
        if z.dtype != self._points.dtype or z.device != self._points.device:
            raise InputError(
                f"z: expected {self._points.dtype} on {self._points.device} like the data, got "
                f"{z.dtype} on {z.device}"
            )
        return z.unsqueeze(-2) - self._points

    def _number(self, name: str, value: float, *, zero: bool = False) -> Tensor:
        if not isinstance(value, int | float) or not math.isfinite(value) or value < 0:
            raise InputError(f"{name}: expected a finite number, not negative, got {value!r}")
        if value == 0 and not zero:
            raise InputError(f"{name}: expected a positive number, got 0")
        return torch.tensor(value, dtype=self._points.dtype, device=self._points.device)

    @staticmethod
    def _evaluate(
        kernels: KernelSet, stem: str, order: int, tensors: Mapping[str, Tensor]
    ) -> list[Tensor]:
        """A kernel and its derivatives up to an order."""
        suffixes = ("", "_d", "_dd")[: order + 1]
        return [kernels.call(stem + suffix, tensors) for suffix in suffixes]

    def _inverted(self, cometric: list[Tensor]) -> MetricJet:
        """The metric and its derivatives from those of its inverse."""
        factor, degenerate = factored(cometric[0], terms=self._width())
        if self.validate_args:
            self._require_positive(cometric[0], degenerate, "the metric (its inverse)")
        tensors = dict(zip(("C", "C_d", "C_dd"), cometric, strict=False)) | {"C_factor": factor}
        return MetricJet(*self._evaluate(_INVERSE, "metric", len(cometric) - 1, tensors))


_INVERSE = KernelSet("inverse_metric")


class LocalVarianceMetric(_DataMetric):
    """LAND's metric: the inverse of the data's local variance about z, and of ρ far from data.

    Diagonal: M_i(z) = 1/(Σ_k w_k (z - x_k)_i² + ρ), full: M(z) = (Σ_k w_k r_k r_kᵀ + ρ 1)⁻¹, with
    r_k = z - x_k and w_k = exp(-|r_k|²/2σ²).  1/(ρ + 2Nσ²/e) ≤ M ≤ 1/ρ: complete, and LARGEST far
    from data, where M → 1/ρ.

    Args:
        data: x [N, d], real.
        sigma: σ > 0, the reach of the kernel.
        rho: ρ > 0.
        structure: "diagonal", as in the paper, or "full".
        validate_args: see :class:`Metric`.
        memory_budget: see :class:`Metric`.

    Raises:
        InputError: data are not points, σ or ρ is not positive.

    Source: Arvanitidis, Hansen, Hauberg, arXiv 1606.02518; derived in data_metrics.py and
    local_covariance.py of derivations/geometry/.
    """

    _diagonal = KernelSet("local_variance")
    _full = KernelSet("local_covariance")

    def __init__(
        self,
        data: Tensor,
        sigma: float,
        rho: float,
        *,
        structure: Literal["diagonal", "full"] = "diagonal",
        validate_args: bool = True,
        memory_budget: int = MEMORY_BUDGET,
    ):
        super().__init__(data, "data", validate_args=validate_args, memory_budget=memory_budget)
        if structure not in ("diagonal", "full"):
            raise InputError(f"structure: expected 'diagonal' or 'full', got {structure!r}")
        self.data, self.structure = data, structure
        self.sigma, self.rho = self._number("sigma", sigma), self._number("rho", rho)

    def jet(self, z: Tensor, order: int) -> MetricJet:
        """See :meth:`Metric.jet`."""
        tensors = {
            "r": self._differences(z),
            "s": 1 / (2 * self.sigma**2),
            "rho": self.rho,
            "z": z,
        }
        if self.structure == "full":
            return self._inverted(self._evaluate(self._full, "cometric", order, tensors))
        parts = self._evaluate(self._diagonal, "metric", order, tensors)
        return MetricJet(*[torch.diag_embed(part) for part in parts])

    def _on_grid(self, first: Tensor, second: Tensor) -> Tensor:
        """See :meth:`RiemannianMetric._on_grid`.

        A kernel on a grid is a product of one on each axis, and its sum over data one of matrices.
        """
        if self.structure == "full":
            return super()._on_grid(first, second)
        variances = torch.zeros(len(first), len(second), 2).to(first)
        for x in self.data.split(DATA_AT_ONCE):
            gaps = [axis[:, None] - x[:, i] for i, axis in enumerate((first, second))]
            a, b = (torch.exp(-((gap / self.sigma) ** 2) / 2) for gap in gaps)
            variances[..., 0] += (a * gaps[0] ** 2) @ b.mT
            variances[..., 1] += a @ (b * gaps[1] ** 2).mT
        return torch.diag_embed(1 / (variances + self.rho)).flatten(0, 1)

    def _covector(self, u: Tensor, z: Tensor) -> Tensor:
        if self.structure == "full":
            return super()._covector(u, z)
        tensors = {"r": self._differences(z), "s": 1 / (2 * self.sigma**2), "rho": self.rho}
        out: Tensor = self._diagonal.call("metric", tensors) * u
        return out


class PrecisionWeightedMetric(_DataMetric):
    """G⁻¹(z) = Σ_k L_kL_kᵀ exp(-|z - c_k|²/T²) + λ e^{-τ|z|²} 1.

    Its volume √det G is LARGE far from the centres (where G⁻¹ is small); the volume of the inverse
    is what is large near data.  Its total volume is finite if and only if τ > 0 or λ = 0 (claim C1
    concerns the sum that is used as G itself).

    Args:
        centres: c [K, d], real.
        factors: L [K, d, d]; L_kL_kᵀ is what a centre adds to the inverse.
        temperature: T > 0.
        regularization: λ ≥ 0; with 0 the metric does not exist far from the centres.
        tau: τ ≥ 0.
        validate_args: see :class:`Metric`.
        memory_budget: see :class:`Metric`.

    Raises:
        InputError: shapes do not go together, or a number is out of its range.

    Source: Chadebec, Thibeau-Sutre, Burgos, Allassonnière, arXiv 2105.00026; derived in
    derivations/geometry/data_metrics.py.
    """

    _cometric = KernelSet("precision_weighted")

    def __init__(
        self,
        centres: Tensor,
        factors: Tensor,
        *,
        temperature: float = 1.0,
        regularization: float = 1e-2,
        tau: float = 0.0,
        validate_args: bool = True,
        memory_budget: int = MEMORY_BUDGET,
    ):
        super().__init__(
            centres, "centres", validate_args=validate_args, memory_budget=memory_budget
        )
        count, d = centres.shape
        if not isinstance(factors, Tensor) or factors.shape != (count, d, d):
            got = list(factors.shape) if isinstance(factors, Tensor) else type(factors).__name__
            raise InputError(f"factors: expected shape [{count}, {d}, {d}], got {got}")
        if factors.dtype != centres.dtype or factors.device != centres.device:
            raise InputError(
                f"factors: expected {centres.dtype} on {centres.device} like the centres, got "
                f"{factors.dtype} on {factors.device}"
            )
        if validate_args and not is_transformed(factors) and not bool(factors.isfinite().all()):
            raise InputError("factors: expected finite values, got NaN or infinities")
        self.centres, self.factors = centres, factors
        self.temperature = self._number("temperature", temperature)
        self.regularization = self._number("regularization", regularization, zero=True)
        self.tau = self._number("tau", tau, zero=True)

    def jet(self, z: Tensor, order: int) -> MetricJet:
        """See :meth:`Metric.jet`."""
        tensors = {
            "r": self._differences(z),
            "z": z,
            "C": self.factors @ self.factors.mT,
            "bandwidth": self.temperature.expand(len(self.centres)) ** -2,
            "scale": self.regularization,
            "tau": self.tau,
        }
        return self._inverted(self._evaluate(self._cometric, "cometric", order, tensors))
