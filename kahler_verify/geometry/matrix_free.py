"""Metrics g = JᵀFJ of what a function returns: their products with vectors need no matrix.

J u is one tangent through the function's own code, F the Fisher information of its law, and Jᵀ a
backward pass.
"""

from __future__ import annotations

from abc import abstractmethod

import torch
from torch import Tensor

from kahler_verify.geometry.linearised import (
    LawAt,
    Linearised,
    NoBackwardPassError,
    require_transposed,
)
from kahler_verify.geometry.riemannian import RiemannianMetric
from kahler_verify.jets import propagate
from kahler_verify.jets.domain import nowhere
from kahler_verify.linear_algebra.products import in_forward_mode, is_transformed

__all__ = ["ALONG_FROM", "COVECTOR_FROM", "MatrixFreeMetric"]

Letters = dict[str, Tensor]


# A tangent and a backward pass cost less than d stacked tangents from about this d on.
COVECTOR_FROM = 8
# Of second derivatives there are d(d + 1)/2 for each point; one along v, and a pass more for first
# ones, takes .1 – .8 of their time from this d on, for some points (measured at h = 128, D = 256).
ALONG_FROM = 6
_TANGENTS = 24


class MatrixFreeMetric(RiemannianMetric):
    """A metric that is pulled back from the parameters of a law.

    A subclass has to give :meth:`_letters` and :meth:`_law` besides :meth:`jet`.
    """

    latent_shape: tuple[int, ...] | None

    @abstractmethod
    def _letters(self, z: Tensor) -> Letters:
        """The law's parameters at z [B, d], [B, ...] each."""

    @abstractmethod
    def _law(self, z: Tensor) -> LawAt:
        """What the law's Fisher information F does, at z [B, d] or at one point for all."""

    @abstractmethod
    def _chords(self, z: Tensor) -> Tensor:
        """Squared lengths [n] of chords between the laws at n + 1 points, by F half way."""

    def _at(self, kernel: str, order: int, z: Tensor, vectors: dict[str, Tensor]) -> Tensor:
        if kernel == "geodesic_acceleration" and self._goes_along(z, vectors["v"]):
            return self._accelerated(z, vectors["v"])
        return super()._at(kernel, order, z, vectors)

    @staticmethod
    def _goes_along(z: Tensor, v: Tensor) -> bool:
        """Is one second derivative, along v, less than all of them?"""
        many = z.shape[-1] >= ALONG_FROM and z.numel() >= _TANGENTS
        return many and not (is_transformed(z, v) or in_forward_mode())

    def _accelerated(self, z: Tensor, v: Tensor) -> Tensor:
        """-g⁻¹ Jᵀ (F D²f(v, v) + Γ(J v, J v)): one second derivative, along v, not all of them."""
        law = self._law(z)
        jets = propagate(self._letters, z, 2, v[:, None], along=True)
        pushed = law.lower({name: jet.dd[:, 0] for name, jet in jets.items()})
        turned = law.bend({name: jet.d[:, 0] for name, jet in jets.items()})
        J = {name: jet.d for name, jet in propagate(self._letters, z, 1).items()}
        factor = self._factor(law.gram(J), "geodesic_acceleration")
        terms = [_rows(J[name]) @ _rows((pushed[name] + turned[name])[:, None]).mT for name in J]
        out = -torch.cholesky_solve(torch.stack(terms).sum(0), factor)[..., 0]
        return nowhere(out, [jet.value for jet in jets.values()])

    def _covector(self, u: Tensor, z: Tensor) -> Tensor:
        if (
            z.shape[-1] < COVECTOR_FROM
            or is_transformed(u, z)
            or in_forward_mode()
            or torch.is_inference_mode_enabled()
            or z.is_inference()
        ):
            return super()._covector(u, z)
        try:
            if torch.is_grad_enabled():
                return self._recorded(u, z)
            return Linearised(self, z).product(u)
        except NoBackwardPassError:
            return super()._covector(u, z)

    def _recorded(self, u: Tensor, z: Tensor) -> Tensor:
        """The same, to be differentiated by z, by u and by weights, if any of these asks for it."""
        jets = propagate(self._letters, z, 1, u[:, None])
        tangents = {name: jet.d[:, 0] for name, jet in jets.items()}
        covectors = self._law(z).lower(tangents)
        point = z if z.requires_grad else z.detach().requires_grad_()
        letters = {name: x for name, x in self._letters(point).items() if x.requires_grad}
        if not letters:
            return torch.zeros_like(z)
        (out,) = torch.autograd.grad(
            list(letters.values()),
            point,
            [covectors[name] for name in letters],
            create_graph=any(t.requires_grad for t in (*tangents.values(), *covectors.values())),
            materialize_grads=True,
        )
        if self.validate_args:
            require_transposed(u, out, tangents, covectors)
        return out


def _rows(x: Tensor) -> Tensor:
    return x.reshape(*x.shape[:2], -1)
