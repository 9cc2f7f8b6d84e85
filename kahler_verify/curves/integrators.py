"""Integrators of the geodesic equation, a batch at once."""

from __future__ import annotations

from functools import cache
from typing import NamedTuple

import torch
from torch import Tensor

from kahler_verify.curves.report import Status
from kahler_verify.geometry.riemannian import RiemannianMetric

SHORTEST_STEP = 1e-9  # of the whole time, below which a geodesic counts as out of the domain
MOST_ROUNDS = 100  # in which stages are to be found
GAUSS = 3**0.5 / 6


class Run(NamedTuple):
    """Where geodesics are at t = 1.

    Attributes:
        end: (z, v), [B, 2d].
        status: :class:`Status`, [B]: MINIMUM says that they arrived.
        evaluations: of the metric with its first derivatives, [B].
        steps: the sizes of the steps that were taken, [B, S]; 0 where there are no more.
    """

    end: Tensor
    status: Tensor
    evaluations: Tensor
    steps: Tensor


@cache
def _tableau() -> tuple[Tensor, Tensor, Tensor]:
    """Stages of DOP853, the last row its result, and the two error estimates."""
    from scipy.integrate import DOP853

    stages = torch.from_numpy(DOP853.A[: DOP853.n_stages, : DOP853.n_stages].copy())
    result = torch.from_numpy(DOP853.B.copy())
    errors = torch.stack([torch.from_numpy(e.copy()) for e in (DOP853.E5, DOP853.E3)])
    return stages, result, errors


def _slope(metric: RiemannianMetric, y: Tensor) -> Tensor:
    z, v = y.chunk(2, -1)
    return torch.cat([v, metric.geodesic_acceleration(z, v)], -1)


def _step(
    metric: RiemannianMetric, y: Tensor, first: Tensor, h: Tensor
) -> tuple[Tensor, list[Tensor]]:
    """One step of DOP853 of sizes h [B, 1], and the slopes at its stages."""
    stages, result, _ = (x.to(y) for x in _tableau())
    slopes = [first]
    for row in stages[1:]:
        mixed = sum(a * s for a, s in zip(row, slopes, strict=False) if a != 0)
        slopes.append(_slope(metric, y + h * mixed))
    return y + h * sum(b * s for b, s in zip(result, slopes, strict=True) if b != 0), slopes


def _projected(metric: RiemannianMetric, y: Tensor, speed: Tensor) -> Tensor:
    """The same with velocities of a given length."""
    z, v = y.chunk(2, -1)
    size = metric.norm(v, z)
    factor = torch.where(speed > 0, speed / torch.where(size > 0, size, 1), 1)
    return torch.cat([z, factor[:, None] * v], -1)


def adaptive(
    metric: RiemannianMetric, start: Tensor, tolerance: float, most_steps: int, *, projected: bool
) -> Run:
    """Dormand and Prince's method of order 8 from (z, v) [B, 2d], with a step for each."""
    errors, d = _tableau()[2].to(start), start.shape[-1] // 2
    end = start.clone()
    status = torch.full((len(start),), int(Status.NOT_CONVERGED), device=start.device)
    evaluations = torch.ones_like(status)
    active = torch.arange(len(start), device=start.device)
    y, k, t = start, _slope(metric, start), start.new_zeros(len(start))
    speed = metric.norm(start[:, d:], start[:, :d]) if projected else t
    step = torch.full_like(t, 0.1)
    taken: list[Tensor] = []
    for _ in range(most_steps):
        if len(active) == 0:
            break
        h = torch.minimum(step, 1 - t)[:, None]
        new, slopes = _step(metric, y, k, h)
        if projected:
            new = _projected(metric, new, speed)
        slopes.append(_slope(metric, new))
        evaluations[active] += len(slopes) - 1 + projected
        error = _error(h[:, 0], torch.stack(slopes), errors, y, d, tolerance)
        good = error <= 1
        factor = (0.9 * error.clamp_min(1e-10) ** (-1 / 8)).clamp(0.2, 6)
        step = h[:, 0] * torch.where(good, factor, factor.clamp_max(1))
        t = torch.where(good, t + h[:, 0], t)
        y = torch.where(good[:, None], new, y)
        k = torch.where(good[:, None], slopes[-1], k)
        end[active] = y
        taken.append(torch.zeros_like(end[:, 0]).index_copy(0, active, h[:, 0] * good))
        arrived = t >= 1 - 1e-14
        left = ~arrived & (step < SHORTEST_STEP)
        status[active[arrived]] = Status.MINIMUM
        status[active[left]] = Status.LEFT_DOMAIN
        going = ~arrived & ~left
        active, y, k, t, step, speed = (x[going] for x in (active, y, k, t, step, speed))
    return Run(end, status, evaluations, _packed(taken, end))


def _packed(taken: list[Tensor], like: Tensor) -> Tensor:
    """Steps in their order, without those that were refused."""
    if not taken:
        return like.new_zeros(len(like), 0)
    steps = torch.stack(taken, 1)
    order = (steps == 0).int().argsort(dim=1, stable=True)
    most = int((steps != 0).sum(1).max()) if len(like) else 0
    return steps.gather(1, order)[:, :most]


def replayed(
    metric: RiemannianMetric, start: Tensor, run: Run, lost: Tensor, *, projected: bool
) -> Tensor:
    """The steps of a run again, recorded by autograd; those that are lost stay where they are."""
    d = start.shape[-1] // 2
    y = torch.where(lost[:, None], start.detach(), start)
    probe = metric.norm(y[:1, d:], y[:1, :d])
    if not (probe.requires_grad or start.requires_grad):
        return y.detach()
    speed = metric.norm(y[:, d:], y[:, :d])
    for h in torch.where(lost[:, None], 0, run.steps).unbind(1):
        new = _step(metric, y, _slope(metric, y), h[:, None])[0]
        if projected:
            new = torch.where(h[:, None] > 0, _projected(metric, new, speed), new)
        y = new
    return y


def symplectic(metric: RiemannianMetric, start: Tensor, steps: int) -> Run:
    """Gauss's method with two stages on ż = g⁻¹p, ṗ = ½ ∂g(ż, ż), with equal steps.

    Stages are found by iteration, from the slopes of the step before.
    """
    d, h = start.shape[-1] // 2, 1 / steps
    stages = start.new_tensor([[0.25, 0.25 - GAUSS], [0.25 + GAUSS, 0.25]])

    def slope(y: Tensor) -> Tensor:
        jet = metric.jet(y[..., :d].reshape(-1, d), 1)
        assert jet.d is not None
        p = y[..., d:].reshape(-1, d)
        factor = torch.linalg.cholesky_ex(jet.g)[0]
        v = torch.cholesky_solve(p[..., None], factor)[..., 0]
        force = torch.einsum("bcae,ba,be->bc", jet.d, v, v) / 2
        return torch.cat([v, force], -1).reshape(y.shape)

    z, v = start.chunk(2, -1)
    y = torch.cat([z, metric.metric_vector_product(v, z)], -1)
    status = torch.full((len(start),), int(Status.MINIMUM), device=start.device)
    evaluations = torch.ones_like(status)
    k = slope(y)[:, None].expand(-1, 2, -1)  # [B, 2, 2d]
    small = 4 * torch.finfo(start.dtype).eps
    for _ in range(steps):
        change = torch.full_like(y[:, 0], torch.inf)
        for _ in range(MOST_ROUNDS):
            new = slope(y[:, None] + h * torch.einsum("ij,bjx->bix", stages, k))
            evaluations += 2 * (status == Status.MINIMUM)
            change = (h * (new - k)).abs().amax((1, 2)) / y.abs().amax(1)
            k = new
            if bool(((change <= small) | change.isnan()).all()):
                break
        status[change > 64 * small] = int(Status.NOT_CONVERGED)
        y = y + h / 2 * k.sum(1)
        status[~y.isfinite().all(-1)] = int(Status.LEFT_DOMAIN)
    z, p = y.chunk(2, -1)
    factor = torch.linalg.cholesky_ex(metric.jet(z, 0).g)[0]
    v = torch.cholesky_solve(p[..., None], factor)[..., 0]
    return Run(torch.cat([z, v], -1), status, evaluations, y.new_full((len(y), steps), h))


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
