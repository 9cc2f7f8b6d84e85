"""The exponential map of a plane's point, interpolated between rays: values and its inverse.

Between two rays and two radii x(r, α) is the bicubic Hermite polynomial of what the rays carry:
x, ∂_r x = E u, ∂_α x = E W u_α and ∂_r ∂_α x.
"""

from __future__ import annotations

from typing import NamedTuple

import torch
from torch import Tensor

from kahler_verify.statistics.adaptive.rays import Rays

NEWTON = 12  # steps
UNIT = 0.3  # that the interpolated |∂_r x|_g may differ from 1 by, and that ∂_α x may lean
SLACK = 0.02  # of a patch, that a root may lie outside of it
AT_ONCE = 2**24  # pairs of points and patches whose boxes are compared


class Found(NamedTuple):
    """Pairs of points and patches with x(r, α) = the point.

    Attributes:
        point: which, [M].
        radius: r [M].
        angle: α [M], in units of the angle between rays.
    """

    point: Tensor
    radius: Tensor
    angle: Tensor


class Patches:
    """Of rays in cyclic order, at equal times.

    Args:
        rays: B of them, in two dimensions.
        turning: u_α [B, 2], derivative of their directions by α in units of the angle between rays.
        white: a linear map [2, 2] to where the rays spread evenly: boxes about patches are boxes
            there, or those of a narrow law would hold all points.
    """

    def __init__(self, rays: Rays, turning: Tensor, white: Tensor):
        self.white = white
        state, rate = rays.state, rays.rate
        self.step = rays.times[0, 1] - rays.times[0, 0]
        across = (state.spread @ turning[:, None, :, None]).squeeze(-1)
        across_rate = (state.spread_rate @ turning[:, None, :, None]).squeeze(-1)

        def moved(frame: Tensor, u: Tensor) -> Tensor:
            return (frame @ u.unsqueeze(-1)).squeeze(-1)

        along = moved(state.frame, rays.directions[:, None].expand_as(across))
        values = (
            state.point,
            self.step * along,
            moved(state.frame, across),
            self.step * (moved(rate.frame, across) + moved(state.frame, across_rate)),
        )
        nodes = torch.stack(values, 2)  # [B, T, 4, 2]
        regular = (rays.times[:, 1:] - rays.times[:, :-1] >= self.step * (1 - 1e-6)) & nodes[
            :, 1:
        ].isfinite().all(-1).all(-1)
        before = torch.linalg.det(torch.nan_to_num(state.spread[:, :-1])) > 0
        before[:, 0] = True
        usable = regular & before
        self.usable = usable & usable.roll(-1, 0)  # [B, T - 1]
        after = nodes.roll(-1, 0)
        # [B, T - 1, along, across, value or slope along, value or slope across, 2]
        corners = torch.stack(
            [
                torch.stack([nodes[:, :-1], after[:, :-1]], 2),
                torch.stack([nodes[:, 1:], after[:, 1:]], 2),
            ],
            2,
        )
        # of 4 = (x, ∂_r, ∂_α, ∂_r∂_α): slope along is the last axis
        self.corners = corners.unflatten(-2, (2, 2)).transpose(-2, -3)
        places = self.corners[..., 0, 0, :].flatten(2, 3) @ white.mT
        low, high = places.amin(2), places.amax(2)
        margin = 0.25 * (high - low)
        self.low, self.high = low - margin, high + margin

    def at(self, radius: Tensor, angle: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """x, ∂_r x, ∂_α x [M, 2] at polar coordinates [M], by the nearest patch."""
        count, most = self.usable.shape
        j = angle.floor()
        k = (radius / self.step).floor().clamp(0, most - 1)
        return self._evaluate(
            j.long().remainder(count), k.long(), radius / self.step - k, angle - j
        )

    def _evaluate(
        self, j: Tensor, k: Tensor, s: Tensor, t: Tensor
    ) -> tuple[Tensor, Tensor, Tensor]:
        corners = self.corners[j, k].flatten(1, 4)  # [M, 16, 2]
        (value, slope), (value_t, slope_t) = _basis(s), _basis(t)
        pairs = ((value, value_t), (slope / self.step, value_t), (value, slope_t))
        weights = [
            (along.mT[:, :, None, :, None] * across.mT[:, None, :, None, :]).flatten(1)
            for along, across in pairs
        ]
        x, x_r, x_t = (torch.stack(weights, 1) @ corners).unbind(1)
        return x, x_r, x_t

    def locate(self, points: Tensor, coframes: Tensor) -> Found:
        """All (r, α) at which the map has a value among ``points`` [N, 2].

        Gauss' lemma judges: where the interpolated ∂_r x is no unit vector or ∂_α x not orthogonal
        to it, as between rays on two sides of a chart's infinity, there is no interpolation.

        Args:
            points: x.
            coframes: inverses of orthonormal frames at them, [N, 2, 2].
        """
        boxes = self.usable.flatten()
        low, high = self.low.flatten(0, 1), self.high.flatten(0, 1)
        cells = boxes.nonzero().squeeze(-1)
        low, high = low[cells], high[cells]
        pairs = []
        for n, part in enumerate(
            (points @ self.white.mT).split(max(1, AT_ONCE // max(1, len(cells))))
        ):
            inside = (part[:, None, 0] >= low[:, 0]) & (part[:, None, 0] <= high[:, 0])
            inside &= (part[:, None, 1] >= low[:, 1]) & (part[:, None, 1] <= high[:, 1])
            found = inside.nonzero()
            found[:, 0] += n * max(1, AT_ONCE // max(1, len(cells)))
            pairs.append(found)
        which, cell = torch.cat(pairs).unbind(-1)
        cell = cells[cell]
        most = self.usable.shape[1]
        j, k = cell // most, cell % most
        s, t = (torch.full((len(which),), 0.5).to(points) for _ in range(2))
        goal = points[which]
        near = torch.zeros_like(which, dtype=torch.bool)
        going = torch.arange(len(which), device=which.device)
        for _ in range(NEWTON):
            was = s[going], t[going]
            x, x_r, x_t = self._evaluate(j[going], k[going], *was)
            ds, dt = solved(x_r * self.step, x_t, goal[going] - x)
            size = torch.maximum(ds.abs(), dt.abs())
            shrink = 1 / size.clamp_min(1)
            now = [(a + shrink * da).clamp(-0.5, 1.5) for a, da in zip(was, (ds, dt), strict=True)]
            s[going], t[going] = now
            there = size < 1e-6
            near[going] = there
            held = (now[0] == was[0]) & (now[1] == was[1])  # in a corner that it would leave
            going = going[~there & ~held]
        x, x_r, x_t = self._evaluate(j, k, s, t)
        along, across = ((coframes[which] @ v.unsqueeze(-1)).squeeze(-1) for v in (x_r, x_t))
        lean = (along * across).sum(-1).abs() / across.norm(dim=-1).clamp_min(1e-300)
        near &= ((along.norm(dim=-1) - 1).abs() < UNIT) & ((lean < UNIT) | (k + s < 1))
        inside = near & (s > -SLACK) & (s < 1 + SLACK) & (t > -SLACK) & (t < 1 + SLACK)
        which, j, k, s, t = (x[inside] for x in (which, j, k, s, t))
        return Found(which, ((k + s) * self.step).clamp_min(0), j + t)


def solved(a: Tensor, b: Tensor, c: Tensor) -> tuple[Tensor, Tensor]:
    """p, q [M] with p a + q b = c for vectors [M, 2]; 0 for NaN."""
    area = a[:, 0] * b[:, 1] - a[:, 1] * b[:, 0]
    tiny = 1e-12 * (a.norm(dim=-1) * b.norm(dim=-1)) + torch.finfo(a.dtype).tiny
    area = torch.where(area.abs() > tiny, area, tiny)
    p = (c[:, 0] * b[:, 1] - c[:, 1] * b[:, 0]) / area
    q = (a[:, 0] * c[:, 1] - a[:, 1] * c[:, 0]) / area
    return p.nan_to_num(0), q.nan_to_num(0)


def _basis(s: Tensor) -> tuple[Tensor, Tensor]:
    """Cubic Hermite polynomials at s [M] as [M, of values or slopes, at 0 or 1], and slopes."""
    one = torch.ones_like(s)
    values = [1 - 3 * s**2 + 2 * s**3, 3 * s**2 - 2 * s**3, s - 2 * s**2 + s**3, s**3 - s**2]
    slopes = [6 * s**2 - 6 * s, 6 * s - 6 * s**2, one - 4 * s + 3 * s**2, 3 * s**2 - 2 * s]
    at, along = (torch.stack(x, -1).unflatten(-1, (2, 2)) for x in (values, slopes))
    return at, along
