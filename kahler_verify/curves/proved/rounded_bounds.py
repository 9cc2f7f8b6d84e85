"""Bounds of many distances at once, by intervals of float64; see ``bounds`` for the formula."""

from __future__ import annotations

from collections.abc import Sequence
from functools import cache
from math import comb

import torch
from flint import arb, arb_mat, ctx
from torch import Tensor, nn

from kahler_verify.curves.elements import Mesh, rule
from kahler_verify.curves.proved.enclosure import (
    ROUNDING,
    Enclosure,
    Jets,
    exactly,
    rounded,
    through,
)

POINTS_AT_ONCE = 2048  # whose jets stay in the processor's cache
BITS = 120


@cache
def _taylor(degree: int, inside: int) -> tuple[Enclosure, Enclosure]:
    """Coefficients of polynomials through a rule's nodes, about the middles of equal segments.

    Returns:
        [inside, p + 1, p + 1], of each power and node, in the element's own time; and values at
        the segments' first ends [inside, p + 1].
    """
    before, ctx.prec = ctx.prec, BITS
    try:
        at, n = [arb(x) for x in rule(degree).nodes.tolist()], degree + 1
        newton = arb_mat(n, n, [x**k for x in at for k in range(n)]).inv()
        middles, ends = [], []
        for k in range(inside):
            middle, start = arb(2 * k + 1) / (2 * inside), arb(k) / inside
            shift = [[comb(j, i) * middle ** (j - i) for j in range(i, n)] for i in range(n)]
            middles.append(
                [
                    [
                        sum((s * newton[i + j, m] for j, s in enumerate(shift[i])), arb(0))
                        for m in range(n)
                    ]
                    for i in range(n)
                ]
            )
            ends.append(
                [sum((start**j * newton[j, m] for j in range(n)), arb(0)) for m in range(n)]
            )
        return _enclosed(middles, (inside, n, n)), _enclosed(ends, (inside, n))
    finally:
        ctx.prec = before


def _enclosed(entries: Sequence, shape: tuple[int, ...]) -> Enclosure:
    flat = list(entries)
    while isinstance(flat[0], list):
        flat = [x for row in flat for x in row]
    centre = torch.tensor([float(x.mid()) for x in flat], dtype=torch.float64).reshape(shape)
    # the nearest float, and a ball that is far smaller than its ulp
    return rounded(centre, torch.zeros_like(centre), 4 * ROUNDING * centre.abs())


def _applied(matrix: Enclosure, nodes: Tensor) -> Enclosure:
    """[..., m, n] times exact [n, d]."""
    centre = matrix.centre @ nodes
    size = nodes.abs()
    error = 2 * (nodes.shape[-2] + 4) * ROUNDING * (matrix.centre.abs() @ size)
    return rounded(centre, matrix.radius @ size * (1 + 64 * ROUNDING), error)


def rounded_bounds(
    mesh: Mesh, nodes: Tensor, layers: Sequence[nn.Module], segments: int
) -> tuple[Tensor, Tensor]:
    """Lower and upper bounds [B] of curves [B, n, d] by the nodes of a mesh, for known layers."""
    size = max(1, POINTS_AT_ONCE // segments)
    found = [_piece(mesh, own.double(), layers, segments) for own in nodes.split(size)]
    if not found:
        return (nodes.new_empty(0, dtype=torch.float64),) * 2
    lower, upper = (torch.cat(parts) for parts in zip(*found, strict=True))
    return lower, upper


def _piece(
    mesh: Mesh, nodes: Tensor, layers: Sequence[nn.Module], segments: int
) -> tuple[Tensor, Tensor]:
    inside = segments // mesh.elements
    ends, jets = _segments(mesh, nodes, inside)
    bend = through(layers, jets).second[0].norm().ends()[1].flatten(1)  # [B, segments]
    x = through(layers, Jets(ends, (), ())).value
    back = Enclosure(-x.centre, x.radius)
    step = Enclosure(x.centre[:, 1:], x.radius[:, 1:]) + Enclosure(
        back.centre[:, :-1], back.radius[:, :-1]
    )
    span = Enclosure(x.centre[:, -1], x.radius[:, -1]) + Enclosure(
        back.centre[:, 0], back.radius[:, 0]
    )
    chord = step.norm().ends()[1]
    room = 1 + 4 * (segments + 16) * ROUNDING
    upper = (chord**2 + bend**2 / (12 * segments**4)).sqrt().sum(-1) * room
    lower = span.norm().ends()[0].clamp_min(0)
    unknown = nodes.isfinite().all(-1).all(-1)
    nothing = unknown & upper.isnan()  # where an activation is not known
    upper = torch.where(nothing, torch.inf, upper)
    return torch.where(nothing, 0, lower), upper


def _segments(mesh: Mesh, nodes: Tensor, inside: int) -> tuple[Enclosure, Jets]:
    """z [B, segments + 1, d] at ends, and (z, ż, z̈) [B, E, inside, d] over each segment."""
    middles, starts = _taylor(mesh.degree, inside)
    own = nodes[:, mesh.index][:, :, None]  # [B, E, 1, p + 1, d]
    powers = _applied(middles, own)  # [B, E, inside, p + 1, d]
    first = _applied(starts, own[:, :, 0]).centre.flatten(1, 2)
    radius = _applied(starts, own[:, :, 0]).radius.flatten(1, 2)
    ends = Enclosure(
        torch.cat([first, nodes[:, -1:]], 1),
        torch.cat([radius, torch.zeros_like(nodes[:, -1:])], 1),
    )
    reach, size = 1 / (2 * inside), powers.magnitude()
    parts = []
    for order in range(3):
        scale = float(mesh.elements**order)
        rate = [scale * comb(j, order) * (1, 1, 2)[order] for j in range(mesh.degree + 1)]
        beyond = torch.zeros_like(size[..., 0, :])
        for j in range(order + 1, mesh.degree + 1):
            beyond = beyond + rate[j] * reach ** (j - order) * size[..., j, :]
        if order > mesh.degree:
            parts.append(exactly(beyond))
            continue
        centre = rate[order] * powers.centre[..., order, :]
        radius = rate[order] * powers.radius[..., order, :] + beyond * (1 + 64 * ROUNDING)
        parts.append(rounded(centre, radius, 4 * ROUNDING * centre.abs()))
    return ends, Jets(parts[0], [parts[1]], [parts[2]])
