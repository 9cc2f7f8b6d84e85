"""Bounds of distances: proved where every layer of a decoder is known, else called estimates.

An upper bound is the length of a curve that was found, bounded itself.  On a segment of duration
h, with |d²x/dt²| ≤ M for x = f(z(t)), the length is at most √(chord² + h⁴M²/12), as the variance of
dx/dt is at most h²M²/12.  Chords and M are balls of Arb, or intervals of float64 for many curves at
once; both hold all rounding.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Literal, NamedTuple

import torch
from flint import arb, arb_mat, ctx
from torch import Tensor, nn

from kahler_verify.curves.curve import Curve
from kahler_verify.curves.elements import rule
from kahler_verify.curves.proved.dual import dual_bound
from kahler_verify.curves.proved.enclosure import LINEAR, known_layers
from kahler_verify.curves.proved.rounded_bounds import rounded_bounds
from kahler_verify.errors import InputError
from kahler_verify.geometry.data_metrics import LocalVarianceMetric
from kahler_verify.geometry.pulled_back import PulledBackMetric

SEGMENTS = 512
BITS = 80  # of the balls' midpoints


class Bounds(NamedTuple):
    """Of the distance between the end points of curves, [...].

    Attributes:
        lower: the chord in data space for pull-backs, the least eigenvalue for LAND's metric, else
            0; NaN where the curve was not found.
        upper: of the length of the curve itself.
        proved: whether upper is proved, and not an estimate by quadrature; lower is proved where it
            is a chord of known layers, and otherwise right up to rounding.
        inside: in a plane, where it was asked for, a bound of all curves within ``box``: the
            larger of ``lower`` and :func:`dual_bound`'s, and proved as that is.
        box: its least and largest coordinates, [2, 2].
    """

    lower: Tensor
    upper: Tensor
    proved: bool
    inside: Tensor | None = None
    box: Tensor | None = None


class _Jets(NamedTuple):
    """Enclosures of x, dx/dt, d²x/dt² over segments: [outputs, segments] each."""

    value: arb_mat
    first: arb_mat
    second: arb_mat


def bounds(
    curve: Curve,
    *,
    segments: int = SEGMENTS,
    arithmetic: Literal["balls", "floats"] = "balls",
    cells: int = 0,
    box: Tensor | None = None,
) -> Bounds:
    """Lower and upper bounds of distances, by curves that were found.

    Args:
        curve: any.
        segments: that each curve is cut into; (upper - length)/length falls with their square.
        arithmetic: "balls" of Arb for one pair after the other, or intervals of "floats" for many
            at once: thirty times faster, and within 1e-8 of the balls' bounds.
        cells: along each axis of a grid in a latent plane, on which a potential bounds all curves
            of a box from below: 128 take some two seconds a pair for a few per cent; 0 for none.
        box: as :func:`dual_bound` takes it.

    Raises:
        InputError: segments is not a positive number, there is no such arithmetic, or cells are
            asked for where the space is no plane.
    """
    if arithmetic not in ("balls", "floats"):
        raise InputError(f"arithmetic: expected balls or floats, got {arithmetic!r}")
    if not isinstance(segments, int) or segments < 1:
        raise InputError(f"segments: expected a positive number, got {segments!r}")
    metric, mesh = curve.metric, curve.mesh
    segments = -(-segments // mesh.elements) * mesh.elements
    nodes = curve.nodes.detach().reshape(-1, *curve.nodes.shape[-2:])
    layers = known_layers(metric)
    if layers is not None:
        if arithmetic == "floats":
            lower, upper = (
                x.to(nodes) for x in rounded_bounds(mesh, nodes.cpu(), layers, segments)
            )
        else:
            found = [_proved(curve, row, layers, segments) for row in nodes]
            lower, upper = (nodes.new_tensor(x) for x in zip(*found, strict=True))
        if nodes.dtype != torch.float64:  # rounded outwards
            lower, upper = lower * (1 - 1e-6), upper * (1 + 1e-6)
    else:
        with torch.no_grad():
            points = max(2, segments // mesh.elements)
            lengths = []
            for m in (points, 2 * points):
                speed, weights = Curve(metric, mesh, nodes).speed(m)
                lengths.append((speed * weights).sum(-1))
            upper = lengths[1] + (lengths[1] - lengths[0]).abs()
            lower = _estimated_lower(curve, nodes)
    shape, proved = curve.nodes.shape[:-2], layers is not None
    lower, upper = lower.reshape(shape), upper.reshape(shape)
    if not cells:
        return Bounds(lower, upper, proved)
    known = curve.nodes.isfinite().all(-1).all(-1)
    a, b = (curve.nodes.detach()[..., end, :][known] for end in (0, -1))
    inside, dual = lower.clone(), dual_bound(metric, a, b, box=box, cells=cells)
    inside[known] = torch.maximum(lower[known], dual.lower)
    return Bounds(lower, upper, proved, inside, dual.box)


def _estimated_lower(curve: Curve, nodes: Tensor) -> Tensor:
    metric, (a, b) = curve.metric, (nodes[:, 0], nodes[:, -1])
    if isinstance(metric, PulledBackMetric):
        return (metric.embed(a) - metric.embed(b)).norm(dim=-1)
    lower = torch.zeros_like(a[:, 0])
    if isinstance(metric, LocalVarianceMetric):
        # Σ w r² ≤ N max s e^{-s/2σ²} = 2Nσ²/e
        most = metric.rho + 2 * len(metric.data) * metric.sigma**2 / torch.e
        lower = (a - b).norm(dim=-1) / most.sqrt()
    return torch.where(nodes.isfinite().all(-1).all(-1), lower, torch.nan)


def _proved(
    curve: Curve, nodes: Tensor, layers: list[nn.Module], segments: int
) -> tuple[float, float]:
    if not bool(nodes.isfinite().all()):
        return float("nan"), float("nan")
    before, ctx.prec = ctx.prec, BITS
    try:
        ends, pieces = _segments(curve, nodes, segments)
        values = _through(layers, _Jets(ends, _zeros(ends), _zeros(ends))).value
        bends = _through(layers, pieces).second
        outputs, h = values.nrows(), arb(1) / segments
        total = arb(0)
        for k in range(segments):
            chord = sum(((values[o, k + 1] - values[o, k]) ** 2 for o in range(outputs)), arb(0))
            bend = sum((abs(bends[o, k]) ** 2 for o in range(outputs)), arb(0))
            total += (chord + h**4 * bend / 12).abs_upper().sqrt()
        span = sum(((values[o, segments] - values[o, 0]) ** 2 for o in range(outputs)), arb(0))
        return _float(span.abs_lower().sqrt(), -1), _float(total, 1)
    except ValueError:  # a softplus outside the range where it is one
        return 0.0, float("inf")
    finally:
        ctx.prec = before


def _float(x: arb, side: int) -> float:
    """The next float beyond a ball, below or above it."""
    end = x.upper() if side > 0 else x.lower()
    out = torch.tensor(float(end.mid()), dtype=torch.float64)
    return torch.nextafter(out, out.new_tensor(side * torch.inf)).item()


def _zeros(like: arb_mat) -> arb_mat:
    return arb_mat(like.nrows(), like.ncols())


def _segments(curve: Curve, nodes: Tensor, segments: int) -> tuple[arb_mat, _Jets]:
    """z at the ends of segments, and (z, ż, z̈) over each: of the polynomials through the nodes."""
    mesh = curve.mesh
    elements, p, d = mesh.elements, mesh.degree, nodes.shape[-1]
    inside = segments // elements
    at = [arb(x) for x in rule(p).nodes.tolist()]
    newton = arb_mat(p + 1, p + 1, [x**k for x in at for k in range(p + 1)]).inv()
    ends = arb_mat(d, segments + 1)
    pieces = _Jets(*[arb_mat(d, segments) for _ in range(3)])
    for element in range(elements):
        own = nodes[element * p : (element + 1) * p + 1].double()
        values = arb_mat(p + 1, d, [arb(x) for x in own.flatten().tolist()])
        powers = newton * values  # coefficients of 1, t, t², … in the element's own time
        for axis in range(d):
            c = [powers[k, axis] for k in range(p + 1)]
            one = [k * c[k] * elements for k in range(1, p + 1)] or [arb(0)]
            two = [k * one[k] * elements for k in range(1, len(one))] or [arb(0)]
            three = [k * two[k] * elements for k in range(1, len(two))] or [arb(0)]
            for k in range(inside):
                column = element * inside + k
                middle, half = arb(2 * k + 1) / (2 * inside), arb(1) / (2 * inside)
                reach = arb(0, 1) / (2 * segments)  # in the whole curve's time
                whole = middle + arb(0, 1) * half
                second = _at(two, middle) + reach * _at(three, whole)
                first = _at(one, middle) + reach * second
                pieces.second[axis, column] = second
                pieces.first[axis, column] = first
                pieces.value[axis, column] = _at(c, middle) + reach * first
                if k:
                    ends[axis, column] = _at(c, arb(k) / inside)
            ends[axis, element * inside] = arb(own[0, axis].item())
    for axis in range(d):
        ends[axis, segments] = arb(nodes[-1, axis].item())
    return ends, pieces


def _at(coefficients: list[arb], t: arb) -> arb:
    out = arb(0)
    for c in reversed(coefficients):
        out = out * t + c
    return out


def _through(layers: list[nn.Module], jets: _Jets) -> _Jets:
    """The jets of x, of those of z."""
    for layer in layers:
        if isinstance(layer, nn.Linear):
            weight = layer.weight.detach().double()
            matrix = arb_mat(*weight.shape, [arb(x) for x in weight.flatten().tolist()])
            value, first, second = (matrix * part for part in jets)
            if layer.bias is not None:
                for row, shift in enumerate(layer.bias.detach().double().tolist()):
                    for column in range(value.ncols()):
                        value[row, column] += shift
            jets = _Jets(value, first, second)
        elif not isinstance(layer, nn.Identity):
            jets = _pointwise(_FUNCTIONS[type(layer)], jets)
    return jets


def _pointwise(function: Callable[[arb], tuple[arb, arb, arb]], jets: _Jets) -> _Jets:
    out = _Jets(*[_zeros(jets.value) for _ in range(3)])
    for row in range(jets.value.nrows()):
        for column in range(jets.value.ncols()):
            y, slope, bend = function(jets.value[row, column])
            first, second = jets.first[row, column], jets.second[row, column]
            out.value[row, column] = y
            out.first[row, column] = slope * first
            out.second[row, column] = slope * second + bend * first**2
    return out


def _monotone(function: Callable[[arb], arb], x: arb) -> arb:
    return function(x.lower()).union(function(x.upper()))


def _tanh(x: arb) -> tuple[arb, arb, arb]:
    y = _monotone(arb.tanh, x)
    slope = 1 - y**2
    return y, slope, -2 * y * slope


def _logistic(x: arb) -> arb:
    return 1 / (1 + (-x).exp())


def _sigmoid(x: arb) -> tuple[arb, arb, arb]:
    y = _monotone(_logistic, x)
    slope = y * (1 - y)
    return y, slope, slope * (1 - 2 * y)


def _softplus(x: arb) -> tuple[arb, arb, arb]:
    if not x < LINEAR:
        raise ValueError("torch's softplus is linear there")
    y = _monotone(lambda x: x.exp().log1p(), x)
    slope = _monotone(_logistic, x)
    return y, slope, slope * (1 - slope)


_FUNCTIONS = {nn.Tanh: _tanh, nn.Sigmoid: _sigmoid, nn.Softplus: _softplus}
