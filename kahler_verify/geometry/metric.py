"""Hermitian metrics on the latent space, and the geometry that follows from their derivatives.

The first index of a metric is holomorphic, the second antiholomorphic: g[..., a, b] = g_{ab̄}.
(geomstats conjugates the first index of its complex metrics; its matrices are the transposes.)
"""

from __future__ import annotations

import math
from abc import abstractmethod
from collections.abc import Callable, Hashable
from functools import partial
from typing import TYPE_CHECKING, NamedTuple

import torch
from torch import Tensor

from kahler_verify.errors import InputError
from kahler_verify.geometry.base import (
    MEMORY_BUDGET,
    Metric,
    require_volume_in_backward,
    unit,
)
from kahler_verify.geometry.rounding import Rounding, watch_range
from kahler_verify.linear_algebra.cholesky import factored, log_det
from kahler_verify.linear_algebra.products import in_forward_mode, is_transformed
from kahler_verify.running.kernel_set import KernelSet
from kahler_verify.spaces import COMPLEX

if TYPE_CHECKING:
    from kahler_verify.geometry.operators import Method, MetricOperator
    from kahler_verify.geometry.riemannian import RiemannianMetric


class HermitianJet(NamedTuple):
    """A Hermitian metric with its derivatives at points [...]; None where these were not asked for.

    Attributes:
        g: g_{ab̄} as [..., d, d].
        d: ∂_c g_{ab̄} as [..., c, a, b].
        dd: ∂_c ∂_ē g_{ab̄} as [..., c, e, a, b].
        k: the complementary part k_{ab} as [..., d, d]; None where it vanishes.
    """

    g: Tensor
    d: Tensor | None = None
    dd: Tensor | None = None
    k: Tensor | None = None


class HermitianMetric(Metric):
    """A Hermitian metric g with an optional complementary part k.

    A subclass has to give :meth:`jet`.

    The Riemannian metric on R^{2d} is 2 Re g(u, ū) + 2 Re k(u, u).  Where g is Kähler and k = 0 the
    Chern connection and curvature below are the Levi-Civita ones; elsewhere they are Chern's, of
    the Hermitian part g alone.

    Args:
        validate_args: see :class:`Metric`.
        memory_budget: see :class:`Metric`.
    """

    _geometry = KernelSet("hermitian_geometry")

    def __init__(self, *, validate_args: bool = True, memory_budget: int = MEMORY_BUDGET):
        super().__init__(COMPLEX, validate_args=validate_args, memory_budget=memory_budget)

    # ------------------------------------------------------------- what a metric has to provide
    @abstractmethod
    def jet(self, z: Tensor, order: int) -> HermitianJet:
        """g at z [..., d], k if it has one, and derivatives of g up to ``order`` (0, 1 or 2)."""

    def _parts(self, z: Tensor) -> tuple[Tensor, Tensor | None]:
        """g [..., d, d] and k [..., d, d], or None where k = 0."""
        jet = self.jet(z, 0)
        return jet.g, jet.k

    def _metric_d(self, z: Tensor) -> Tensor:
        """∂_c g_{ab̄} as [..., c, a, b]."""
        d = self.jet(z, 1).d
        assert d is not None
        return d

    def _metric_db(self, z: Tensor) -> Tensor:
        """∂_c ∂_ē g_{ab̄} as [..., c, e, a, b]."""
        dd = self.jet(z, 2).dd
        assert dd is not None
        return dd

    def _hermitian(self, z: Tensor) -> Tensor:
        """g alone, where that is cheaper."""
        return self._parts(z)[0]

    def _in_plain_torch(self, z: Tensor) -> Tensor:
        """g by operations that can be watched one by one, not by compiled code."""
        return self._hermitian(z)

    def _inner(self, u: Tensor, v: Tensor, z: Tensor) -> Tensor:
        """2 Re g(u, v̄) + 2 Re k(u, v)."""
        g, k = self._parts(z)
        out = 2 * torch.einsum("...ab,...a,...b->...", g, u, v.conj()).real
        if k is not None:
            out = out + 2 * torch.einsum("...ab,...a,...b->...", k, u, v).real
        return out

    def _covector(self, u: Tensor, z: Tensor) -> Tensor:
        """w_b = 2 Σ_a (g_{ab̄} u_a + conj(k_{ab} u_a))."""
        g, k = self._parts(z)
        out = torch.einsum("...ab,...a->...b", g, u)
        if k is not None:
            out = out + torch.einsum("...ab,...a->...b", k, u).conj()
        return 2 * out

    def _derivatives(self, z: Tensor, order: int) -> dict[str, Tensor]:
        """g, and with order 1 g_d, and with order 2 g_db as well."""
        jet = self.jet(z, order)
        named = {"g": jet.g, "g_d": jet.d, "g_db": jet.dd}
        return {name: x for name, x in named.items() if x is not None}

    # ------------------------------------------------------------- the metric itself
    def metric_matrix(self, z: Tensor) -> Tensor:
        """The Hermitian part g_{ab̄} at z [..., d], as [..., d, d]."""
        z = self._point(z)
        out = self._checked(z, self._by_chunks(self._hermitian, 0, z))
        if self._is_watched(out):
            watch_range("metric_matrix", self._in_plain_torch, z, self._sound_ranges())
        return out

    def complementary_part(self, z: Tensor) -> Tensor:
        """The (2,0) part k_{ab} at z [..., d], as [..., d, d]; zero for Kähler potentials."""
        z = self._point(z)

        def compute(z: Tensor) -> Tensor:
            g, k = self._parts(z)
            return torch.zeros_like(g) if k is None else k

        return self._checked(z, self._by_chunks(compute, 0, z))

    def real_metric_matrix(self, z: Tensor) -> Tensor:
        """The Riemannian metric 2 Re g(u, ū) + 2 Re k(u, u) on R^{2d}, [..., 2d, 2d].

        Coordinates are (x_1 … x_d, y_1 … y_d) with z = x + iy.
        """
        z = self._point(z)
        return self._checked(z, self._by_chunks(lambda z: self._real(*self._parts(z)), 0, z))

    @staticmethod
    def _real(g: Tensor, k: Tensor | None) -> Tensor:
        k = torch.zeros_like(g) if k is None else k
        xy = g.imag - k.imag
        top = torch.cat([g.real + k.real, xy], -1)
        bottom = torch.cat([xy.mT, g.real - k.real], -1)
        return 2 * torch.cat([top, bottom], -2)

    def riemannian(self) -> RiemannianMetric:
        """The same metric on R^{2d}, with coordinates (x_1 … x_d, y_1 … y_d) and z = x + iy.

        It has Levi-Civita geometry and curves, also where k ≠ 0 or g is not Kähler.
        """
        from kahler_verify.geometry.real_form import RealForm

        return RealForm(self)

    def operator(self, z: Tensor, *, method: Method = "auto") -> MetricOperator:
        """The real form 2 Re g(u, ū) + 2 Re k(u, u) at one point [d] as a linear operator.

        Its vectors are complex, with the inner product Re w̄v of R^{2d}: ``product(u)`` is the w
        with Re w̄v = ⟨u, v⟩ for all v, and directions are orthonormal so.  A holomorphic mean with
        constant variances has its eigenvalues twice, of v and of iv.

        See :class:`kahler_verify.geometry.operators.MetricOperator`.
        """
        from kahler_verify.geometry.operators import MetricOperator

        return MetricOperator(self._matrix_free(self._point(z)), z, method=method)

    def _matrix_free(self, z: Tensor) -> RiemannianMetric:  # noqa: ARG002
        """The real form, at z [d] without its matrix where that can be."""
        return self.riemannian()

    # ------------------------------------------------------------- volumes
    def log_det_hermitian(self, z: Tensor) -> Tensor:
        """log det g, real [...].  This is not the volume unless k = 0 (see :meth:`log_volume`).

        Its gradient is g⁻¹, in closed form, to every order.  Where g is degenerate to working
        precision :class:`InputError` is raised; with ``validate_args=False`` value and gradient are
        NaN there (the gradient is 0 where a mask has made the cotangent 0).
        """
        z = self._point(z)

        def compute(z: Tensor, *, check: bool = True) -> Tensor:
            return self._log_det(self._hermitian(z), "log_det_hermitian" if check else None)

        out = self._by_chunks(compute, 0, z)
        self._watch("log_det_hermitian", partial(compute, check=False), z, out)
        return out

    def log_volume(self, z: Tensor) -> Tensor:
        """log of the volume density √det g_ℝ = 2^d √det [[g, k], [k̄, ḡ]], real [...].

        It is -inf where the metric is degenerate to working precision, as for μ = Re z, whose det g
        is ½ although its volume is zero.  There is no gradient there: to ask for one raises
        :class:`InputError` in the backward pass, and with ``validate_args=False`` it is NaN (but 0
        where a mask has made the cotangent 0).
        """
        z = self._point(z)
        out = self._by_chunks(self._log_volume, 0, z)

        def compute(z: Tensor) -> Tensor:
            return self._log_det(self._hermitian(z), None)  # which differs by a constant

        self._watch("log_volume", compute, z, out)
        return out

    def _log_volume(self, z: Tensor) -> Tensor:
        g, k = self._parts(z)
        d = g.shape[-1]
        if k is None:
            return d * math.log(2) + self._log_det(g, "log_volume")
        # Where k nearly cancels g, an entry's rounding error is still that of g.
        units = g.detach().diagonal(dim1=-2, dim2=-1).real
        units = torch.where(units > 0, 2 * units, 1).sqrt()
        outer = units.unsqueeze(-1) * units.unsqueeze(-2)
        # a metric is never indefinite, so that a failed factorisation means a zero volume
        value, degenerate = log_det(
            self._real(g / outer, k / outer),
            if_degenerate=-torch.inf,
            units=True,
            terms=self._width(),
        )
        value = value + 4 * units.log().sum(-1)
        watched = self.validate_args and value.requires_grad and not is_transformed(value)
        if watched and degenerate is not None:
            require_volume_in_backward(value, degenerate)
        return self._checked(z, value / 2, allow_infinite=True)

    def _log_det(self, g: Tensor, quantity: str | None) -> Tensor:
        value, degenerate = log_det(g, terms=self._width())
        if self.validate_args and degenerate is not None and quantity is not None:
            self._require_positive(g, degenerate, quantity)
        return value

    # ------------------------------------------------------------- connection and curvature
    def christoffels(self, z: Tensor) -> Tensor:
        """Chern connection Γ^e_{ca} as [..., c, a, e], that is Γ_c = ∂_cG G⁻¹.

        Levi-Civita's where the metric is Kähler.  (geomstats puts the upper index first.)
        """
        z = self._point(z)
        return self._curved(z, "chern_connection", 1)

    def curvature_tensor(self, z: Tensor) -> Tensor:
        """Chern curvature R_{ab̄cē} as [..., a, b, c, e]; R = g g + g g for Fubini-Study."""
        z = self._point(z)
        return self._curved(z, "chern_curvature", 2)

    def ricci_tensor(self, z: Tensor) -> Tensor:
        """Chern-Ricci tensor Ric_{cē} = -∂_c∂_ē log det g as [..., c, e]."""
        z = self._point(z)
        return self._curved(z, "chern_ricci", 2)

    def scalar_curvature(self, z: Tensor) -> Tensor:
        """Chern scalar curvature g^{cē} Ric_{cē}, real [...]: half the Riemannian one if Kähler."""
        z = self._point(z)
        return self._curved(z, "chern_scalar", 2).real

    def holomorphic_sectional_curvature(self, z: Tensor, v: Tensor) -> Tensor:
        """R(v, v̄, v, v̄) / g(v, v̄)² for v [..., d] ≠ 0, real [...]: 2 for Fubini-Study.

        The batch dimensions of z and v broadcast; v may be of any length.
        """
        z = self._point(z)
        self._check_vectors(z, v=v)
        v, _ = unit(v)
        if self.validate_args and not is_transformed(v) and bool((v == 0).all(-1).any()):
            raise InputError("v: expected vectors other than 0, which have no curvature, got 0")
        return self._curved(z, "holomorphic_sectional", 2, v=v).real

    def kahler_defect(self, z: Tensor) -> Tensor:
        """∂_c g_{ab̄} - ∂_a g_{cb̄} as [..., c, a, b]: zero if and only if the metric is Kähler."""
        z = self._point(z)

        def compute(z: Tensor) -> Tensor:
            defect: Tensor = self._geometry.call("kahler_defect", {"g_d": self._metric_d(z)})
            return defect

        return self._checked(z, self._by_chunks(compute, 1, z))

    def _curved(self, z: Tensor, kernel: str, order: int, **more: Tensor) -> Tensor:
        def compute(z: Tensor, *vectors: Tensor, check: bool = True) -> Tensor:
            named = dict(zip(more, vectors, strict=True))
            return self._curved_at(z, kernel, order, named, check=check)

        out = self._by_chunks(compute, order, z, *more.values())
        out = self._checked(z, out, allow_infinite=False, **more)
        again = partial(self._by_chunks, partial(compute, check=False), order)
        self._watch(kernel, again, z, out, *more.values())
        return out

    def _watch(
        self, quantity: str, compute: Callable[..., Tensor], z: Tensor, out: Tensor, *more: Tensor
    ) -> None:
        """See `Rounding`."""
        if self._is_watched(out):
            ranges, plain = self._sound_ranges(), self._in_plain_torch
            Rounding(quantity, compute, self._hermitian, plain, ranges).watch(z, out, *more)

    def _sound_ranges(self) -> dict[Hashable, list[float]]:
        """What was found sound of the metric as it is; nothing after its parameters changed."""
        made_of = self._made_of
        if made_of != self._sound_of:
            self._sound, self._sound_of = {}, made_of
        return self._sound

    def _is_watched(self, out: Tensor) -> bool:
        watched = self.validate_args and self._cancels
        return watched and not (is_transformed(out) or in_forward_mode())

    @property
    def _made_of(self) -> Hashable:
        """Changes, as far as torch tells, where what g is made of does."""
        return ()

    @property
    def _cancels(self) -> bool:
        """Whether g is a difference of terms that may be much larger, and not a sum of squares."""
        return False

    def _curved_at(
        self, z: Tensor, kernel: str, order: int, more: dict[str, Tensor], *, check: bool
    ) -> Tensor:
        tensors = {**self._derivatives(z, order), **more}
        g = tensors["g"]
        factor, degenerate = factored(g, terms=self._width())
        if self.validate_args and check:
            self._require_positive(g, degenerate, kernel)
        factor = torch.where(degenerate[..., None, None], torch.nan, factor)
        return self._curvature(kernel, {**tensors, "g_factor": factor})

    def _curvature(self, kernel: str, tensors: dict[str, Tensor]) -> Tensor:
        out: Tensor = self._geometry.call(kernel, tensors)
        return out


class PartwiseMetric(HermitianMetric):
    """A Hermitian metric whose parts have kernels of their own, which cost less one by one."""

    @abstractmethod
    def _parts(self, z: Tensor) -> tuple[Tensor, Tensor | None]:
        """g [..., d, d] and k [..., d, d], or None where k = 0."""

    @abstractmethod
    def _metric_d(self, z: Tensor) -> Tensor:
        """∂_c g_{ab̄} as [..., c, a, b]."""

    @abstractmethod
    def _metric_db(self, z: Tensor) -> Tensor:
        """∂_c ∂_ē g_{ab̄} as [..., c, e, a, b]."""

    def jet(self, z: Tensor, order: int) -> HermitianJet:
        """g and k at z [..., d], and derivatives of g up to ``order``."""
        g, k = self._parts(z)
        d = self._metric_d(z) if order > 0 else None
        return HermitianJet(g, d, self._metric_db(z) if order > 1 else None, k)

    def _derivatives(self, z: Tensor, order: int) -> dict[str, Tensor]:
        """g, and with order 1 g_d, and with order 2 g_db as well."""
        tensors = {"g": self._hermitian(z), "g_d": self._metric_d(z)}
        if order > 1:
            tensors["g_db"] = self._metric_db(z)
        return tensors
