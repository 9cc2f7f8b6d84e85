"""Weighted means of points: minima of the sum of squared distances (Karcher, Fréchet)."""

from __future__ import annotations

from typing import NamedTuple

import torch
from torch import Tensor

from kahler_verify.curves.connect import Nearby, Solver, Starts, connect
from kahler_verify.curves.curve import Curve
from kahler_verify.curves.energy import unchecked
from kahler_verify.curves.shoot import initial_velocity
from kahler_verify.errors import CurveError, InputError
from kahler_verify.geometry.riemannian import RiemannianMetric

ARMIJO = 0.25  # of the predicted decrease that a step has to reach
HALVINGS = 20
LONGEST = 30.0  # step, over Σ w log x
UNSEEN = 1e-9  # of the variance, below which a decrease is lost to the curves' own tolerance


class Mean(NamedTuple):
    """A mean and how it was found.

    Attributes:
        point: [d].
        variance: Σ w d²(point, x), with weights that add up to one.
        gradient: |Σ w log x| at the point, over √variance; 0 at a mean.
        converged: whether that is below the tolerance, and every curve a minimum.
        iterations: steps.
        evaluations: points at which the metric was asked for, of all curves.
        curves: from the point to each x.
    """

    point: Tensor
    variance: Tensor
    gradient: Tensor
    converged: bool
    iterations: int
    evaluations: int
    curves: Curve


def mean(
    metric: RiemannianMetric,
    x: Tensor,
    weights: Tensor | None = None,
    *,
    start: Tensor | None = None,
    tolerance: float = 1e-7,
    most_iterations: int = 50,
    solver: Solver | None = None,
    starts: Starts | None = None,
    raise_on_failure: bool = True,
) -> Mean:
    """The Karcher mean of points x [N, d].

    Steps go along Σ w log x, as far as the last two gradients advise (Barzilai and Borwein), and
    are halved until the variance falls: the first whole one may increase it.  Curves after the
    first are searched from those before.  Point and variance have first derivatives by points,
    weights and the metric's parameters, implicitly: Σ w log x stays 0.

    Args:
        metric: of the latent space.
        x: points.
        weights: [N], not negative; equal by default.
        start: [d]; the weighted mean of coordinates by default.
        tolerance: of :class:`Mean`'s gradient.
        most_iterations: steps.
        solver: see :func:`connect`.
        starts: see :func:`connect`; of the first curves.
        raise_on_failure: with False, what was reached, and ``converged`` says so.

    Raises:
        InputError: points or weights are malformed.
        CurveError: no mean was found, and ``raise_on_failure``.

    Source: Karcher, Comm. Pure Appl. Math. 30, 1977; Afsari, Tron, Vidal, SIAM J. Control Optim.
    51, 2013, for the steps.
    """
    metric.space.check("x", x)
    if x.ndim != 2 or len(x) == 0:
        raise InputError(f"x: expected points [N, d] with N ≥ 1, got {list(x.shape)}")
    if weights is None:
        weights = x.new_ones(len(x))
    if not isinstance(weights, Tensor) or weights.shape != x.shape[:1] or weights.dtype != x.dtype:
        raise InputError(
            f"weights: expected [{len(x)}] of {x.dtype}, got "
            + (f"{weights.dtype} {list(weights.shape)}" if isinstance(weights, Tensor) else "none")
        )
    if not bool(((weights >= 0) & weights.isfinite()).all()) or not bool(weights.sum() > 0):
        raise InputError("weights: expected finite numbers, none negative and not all 0")
    if start is not None and (not isinstance(start, Tensor) or start.shape != x.shape[1:]):
        got = list(start.shape) if isinstance(start, Tensor) else type(start).__name__
        raise InputError(f"start: expected a point [{x.shape[1]}], got {got}")
    given = (x, weights / weights.sum())
    with torch.no_grad():
        x, weights = (tensor.detach() for tensor in given)
        point = weights @ x if start is None else start.detach()
        search = _Search(metric, x, weights, solver, starts)
        at = search.at(point, None)
        iterations = 0
        while iterations < most_iterations and bool(at.gradient > tolerance):
            iterations += 1
            there = search.improved(at)
            if there is None:
                break
            at = there
    done = bool(at.gradient <= tolerance)
    if raise_on_failure and not done:
        raise CurveError(
            f"the mean was not found in {iterations} steps: the gradient is "
            f"{at.gradient.item():.2g} of the spread, more than {tolerance:.2g} (points too far "
            "apart for a mean, or curves that were not found?)",
            at.curves.report,
        )
    point, variance = _attached(search, at, *given) if done else (at.point, at.variance)
    return Mean(point, variance, at.gradient, done, iterations, search.evaluations, at.curves)


def _attached(search: _Search, at: _At, x: Tensor, weights: Tensor) -> tuple[Tensor, Tensor]:
    """The mean and its variance, with first derivatives by points, weights and parameters.

    At G = Σ w log x = 0, dμ = -(∂G/∂μ)⁻¹ dG.
    """
    probe = unchecked(search.metric).metric_matrix(at.point[None])
    recorded = x.requires_grad or weights.requires_grad or probe.requires_grad
    if not (torch.is_grad_enabled() and recorded):
        return at.point, at.variance
    point, used = at.point.detach().requires_grad_(), weights > 0
    curves = search.connected(point, x, at.curves)
    step = (weights[:, None] * initial_velocity(curves))[used].sum(0)
    slopes = [torch.autograd.grad(one, point, retain_graph=True)[0] for one in step]
    moved = torch.linalg.solve(torch.stack(slopes), step - step.detach())
    variance = (weights * curves.length**2)[used].sum()
    return at.point - moved, at.variance + (variance - variance.detach())


def moved(before: Curve, a: Tensor, b: Tensor) -> Tensor:
    """Guesses [B, 129, d] of curves from a to b: those before, shifted linearly in time.

    A straight line for a curve that was not found.
    """
    times = torch.linspace(0, 1, 129, dtype=torch.float64)
    points, share = before(times), times.to(a)[:, None]
    points = points + (1 - share) * (a.unsqueeze(-2) - points[:, :1])
    points = points + share * (b.unsqueeze(-2) - points[:, -1:])
    line = a.unsqueeze(-2) + share * (b - a).unsqueeze(-2)
    known = points.isfinite().all(-1).all(-1)[:, None, None]
    return torch.where(known, points, line)


class _At(NamedTuple):
    point: Tensor
    curves: Curve
    variance: Tensor
    step: Tensor
    gradient: Tensor
    reach: float = 1.0  # of the step, to be tried first


class _Search:
    def __init__(
        self,
        metric: RiemannianMetric,
        x: Tensor,
        weights: Tensor,
        solver: Solver | None,
        starts: Starts | None,
    ):
        self.metric, self.x, self.weights = metric, x, weights
        self.solver, self.starts = solver, starts
        self.evaluations = 0

    def at(self, point: Tensor, before: Curve | None) -> _At:
        """Curves from a point to all x; those before, with their beginning moved, are guesses."""
        curves = self.connected(point, self.x, before)
        report = curves.report
        assert report is not None
        self.evaluations += int(report.evaluations.sum())
        used = self.weights > 0
        length = torch.where(report.converged, report.length, torch.inf)
        variance = (self.weights * length**2)[used].sum()
        step = (self.weights[:, None] * initial_velocity(curves))[used].sum(0)
        size = unchecked(self.metric).norm(step, point)
        gradient = torch.where(variance > 0, size / variance.sqrt(), 0 * size)
        return _At(point, curves, variance, step, torch.nan_to_num(gradient, nan=torch.inf))

    def connected(self, point: Tensor, x: Tensor, before: Curve | None) -> Curve:
        """The curves alone."""
        start = None if before is None else moved(before, point, x).detach()
        return connect(
            self.metric,
            point.expand_as(x),
            x,
            solver=self.solver or (None if start is None else Nearby()),
            start=start,
            starts=None if start is not None else self.starts,
            raise_on_failure=False,
        )

    def improved(self, at: _At) -> _At | None:
        """The next point, of lower variance; None where there is none along the step."""
        if not bool(at.step.isfinite().all()):
            return None
        slope = at.gradient**2 * at.variance
        for halving in range(HALVINGS):
            fraction = at.reach * 0.5**halving
            there = self.at(at.point + fraction * at.step, at.curves)
            enough = there.variance <= at.variance - ARMIJO * fraction * 2 * slope
            near = slope < UNSEEN * at.variance and there.gradient < at.gradient
            if bool(enough) or bool(near):
                moved, change = there.point - at.point, at.step - there.step
                bent = float(moved @ change)
                reach = float(moved @ moved) / bent if bent > 0 else 1.0
                return there._replace(reach=min(max(reach, 0.1), LONGEST))
        return None
