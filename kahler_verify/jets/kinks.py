"""Is a function of real latents C², as connection and curvature of its metrics need it?"""

from __future__ import annotations

import warnings
from collections.abc import Callable

import torch
from torch import Tensor, nn

from kahler_verify.errors import InputError
from kahler_verify.jets.analytic import is_composed_of_analytic
from kahler_verify.jets.propagation import propagate
from kahler_verify.jets.smoothness import LINES, REGION, SmoothnessWarning, search
from kahler_verify.jets.tensor import Jet

__all__ = ["never_smooth", "require_twice_differentiable"]

# Kinks wherever these are used; of others (a clamp, a maximum, a case distinction) behaviour
# decides, since they may be smooth as they are used.
_KINKS = {
    *("relu", "leaky_relu", "prelu", "rrelu", "relu6", "elu", "selu", "celu", "softsign"),
    *("hardtanh", "hardswish", "hardsigmoid", "hardshrink", "softshrink", "threshold"),
    *("sign", "sgn", "round", "floor", "ceil", "trunc", "fix"),
    *(f"{kind}max_pool{n}d" for kind in ("", "adaptive_") for n in (1, 2, 3)),
}
LOWEST = (" jumps", " is C⁰ only: it has kinks", " is C¹ only: its second derivative jumps")
AT_C1 = 1

Function = Callable[[Tensor], Tensor]


def never_smooth(function: Function, z: Tensor, decoder: object) -> list[tuple[str, int]]:
    """The calls on the way from z [B, d] to f(z) that are nowhere used smoothly, roughest first.

    Each as the layer that makes it, by name where ``decoder`` is a module that has one, and the
    highest k for which it is C^k, -1 for a jump.
    """
    z = z[:1].detach()
    jet = propagate(function, z, 1, directions=torch.ones_like(z)[:, None])  # one says as much
    if not isinstance(jet, Jet):
        return []
    kinks = jet.expansion.frame.record.kinks
    found = sorted((k, name) for name, k in kinks.items() if name in _KINKS)
    return [(_culprit(decoder, name), k) for k, name in found]


def require_twice_differentiable(function: Function, z: Tensor, decoder: object) -> None:
    """Look for kinks and jumps of f [B, n] at real z [B, d].

    A function that is C¹ by its activations, as ELU's, is warned of: it has a connection and a
    curvature nearly everywhere, which jump.

    Args:
        function: f.
        z: where it is to be used.
        decoder: whose layers are named.

    Raises:
        InputError: f has kinks or jumps; says by which layer, or where.
    """
    known = never_smooth(function, z, decoder)
    for culprit, k in known:
        if k < AT_C1:
            raise InputError(
                f"connection and curvature need a C² decoder, but {culprit}{LOWEST[k + 1]} (the "
                "metric itself needs first derivatives alone)"
            )
    points = z[:3].detach()
    if not known and is_composed_of_analytic(lambda z: [function(z)], points):
        return
    found = search(_RealLines(function, points))
    if found is not None and not (known and "second derivative" in found[0]):
        what, place, jump = found
        raise InputError(
            f"connection and curvature need a C² decoder, but {what} near z = {place}, by "
            f"{jump:.1e} of its size (a clamp, a maximum, an absolute value or a case distinction?)"
        )
    if known:
        culprit, k = known[0]
        warnings.warn(
            f"{culprit}{LOWEST[k + 1]}; connection and curvature hold on each side of such places, "
            "and jump there; tanh, softplus or SiLU are smooth",
            SmoothnessWarning,
            stacklevel=6,
        )


def _culprit(decoder: object, call: str) -> str:
    if isinstance(decoder, nn.Module):
        for name, layer in decoder.named_modules():
            if type(layer).__name__.lower() == call.replace("_", ""):
                return f"the layer {name!r} ({layer})"
    return f"the operation {call} in it"


class _RealLines:
    """Two weighted sums of f's outputs along a few seeded lines; see :class:`Lines`."""

    def __init__(self, function: Function, points: Tensor) -> None:
        self.function = function
        generator = torch.Generator().manual_seed(4)

        def draw(*shape: int) -> Tensor:
            return torch.randn(*shape, dtype=torch.float64, generator=generator).to(points)

        start = points[torch.arange(1, LINES) % len(points)]
        self.start = torch.cat([torch.zeros_like(points[:1]), start])
        self.direction = draw(LINES, points.shape[-1])
        self.reach = points.new_full((LINES,), REGION)
        self.reach[-1] /= 8
        with torch.no_grad():
            x = function(points[:1])
        self.weights = draw(x.shape[1], 2)
        self.magnitude = x[0].abs() @ self.weights.abs()

    def at(self, t: Tensor, lines: Tensor) -> Tensor:
        start, direction = (
            x[lines][:, None].expand(*t.shape, -1).reshape(t.numel(), -1)
            for x in (self.start, self.direction)
        )
        z = start + t.reshape(-1, 1) * direction
        with torch.no_grad():
            jet = propagate(self.function, z, 2, directions=direction[:, None], along=True)
        orders = (jet.value, jet.d[:, 0], jet.dd[:, 0])
        return torch.stack([(x @ self.weights).reshape(*t.shape, 2) for x in orders])
