"""Parallel transport of vectors along curves."""

from __future__ import annotations

from typing import Literal, NamedTuple

import torch
from torch import Tensor

from kahler_verify.curves.curve import Curve
from kahler_verify.curves.energy import unchecked
from kahler_verify.errors import InputError
from kahler_verify.geometry.pulled_back import PulledBackMetric
from kahler_verify.jets import propagate


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


METHODS = ("equation", "reflection", "polar", "projection")


def transport(
    curve: Curve,
    u: Tensor,
    *,
    steps: int = 8,
    method: Literal["equation", "reflection", "polar", "projection"] = "equation",
) -> Carried:
    """Carry u [..., d] from z(0) to z(1), in parallel: u̇^e = -Γ^e_ab ż^a u^b.

    Args:
        curve: of the same batch as u, or of one that broadcasts with it.
        u: at the curve's beginning.
        steps: in each element of the curve; even.
        method: "equation" takes Runge-Kutta steps of order 4.  The others are for pull-backs, and
            carry J u through data space: "reflection" in the tangent space half way, of order 2;
            "polar", by the orthogonal factor of U_{i+1}ᵀU_i with U an orthonormal frame of the
            tangent space, of order 2; "projection" to the next tangent space, with the length
            restored, of order 1.

    Raises:
        InputError: u is no vector of the curve's space, steps is not a positive even number, or the
            metric has no data space.

    Source: "projection" is Shao, Kumar, Fletcher, arXiv 1711.08014, algorithm 2.
    """
    if not isinstance(steps, int) or steps < 2 or steps % 2:
        raise InputError(f"steps: expected a positive even number, got {steps!r}")
    if method not in METHODS:
        raise InputError(f"method: expected one of {', '.join(METHODS)}, got {method!r}")
    start, end = curve.nodes[..., 0, :], curve.nodes[..., -1, :]
    curve.metric.space.check("u", u)
    try:
        batch = torch.broadcast_shapes(u.shape, start.shape)
    except RuntimeError as error:
        raise InputError(
            f"u: expected a batch that broadcasts with the curve's {list(start.shape)}, "
            f"got {list(u.shape)}"
        ) from error
    metric = unchecked(curve.metric)
    if method == "equation":
        rate = _rates(curve, steps)
        vector, coarse = (_carry(rate, u, curve.mesh.elements, stride) for stride in (1, 2))
        order = 4
    elif isinstance(metric, PulledBackMetric):
        slopes = _slopes(metric, curve, steps)
        vector, coarse = (_through_data(slopes, u, stride, method) for stride in (1, 2))
        order = 1 if method == "projection" else 2
    else:
        raise InputError(
            f"method: {method!r} needs a metric that is pulled back from a data space, "
            f"got a {type(metric).__name__}"
        )
    before = metric.norm(u.expand(batch), start.expand(batch))
    after = metric.norm(vector, end.expand(batch))
    scale = torch.where(before == 0, 1, before)
    gap = metric.norm(vector - coarse, end.expand(batch)) / ((2**order - 1) * scale)
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


def _slopes(metric: PulledBackMetric, curve: Curve, steps: int) -> Tensor:
    """J [..., 2 E steps + 1, d, D] at the ends and middles of steps."""
    count = 2 * steps * curve.mesh.elements
    z = curve.mesh.evaluate(curve.nodes, torch.linspace(0, 1, count + 1, dtype=torch.float64))
    jet: Tensor = propagate(metric.embed, z.reshape(-1, z.shape[-1]), 1).d
    return jet.reshape(*z.shape, -1)


def _through_data(slopes: Tensor, u: Tensor, stride: int, method: str) -> Tensor:
    """Steps, each over ``stride`` of those that the Jacobians are for."""
    half = stride
    if method == "polar":
        return _by_frames(slopes[..., :: 2 * stride, :, :], u)
    x = _pushed(slopes[..., 0, :, :], u)
    size = x.norm(dim=-1, keepdim=True)
    for k in range(0, slopes.shape[-3] - 1, 2 * stride):
        if method == "reflection":
            x = 2 * _tangential(slopes[..., k + half, :, :], x) - x
        x = _tangential(slopes[..., k + 2 * stride, :, :], x)
        length = x.norm(dim=-1, keepdim=True)
        x = x * torch.where(length == 0, 1, size / length)
    return _coordinates(slopes[..., -1, :, :], x)


def _by_frames(slopes: Tensor, u: Tensor) -> Tensor:
    """Through orthonormal frames U = L⁻¹J of steps' ends, JJᵀ = LLᵀ: w = Lᵀu is kept but turned."""
    factors = torch.linalg.cholesky_ex(slopes @ slopes.mT)[0]
    frames = torch.linalg.solve_triangular(factors, slopes, upper=False)
    left, _, right = torch.linalg.svd(frames[..., 1:, :, :] @ frames[..., :-1, :, :].mT)
    turns = left @ right
    w = factors[..., 0, :, :].mT @ u.unsqueeze(-1)
    for k in range(turns.shape[-3]):
        w = turns[..., k, :, :] @ w
    last = factors[..., -1, :, :].mT
    return torch.linalg.solve_triangular(last, w, upper=True).squeeze(-1)


def _pushed(slope: Tensor, u: Tensor) -> Tensor:
    return (u.unsqueeze(-2) @ slope).squeeze(-2)


def _coordinates(slope: Tensor, x: Tensor) -> Tensor:
    """u with J u nearest to x."""
    factor = torch.linalg.cholesky_ex(slope @ slope.mT)[0]
    return torch.cholesky_solve(slope @ x.unsqueeze(-1), factor).squeeze(-1)


def _tangential(slope: Tensor, x: Tensor) -> Tensor:
    return _pushed(slope, _coordinates(slope, x))
