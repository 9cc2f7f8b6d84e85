"""Jacobi fields: how geodesics spread, and where they meet again."""

from __future__ import annotations

from typing import NamedTuple

import torch
from torch import Tensor

from kahler_verify.curves.curve import Curve
from kahler_verify.curves.energy import unchecked
from kahler_verify.errors import InputError


class JacobiFields(NamedTuple):
    """The d fields that are 0 at the beginning, of a geodesic [...].

    Attributes:
        times: [T], from 0 to 1.
        fields: [..., T, d, d]: column a begins with the covariant derivative e_a.  At time 1 this
            is the derivative of exp_z at ż(0).
        spread: [..., T]: the least |w|_g over t |w'(0)|_g, 1 in flat space, 0 at a conjugate point.
        conjugate: [...]: the first time at which it vanishes; infinite where there is none.
    """

    times: Tensor
    fields: Tensor
    spread: Tensor
    conjugate: Tensor


def jacobi_fields(curve: Curve, *, steps: int = 16) -> JacobiFields:
    """Fields w with D²w/dt² = -R(w, ż)ż and w(0) = 0, by Runge-Kutta steps of order 4.

    Args:
        curve: geodesics.
        steps: in each element of the curve.

    Raises:
        InputError: steps is not a positive number.

    Source: do Carmo, Riemannian Geometry, 1992, ch. 5.
    """
    if not isinstance(steps, int) or steps < 1:
        raise InputError(f"steps: expected a positive number, got {steps!r}")
    metric, mesh = unchecked(curve.metric), curve.mesh
    count, d = mesh.elements * steps, curve.nodes.shape[-1]
    inside = torch.arange(2 * steps + 1, dtype=torch.float64) / (2 * steps)
    z, v = (mesh.local(curve.nodes, inside, order) for order in (0, 1))  # [..., E, 2 steps + 1, d]
    unit = torch.eye(d).to(z).expand(*z.shape, d)
    place, speed = (x.unsqueeze(-2).expand(unit.shape) for x in (z, v))
    bend = metric.jacobi_acceleration(place, speed, unit).mT
    turn = metric.transport_rate(place, speed, unit).mT
    # of (w, Dw): ẇ = Dw - Γ(ż, w), and alike for Dw
    rate = torch.cat([torch.cat([turn, unit], -1), torch.cat([bend, turn], -1)], -2)
    state = torch.cat([torch.zeros_like(unit[..., 0, 0, :, :]), unit[..., 0, 0, :, :]], -2)
    h, found = 1 / count, [state[..., :d, :]]
    for element in range(mesh.elements):
        for k in range(steps):
            first, middle, last = (rate[..., element, 2 * k + n, :, :] for n in range(3))
            k1 = first @ state
            k2 = middle @ (state + h / 2 * k1)
            k3 = middle @ (state + h / 2 * k2)
            k4 = last @ (state + h * k3)
            state = state + h / 6 * (k1 + 2 * k2 + 2 * k3 + k4)
            found.append(state[..., :d, :])
    fields = torch.stack(found, -3)
    times = torch.arange(count + 1, dtype=z.dtype, device=z.device) * h
    factor = torch.linalg.cholesky_ex(
        metric.metric_matrix(mesh.evaluate(curve.nodes, times.cpu()))
    )[0]
    start = torch.linalg.inv(factor[..., :1, :, :].mT)
    size = torch.where(times > 0, times, 1)[:, None, None]
    spread = torch.linalg.svdvals(factor.mT @ (fields / size) @ start)[..., -1]
    spread = torch.where(times > 0, spread, 1)
    return JacobiFields(times, fields, spread, _first_zero(spread**2, times))


def _first_zero(squares: Tensor, times: Tensor) -> Tensor:
    """Where parabolas through three values of a smooth function ≥ 0 first touch 0, [...]."""
    before, here, after = squares[..., :-2], squares[..., 1:-1], squares[..., 2:]
    bend = before - 2 * here + after
    shift = (before - after) / (2 * torch.where(bend > 0, bend, 1))
    lowest = here - bend * shift**2 / 2
    touching = (bend > 0) & (shift.abs() <= 0.5) & (lowest <= 0.02 * bend)
    time = torch.where(touching, times[1:-1] + shift * (times[1] - times[0]), torch.inf)
    return time.amin(-1)
