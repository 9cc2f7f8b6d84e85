"""Shortest logarithms of many points at one, from a fan, each proved by shooting it.

A fan's patches answer for all points at once; one Newton step on each point's own geodesic makes
the answer exact, where that is asked for.  Points that patches do not have are searched for by
:func:`kahler_verify.curves.connect`; those far beyond the fan are shot to from its rays, as they go
on, and no shorter way is looked for where the density is nothing.  What is not found is NaN and
says so: never a line.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import NamedTuple

import torch
from torch import Tensor

from kahler_verify.curves import Starts, Status, connect, initial_velocity
from kahler_verify.curves.energy import unchecked
from kahler_verify.statistics.adaptive.fans import Fan, interpolated, shifts
from kahler_verify.statistics.adaptive.rays import State, orthonormal_frame, passed, trace

NEWTON = 8  # steps
RIVAL = 1.001  # of the shortest length, up to which another logarithm is looked at too
AFAR = 10.0  # reaches that a straight line to a point is long, from which on none is searched for
ON_A_LINE = 32  # points
ROUGHLY = 1e-5  # tolerance there: of a density of exp(-1000) and less
GUESSES = 4  # rays that are tried
LONGEST = 0.5  # Newton step, over the geodesic's length


class Logs(NamedTuple):
    """Logarithms of points [N].

    Attributes:
        v: components in the fan's frame, [N, d]; NaN where there is none.
        hessians: Hess_μ ½ d²(μ, x), [N, d, d].
        status: :class:`Status` of each.
        searched: which were searched for by :func:`connect`, [N].
        evaluations: of the metric.
    """

    v: Tensor
    hessians: Tensor
    status: Tensor
    searched: Tensor
    evaluations: int

    @property
    def found(self) -> Tensor:
        """Which points have one, [N]."""
        return self.status == Status.MINIMUM


def logs(
    fan: Fan,
    x: Tensor,
    *,
    guess: Tensor | None = None,
    needed: Tensor | None = None,
    periods: Sequence[float] = (),
    tolerance: float = 1e-9,
    exact: bool = True,
) -> Logs:
    """Log_μ of points x [N, d], of the fan's μ.

    Args:
        fan: of geodesics from μ.
        x: points.
        guess: first guesses v [N, d] where the fan has no patches, NaN where there is none.
        needed: which points are worth a search where the fan does not have them; all by default.
        periods: of the coordinates, 0 where there is none.
        tolerance: of the logarithms.
        exact: shoot to every point; else patches are trusted, in the plane.
    """
    frames = orthonormal_frame(fan.metric, x)
    inside = frames.isfinite().all(-1).all(-1)
    v, goals, rivals = _from_patches(fan, x, frames, inside, periods)
    if fan.patches is None and guess is not None:
        v = guess
    if exact or fan.patches is None:
        v, hessians, evaluations = _polished(fan, v, goals, tolerance)
    else:
        hessians, evaluations, rivals = _between_rays(fan, v), 0, []
    for rows, other, ends in rivals:  # near the cut only exact lengths tell
        other, bends, more = _polished(fan, other, ends, tolerance)
        length = v[rows].norm(dim=-1).nan_to_num(nan=torch.inf)
        better = other.norm(dim=-1) < length
        v[rows[better]], hessians[rows[better]] = other[better], bends[better]
        evaluations += more
    status = torch.where(v.isfinite().all(-1), int(Status.MINIMUM), int(Status.NOT_CONVERGED))
    wanted = inside & (status != Status.MINIMUM)
    if needed is not None:
        wanted &= needed
    if bool(wanted.any()):
        far = wanted.clone()
        far[wanted] = _line(fan, x[wanted]) > AFAR * fan.reach
        if bool(far.any()):
            v[far], hessians[far], used = _shot_afar(fan, x[far], max(tolerance, ROUGHLY))
            lost = ~v[far].isfinite().all(-1)
            status[far] = torch.where(lost, int(Status.NOT_CONVERGED), int(Status.MINIMUM))
            evaluations += used
        wanted &= ~far
    if bool(wanted.any()):
        found, ends, how, used = _searched(fan, x[wanted], periods)
        found, bends, more = _polished(fan, found, ends, tolerance)
        lost = ~found.isfinite().all(-1) & (how == Status.MINIMUM)
        v[wanted], hessians[wanted] = found, bends
        status[wanted] = torch.where(lost, int(Status.NOT_CONVERGED), how)
        evaluations += used + more
    status = torch.where(inside, status, int(Status.LEFT_DOMAIN))
    return Logs(v, hessians, status, wanted, evaluations)


def _from_patches(
    fan: Fan, x: Tensor, frames: Tensor, inside: Tensor, periods: Sequence[float]
) -> tuple[Tensor, Tensor, list[tuple[Tensor, Tensor, Tensor]]]:
    """The shortest v [N, d] that patches know, and which translate of x it leads to.

    Then points that others are nearly as short for, by their numbers, with these.
    """
    v, goals = torch.full_like(x, torch.nan), x.clone()
    if fan.patches is None:
        return v, goals, []
    some = inside.nonzero().squeeze(-1)
    coframes = torch.linalg.inv(frames[some])
    rows, radii, others, ends = [], [], [], []
    for shift in shifts(periods, x):
        found = fan.patches.locate(x[some] + shift, coframes)
        rows.append(some[found.point])
        radii.append(found.radius)
        others.append(found.radius[:, None] * fan.direction(found.angle))
        ends.append(x[rows[-1]] + shift)
    row, radius, other, end = (torch.cat(parts) for parts in (rows, radii, others, ends))
    length = torch.full_like(x[:, 0], torch.inf).scatter_reduce(0, row, radius, "amin")
    best = radius == length[row]
    v[row[best]], goals[row[best]] = other[best], end[best]
    v[((x - fan.mean).abs() <= 1e-12 * fan.mean.abs()).all(-1)] = 0
    rival = (radius <= RIVAL * length[row]) & ((other - v[row]).norm(dim=-1) > 0.01 * radius)
    rivals = []
    while bool(rival.any()):  # one rival of each point at a time
        first = torch.full((len(x),), len(row)).scatter_reduce(
            0, row[rival], rival.nonzero().squeeze(-1), "amin"
        )
        chosen = first[first < len(row)]
        rivals.append((row[chosen], other[chosen], end[chosen]))
        rival[chosen] = False
    return v, goals, rivals


def _between_rays(fan: Fan, v: Tensor) -> Tensor:
    """Hess_μ ½ d² at v [N, 2], linear between the two neighbouring rays."""
    out = torch.full((len(v), 2, 2), torch.nan).to(v)
    some = v.isfinite().all(-1).nonzero().squeeze(-1)
    r = v[some].norm(dim=-1)
    count, times = fan.rays.times.shape
    place = fan.place(v[some])
    first = place.floor()
    step = fan.reach / (times - 1)
    panel = (r / step).floor().clamp(0, times - 2).long()
    sides = []
    for k in (0, 1):
        ray = (first.long() + k).remainder(count)
        spread, lean, _ = interpolated(fan.rays, ray, panel, r / step - panel)
        near = (r < 1e-9 * fan.reach)[:, None, None]
        one = torch.eye(2).to(v)
        ratio = torch.where(near, one, spread / r.clamp_min(1e-300)[:, None, None])
        sides.append(torch.linalg.solve(ratio, torch.where(near, one, lean)))
    out[some] = torch.lerp(sides[0], sides[1], (place - first)[:, None, None])
    return (out + out.mT) / 2


def _polished(
    fan: Fan, v: Tensor, goals: Tensor, tolerance: float, times: Tensor | None = None
) -> tuple[Tensor, Tensor, int]:
    """Newton's method from v: exact v, Hessians, and the number of evaluations.

    Geodesics pass ``times`` from 0 to 1, where steps have to grow.  NaN where it does not end, or
    has passed a conjugate point.
    """
    count, d = v.shape
    out = torch.full_like(v, torch.nan)
    hessians = torch.full((count, d, d), torch.nan).to(v)
    active, v = v.isfinite().all(-1).nonzero().squeeze(-1), v.clone()
    times = torch.tensor([0.0, 1.0]).to(v) if times is None else times
    one, evaluations = torch.eye(d).to(v), 0
    for _ in range(NEWTON):
        if not len(active):
            break
        u = v[active]
        rays = trace(fan.metric, fan.mean, fan.frame, u, times, tolerance=tolerance, stop=False)
        evaluations += int(rays.evaluations.sum())
        state = rays.state
        point, frame, spread, lean = (part[:, -1] for part in state[:4])
        here = ~rays.left & ~passed(spread)
        safe = here[:, None, None]
        gap = torch.linalg.solve(torch.where(safe, frame, one), (goals[active] - point)[..., None])
        spread = torch.where(safe, spread, one)
        step = torch.linalg.solve(spread, gap).squeeze(-1)
        length, far = u.norm(dim=-1), step.norm(dim=-1)
        # Newton's error after this step is of the order of its square over the length
        done = here & (far**2 <= tolerance * (length + tolerance) * length.clamp_max(1))
        done |= here & (far <= tolerance * length)
        limit = LONGEST * torch.maximum(length, fan.reach * 1e-2 * torch.ones_like(length))
        u = u + step * (limit / far.clamp_min(1e-300)).clamp_max(1)[:, None]
        hessian = torch.linalg.solve(spread, torch.where(safe, lean, one))
        out[active[done]] = u[done]
        hessians[active[done]] = ((hessian + hessian.mT) / 2)[done]
        v[active] = u
        active = active[here & ~done & u.isfinite().all(-1)]
    return out, hessians, evaluations


def _line(fan: Fan, x: Tensor) -> Tensor:
    """Lengths of straight lines from the mean to points [N, d]: no distance is longer."""
    way = x - fan.mean
    middles = (torch.arange(ON_A_LINE).to(x) + 0.5) / ON_A_LINE
    places = fan.mean + middles[:, None, None] * way
    return unchecked(fan.metric).norm(way.expand_as(places), places).mean(0)


def _shot_afar(fan: Fan, x: Tensor, tolerance: float) -> tuple[Tensor, Tensor, int]:
    """v and Hessians of points [N, d] far beyond the fan, by its rays going on, and evaluations.

    A search for a curve would have to resolve the near at the scale of the far.  The nodes of a ray
    are at distances that double; from where a step of Newton's method is shortest, in parts of the
    distance, it leads to a first guess; of several rays where one does not do.
    """
    longest = float(_line(fan, x).max())
    doublings = max(1, math.ceil(math.log2(longest / fan.reach)) + 1)
    times = fan.reach * torch.cat([torch.zeros(1), 2.0 ** torch.arange(doublings + 1)]).to(x)
    rays = trace(fan.metric, fan.mean, fan.frame, fan.rays.directions, times, tolerance=tolerance)
    state = State(*[part[:, 1:] for part in rays.state])
    known, r = rays.states[:, 1:].isfinite().all(-1), rays.times[:, 1:, None]
    one = torch.eye(x.shape[1]).to(x)
    back = torch.linalg.inv(torch.where(known[..., None, None], state.frame @ state.spread, one))
    v, evaluations = torch.full_like(x, torch.nan), int(rays.evaluations.sum())
    hessians = v[:, :, None] * one
    places = torch.cat([torch.zeros(1), 2.0 ** torch.arange(-24, 1, 4)]).to(x)
    guesses = torch.full((GUESSES, *x.shape), torch.nan).to(x)
    for n, goal in enumerate(x):
        step = r * (back @ (goal - state.point).unsqueeze(-1)).squeeze(-1)
        size = torch.where(known, step.norm(dim=-1) / r[..., 0], torch.inf)
        sizes, node = size.min(1)
        ray = sizes.argsort()[:GUESSES]
        at = (ray, node[ray])
        guesses[:, n] = r[at] * rays.directions[ray] + step[at]
    for guess in guesses:
        lost = ~v.isfinite().all(-1)
        if bool(lost.any()):
            found, bends, used = _polished(fan, guess[lost], x[lost], tolerance, places)
            v[lost], hessians[lost] = found, bends
            evaluations += used
    return v, hessians, evaluations


def _searched(fan: Fan, x: Tensor, periods: Sequence[float]) -> tuple[Tensor, Tensor, Tensor, int]:
    """v of geodesics that a search finds, where they end, how it went, and the evaluations."""
    curves = connect(
        fan.metric,
        fan.mean.expand_as(x),
        x,
        starts=Starts(periods=tuple(periods)),
        raise_on_failure=False,
    )
    report = curves.report
    assert report is not None
    velocity = initial_velocity(curves)
    v = torch.linalg.solve(fan.frame, velocity.mT).mT
    v = torch.where(report.converged[:, None], v, torch.nan)
    return v, curves.nodes[:, -1], report.status, int(report.evaluations.sum())
