"""Quadratic forms q_k(z) = (z - c_k)ᴴP_k(z - c_k) of a mixture, at many points at once.

What they are is said by the kernels of ``centred_form``; what is here are the products that these
kernels ask for, in the layouts of :mod:`kahler_verify.geometry.layouts`.

Numbers are real pairs (Re z_1, Im z_1, Re z_2, …), so that all components are evaluated by one real
matrix product; components come last, so that sums over them run along memory.  Points and centres
are counted from the middle of the centres: P_k z - P_k c_k would lose digits if all of them stood
far from zero.  What is left to lose is the ratio of the centres' spread to a component's distance.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable
from typing import NamedTuple

import torch
from torch import Tensor

from kahler_verify.geometry.layouts import Offsets, Precisions, Slopes, on_layouts
from kahler_verify.kernels import centred_form
from kahler_verify.linear_algebra.products import interleaved, real_product

__all__ = ["Components", "DiagonalComponents", "FullComponents", "Jets"]

PRODUCTS_FROM = 64  # components: fewer make too small a product with each point's x

_value, _gradient, _metric = (
    on_layouts(kernel)
    for kernel in (centred_form.value, centred_form.gradient, centred_form.metric)
)


def pairs(z: Tensor) -> Tensor:
    """(Re z_1, Im z_1, Re z_2, …) [..., 2d] of z [..., d]."""
    return torch.view_as_real(z.resolve_conj()).flatten(-2)


class Jets(NamedTuple):
    """Of components at b points, to the order that a metric needs.

    Attributes:
        logits: log π_k + q_k, or log π_k + log det P_k - q_k, real [b, k].
        q_d: ∂q_k [b, k, d].
        q_db: ∂∂̄q_k [k, d, d].
    """

    logits: Tensor
    q_d: Slopes
    q_db: Precisions


class Components(ABC):
    """The components of a mixture for as long as its parameters stay as they are.

    Args:
        weights: π_k, real [K].
        centres: c_k, complex [K, d].
        precisions: P_k, as the structure stores them.
        sign: of q_k in the logits: 1 for log π_k + q_k, -1 for log π_k + log det P_k - q_k.
        room: bytes that products of the parameters may take; where they take more, they are made
            anew whenever they are needed.
    """

    def __init__(self, weights: Tensor, centres: Tensor, precisions: Tensor, sign: int, room: int):
        self.weights, self.centres, self.precisions = weights, centres, precisions
        self.sign = sign
        size = len(centres) * self._numbers(centres.shape[-1]) * weights.itemsize
        self._made: dict[str, Tensor] | None = {} if size <= room else None

    @property
    def fit(self) -> bool:
        """Is there room for products of the parameters?"""
        return self._made is not None

    def made(self, name: str, make: Callable[[], Tensor]) -> Tensor:
        """``make()``, or what it returned before."""
        if self._made is None:
            return make()
        if name not in self._made:
            self._made[name] = make()
        return self._made[name]

    def _made_of(self, name: str, some: slice, make: Callable[[], Tensor]) -> Tensor:
        return self.made(f"{name} {some.start}:{some.stop}", make)

    def coordinates(self, z: Tensor) -> Tensor:
        """Points z [b, d] as pairs [b, 2d], from the middle of the centres.

        Results do not depend on where that is, so that it takes no part in gradients.
        """
        return pairs(z - self.made("middle", lambda: self.centres.detach().mean(0)))

    def jets(self, x: Tensor, some: slice) -> Jets:
        """Those of some components at x [b, 2d], by the kernels of ``centred_form``."""
        z, precision = Offsets(self, x, some), Precisions(self, some)
        return Jets(
            torch.add(self.log_weights(some), _value(precision, z), alpha=self.sign),
            _gradient(precision, z),
            _metric(precision),
        )

    @abstractmethod
    def slopes(self, offsets: Offsets) -> Tensor:
        """The pairs of P_k(z - c_k) [b, 2d, k]."""

    @abstractmethod
    def forms(self, offsets: Offsets) -> Tensor:
        """(z - c_k)ᴴP_k(z - c_k), real [b, k]."""

    @abstractmethod
    def matrices(self, some: slice) -> Tensor:
        """P_k as complex matrices [k, d, d]."""

    def log_weights(self, some: slice) -> Tensor:
        """Logits of components at their own centres: log π_k, or log π_k + log det P_k [k]."""

        def make() -> Tensor:
            log_weights = self.weights[some].log()
            return log_weights if self.sign > 0 else log_weights + self._log_det(some)

        return self._made_of("log weights", some, make)

    def centres_of(self, some: slice) -> Tensor:
        """Coordinates of the centres [2d, k]."""
        return self._made_of(
            "centres", some, lambda: self.coordinates(self.centres[some]).mT.contiguous()
        )

    def mean_metric(self, w: Tensor, some: slice) -> Tensor:
        """Σ_k w_k P_kᵀ [b, d, d] for real w [b, k], by one real product, which is linear in w."""
        second = self._made_of("second", some, lambda: self._second(some).mT.contiguous())
        return self._hermitian(real_product(w, second))

    def deviations(self) -> Tensor:
        """∂∂̄q_k [K, d, d] without their mean: derivatives of g see no more, and cancel less."""

        def make() -> Tensor:
            second = centred_form.metric(self.matrices(slice(0, len(self.centres))))
            return second - second.mean(0)

        return self.made("deviations", make)

    @staticmethod
    @abstractmethod
    def _numbers(d: int) -> int:
        """Real numbers kept for each component, a copy of its parameters among them."""

    @abstractmethod
    def _second(self, some: slice) -> Tensor:
        """P_kᵀ of components as real numbers [k, ·]."""

    @abstractmethod
    def _hermitian(self, numbers: Tensor) -> Tensor:
        """The complex matrices [b, d, d] that such numbers [b, ·] stand for."""

    @abstractmethod
    def _log_det(self, some: slice) -> Tensor:
        """Log det P_k [k]."""


class FullComponents(Components):
    """P_k Hermitian positive definite, [K, d, d]."""

    @staticmethod
    def _numbers(d: int) -> int:
        return 2 * d * (5 * d + 4)

    def slopes(self, offsets: Offsets) -> Tensor:
        """As for all components; by one product with (x, 1)."""
        some = offsets.some
        v = real_product(offsets.rows, self._made_of("slopes", some, lambda: self._map(some)))
        return v.unflatten(-1, (offsets.x.shape[-1], -1))

    def forms(self, offsets: Offsets) -> Tensor:
        """As for all components; (x - c)·v, or x·v - c·v where far components count.

        The second has less to read and write.  Its error is ε|P||c|² where that of the first is
        ε|P||c||x - c|: no more if |x - c| is like |c|.
        """
        x, some, v = offsets.x, offsets.some, offsets.slopes
        if self.sign < 0:
            return (offsets.pairs * v).sum(-2)
        levels = self._made_of("levels", some, lambda: self._levels(some))
        levels = real_product(offsets.rows, levels)
        if v.shape[-1] < PRODUCTS_FROM:
            return levels + (x.unsqueeze(-1) * v).sum(-2)
        return torch.baddbmm(levels.unsqueeze(-2), x.unsqueeze(-2), v).squeeze(-2)

    def _map(self, some: slice) -> Tensor:
        """[2d k, 2d + 1], by which (x, 1) becomes the pairs of P_k(z - c_k), k last."""
        matrix, c = self._real(some)
        return torch.cat([matrix, -(matrix @ c)], -1).transpose(0, 1).flatten(0, 1)

    def _levels(self, some: slice) -> Tensor:
        """[k, 2d + 1], by which (x, 1) becomes -c·v."""
        matrix, c = self._real(some)
        return torch.cat([-(matrix.mT @ c), c.mT @ matrix @ c], -2).squeeze(-1)

    def _real(self, some: slice) -> tuple[Tensor, Tensor]:
        """P_k on pairs [k, 2d, 2d], and the centres' coordinates as columns [k, 2d, 1]."""
        precisions = self.precisions[some]
        count, d = precisions.shape[:2]
        matrix = interleaved(precisions.flatten(0, 1)).unflatten(0, (count, 2 * d))
        return matrix, self.coordinates(self.centres[some]).unsqueeze(-1)

    def matrices(self, some: slice) -> Tensor:
        """P_k as complex matrices [k, d, d]."""
        return self.precisions[some]

    def _second(self, some: slice) -> Tensor:
        return pairs(self.precisions[some].mT).flatten(1)

    def _hermitian(self, numbers: Tensor) -> Tensor:
        d = self.centres.shape[-1]
        return torch.view_as_complex(numbers.reshape(-1, d, d, 2))

    def _log_det(self, some: slice) -> Tensor:
        factor = torch.linalg.cholesky_ex(self.precisions[some])[0]
        return 2 * factor.diagonal(dim1=-2, dim2=-1).real.log().sum(-1)


class DiagonalComponents(Components):
    """P_k = diag(p_k) with p_k > 0 real [K, d]: nothing of size d² is kept for a component."""

    @staticmethod
    def _numbers(d: int) -> int:
        return 8 * d

    def slopes(self, offsets: Offsets) -> Tensor:
        """As for all components."""
        some = offsets.some
        return offsets.pairs * self._made_of("slopes", some, lambda: self._doubled(some))

    def forms(self, offsets: Offsets) -> Tensor:
        """As for all components."""
        return (offsets.pairs * offsets.slopes).sum(-2)

    def _doubled(self, some: slice) -> Tensor:
        """The precision of each coordinate [2d, k]."""
        return self.precisions[some].repeat_interleave(2, -1).mT.contiguous()

    def matrices(self, some: slice) -> Tensor:
        """P_k as complex matrices [k, d, d]."""
        return torch.diag_embed(self.precisions[some]).to(self.centres.dtype)

    def _second(self, some: slice) -> Tensor:
        return self.precisions[some]

    def _hermitian(self, numbers: Tensor) -> Tensor:
        return torch.diag_embed(numbers).to(self.centres.dtype)

    def _log_det(self, some: slice) -> Tensor:
        return self.precisions[some].log().sum(-1)
