"""A fan of geodesics from a point: nodes and weights for integrals over its injectivity domain.

∫ f(v) |det D exp(v)| dv over orthonormal components v, by rays whose directions are spread evenly
in a whitened frame, and Gauss' rule on each ray.  A ray ends at a conjugate point, in the plane
also where another ray is as short (the cut locus), or where it leaves the metric's domain.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from enum import IntEnum
from itertools import product
from typing import NamedTuple

import torch
from torch import Tensor

from kahler_verify.curves.elements import gauss
from kahler_verify.geometry.riemannian import RiemannianMetric
from kahler_verify.statistics.adaptive.directions import OFFSET, angles, spread, turned
from kahler_verify.statistics.adaptive.patches import Patches, solved
from kahler_verify.statistics.adaptive.rays import Rays, State, orthonormal_frame, passed, trace

IN_A_PANEL = 4  # Gauss' points
BISECTIONS = 50
CUT_STEPS = 10


class End(IntEnum):
    """Why a ray ends."""

    REACH = 0
    CONJUGATE = 1
    CUT = 2
    LEFT_DOMAIN = 3


@dataclass(frozen=True)
class Fan:
    """Geodesics from a point, with what integrals need.

    Attributes:
        metric: of the latent space.
        mean: their origin μ, [d].
        frame: orthonormal at μ, [d, d]; v are components in it.
        root: A [d, d]; directions are those of A a for a spread evenly.
        rays: B of them.
        reach: how far they were followed.
        ends: how far each is shortest, [B].
        reasons: an :class:`End` of each, [B].
        opposite: where a ray ends at the cut, the v of the other ray that is as short, [B, d]; else
            NaN.
        v: nodes [Q, d].
        weights: of the nodes, |det D exp(v)| dv among them, [Q].
        hessians: Hess_μ ½ d²(μ, exp v), [Q, d, d].
        patches: in the plane.
        periods: of the coordinates.
        tolerance: of the rays.
        evaluations: of the metric.
    """

    metric: RiemannianMetric
    mean: Tensor
    frame: Tensor
    root: Tensor
    rays: Rays
    reach: float
    ends: Tensor
    reasons: Tensor
    opposite: Tensor
    v: Tensor
    weights: Tensor
    hessians: Tensor
    patches: Patches | None
    periods: tuple[float, ...]
    tolerance: float
    evaluations: int

    @property
    def closed(self) -> bool:
        """Whether no ray ends by the reach: the domain is all there is."""
        return bool((self.reasons != End.REACH).all())

    def direction(self, angle: Tensor) -> Tensor:
        """Unit vectors [M, 2] at angles in units of that between rays, as patches have them."""
        return turned(self.root, angles(angle, len(self.ends)))[0]

    def place(self, v: Tensor) -> Tensor:
        """Angles [M] of vectors v [M, 2], in those units."""
        white = torch.linalg.solve_triangular(self.root, v.mT, upper=False)
        return torch.atan2(white[1], white[0]) * len(self.ends) / (2 * math.pi) - OFFSET


def fan(
    metric: RiemannianMetric,
    mean: Tensor,
    covariance: Tensor,
    reach: float,
    *,
    rays: int = 128,
    panels: int = 48,
    periods: Sequence[float] = (),
    tolerance: float = 1e-9,
    seed: int = 0,
) -> Fan:
    """Shoot rays from ``mean`` [d], spread evenly where ``covariance`` [d, d] is whitened.

    Args:
        metric: of the latent space.
        mean: μ.
        covariance: in the orthonormal frame of :func:`orthonormal_frame`.
        reach: how far rays go.
        rays: how many; two on a line.
        panels: of Gauss' rule on each ray.
        periods: of the coordinates, 0 where there is none.
        tolerance: see :func:`trace`.
        seed: of directions, in three or more dimensions.
    """
    aim = aimed(metric, mean, covariance, reach, rays=rays, panels=panels, seed=seed)
    traced = trace(metric, mean, aim.frame, aim.directions, aim.times, tolerance=tolerance)
    return shot(metric, aim, traced, periods=periods, tolerance=tolerance)


class Aim(NamedTuple):
    """Where a fan's rays are to go.

    Attributes:
        mean: their origin μ, [d].
        frame: orthonormal at μ, [d, d].
        root: A [d, d]; directions are those of A a for a spread evenly.
        directions: unit vectors in the frame, [B, d].
        angular: solid angles of them, [B].
        times: [T].
    """

    mean: Tensor
    frame: Tensor
    root: Tensor
    directions: Tensor
    angular: Tensor
    times: Tensor


def aimed(
    metric: RiemannianMetric,
    mean: Tensor,
    covariance: Tensor,
    reach: float,
    *,
    rays: int,
    panels: int,
    seed: int,
) -> Aim:
    """The first half of :func:`fan`, before geodesics."""
    d, frame = len(mean), orthonormal_frame(metric, mean)
    root = torch.linalg.cholesky(covariance)
    unit = spread(d, rays, seed).to(mean)
    moved = unit @ root.mT
    size = moved.norm(dim=-1)
    sphere = 2 * math.pi ** (d / 2) / math.gamma(d / 2)
    angular = sphere / len(unit) * torch.linalg.det(root) / size**d
    times = torch.linspace(0, reach, panels + 1, dtype=mean.dtype, device=mean.device)
    return Aim(mean, frame, root, moved / size[:, None], angular, times)


def shot(
    metric: RiemannianMetric, aim: Aim, traced: Rays, *, periods: Sequence[float], tolerance: float
) -> Fan:
    """The second half of :func:`fan`, of the rays that were traced."""
    mean, frame, root, directions = aim[:4]
    count, d = directions.shape
    ends, reasons = domain(traced)
    patches, opposite = None, torch.full_like(directions, torch.nan)
    if d == 2:
        angle = angles(torch.arange(count).to(mean), count)
        white = torch.linalg.inv(frame @ root)
        patches = Patches(traced, turned(root, angle)[1] * 2 * math.pi / count, white)
        cut, across = _cut(traced, patches, ends, periods)
        found = cut < ends
        ends = torch.where(found, cut, ends)
        reasons = torch.where(found, int(End.CUT), reasons)
        other = turned(root, angles(across, count))[0]
        opposite = torch.where(found[:, None], cut[:, None] * other, torch.nan)
    v, weights, hessians = _nodes(traced, ends, aim.angular)
    return Fan(
        metric,
        mean,
        frame,
        root,
        traced,
        float(aim.times[-1]),
        ends,
        reasons,
        opposite,
        v,
        weights,
        hessians,
        patches,
        tuple(periods),
        tolerance,
        int(traced.evaluations.sum()),
    )


def domain(rays: Rays) -> tuple[Tensor, Tensor]:
    """How far rays [B] have no conjugate point, and why they end."""
    state = rays.state
    here = rays.states.isfinite().all(-1)
    last = here.sum(1) - 1  # the last time that each ray came to
    rows = torch.arange(len(last), device=last.device)
    end = rays.times[rows, last]
    first = torch.eye(state.spread.shape[-1]).to(end).expand_as(state.spread[:, 0])
    before = torch.where(
        (last > 1)[:, None, None], state.spread[rows, (last - 1).clamp_min(0)], first
    )
    conjugate = passed(state.spread[rows, last], before) & (last > 0)
    reasons = torch.where(rays.left, int(End.LEFT_DOMAIN), int(End.REACH))
    some = conjugate.nonzero().squeeze(-1)
    if len(some):
        panel = (last - 1)[some]
        low, high = torch.zeros_like(end[some]), torch.ones_like(end[some])
        for _ in range(BISECTIONS):
            middle = (low + high) / 2
            beyond = passed(interpolated(rays, some, panel, middle)[0], before[some])
            low, high = torch.where(beyond, low, middle), torch.where(beyond, middle, high)
        begin = rays.times[some, panel]
        end = end.clone()
        end[some] = begin + low * (rays.times[some, panel + 1] - begin)
        reasons = torch.where(conjugate, int(End.CONJUGATE), reasons)
    return end, reasons


def interpolated(
    rays: Rays, rows: Tensor, panels: Tensor, s: Tensor
) -> tuple[Tensor, Tensor, Tensor]:
    """W, C [M, d, d] and x [M, d] at parts s [M] of panels, by quintic Hermite polynomials."""
    step = (rays.times[rows, panels + 1] - rays.times[rows, panels])[:, None, None]
    basis = _quintic(s)
    d = rays.directions.shape[-1]
    ends = []
    for at in (panels, panels + 1):
        state = State.unpacked(rays.states[rows, at], d)
        rate = State.unpacked(rays.rates[rows, at], d)
        u = rays.directions[rows].unsqueeze(-1)
        jets = (
            (state.spread, state.spread_rate, rate.spread_rate),
            (state.lean, state.lean_rate, rate.lean_rate),
            (state.point.unsqueeze(-1), state.frame @ u, rate.frame @ u),
        )
        ends.append([torch.stack([x, step * y, step**2 * z]) for x, y, z in jets])
    out = []
    for first, last in zip(*ends, strict=True):
        both = torch.stack([first, last])  # [2, 3, M, ., .]
        out.append(torch.einsum("apm,apmij->mij", basis, both))
    return out[0], out[1], out[2].squeeze(-1)


def _quintic(s: Tensor) -> Tensor:
    """Polynomials [at 0 or 1, of value, slope or bend, M] at s."""

    def first(s: Tensor) -> list[Tensor]:
        rest = (1 - s) ** 3
        return [rest * (1 + 3 * s + 6 * s**2), rest * (s + 3 * s**2), rest * s**2 / 2]

    value, slope, bend = first(1 - s)
    return torch.stack([torch.stack(first(s)), torch.stack([value, -slope, bend])])


def _cut(
    rays: Rays, patches: Patches, ends: Tensor, periods: Sequence[float]
) -> tuple[Tensor, Tensor]:
    """Where rays in the plane stop being shortest (infinity: nowhere), and which ray is as short.

    A node that another ray reaches sooner lies beyond the cut; the cut itself is where
    x(r, α') = x(r, α).
    """
    state = rays.state
    count, times = rays.times.shape
    radius = rays.times
    usable = (
        state.point.isfinite().all(-1) & state.frame.isfinite().all(-1).all(-1) & (radius > 0)
    ) & (radius <= ends[:, None])
    row, column = usable.nonzero().unbind(-1)
    points, coframes = state.point[row, column], torch.linalg.inv(state.frame[row, column])
    own = radius[row, column]
    beyond = torch.full((count,), times, dtype=torch.long)  # the first node beyond the cut
    other = torch.full((count,), torch.nan).to(radius)
    move = torch.zeros(count, 2).to(radius)
    for shift in shifts(periods, points):
        found = patches.locate(points - shift, coframes)
        apart = (found.angle - row[found.point]).remainder(count)
        apart = torch.minimum(apart, count - apart)
        away = (apart > 1.5) | (shift != 0).any()
        sooner = away & (found.radius < own[found.point] * (1 - 1e-9))
        node, angle = found.point[sooner], found.angle[sooner]
        for j, k, alpha in zip(
            row[node].tolist(), column[node].tolist(), angle.tolist(), strict=True
        ):
            if k < beyond[j]:
                beyond[j], other[j], move[j] = k, alpha, shift
    cut = torch.full_like(ends, torch.inf)
    some = (beyond < times).nonzero().squeeze(-1)
    if not len(some):
        return cut, other
    r, alpha = radius[some, beyond[some]], other[some]
    highest, lowest = r, r - 1.5 * patches.step
    for _ in range(CUT_STEPS):
        here, along, _ = patches.at(r, some.to(r))
        there, other_along, across = patches.at(r, alpha)
        longer, turned = solved(other_along - along, across, here - there - move[some])
        r = torch.minimum(torch.maximum(r + longer, lowest), highest)
        alpha = alpha + turned.clamp(-1, 1)
    here, along, _ = patches.at(r, some.to(r))
    there, _, across = patches.at(r, alpha)
    missed = (here - there - move[some]).norm(dim=-1)
    met = missed < 1e-3 * patches.step * along.norm(dim=-1)
    cut[some] = torch.where(met, r, highest - patches.step / 2)
    other = other.clone()
    other[some] = alpha
    return cut, other


def shifts(periods: Sequence[float], like: Tensor) -> list[Tensor]:
    """Translations [d] by periods, to the neighbours and none."""
    if not any(periods):
        return [torch.zeros(like.shape[-1]).to(like)]
    turns = product(*[(0, 1, -1) if period else (0,) for period in periods])
    size = torch.tensor(periods, dtype=like.dtype, device=like.device)
    return [torch.tensor(turn).to(like) * size for turn in turns]


def _nodes(rays: Rays, ends: Tensor, angular: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """v, weights and Hessians at Gauss' points of all panels that rays are shortest on."""
    length = torch.minimum(rays.times[:, 1:], ends[:, None]) - rays.times[:, :-1]
    here = rays.states[:, 1:].isfinite().all(-1)
    row, panel = ((length > 0) & here).nonzero().unbind(-1)
    whole = rays.times[row, panel + 1] - rays.times[row, panel]
    inside, weights = (x.to(ends) for x in gauss(IN_A_PANEL))
    part = (length[row, panel] / whole).clamp_max(1)[:, None]
    s = (part * inside).flatten()
    weights = (part * whole[:, None] * weights).flatten()
    row, panel = (x.repeat_interleave(IN_A_PANEL) for x in (row, panel))
    spread, lean, _ = interpolated(rays, row, panel, s)
    r = torch.lerp(rays.times[row, panel], rays.times[row, panel + 1], s)
    volume = torch.linalg.det(spread).clamp_min(0) / r
    scaled = spread / r[:, None, None]
    sound = volume > 0
    one = torch.eye(scaled.shape[-1]).to(scaled)
    hessians = torch.linalg.solve(torch.where(sound[:, None, None], scaled, one), lean)
    v = r[:, None] * rays.directions[row]
    weights = weights * volume * angular[row]
    return v[sound], weights[sound], ((hessians + hessians.mT) / 2)[sound]
