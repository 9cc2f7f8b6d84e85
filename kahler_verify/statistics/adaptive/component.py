"""One locally adaptive normal law fitted at a mean: its likelihood, gradient and information.

The mean log-likelihood at μ, with the precision that is best there, is the profile likelihood
ℓ(μ) = -½ tr(ΓS) - log C.  Its gradient is mean(HΓL) - E_p[HΓv], with H = Hess_μ ½ d².
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any, NamedTuple

import torch
from torch import Tensor

from kahler_verify.errors import CurveError, InputError
from kahler_verify.geometry.riemannian import RiemannianMetric
from kahler_verify.statistics.adaptive.fans import Fan, aimed, shot
from kahler_verify.statistics.adaptive.logs import Logs, logs
from kahler_verify.statistics.adaptive.precision import fit_precision
from kahler_verify.statistics.adaptive.together import Work, together
from kahler_verify.statistics.adaptive.whitening import evened

FAR = 8.0  # standard deviations that a fan reaches at least
ENOUGH = 6.5  # that one reaches whose precision has changed since
FINEST, COARSEST = 320, 24  # panels of a ray
PANEL = 0.6  # standard deviations of the least spread direction
UNSEEN = 1e-9  # of the weights, that points without a logarithm may have where nothing is said
GROWTHS = 8
EVEN = 1.1  # ratio of second moments where the fan is whitened, in three or more dimensions


@dataclass(frozen=True)
class Settings:
    """What fits of all components share.

    Attributes:
        rays: geodesics in a fan.
        periods: of the coordinates, 0 where there is none.
        tolerance: of geodesics and logarithms.
        seed: of directions in three or more dimensions.
        exact: whether every point is shot to; see :func:`logs`.
        unseen: of the weights, that points without a logarithm may have.
        fans: how many were made, in a list of one.
        evaluations: of the metric, alike.
    """

    rays: int = 128
    periods: Sequence[float] = ()
    tolerance: float = 1e-9
    seed: int = 0
    exact: bool = True
    unseen: float = UNSEEN
    fans: list[int] = field(default_factory=lambda: [0])
    evaluations: list[int] = field(default_factory=lambda: [0])


class Component(NamedTuple):
    """A law fitted at a mean to weighted points.

    Attributes:
        fan: from the mean.
        logs: of the points.
        precision: Γ [d, d] in the fan's frame.
        log_normaliser: log C.
        probabilities: of the fan's nodes.
        value: the mean log-likelihood, by the Riemannian volume.
    """

    fan: Fan
    logs: Logs
    precision: Tensor
    log_normaliser: Tensor
    probabilities: Tensor
    value: Tensor

    @property
    def proper(self) -> bool:
        """Whether Γ is positive definite; on a bounded domain it need not be, on the way."""
        return float(torch.linalg.eigvalsh(self.precision)[0]) > 0

    @property
    def covariance(self) -> Tensor:
        """Γ⁻¹; what the fan was whitened by, where Γ is not positive definite."""
        return torch.linalg.inv(self.precision) if self.proper else self.fan.root @ self.fan.root.mT

    @property
    def moments(self) -> Tensor:
        """E[vvᵀ] [d, d]: where it is whitened, the law's mass is spread evenly over directions."""
        second = (self.fan.v * self.probabilities[:, None]).mT @ self.fan.v
        return (second + second.mT) / 2

    @property
    def reach(self) -> float:
        """How far a fan should go, for as far as the law has mass."""
        return FAR * float(torch.linalg.eigvalsh(self.covariance)[-1]) ** 0.5

    def log_density(self) -> Tensor:
        """Of the points, by the Riemannian volume, [N]; -inf beyond the fan's reach."""
        exponent = -((self.logs.v @ self.precision) * self.logs.v).sum(-1) / 2
        return torch.where(self.logs.found, exponent - self.log_normaliser, -torch.inf)


def fewest_rays(d: int) -> int:
    """That a law in d dimensions takes: fewer do not span it."""
    return max(8, 2 * d)


def prepared_fan(
    metric: RiemannianMetric, mean: Tensor, covariance: Tensor, reach: float, settings: Settings
) -> Work[Fan]:
    """A fan that reaches ``FAR`` standard deviations, and ``reach`` at least."""
    sizes = torch.linalg.eigvalsh(covariance).sqrt()
    reach = max(reach, FAR * float(sizes[-1]))
    panels = int(min(max(reach / (PANEL * float(sizes[0])), COARSEST), FINEST)) + 1
    aim = aimed(
        metric, mean, covariance, reach, rays=settings.rays, panels=panels, seed=settings.seed
    )
    traced = yield aim
    made = shot(metric, aim, traced, periods=settings.periods, tolerance=settings.tolerance)
    settings.fans[0] += 1
    settings.evaluations[0] += made.evaluations
    return made


def fan_of_law(
    metric: RiemannianMetric, mean: Tensor, covariance: Tensor, settings: Settings
) -> Work[Fan]:
    """The fan for a law known by its covariance Γ⁻¹ in the orthonormal frame.

    In three or more dimensions rays are few for their sphere, and are spread anew as
    :func:`evened` says.
    """
    made = yield from prepared_fan(metric, mean, covariance, 0.0, settings)
    if len(mean) < 3:
        return made
    spread = evened(made, torch.linalg.inv(covariance))
    return (yield from prepared_fan(metric, mean, spread, made.reach, settings))


def component(
    metric: RiemannianMetric,
    x: Tensor,
    weights: Tensor,
    mean: Tensor,
    covariance: Tensor,
    settings: Settings,
    **options: Any,
) -> Component:
    """What :func:`fitting` comes to, alone."""
    work = fitting(metric, x, weights, mean, covariance, settings, **options)
    return together(metric, [work], tolerance=settings.tolerance)[0]


def fitting(
    metric: RiemannianMetric,
    x: Tensor,
    weights: Tensor,
    mean: Tensor,
    covariance: Tensor,
    settings: Settings,
    *,
    reach: float = 0.0,
    guess: Tensor | None = None,
    needed: Tensor | None = None,
    strict: bool = True,
) -> Work[Component]:
    """The law at a mean [d] that is best for points x [N, d] with weights [N].

    Args:
        metric: of the latent space.
        x: points.
        weights: none negative.
        mean: μ.
        covariance: about E[vvᵀ] of the law, in the orthonormal frame at μ.
        settings: see :class:`Settings`.
        reach: of the fan, at least.
        guess: first guesses of logarithms, in three or more dimensions.
        needed: which points are worth a search where the fan does not have them.
        strict: raise where the best Γ is not positive definite.

    Raises:
        InputError: no normal law at μ has these second moments.
        CurveError: a point that has weight has no logarithm.
    """
    whitened = False  # by the points' own second moments
    found: Logs | None = None
    for _ in range(GROWTHS):
        made = yield from prepared_fan(metric, mean, covariance, reach, settings)
        if found is None or made.patches is not None:
            found = logs(
                made,
                x,
                guess=guess,
                needed=needed,
                periods=settings.periods,
                tolerance=settings.tolerance,
                exact=settings.exact,
            )
            settings.evaluations[0] += found.evaluations
        fitted = refitted(Component(made, found, *[mean] * 4), weights, settings.unseen)
        least = float(torch.linalg.eigvalsh(fitted.precision)[0])
        if least > 0:
            if even(fitted) and (made.closed or ENOUGH * least**-0.5 <= made.reach):
                break
            covariance, reach = fitted.moments, fitted.reach
        elif whitened:  # and far enough: it is the directions that are too few, or there is no law
            break
        else:
            covariance, whitened = second_moments(fitted, weights), True
    if least <= 0 and not made.closed:
        raise InputError(
            f"rays: expected more than {settings.rays}, as no law with its mass on geodesics of so "
            f"many directions has the second moments {second_moments(fitted, weights).tolist()}"
        )
    if least <= 0 and strict:
        raise InputError(no_law(fitted, weights))
    return fitted


def even(fitted: Component) -> bool:
    """Whether the law's mass is spread evenly over the rays, as many dimensions need it."""
    root = fitted.fan.root
    if len(root) < 3:
        return True
    half = torch.linalg.solve_triangular(root, fitted.moments, upper=False)
    white = torch.linalg.solve_triangular(root, half.mT, upper=False)
    sizes = torch.linalg.eigvalsh((white + white.mT) / 2)
    return float(sizes[-1]) <= EVEN * float(sizes[0])


def refitted(old: Component, weights: Tensor, unseen: float = UNSEEN) -> Component:
    """The same geodesics with the precision that suits other weights [N].

    Raises:
        CurveError: a point that has weight has no logarithm.
        InputError: the logarithms do not span the tangent space.
    """
    found = old.logs.found
    weights = weights / weights.sum()
    lost = weights * ~found
    if float(lost.sum()) > unseen:
        which = (lost > unseen / len(weights)).nonzero().squeeze(-1).tolist()
        raise CurveError(
            f"no shortest geodesic was found from the mean {old.fan.mean.tolist()} to "
            f"{len(which)} of {len(weights)} points, the first of them {which[:8]}; the status of "
            "each is this error's report",
            old.logs.status,
        )
    moments = second_moments(old, weights)
    sizes = torch.linalg.eigvalsh(moments)
    if not float(sizes[0]) > 1e-14 * float(sizes[-1]):
        raise InputError(
            "x: expected points that span the tangent space at their mean, but their logarithms "
            f"have a second moment of {float(sizes[0]):.3g} in one direction and "
            f"{float(sizes[-1]):.3g} in another (too few points, or all on one geodesic?)"
        )
    precision, value, log_c, p = fit_precision(old.fan.v, old.fan.weights, moments)
    return old._replace(precision=precision, value=value, log_normaliser=log_c, probabilities=p)


def second_moments(fitted: Component, weights: Tensor) -> Tensor:
    """S = Σ w L Lᵀ [d, d] of the points that have a logarithm."""
    v = torch.where(fitted.logs.found[:, None], fitted.logs.v, 0)
    weights = weights / weights.sum()
    return (v * weights[:, None]).mT @ v


def gradient(fitted: Component, weights: Tensor) -> tuple[Tensor, Tensor]:
    """∇ℓ [d] of the profile likelihood and what information [d, d] about μ a fitted Γ leaves.

    Both are in the fan's frame.
    """
    found, made, precision = fitted.logs.found, fitted.fan, fitted.precision
    v = torch.where(found[:, None], fitted.logs.v, 0)
    bends = torch.where(found[:, None, None], fitted.logs.hessians, 0)
    weights = weights / weights.sum()
    data = torch.einsum("n,nij,nj->i", weights, bends, v @ precision)
    scores = torch.einsum("qij,qj->qi", made.hessians, made.v @ precision)
    p = fitted.probabilities
    mean = p @ scores
    rows, columns = torch.tril_indices(*precision.shape)
    features = made.v[:, rows] * made.v[:, columns]

    def covariance(a: Tensor, b: Tensor) -> Tensor:
        return (a * p[:, None]).mT @ b - torch.outer(p @ a, p @ b)

    shared = covariance(scores, features)
    own = covariance(features, features)
    own = own + 1e-12 * own.diagonal().sum() * torch.eye(len(own)).to(own)
    information = covariance(scores, scores) - shared @ torch.linalg.solve(own, shared.mT)
    return data - mean, (information + information.mT) / 2


def no_law(fitted: Component, weights: Tensor) -> str:
    """What to say where the best precision is not positive definite."""
    moments = second_moments(fitted, weights)
    uniform = fitted.fan.weights / fitted.fan.weights.sum()
    most = torch.einsum("q,qi,qi->", uniform, fitted.fan.v, fitted.fan.v)
    worst = torch.linalg.eigh(fitted.precision)[1][:, 0]
    along, limit = worst @ moments @ worst, uniform @ (fitted.fan.v @ worst) ** 2
    return (
        "x: no adaptive normal law exists: the points have a mean squared distance of "
        f"{float(moments.trace()):.6g} from the mean, {float(along):.6g} of it along one direction,"
        f" where the uniform law has {float(most):.10g} and {float(limit):.6g} ((π² - 4)/2 = "
        "2.934802… in all on the unit sphere), so that the likelihood has no maximum with a "
        "positive definite precision"
    )
