"""The exponential map: geodesics by their initial velocity."""

from __future__ import annotations

from functools import cache
from typing import NamedTuple

import torch
from torch import Tensor

from kahler_verify.curves.curve import Curve
from kahler_verify.curves.energy import energy_of
from kahler_verify.curves.report import Status
from kahler_verify.errors import CurveError, InputError
from kahler_verify.geometry.riemannian import RiemannianMetric

SHORTEST_STEP = 1e-9  # of the whole time, below which a geodesic counts as out of the domain
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
    raise_on_failure: bool = True,
) -> Shot:
    """exp_z(v): follow the geodesic from z with velocity v, [..., d] each, to t = 1.

    Dormand and Prince's method of order 8, with a step for each geodesic.

    Args:
        metric: of the latent space.
        z: where it begins.
        v: its velocity there.
        tolerance: of the error in each step, relative to the velocity (and for the point, to
            whichever of point and velocity is larger).
        most_steps: for each geodesic.
        raise_on_failure: with False, NaN where a geodesic did not arrive.

    Raises:
        InputError: z or v is malformed.
        CurveError: a geodesic left the domain, took too many steps, or did not keep its speed.

    Source: Hairer, Nørsett, Wanner, Solving Ordinary Differential Equations I, 1993, II.5.
    """
    if not 0 < tolerance < 1:
        raise InputError(f"tolerance: expected a number in (0, 1), got {tolerance!r}")
    z = metric.space.check("z", z)
    metric._check_vectors(z, v=v)
    z, v = torch.broadcast_tensors(z, v)
    batch, d = z.shape[:-1], z.shape[-1]
    quiet = energy_of(metric).metric
    with torch.no_grad():
        first = quiet.norm(v, z)
        metric._checked(z, first, v=v)
        start = torch.cat([z.reshape(-1, d), v.reshape(-1, d)], -1)
        tolerance = max(tolerance, 10 * torch.finfo(z.dtype).eps)
        end, status, evaluations = _integrate(quiet, start, tolerance, most_steps)
        point, velocity = end[:, :d].reshape(z.shape), end[:, d:].reshape(z.shape)
        change = quiet.norm(velocity, point) / torch.where(first == 0, 1, first) - (first != 0).to(
            z
        )
        status = status.reshape(batch)
        astray = (status == Status.MINIMUM) & ~(change.abs() <= DRIFT * tolerance)
        status = torch.where(astray, int(Status.NOT_CONVERGED), status)
        lost = (status != Status.MINIMUM)[..., None]
        point, velocity = (torch.where(lost, torch.nan, x) for x in (point, velocity))
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


@cache
def _tableau() -> tuple[Tensor, Tensor, Tensor]:
    """Stages of DOP853, the last row its result, and the two error estimates."""
    from scipy.integrate import DOP853

    stages = torch.from_numpy(DOP853.A[: DOP853.n_stages, : DOP853.n_stages].copy())
    result = torch.from_numpy(DOP853.B.copy())
    errors = torch.stack([torch.from_numpy(e.copy()) for e in (DOP853.E5, DOP853.E3)])
    return stages, result, errors


def _integrate(
    metric: RiemannianMetric, start: Tensor, tolerance: float, most_steps: int
) -> tuple[Tensor, Tensor, Tensor]:
    """(z, v) [B, 2d] at t = 1, status and evaluations."""
    stages, result, errors = (x.to(start) for x in _tableau())
    d = start.shape[-1] // 2

    def slope(y: Tensor) -> Tensor:
        return torch.cat([y[:, d:], metric.geodesic_acceleration(y[:, :d], y[:, d:])], -1)

    end = start.clone()
    status = torch.full((len(start),), int(Status.NOT_CONVERGED), device=start.device)
    evaluations = torch.ones_like(status)
    active = torch.arange(len(start), device=start.device)
    y, k, t = start, slope(start), start.new_zeros(len(start))
    step = torch.full_like(t, 0.1)
    for _ in range(most_steps):
        if len(active) == 0:
            break
        h = torch.minimum(step, 1 - t)[:, None]
        slopes = [k]
        for row in stages[1:]:
            mixed = sum(a * s for a, s in zip(row, slopes, strict=False) if a != 0)
            slopes.append(slope(y + h * mixed))
        new = y + h * sum(b * s for b, s in zip(result, slopes, strict=True) if b != 0)
        slopes.append(slope(new))
        evaluations[active] += len(slopes) - 1
        error = _error(h[:, 0], torch.stack(slopes), errors, y, d, tolerance)
        good = error <= 1
        factor = (0.9 * error.clamp_min(1e-10) ** (-1 / 8)).clamp(0.2, 6)
        step = h[:, 0] * torch.where(good, factor, factor.clamp_max(1))
        t = torch.where(good, t + h[:, 0], t)
        y = torch.where(good[:, None], new, y)
        k = torch.where(good[:, None], slopes[-1], k)
        end[active] = y
        arrived = t >= 1 - 1e-14
        left = ~arrived & (step < SHORTEST_STEP)
        status[active[arrived]] = Status.MINIMUM
        status[active[left]] = Status.LEFT_DOMAIN
        going = ~arrived & ~left
        active, y, k, t, step = (x[going] for x in (active, y, k, t, step))
    return end, status, evaluations


def _error(
    h: Tensor, slopes: Tensor, errors: Tensor, y: Tensor, d: int, tolerance: float
) -> Tensor:
    """The step's error over the tolerance, [B]; infinite where it is NaN."""
    size, velocity = (part.abs().amax(-1, keepdim=True) for part in (y[:, :d], y[:, d:]))
    tiny = torch.finfo(y.dtype).tiny
    scale = torch.cat([torch.maximum(size, velocity).expand(-1, d), velocity.expand(-1, d)], -1)
    fifth, third = torch.einsum("es,sby->eby", errors, slopes) / (tolerance * scale + tiny)
    squares, others = (fifth**2).sum(-1), (third**2).sum(-1)
    below = ((squares + 0.01 * others) * 2 * d).sqrt()
    error = torch.where(below == 0, 0, h * squares / torch.where(below == 0, 1, below))
    return torch.nan_to_num(error, nan=torch.inf)


def initial_velocity(curve: Curve) -> Tensor:
    """ż(0) from the momentum -∂E/∂z(0), which is more accurate than the polynomial's slope."""
    batch, (n, d) = curve.nodes.shape[:-2], curve.nodes.shape[-2:]
    energy = energy_of(curve.metric)
    nodes = curve.nodes.reshape(-1, n, d)
    momentum = -energy.expand(nodes, curve.mesh).gradient[:, 0, :d]
    factor = torch.linalg.cholesky_ex(energy.metric.jet(nodes[:, 0], 0).g)[0]
    return torch.cholesky_solve(momentum.unsqueeze(-1), factor).reshape(*batch, d)
