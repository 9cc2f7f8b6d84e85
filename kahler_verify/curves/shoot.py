"""The exponential map: geodesics by their initial velocity."""

from __future__ import annotations

from typing import Literal, NamedTuple

import torch
from torch import Tensor

from kahler_verify.curves.curve import Curve
from kahler_verify.curves.energy import energy_of
from kahler_verify.curves.integrators import adaptive, replayed, symplectic
from kahler_verify.curves.report import Status
from kahler_verify.errors import CurveError, InputError
from kahler_verify.geometry.riemannian import RiemannianMetric

DRIFT = 1e4  # times the tolerance, that the speed may change by


class Shot(NamedTuple):
    """Where geodesics arrive at t = 1; NaN where they do not.

    Attributes:
        point: [..., d].
        velocity: [..., d].
        status: :class:`Status`, [...]: MINIMUM says no more than that the integration succeeded.
        speed_change: (last - first speed)/first speed, [...].
        evaluations: of the acceleration, [...].
    """

    point: Tensor
    velocity: Tensor
    status: Tensor
    speed_change: Tensor
    evaluations: Tensor


def shoot(
    metric: RiemannianMetric,
    z: Tensor,
    v: Tensor,
    *,
    tolerance: float = 1e-10,
    most_steps: int = 10_000,
    integrator: Literal["adaptive", "projected", "symplectic"] = "adaptive",
    steps: int = 64,
    raise_on_failure: bool = True,
) -> Shot:
    """exp_z(v): follow the geodesic from z with velocity v, [..., d] each, to t = 1.

    Point and velocity have first derivatives by z, v and the metric's parameters: the steps are
    taken again, with their sizes as they were.

    Args:
        metric: of the latent space.
        z: where it begins.
        v: its velocity there.
        tolerance: of the error in each step, relative to the velocity (and for the point, to
            whichever of point and velocity is larger).
        most_steps: for each geodesic.
        integrator: "adaptive", Dormand and Prince's method of order 8 with a step for each
            geodesic; "projected", the same with the velocity brought back to its length after each
            step; "symplectic", Gauss's method of order 4 on position and momentum, for long runs:
            its errors of conserved quantities do not grow.
        steps: of equal size, of "symplectic", whose result is as exact as they make it.
        raise_on_failure: with False, NaN where a geodesic did not arrive.

    Raises:
        InputError: z or v is malformed.
        CurveError: a geodesic left the domain, took too many steps, or did not keep its speed.

    Source: Hairer, Nørsett, Wanner, Solving Ordinary Differential Equations I, 1993, II.5; Hairer,
    Lubich, Wanner, Geometric Numerical Integration, 2006, IV.4 and VI.4.
    """
    if integrator not in ("adaptive", "projected", "symplectic"):
        raise InputError(
            f"integrator: expected adaptive, projected or symplectic, got {integrator!r}"
        )
    if not isinstance(steps, int) or steps < 1:
        raise InputError(f"steps: expected a positive number, got {steps!r}")
    if not 0 < tolerance < 1:
        raise InputError(f"tolerance: expected a number in (0, 1), got {tolerance!r}")
    z = metric.space.check("z", z)
    metric._check_vectors(z, v=v)
    z, v = torch.broadcast_tensors(z, v)
    batch, d = z.shape[:-1], z.shape[-1]
    quiet = energy_of(metric).metric
    start = torch.cat([z.reshape(-1, d), v.reshape(-1, d)], -1)
    with torch.no_grad():
        first = quiet.norm(v, z)
        metric._checked(z, first, v=v)
        tolerance = max(tolerance, 10 * torch.finfo(z.dtype).eps)
        if integrator == "symplectic":
            run = symplectic(quiet, start, steps)
        else:
            run = adaptive(quiet, start, tolerance, most_steps, projected=integrator == "projected")
        change = quiet.norm(run.end[:, d:], run.end[:, :d]).reshape(batch)
        change = change / torch.where(first == 0, 1, first) - (first != 0).to(z)
        status = run.status.reshape(batch)
        if integrator != "symplectic":
            astray = (status == Status.MINIMUM) & ~(change.abs() <= DRIFT * tolerance)
            status = torch.where(astray, int(Status.NOT_CONVERGED), status)
        lost = (status != Status.MINIMUM)[..., None]
    end = run.end
    if torch.is_grad_enabled() and integrator != "symplectic" and len(end):
        again = replayed(quiet, start, run, lost.reshape(-1), projected=integrator == "projected")
        if again.requires_grad:
            end = end + (again - again.detach())
    point, velocity = (torch.where(lost, torch.nan, x.reshape(z.shape)) for x in end.chunk(2, -1))
    evaluations = run.evaluations
    shot = Shot(point, velocity, status, change, evaluations.reshape(batch))
    if raise_on_failure and bool(lost.any()):
        left = int((status == Status.LEFT_DOMAIN).sum())
        raise CurveError(
            f"{int(lost.sum())} of {lost.numel()} geodesics did not arrive: {left} left the domain "
            "where the metric is finite and positive definite, the others took too many steps or "
            "changed their speed; with raise_on_failure=False they are NaN",
            shot,
        )
    return shot


def initial_velocity(curve: Curve) -> Tensor:
    """ż(0) from the momentum -∂E/∂z(0), which is more accurate than the polynomial's slope."""
    batch, (n, d) = curve.nodes.shape[:-2], curve.nodes.shape[-2:]
    energy = energy_of(curve.metric)
    nodes = curve.nodes.reshape(-1, n, d)
    momentum = -energy.expand(nodes, curve.mesh).gradient[:, 0, :d]
    factor = torch.linalg.cholesky_ex(energy.metric.jet(nodes[:, 0], 0).g)[0]
    return torch.cholesky_solve(momentum.unsqueeze(-1), factor).reshape(*batch, d)
