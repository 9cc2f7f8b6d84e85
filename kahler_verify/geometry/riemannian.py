"""Riemannian metrics on real latents, and their Levi-Civita geometry.

Signs: R_abce = ⟨R(∂_c, ∂_e)∂_b, ∂_a⟩, so that round spheres have R_abab > 0, positive sectional,
Ricci and scalar curvature.  The formulas are derived in derivations/geometry/real_geometry.py.
"""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Callable
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor

from kahler_verify.errors import InputError
from kahler_verify.geometry.base import (
    MEMORY_BUDGET,
    Metric,
    MetricJet,
    by_power_of_two,
    require_volume_in_backward,
    unit,
)
from kahler_verify.linear_algebra.cholesky import factored, log_det
from kahler_verify.linear_algebra.products import is_transformed
from kahler_verify.running.kernel_set import KernelSet
from kahler_verify.spaces import Space

if TYPE_CHECKING:
    from kahler_verify.curves import Curve
    from kahler_verify.geometry.operators import Method, MetricOperator


class RiemannianMetric(Metric):
    """A Riemannian metric g on R^d.

    A subclass has to give :meth:`jet`; ``RiemannianMetric.from_function`` makes one of a function
    z ↦ g(z).

    Args:
        dimension: d; None where any will do.
        validate_args: see :class:`Metric`.
        memory_budget: see :class:`Metric`.
    """

    _geometry = KernelSet("real_geometry")

    def __init__(
        self,
        dimension: int | None = None,
        *,
        validate_args: bool = True,
        memory_budget: int = MEMORY_BUDGET,
    ):
        space = Space(complex=False, dimension=dimension)
        super().__init__(space, validate_args=validate_args, memory_budget=memory_budget)

    @staticmethod
    def from_function(
        function: Callable[[Tensor], Tensor],
        *,
        check: bool = True,
        validate_args: bool = True,
        memory_budget: int = MEMORY_BUDGET,
    ) -> RiemannianMetric:
        """The metric of a function z [B, d] ↦ g [B, d, d], each point on its own.

        Its derivatives are forward-mode derivatives along the coordinates, nested for second ones.

        Args:
            function: differentiable twice; symmetric and positive definite values.
            check: compare the derivatives with reverse mode and with finite differences at the
                first point that is seen.
            validate_args: see :class:`Metric`.
            memory_budget: see :class:`Metric`.

        Raises:
            InputError: ``function`` is not callable; later, where its values have another shape or
                are not symmetric, or where its derivatives contradict each other.
        """
        from kahler_verify.geometry.given import GivenMetric

        return GivenMetric(
            function, check=check, validate_args=validate_args, memory_budget=memory_budget
        )

    # ------------------------------------------------------------- the metric itself
    def metric_matrix(self, z: Tensor) -> Tensor:
        """g_ab at z [..., d], as [..., d, d]."""
        z = self._point(z)
        return self._checked(z, self._by_chunks(lambda z: self.jet(z, 0).g, 0, z))

    def _on_grid(self, first: Tensor, second: Tensor) -> Tensor:
        """g [n m, 2, 2] at all pairs of coordinates [n] and [m], of two; for tables."""
        return self.metric_matrix(torch.cartesian_prod(first, second))

    def _inner(self, u: Tensor, v: Tensor, z: Tensor) -> Tensor:
        return (self._covector(u, z) * v).sum(-1)

    def _covector(self, u: Tensor, z: Tensor) -> Tensor:
        """G u for points and vectors [B, d]; a metric that needs no matrix for it overrides it."""
        return (self.jet(z, 0).g @ u.unsqueeze(-1)).squeeze(-1)

    def log_volume(self, z: Tensor) -> Tensor:
        """log √det g, [...]; -inf where g is degenerate to working precision.

        There is no gradient there: to ask for one raises :class:`InputError` in the backward pass,
        and with ``validate_args=False`` it is NaN (but 0 where a mask has made the cotangent 0).
        """
        z = self._point(z)

        def compute(z: Tensor) -> Tensor:
            g = self.jet(z, 0).g
            value, degenerate = log_det(g, if_degenerate=-torch.inf, terms=self._width())
            watched = self.validate_args and value.requires_grad and not is_transformed(value)
            if watched and degenerate is not None:
                require_volume_in_backward(value, degenerate)
            return value / 2

        return self._checked(z, self._by_chunks(compute, 0, z), allow_infinite=True)

    def log_volume_gradient(self, z: Tensor) -> Tensor:
        """∂_a log √det g = Γ^b_ab, as [..., d]."""
        return self._derived("log_volume_gradient", 1, z)

    def operator(self, z: Tensor, *, method: Method = "auto") -> MetricOperator:
        """g at one point [d] as a linear operator, for latents of thousands of dimensions.

        See :class:`kahler_verify.geometry.operators.MetricOperator`.
        """
        from kahler_verify.geometry.operators import MetricOperator

        return MetricOperator(self, z, method=method)

    # ------------------------------------------------------------- connection
    def christoffels(self, z: Tensor) -> Tensor:
        """Levi-Civita symbols Γ^e_ab as [..., e, a, b], the upper index first as in geomstats."""
        return self._derived("christoffel", 1, z)

    def geodesic_acceleration(self, z: Tensor, v: Tensor) -> Tensor:
        """-Γ^e_ab v^a v^b, [..., d]: of a geodesic through z with velocity v; Γ is not formed."""
        z = self._point(z)
        self._check_vectors(z, v=v)
        v, exponent = unit(v)
        out = self._derived("geodesic_acceleration", 1, z, v=v)
        return self._in_range(by_power_of_two(out, 2 * exponent.unsqueeze(-1)), "v")

    def transport_rate(self, z: Tensor, v: Tensor, w: Tensor) -> Tensor:
        """-Γ^e_ab v^a w^b, [..., d]: of a vector w that is carried in parallel along v."""
        return self._derived("transport_rate", 1, z, v=v, w=w)

    def brownian_drift(self, z: Tensor) -> Tensor:
        """-½ g^{ab} Γ^e_ab, [..., d]: of Brownian motion, whose generator is ½ Laplace-Beltrami."""
        return self._derived("brownian_drift", 1, z)

    # ------------------------------------------------------------- curvature
    def riemann_tensor(self, z: Tensor) -> Tensor:
        """R_abce = ⟨R(∂_c, ∂_e)∂_b, ∂_a⟩, all indices down, as [..., a, b, c, e].

        (geomstats' ``riemann_tensor`` has its upper index, our first, last.)
        """
        return self._derived("riemann", 2, z)

    def ricci_tensor(self, z: Tensor) -> Tensor:
        """Ric_be = g^{ac} R_abce, as [..., b, e]: (d - 1) g on the unit sphere."""
        return self._derived("ricci", 2, z)

    def scalar_curvature(self, z: Tensor) -> Tensor:
        """g^{be} Ric_be, [...]: d (d - 1) on the unit sphere."""
        return self._derived("scalar_curvature", 2, z)

    def sectional_curvature(self, z: Tensor, u: Tensor, v: Tensor) -> Tensor:
        """K of the plane that u and v [..., d] span, [...]: 1 on the unit sphere.

        Raises:
            InputError: d = 1, or (with ``validate_args``) u and v span no plane.
        """
        z = self._point(z)
        if z.shape[-1] < 2:
            raise InputError("z: sectional curvature needs d ≥ 2: a line has no planes")
        u, v = self._plane(u, v, z)
        return self._derived("sectional_curvature", 2, z, v=u, w=v)

    def _plane(self, u: Tensor, v: Tensor, z: Tensor) -> tuple[Tensor, Tensor]:
        """The same plane, spanned by u and what of v is orthogonal to u in coordinates."""
        self._check_vectors(z, u=u, v=v)
        u, v = unit(u)[0], unit(v)[0]
        u, v = (x / (x * x).sum(-1, keepdim=True).sqrt().clamp_min(0.25) for x in (u, v))
        apart = v - (u * v).sum(-1, keepdim=True) * u
        height = (apart * apart).sum(-1, keepdim=True).sqrt()
        flat = height < 16 * torch.finfo(z.dtype).eps
        if self.validate_args and not is_transformed(flat) and bool(flat.any()):
            raise InputError("u, v: expected vectors that span a plane, but they are parallel or 0")
        return u, apart / height

    def jacobi_acceleration(self, z: Tensor, v: Tensor, w: Tensor) -> Tensor:
        """-R(w, v)v, [..., d]: the covariant D²w/dt² of a Jacobi field w along velocity v."""
        return self._derived("jacobi_acceleration", 2, z, v=v, w=w)

    # ------------------------------------------------------------- curves
    def geodesic(self, a: Tensor, b: Tensor, **options: Any) -> Curve:
        """Geodesics from a to b [..., d]; see :func:`kahler_verify.curves.connect`."""
        from kahler_verify.curves import connect

        return connect(self, a, b, **options)

    def exp(self, z: Tensor, v: Tensor, **options: Any) -> Tensor:
        """exp_z(v), [..., d]; see :func:`kahler_verify.curves.shoot`."""
        from kahler_verify.curves import shoot

        return shoot(self, z, v, **options).point

    def log(self, z: Tensor, w: Tensor, **options: Any) -> Tensor:
        """The velocity v at z [..., d] of the geodesic to w found, exp_z(v) = w, as [..., d]."""
        from kahler_verify.curves import initial_velocity

        return initial_velocity(self.geodesic(z, w, **options))

    def distance(self, a: Tensor, b: Tensor, **options: Any) -> Tensor:
        """Lengths of geodesics from a to b, [...]; see :func:`kahler_verify.curves.distance`."""
        from kahler_verify.curves import distance

        return distance(self, a, b, **options)

    def distances(self, x: Tensor, y: Tensor | None = None, **options: Any) -> Tensor:
        """Distances of all pairs, [N, M]; see :func:`kahler_verify.curves.distances`."""
        from kahler_verify.curves import distances

        return distances(self, x, y, **options).lengths

    def transport(self, path: Curve, u: Tensor, **options: Any) -> Tensor:
        """u [..., d] carried along a path; see :func:`kahler_verify.curves.transport`."""
        from kahler_verify.curves import transport

        if path.metric is not self:
            raise InputError("path: expected a curve of this metric")
        return transport(path, u, **options).vector

    # ------------------------------------------------------------- evaluation
    @abstractmethod
    def jet(self, z: Tensor, order: int) -> MetricJet:
        """The metric at z [B, d], and its derivatives up to ``order`` (0, 1 or 2)."""

    def _kinks(self, z: Tensor) -> list[tuple[str, int]]:  # noqa: ARG002
        """What at z [B, d] is known to be C^k only, k < 2, roughest first; -1 stands for jumps."""
        return []

    def _require_smooth(self, z: Tensor) -> None:
        """Refuse z [B, d] where the metric is known to have no first derivatives."""

    def _by_chunks(
        self, compute: Callable[..., Tensor], order: int, z: Tensor, *vectors: Tensor
    ) -> Tensor:
        """Of points and vectors [b, d] in rows, as jets are.

        Each row has memory of its own: forward mode refuses points that were only expanded.
        """
        if z.ndim == 2 and not vectors:
            return super()._by_chunks(compute, order, z.contiguous())
        batch = torch.broadcast_shapes(*[x.shape[:-1] for x in (z, *vectors)])
        spread = [x.expand(*batch, x.shape[-1]) for x in (z, *vectors)]
        rows = [x.reshape(-1, x.shape[-1]).contiguous() for x in spread]
        out = super()._by_chunks(compute, order, *rows)
        return out.reshape((*batch, *out.shape[1:]))

    def _derived(self, kernel: str, order: int, z: Tensor, **vectors: Tensor) -> Tensor:
        """A kernel of real_geometry, of the metric's jet of that order."""
        z = self._point(z)
        self._check_vectors(z, **vectors)
        if self.validate_args and z.numel() and not is_transformed(z):
            self._require_smooth(z.reshape(-1, z.shape[-1]))

        def compute(z: Tensor, *some: Tensor) -> Tensor:
            return self._at(kernel, order, z, dict(zip(vectors, some, strict=True)))

        out = self._by_chunks(compute, order, z, *vectors.values())
        return self._checked(z, out, allow_infinite=False, **vectors)

    def _at(self, kernel: str, order: int, z: Tensor, vectors: dict[str, Tensor]) -> Tensor:
        jet = self.jet(z, order)
        tensors = {
            "g": jet.g,
            "g_d": jet.d,
            "g_dd": jet.dd,
            "g_factor": self._factor(jet.g, kernel),
        }
        return self._run(self._geometry, kernel, tensors, vectors)

    def _factor(self, g: Tensor, quantity: str) -> Tensor:
        """The Cholesky factor, NaN where g is not positive definite to working precision."""
        factor, degenerate = factored(g, terms=self._width())
        if self.validate_args:
            self._require_positive(g, degenerate, quantity)
        return torch.where(degenerate[..., None, None], torch.nan, factor)

    @staticmethod
    def _run(
        kernels: KernelSet, kernel: str, tensors: dict[str, Any], vectors: dict[str, Tensor]
    ) -> Tensor:
        given = {name: x for name, x in tensors.items() if x is not None}
        out: Tensor = kernels.call(kernel, given | vectors)
        return out


__all__ = ["RiemannianMetric"]
