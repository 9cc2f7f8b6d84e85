"""Geodesics from a point with all their Jacobi fields, in frames that are carried in parallel.

In such a frame E the velocity E u keeps its components u, and the fields with W(0) = 0, W'(0) = 1
and C(0) = 1, C'(0) = 0 obey Y'' = -(Eᵀ R_v E) Y.  At time t, W/t is the derivative of the
exponential map at t u and H = t W⁻¹C the Hessian of ½ d² by the ray's origin: 1 along the ray.
"""

from __future__ import annotations

from functools import cache
from typing import NamedTuple

import torch
from torch import Tensor

from kahler_verify.curves.energy import POINTS_AT_ONCE, energy_of
from kahler_verify.geometry.riemannian import RiemannianMetric
from kahler_verify.running.kernel_set import KernelSet

SHORTEST_STEP = 1e-6  # of the whole time, below which a ray counts as out of the domain
ENDS = 10  # times the tolerance, to which the place is found where it leaves
MOST_STEPS = 2000  # between two times
RANKS = (1, 2, 2, 2, 2, 2)  # of a state's parts
_KERNELS = KernelSet("jacobi_fields")


class State(NamedTuple):
    """Of rays, [...]; or its derivative by time.

    Attributes:
        point: [..., d].
        frame: E [..., d, d], orthonormal columns.
        spread: W [..., d, d] in the frame.
        lean: C [..., d, d].
        spread_rate: W'.
        lean_rate: C'.
    """

    point: Tensor
    frame: Tensor
    spread: Tensor
    lean: Tensor
    spread_rate: Tensor
    lean_rate: Tensor

    @staticmethod
    def unpacked(y: Tensor, d: int) -> State:
        """Of rows [..., d + 5d²]."""
        blocks = y[..., d:].unflatten(-1, (5, d, d)).unbind(-3)
        return State(y[..., :d], *blocks)

    def packed(self) -> Tensor:
        """Rows [..., d + 5d²]."""
        return torch.cat([self.point, *[x.flatten(-2) for x in self[1:]]], -1)


class Rays(NamedTuple):
    """Geodesics [B] at times [T].

    Attributes:
        times: [B, T], the same for all, but for where a ray left the metric's domain in between.
        directions: u [B, d], components of the velocity in the frame.
        states: rows [B, T, d + 5d²], NaN where a ray did not come.
        rates: their derivatives by time.
        left: [B], whether the ray left the domain.
        evaluations: of the metric's second derivatives, [B].
    """

    times: Tensor
    directions: Tensor
    states: Tensor
    rates: Tensor
    left: Tensor
    evaluations: Tensor

    @property
    def state(self) -> State:
        """The states by their parts."""
        return State.unpacked(self.states, self.directions.shape[-1])

    def split(self, sizes: list[int], panels: list[int]) -> list[Rays]:
        """Groups of rays, each at as many panels' times as are its own."""
        columns = [part.split(sizes) for part in self]
        return [
            Rays(t[:, : n + 1], u, y[:, : n + 1], k[:, : n + 1], *rest)
            for n, (t, u, y, k, *rest) in zip(panels, zip(*columns, strict=True), strict=True)
        ]

    @property
    def rate(self) -> State:
        """Their derivatives."""
        return State.unpacked(self.rates, self.directions.shape[-1])


def orthonormal_frame(metric: RiemannianMetric, z: Tensor) -> Tensor:
    """E [..., d, d] with EᵀgE = 1 at z [..., d]: the inverse of the Cholesky factor, transposed."""
    factor = torch.linalg.cholesky_ex(energy_of(metric).metric.jet(z.reshape(-1, z.shape[-1]), 0).g)
    triangle = torch.where((factor.info == 0)[:, None, None], factor.L, torch.nan)
    one = torch.eye(z.shape[-1]).to(z).expand_as(triangle)
    frame = torch.linalg.solve_triangular(triangle.mT, one, upper=True)
    return frame.reshape(*z.shape, z.shape[-1])


def passed(spread: Tensor, before: Tensor | None = None) -> Tensor:
    """Whether rays with fields W [..., d, d] have a conjugate point behind them, [...].

    Of W relative to an earlier one of no such point (1 by default) an eigenvalue has then changed
    its sign; the determinant alone misses those that vanish two by two, as on a sphere.

    Args:
        spread: W.
        before: an earlier W.
    """
    if spread.shape[-1] <= 2:
        return torch.linalg.det(torch.nan_to_num(spread)) <= 0
    if before is not None:
        spread = torch.linalg.solve_ex(before, spread)[0]
    return (torch.linalg.eigvals(torch.nan_to_num(spread)).real <= 0).any(-1)


def trace(
    metric: RiemannianMetric,
    mean: Tensor,
    frame: Tensor,
    directions: Tensor,
    times: Tensor,
    *,
    tolerance: float = 1e-9,
    stop: bool = True,
) -> Rays:
    """Follow rays from points by Dormand and Prince's method of order 8, each with its own step.

    Args:
        metric: of the latent space.
        mean: where they begin, [d], or each of them, [B, d].
        frame: orthonormal there, [d, d] or [B, d, d].
        directions: [B, d], in the frame.
        times: [T] or [B, T], the first 0; NaN after a ray's last.
        tolerance: of the error in each step, relative to each part of the state.
        stop: go no farther than the first of these times beyond a conjugate point.
    """
    metric = energy_of(metric).metric
    count, d = directions.shape
    one, zero = torch.eye(d).to(mean), mean.new_zeros(d, d)
    begin = State(mean, frame, zero, one, one, zero)
    parts = [part.expand(count, *part.shape[-n:]) for part, n in zip(begin, RANKS, strict=True)]
    y, times = State(*parts).packed(), times.expand(count, -1)
    k = _rate(metric, y, directions)
    states = torch.full((*times.shape, y.shape[-1]), torch.nan).to(y)
    rates = states.clone()
    states[:, 0], rates[:, 0] = y, k
    own_times, left = times.clone(), torch.zeros(count, dtype=torch.bool)
    evaluations = torch.ones(count, dtype=torch.long)
    active, whole = torch.arange(count, device=mean.device), times.nan_to_num(0).amax(1)
    shortest = max(SHORTEST_STEP, ENDS * tolerance)
    t, step, n, tries = torch.zeros_like(whole), times[:, 1] / 2, *torch.ones(2, count).long()
    while len(active):
        since, until = times[active, n - 1], times[active, n]
        span, u = until - since, directions[active]
        y, k, step, t = _stepped(metric, u, y, k, step, t, until, tolerance)
        evaluations[active] += len(_tableau()[0])
        there = until - t <= 1e-12 * span
        least = shortest * torch.minimum(whole[active], span)
        lost = ~there & ((step <= least) | (tries >= MOST_STEPS))
        tries = tries + 1
        done = (there | lost).nonzero().squeeze(-1)
        if not len(done):
            continue
        row, column = active[done], n[done]
        states[row, column], rates[row, column] = y[done], k[done]
        own_times[row, column] = torch.where(there, until, t)[done]
        left[row] = lost[done]
        if stop:
            before = torch.where(
                (column > 1)[:, None, None], _spread(states[row, column - 1], d), one
            )
            lost[done] |= passed(_spread(y[done], d), before)
        n, tries, t = n + there, torch.where(there, 1, tries), torch.where(there, until, t)
        last = n == times.shape[1]
        going = ~lost & ~last & times[active, torch.where(last, 0, n)].isfinite()
        active, y, k, step, t, n, tries = (x[going] for x in (active, y, k, step, t, n, tries))
    return Rays(own_times, directions, states, rates, left, evaluations)


def _spread(y: Tensor, d: int) -> Tensor:
    return State.unpacked(y, d).spread


@cache
def _tableau() -> tuple[Tensor, Tensor, Tensor]:
    """Stages of DOP853, the last row its result, and the two error estimates."""
    from scipy.integrate import DOP853

    stages = torch.from_numpy(DOP853.A[: DOP853.n_stages, : DOP853.n_stages].copy())
    errors = torch.stack([torch.from_numpy(e.copy()) for e in (DOP853.E5, DOP853.E3)])
    return stages, torch.from_numpy(DOP853.B.copy()), errors


def _rate(metric: RiemannianMetric, y: Tensor, u: Tensor) -> Tensor:
    """The derivative by time of rows y with velocities u; NaN outside of the metric's domain."""
    pieces = zip(y.split(POINTS_AT_ONCE), u.split(POINTS_AT_ONCE), strict=True)
    return torch.cat([_rate_of_few(metric, *piece) for piece in pieces])


def _rate_of_few(metric: RiemannianMetric, y: Tensor, u: Tensor) -> Tensor:
    z, frame, spread, lean, spread_rate, lean_rate = State.unpacked(y, u.shape[-1])
    v = (frame @ u.unsqueeze(-1)).squeeze(-1)
    jet = metric.jet(z, 2)
    factor, info = torch.linalg.cholesky_ex(jet.g)
    assert jet.d is not None
    assert jet.dd is not None
    tensors = {"g_d": jet.d, "g_dd": jet.dd, "g_factor": factor, "v": v}
    turning = _KERNELS.call("turning", tensors)
    tide = frame.mT @ _KERNELS.call("tidal_form", tensors) @ frame
    out = State(v, -turning @ frame, spread_rate, lean_rate, -tide @ spread, -tide @ lean).packed()
    return torch.where((info == 0)[:, None], out, torch.nan)


def _stepped(
    metric: RiemannianMetric,
    u: Tensor,
    y: Tensor,
    k: Tensor,
    step: Tensor,
    t: Tensor,
    until: Tensor,
    tolerance: float,
) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """Rows y with slopes k at times t [b], tried a step farther, none beyond ``until`` [b].

    With the next steps and the new times; where a step's error was too large, nothing has moved.
    """
    stages, result, errors = (x.to(y) for x in _tableau())
    rest = until - t
    h = torch.where(step >= rest * (1 - 1e-9), rest, torch.minimum(step, rest / 2))[:, None]
    slopes = [k]
    for row in stages[1:]:
        mixed = sum(a * s for a, s in zip(row, slopes, strict=False) if a != 0)
        slopes.append(_rate(metric, y + h * mixed, u))
    new = y + h * sum(b * s for b, s in zip(result, slopes, strict=True) if b != 0)
    slopes.append(_rate(metric, new, u))
    error = _error(h[:, 0], torch.stack(slopes), errors, y, u.shape[-1], tolerance)
    good = error <= 1
    factor = (0.9 * error.clamp_min(1e-10) ** (-1 / 8)).clamp(0.2, 6)
    proposed = h[:, 0] * torch.where(good, factor, factor.clamp_max(1))
    # a step that the end cut short says nothing against the longer one before
    step = torch.where(good & (h[:, 0] < step), torch.maximum(step, proposed), proposed)
    moved, at = good[:, None], torch.where(good, t + h[:, 0], t)
    return torch.where(moved, new, y), torch.where(moved, slopes[-1], k), step, at


def _error(
    h: Tensor, slopes: Tensor, errors: Tensor, y: Tensor, d: int, tolerance: float
) -> Tensor:
    """The step's error over the tolerance, [B]; infinite where it is NaN."""
    parts = State.unpacked(y, d)
    frame = parts.frame.abs().amax((-2, -1))
    fields = torch.stack([x.abs().amax((-2, -1)) for x in parts[2:]]).amax(0).clamp_min(1)
    sizes = (torch.maximum(parts.point.abs().amax(-1), frame), frame, *[fields] * 4)
    counts = (d, *[d * d] * 5)
    scale = torch.cat([s[:, None].expand(-1, n) for s, n in zip(sizes, counts, strict=True)], -1)
    fifth, third = torch.einsum("es,sby->eby", errors, slopes) / (tolerance * scale)
    squares, others = (fifth**2).sum(-1), (third**2).sum(-1)
    below = ((squares + 0.01 * others) * y.shape[-1]).sqrt()
    error = torch.where(below == 0, 0, h * squares / torch.where(below == 0, 1, below))
    return torch.nan_to_num(error, nan=torch.inf, posinf=torch.inf)
