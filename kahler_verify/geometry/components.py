"""Quadratic forms q_k(z) = (z - c_k)ᴴP_k(z - c_k), and their jets at many points at once.

Numbers are real pairs (Re z_1, Im z_1, Re z_2, …), so that all components are evaluated by one real
matrix product; components come last, so that sums over them run along memory.  Points and centres
are counted from the middle of the centres: P_k z - P_k c_k would lose digits if all of them stood
far from zero.  What is left to lose is the ratio of the centres' spread to a component's distance.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable

import torch
from torch import Tensor

from kahler_verify.decoders.heads import ReducedHeads
from kahler_verify.geometry.kernel_set import KernelSet
from kahler_verify.products import interleaved, real_product

__all__ = ["Components", "DiagonalComponents", "FullComponents"]

ROWS_OF_LEVELS_FROM = 64  # components: fewer make too small a product with each point's x
_form = KernelSet("quadratic_form")


def pairs(z: Tensor) -> Tensor:
    """(Re z_1, Im z_1, Re z_2, …) [..., 2d] of z [..., d]."""
    return torch.view_as_real(z.resolve_conj()).flatten(-2)


def _with_one(x: Tensor) -> Tensor:
    return torch.cat([x, torch.ones_like(x[:, :1])], -1)


class Components(ABC):
    """Some quadratic forms; what is made from their parameters is kept until these change.

    Args:
        centres: c_k, complex [K, d].
        precisions: P_k, as the structure stores them.
        kept: where products of the parameters are kept.
        room: bytes that these may take; without room they are made anew in every call.
        far: whether only components far from a point matter there.
    """

    def __init__(
        self,
        centres: Tensor,
        precisions: Tensor,
        kept: ReducedHeads,
        room: int,
        *,
        far: bool = False,
    ):
        self.centres, self.precisions, self.far = centres, precisions, far
        size = len(centres) * self._numbers(centres.shape[-1]) * centres.real.element_size()
        self._kept = kept if size <= room else None

    def coordinates(self, z: Tensor) -> Tensor:
        """Points z [b, d] as pairs [b, 2d], from the middle of the centres.

        Results do not depend on where that is, so that it takes no part in gradients.
        """
        return pairs(z - self.centres.detach().mean(0))

    def jets(self, x: Tensor, some: slice) -> tuple[Tensor, Tensor]:
        """q_k [b, k] and the pairs of conj(∂q_k) = P_k(z - c_k) [b, 2d, k], at x [b, 2d]."""
        centres = self._centres(some)
        v = self._slopes(x, centres, some)
        return ((x.unsqueeze(-1) - centres) * v).sum(-2), v

    def _centres(self, some: slice) -> Tensor:
        """Coordinates of the centres [2d, k]."""
        return self._made("centres", some, lambda c, _: self.coordinates(c).mT.contiguous())

    def mean_metric(self, w: Tensor, some: slice) -> Tensor:
        """Σ_k w_k ∂∂̄q_k [b, d, d] for real w [b, k], by one real product, which is linear in w.

        It is what the kernel ``metric_within`` computes, at up to twice its speed.
        """
        second = self._made("second", some, lambda _, p: self._second(p).mT.contiguous())
        return self._hermitian(real_product(w, second))

    def _made(self, name: str, some: slice, make: Callable[[Tensor, Tensor], Tensor]) -> Tensor:
        def made() -> Tensor:
            return make(self.centres[some], self.precisions[some])

        if self._kept is None:
            return made()
        sources = (self.centres, self.precisions)
        return self._kept.get(f"{name} {some.start}:{some.stop}", sources, made)

    @staticmethod
    @abstractmethod
    def _numbers(d: int) -> int:
        """Real numbers kept for each component."""

    @abstractmethod
    def _slopes(self, x: Tensor, centres: Tensor, some: slice) -> Tensor:
        """Pairs of P_k(z - c_k) [b, 2d, k]; ``centres`` are their coordinates [2d, k]."""

    @abstractmethod
    def _second(self, precisions: Tensor) -> Tensor:
        """The second derivatives of components with these precisions as real numbers [k, ·]."""

    @abstractmethod
    def _hermitian(self, numbers: Tensor) -> Tensor:
        """The complex matrices [b, d, d] that such numbers [b, ·] stand for."""

    @abstractmethod
    def metrics(self, some: slice) -> Tensor:
        """∂∂̄q_k as complex matrices [k, d, d]."""

    def log_det(self, some: slice) -> Tensor:
        """Log det P_k [k]."""
        return self._made("log det", some, lambda _, p: self._log_det(p))

    @staticmethod
    @abstractmethod
    def _log_det(precisions: Tensor) -> Tensor:
        """Of components with these precisions."""


class FullComponents(Components):
    """P_k Hermitian positive definite, [K, d, d]."""

    @staticmethod
    def _numbers(d: int) -> int:
        return 2 * d * (3 * d + 3)

    def jets(self, x: Tensor, some: slice) -> tuple[Tensor, Tensor]:
        """As for all components; where far ones count, q comes from the same product as ∂q.

        q = x·v - c·v, with c·v one row more for each component: less to read and write.  The error
        is ε|P||c|² where that of (x - c)·v is ε|P||c||x - c|: no more if |x - c| is like |c|.
        """
        if not self.far or some.stop - some.start < ROWS_OF_LEVELS_FROM:
            return super().jets(x, some)
        width = x.shape[-1]
        rows = real_product(_with_one(x), self._made("jets", some, self._map_with_levels))
        slopes, levels = rows.tensor_split([width * (some.stop - some.start)], -1)
        v = slopes.unflatten(-1, (width, -1))
        return (x.unsqueeze(-2) @ v).squeeze(-2) - levels, v

    def _slopes(self, x: Tensor, centres: Tensor, some: slice) -> Tensor:  # noqa: ARG002
        rows = real_product(_with_one(x), self._made("slopes", some, self._map))
        return rows.unflatten(-1, (x.shape[-1], -1))

    def _map(self, centres: Tensor, precisions: Tensor) -> Tensor:
        """[2d k, 2d + 1], by which (x, 1) becomes the pairs of P_k(z - c_k), k last."""
        matrix, c = self._real(centres, precisions)
        return torch.cat([matrix, -(matrix @ c)], -1).transpose(0, 1).flatten(0, 1)

    def _map_with_levels(self, centres: Tensor, precisions: Tensor) -> Tensor:
        """The same, and k rows that give c·v."""
        matrix, c = self._real(centres, precisions)
        levels = torch.cat([matrix.mT @ c, -(c.mT @ matrix @ c)], -2).squeeze(-1)
        return torch.cat([self._map(centres, precisions), levels])

    def _real(self, centres: Tensor, precisions: Tensor) -> tuple[Tensor, Tensor]:
        """P_k on pairs [k, 2d, 2d], and the centres' coordinates as columns [k, 2d, 1]."""
        count, d = precisions.shape[:2]
        matrix = interleaved(precisions.flatten(0, 1)).unflatten(0, (count, 2 * d))
        return matrix, self.coordinates(centres).unsqueeze(-1)

    def metrics(self, some: slice) -> Tensor:
        """∂∂̄q_k as complex matrices [k, d, d]."""
        out: Tensor = _form.call("metric", {"precision": self.precisions[some]})
        return out

    def _second(self, precisions: Tensor) -> Tensor:
        return pairs(_form.call("metric", {"precision": precisions})).flatten(1)

    def _hermitian(self, numbers: Tensor) -> Tensor:
        d = self.centres.shape[-1]
        return torch.view_as_complex(numbers.reshape(-1, d, d, 2))

    @staticmethod
    def _log_det(precisions: Tensor) -> Tensor:
        factor = torch.linalg.cholesky_ex(precisions)[0]
        return 2 * factor.diagonal(dim1=-2, dim2=-1).real.log().sum(-1)


class DiagonalComponents(Components):
    """P_k = diag(p_k) with p_k > 0 real [K, d]: nothing of size d² is kept for a component."""

    @staticmethod
    def _numbers(d: int) -> int:
        return 5 * d

    def _slopes(self, x: Tensor, centres: Tensor, some: slice) -> Tensor:
        doubled = self._made(
            "slopes", some, lambda _, p: p.repeat_interleave(2, -1).mT.contiguous()
        )
        return (x.unsqueeze(-1) - centres) * doubled

    def metrics(self, some: slice) -> Tensor:
        """∂∂̄q_k as complex matrices [k, d, d]."""
        return torch.diag_embed(self.precisions[some]).to(self.centres.dtype)

    def _second(self, precisions: Tensor) -> Tensor:
        return precisions

    def _hermitian(self, numbers: Tensor) -> Tensor:
        return torch.diag_embed(numbers).to(self.centres.dtype)

    @staticmethod
    def _log_det(precisions: Tensor) -> Tensor:
        return precisions.log().sum(-1)
