"""Parallel transport of vectors along curves."""

from __future__ import annotations

from typing import NamedTuple

import torch
from torch import Tensor

from kahler_verify.curves.curve import Curve
from kahler_verify.curves.energy import unchecked
from kahler_verify.errors import InputError


class Carried(NamedTuple):
    """A vector carried in parallel to the end of a curve.

    Attributes:
        vector: [..., d].
        error: estimated from steps of twice the size, in the metric's norm, relative, [...].
        norm_change: relative change of the vector's norm, which is 0 for exact transport, [...].
    """

    vector: Tensor
    error: Tensor
    norm_change: Tensor


def transport(curve: Curve, u: Tensor, *, steps: int = 8) -> Carried:
    """Carry u [..., d] from z(0) to z(1), in parallel: u̇^e = -Γ^e_ab ż^a u^b.

    The classical Runge-Kutta method of order 4.

    Args:
        curve: of the same batch as u, or of one that broadcasts with it.
        u: at the curve's beginning.
        steps: in each element of the curve; even.

    Raises:
        InputError: u is no vector of the curve's space, or steps is not a positive even number.
    """
    if not isinstance(steps, int) or steps < 2 or steps % 2:
        raise InputError(f"steps: expected a positive even number, got {steps!r}")
    start, end = curve.nodes[..., 0, :], curve.nodes[..., -1, :]
    u = curve.metric._vector("u", u, start)
    try:
        batch = torch.broadcast_shapes(u.shape, start.shape)
    except RuntimeError as error:
        raise InputError(
            f"u: expected a batch that broadcasts with the curve's {list(start.shape)}, "
            f"got {list(u.shape)}"
        ) from error
    metric = unchecked(curve.metric)
    rate = _rates(curve, steps)
    vector, coarse = (
        _carry(rate, u, curve.mesh.elements, 1),
        _carry(rate, u, curve.mesh.elements, 2),
    )
    before = metric.norm(u.expand(batch), start.expand(batch))
    after = metric.norm(vector, end.expand(batch))
    scale = torch.where(before == 0, 1, before)
    gap = metric.norm(vector - coarse, end.expand(batch)) / (15 * scale)
    return Carried(vector, gap, (after - before) / scale)


def _rates(curve: Curve, steps: int) -> Tensor:
    """Matrices A with u̇ = A u at the ends and middles of steps, [..., E, 2 steps + 1, d, d]."""
    inside = torch.arange(2 * steps + 1, dtype=torch.float64) / (2 * steps)
    z, v = (curve.mesh.local(curve.nodes, inside, order) for order in (0, 1))
    symbols = unchecked(curve.metric).christoffels(z)
    return -torch.einsum("...eab,...a->...eb", symbols, v)


def _carry(rate: Tensor, u: Tensor, elements: int, stride: int) -> Tensor:
    """Runge-Kutta steps, each over ``stride`` of those that the rates are for."""
    count = (rate.shape[-3] - 1) // (2 * stride)
    h = 1 / (elements * count)
    u = u.unsqueeze(-1)
    for element in range(elements):
        own = rate[..., element, ::stride, :, :]
        for k in range(count):
            first, middle, last = (own[..., 2 * k + n, :, :] for n in range(3))
            k1 = first @ u
            k2 = middle @ (u + h / 2 * k1)
            k3 = middle @ (u + h / 2 * k2)
            k4 = last @ (u + h * k3)
            u = u + h / 6 * (k1 + 2 * k2 + 2 * k3 + k4)
    return u.squeeze(-1)
