"""Bounds of distances as files that an independent re-checker evaluates again."""

from __future__ import annotations

from math import comb
from typing import Any

import torch
from torch import Tensor, nn

from kahler_verify.curves.curve import Curve
from kahler_verify.curves.elements import rule
from kahler_verify.curves.proved.bounds import bounds
from kahler_verify.curves.proved.dual import dual_bound
from kahler_verify.curves.proved.enclosure import known_layers
from kahler_verify.curves.proved.triangles import Grid
from kahler_verify.errors import InputError

ROOM = 1e-6  # relative, of a claim: the re-checker's intervals are others
STEEPNESS = 0.995  # of the steepest slope that is allowed
NAMES = {nn.Tanh: "tanh", nn.Sigmoid: "sigmoid", nn.Softplus: "softplus"}


def certificate(curve: Curve, *, halvings: int = 6, cells: int = 0) -> dict[str, Any]:
    """Bounds of the distance between a single curve's ends, for ``evidence/recheck_curves.py``.

    Args:
        curve: of a pull-back by layers that are known, with no batch.
        halvings: of each of the curve's elements, for the upper bound.
        cells: along each axis of a potential's grid, in a plane; 0 for none.

    Returns:
        {"format": 1, "items": […]}, to be written as JSON: a curve's own bound, the chord, and
        with ``cells`` a potential, for curves within its box.

    Raises:
        InputError: there is a batch, the curve was not found, or a layer is not known.
    """
    layers, nodes = known_layers(curve.metric), curve.nodes.detach().double().cpu()
    if layers is None:
        raise InputError(
            "curve: expected one of a PulledBackMetric by linear, tanh, sigmoid and softplus "
            f"layers, got one of a {type(curve.metric).__name__} whose layers are not known"
        )
    if nodes.ndim != 2 or not bool(nodes.isfinite().all()):
        raise InputError(f"curve: expected a single one that was found, got {curve!r}")
    segments = curve.mesh.elements * 2**halvings
    found = bounds(curve, segments=segments, arithmetic="floats")
    shared = {
        "layers": [_layer(layer) for layer in layers if not isinstance(layer, nn.Identity)],
        "a": _exact(nodes[0]),
        "b": _exact(nodes[-1]),
    }
    elements = _bernstein(curve, nodes)
    upper = found.upper.double() * (1 + ROOM)
    lower = found.lower.double() * (1 - ROOM)
    items = [
        {
            "kind": "upper",
            **shared,
            "elements": _exact(elements),
            "halvings": halvings,
            "bound": _exact(upper),
        },
        {"kind": "chord", **shared, "bound": _exact(lower)},
    ]
    if cells:
        dual = dual_bound(curve.metric, nodes[:1], nodes[-1:], cells=cells)
        items.append(
            {
                "kind": "potential",
                **shared,
                "axes": [_exact(axis) for axis in Grid(dual.box, cells).axes],
                "potential": _exact(STEEPNESS * dual.potential[0]),
                "bound": _exact(STEEPNESS * dual.lower[0].double() * (1 - ROOM)),
            }
        )
    return {"format": 1, "items": items}


def _exact(x: Tensor) -> Any:
    """Hexadecimal floats, nested as the tensor is."""
    return float(x).hex() if x.ndim == 0 else [_exact(row) for row in x.unbind(0)]


def _layer(layer: nn.Module) -> dict[str, Any]:
    if isinstance(layer, nn.Linear):
        bias = None if layer.bias is None else _exact(layer.bias.detach().double())
        return {"weight": _exact(layer.weight.detach().double()), "bias": bias}
    return {"function": NAMES[type(layer)]}


def _bernstein(curve: Curve, nodes: Tensor) -> Tensor:
    """Control points [E, p + 1, d] of polynomials through the nodes, up to rounding."""
    p = curve.mesh.degree
    t = rule(p).nodes
    basis = torch.stack([comb(p, k) * t**k * (1 - t) ** (p - k) for k in range(p + 1)], -1)
    own = nodes[curve.mesh.index]
    control = torch.linalg.solve(basis, own)
    control[:, 0], control[:, -1] = own[:, 0], own[:, -1]
    return control
