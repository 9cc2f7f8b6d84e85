"""Locally adaptive normal laws and their mixtures, as torch distributions.

p(x) = Σ_k π_k exp(-½ LᵀΓ_kL)/C_k with L = Log_{μ_k} x, by the Riemannian volume; ``log_prob`` is by
the chart's Lebesgue measure, ½ log det M(x) more, as a Gaussian mixture's is.  L is the shortest
logarithm and C the integral over the injectivity domain: one convention, at the cut locus too.

Source: Arvanitidis, Hansen, Hauberg, arXiv 1606.02518, whose normaliser lacks det D exp.
"""

from __future__ import annotations

import copy
from collections.abc import Sequence
from dataclasses import replace
from typing import Any, ClassVar, NamedTuple

import torch
from torch import Tensor
from torch.distributions import Distribution, constraints

from kahler_verify.errors import CurveError, InputError
from kahler_verify.geometry.riemannian import RiemannianMetric
from kahler_verify.statistics.adaptive.component import Settings, fan_of_law, fewest_rays
from kahler_verify.statistics.adaptive.draws import draw
from kahler_verify.statistics.adaptive.fans import End, Fan
from kahler_verify.statistics.adaptive.logs import logs
from kahler_verify.statistics.adaptive.precision import log_normaliser
from kahler_verify.statistics.adaptive.together import together


class CutReport(NamedTuple):
    """What the domain's end does to a law, each [K].

    Attributes:
        conjugate: share of rays that end at a conjugate point.
        cut: share of rays that end at the cut locus before.
        left: share of rays that leave the metric's domain.
        edge: the largest density at a cut or conjugate point, over that at the mean.
        jump: the largest |log ratio| of the densities on two sides of the cut.
    """

    conjugate: Tensor
    cut: Tensor
    left: Tensor
    edge: Tensor
    jump: Tensor


class AdaptiveLaw(Distribution):
    """A mixture of locally adaptive normal laws.

    Args:
        metric: of the latent space.
        means: μ [K, d].
        covariances: Γ⁻¹ [K, d, d], of tangent vectors in the chart's coordinates at each mean.
        weights: π [K]; equal by default.
        rays: geodesics in the fan of each component.
        periods: of the coordinates, 0 where there is none.
        tolerance: of geodesics and logarithms.
        seed: of directions, in three or more dimensions.
        exact: whether a geodesic is shot to every point; see :func:`logs`.
        validate_args: as in torch.
        raise_on_failure: with False, the density is NaN at points that no geodesic was found to.

    Raises:
        InputError: parameters are malformed.
    """

    arg_constraints: ClassVar[dict[str, Any]] = {}
    has_rsample = False

    def __init__(
        self,
        metric: RiemannianMetric,
        means: Tensor,
        covariances: Tensor,
        weights: Tensor | None = None,
        *,
        rays: int = 128,
        periods: Sequence[float] = (),
        tolerance: float = 1e-9,
        seed: int = 0,
        exact: bool = True,
        validate_args: bool | None = None,
        raise_on_failure: bool = True,
    ):
        metric.space.check("means", means)
        if means.ndim != 2 or not len(means) or means.dtype != torch.float64:
            raise InputError(
                f"means: expected float64 [K, d] with K ≥ 1, got {means.dtype} {list(means.shape)}"
            )
        count, d = means.shape
        if weights is None:
            weights = means.new_full((count,), 1 / count)
        if weights.shape != (count,) or not bool((weights >= 0).all() & (weights.sum() > 0)):
            raise InputError(f"weights: expected [{count}], none negative and not all 0")
        if covariances.shape != (count, d, d) or covariances.dtype != means.dtype:
            raise InputError(
                f"covariances: expected float64 [{count}, {d}, {d}], got {covariances.dtype} "
                f"{list(covariances.shape)}"
            )
        if bool((torch.linalg.cholesky_ex(covariances)[1] != 0).any()):
            raise InputError("covariances: expected positive definite matrices")
        if rays < fewest_rays(d):
            raise InputError(f"rays: expected at least {fewest_rays(d)}, got {rays}")
        self.metric, self.means, self.covariances = metric, means, covariances
        self.weights = weights / weights.sum()
        self.periods, self.raise_on_failure = tuple(periods), raise_on_failure
        self.settings = Settings(rays, self.periods, tolerance, seed, exact)
        self._fans: list[Fan] = []
        self._search = True
        super().__init__(torch.Size(), torch.Size([d]), validate_args=validate_args)

    @property
    def support(self) -> constraints.Constraint:
        """The chart."""
        return constraints.independent(constraints.real, 1)

    @property
    def fans(self) -> list[Fan]:
        """Of the components, made when they are first needed."""
        if not self._fans:
            with torch.no_grad():
                frames = torch.linalg.cholesky(self.metric.metric_matrix(self.means)).mT
                white = frames @ self.covariances @ frames.mT
                white = (white + white.mT) / 2
                works = [
                    fan_of_law(self.metric, mean, own, self.settings)
                    for mean, own in zip(self.means, white, strict=True)
                ]
                self._fans = together(self.metric, works, tolerance=self.settings.tolerance)
        return self._fans

    @property
    def precisions(self) -> Tensor:
        """Γ [K, d, d] in the fans' orthonormal frames."""
        frames = torch.stack([fan.frame for fan in self.fans])
        return frames.mT @ torch.linalg.inv(self.covariances) @ frames

    @property
    def log_normalisers(self) -> Tensor:
        """log C [K]."""
        pairs = zip(self.fans, self.precisions, strict=True)
        return torch.stack([log_normaliser(f.v, f.weights, p)[0] for f, p in pairs])

    def quick(self) -> AdaptiveLaw:
        """The same law, by the same fans, for pictures: nothing is shot or searched for.

        Logarithms are those that fans interpolate (d = 2), and the density is 0 where fans do not
        reach: below exp(-32)/C.
        """
        _ = self.fans  # made once
        other = copy.copy(self)
        other.settings = replace(self.settings, exact=False)
        other._search = False
        return other

    def log_components(self, value: Tensor) -> Tensor:
        """log π_k p_k by the Riemannian volume at points [..., d], as [..., K].

        -inf where a component's fan does not reach and another's does: below exp(-32)/C there.

        Raises:
            InputError: points are malformed or not finite.
            CurveError: a point has no geodesic from any mean, and ``raise_on_failure``.
        """
        value = self.metric.space.check("value", value)
        d = self.event_shape[0]
        if value.shape[-1] != d or value.dtype != self.means.dtype:
            raise InputError(
                f"value: expected {self.means.dtype} [..., {d}], got {value.dtype} "
                f"{list(value.shape)}"
            )
        if not bool(value.isfinite().all()):
            raise InputError("value: expected finite points, got NaN or infinities")
        x = value.detach().reshape(-1, d)
        options: dict[str, Any] = {
            "periods": self.periods,
            "tolerance": self.settings.tolerance,
            "exact": self.settings.exact,
        }
        with torch.no_grad():
            none = torch.zeros(len(x), dtype=torch.bool)
            first = (len(self.fans) > 1 or not self._search) and d == 2
            found = [logs(fan, x, needed=none if first else None, **options) for fan in self.fans]
            missing = ~torch.stack([each.found for each in found]).any(0)
            if first and self._search and bool(missing.any()):
                found = [logs(fan, x, needed=missing, **options) for fan in self.fans]
            reached = torch.stack([each.found for each in found], -1)
            exponents = torch.stack(
                [
                    -((each.v @ precision) * each.v).sum(-1) / 2
                    for each, precision in zip(found, self.precisions, strict=True)
                ],
                -1,
            )
        out = torch.where(reached, exponents - self.log_normalisers, -torch.inf)
        lost = ~reached.any(-1)
        if bool(lost.any()) and self._search:
            if self.raise_on_failure:
                raise CurveError(
                    f"no geodesic was found to {int(lost.sum())} of {len(x)} points, the first of "
                    f"them {lost.nonzero().squeeze(-1).tolist()[:8]}; the status of each by each "
                    "component is this error's report; with raise_on_failure=False they are NaN",
                    torch.stack([each.status for each in found], -1),
                )
            out[lost] = torch.nan
        return (out + self.weights.log()).reshape(*value.shape[:-1], len(self.fans))

    def log_prob_riemannian(self, value: Tensor) -> Tensor:
        """The log density by the Riemannian volume at points [..., d], [...]."""
        return torch.logsumexp(self.log_components(value), -1)

    def log_prob(self, value: Tensor) -> Tensor:
        """The log density by the chart's Lebesgue measure at points [..., d], [...]."""
        return self.log_prob_riemannian(value) + self.metric.log_volume(value.detach())

    def sample(self, sample_shape: Any = (), *, generator: torch.Generator | None = None) -> Tensor:
        """Points [*sample_shape, d], each on a geodesic of its own."""
        shape = torch.Size(sample_shape)
        if generator is None:
            generator = torch.Generator().manual_seed(int(torch.randint(2**62, ())))
        count = shape.numel()
        with torch.no_grad():
            which = (
                torch.multinomial(self.weights, count, replacement=True, generator=generator)
                if count
                else torch.zeros(0, dtype=torch.long)
            )
            out = self.means.new_empty(count, self.event_shape[0])
            for k, (fan, precision) in enumerate(zip(self.fans, self.precisions, strict=True)):
                rows = (which == k).nonzero().squeeze(-1)
                if len(rows):
                    out[rows] = draw(fan, precision, len(rows), generator)
        return out.reshape(*shape, *self.event_shape)

    def rsample(self, sample_shape: Any = ()) -> Tensor:
        """Refused.

        Raises:
            NotImplementedError: always; draws are accepted or not, which has no derivative.
        """
        raise NotImplementedError(
            "AdaptiveLaw.rsample: draws are made by rejection, since the law is no smooth map of "
            "a fixed one (its domain ends at the cut locus), so they have no derivatives; use "
            "sample() with a score-function estimator"
        )

    def cut(self) -> CutReport:
        """What the end of the injectivity domain does to each component."""
        rows = []
        for fan, precision in zip(self.fans, self.precisions, strict=True):
            shares = [(fan.reasons == end).double().mean() for end in End][1:]
            u = fan.rays.directions * fan.ends[:, None]
            here = ((u @ precision) * u).sum(-1) / 2
            there = ((fan.opposite @ precision) * fan.opposite).sum(-1) / 2
            stopped = (fan.reasons == End.CONJUGATE) | (fan.reasons == End.CUT)
            edge = torch.where(stopped, (-here).exp(), 0).max()
            rows.append([*shares, edge, (here - there).abs().nan_to_num(0).max()])
        return CutReport(*torch.tensor(rows, dtype=torch.float64).unbind(-1))
