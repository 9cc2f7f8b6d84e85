"""Complex activations: which are holomorphic, where their poles lie, and which are refused.

The metric of a decoder needs its second derivatives, so every activation here is at least C², and a
holomorphic decoder needs activations that are holomorphic away from isolated poles. Functions with
branch cuts (log, sqrt, asinh, ...) are holomorphic only on a cut plane: a decoder built from them
jumps across the cut, and they are refused by name, as are functions with kinks (ReLU and its kin).

Formulas stand in derivations/functions/activations.py; the functions and their derivatives are
generated from there, as real torch functions of the real and imaginary part. Here stands what a
formula does not say: where the poles lie.
"""

import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from types import MappingProxyType
from typing import Any, SupportsIndex

import torch
from torch import Tensor, nn

from kahler_verify.errors import InputError
from kahler_verify.kernels import activations as kernels
from kahler_verify.rules.activations import activation

__all__ = ["ACTIVATIONS", "REFUSED", "Activation", "ActivationLayer", "get_activation"]


@dataclass(frozen=True)
class Activation:
    """A C² function of one complex variable, applied entry by entry.

    Attributes:
        name: the name in the registry.
        formula: what it computes, in words that a paper would use.
        function: complex tensor to complex tensor; takes a second, real argument when ``biased``.
        holomorphic: whether ∂f/∂z̄ = 0 wherever f is defined.
        poles: where the poles lie, in words; "none" for entire functions and C² functions of the
            whole plane.
        pole_distance: complex tensor to the real tensor of distances to the nearest pole, or None
            where there is no pole.
        biased: whether the function takes a learnt real bias per unit.
        split: whether f(x + iy) = p(x) + i p(y).
    """

    name: str
    formula: str
    function: Callable[..., Tensor]
    holomorphic: bool
    poles: str = "none"
    pole_distance: Callable[[Tensor], Tensor] | None = None
    biased: bool = False
    split: bool = False

    def __reduce_ex__(self, protocol: SupportsIndex) -> str | tuple[Any, ...]:
        """A registered one goes by its name: its functions have none."""
        if ACTIVATIONS.get(self.name) is self:
            return get_activation, (self.name,)
        return super().__reduce_ex__(protocol)

    def __call__(self, z: Tensor, *bias: Tensor) -> Tensor:
        """Apply the function entry by entry."""
        return self.function(z, *bias)

    def derivatives(self, order: int, z: Tensor, *bias: Tensor) -> dict[tuple[int, int], Tensor]:
        """The Wirtinger derivatives of total order up to ``order`` (at most 3) by (∂, ∂̄) orders.

        Of a holomorphic function only those without ∂̄: the others vanish.
        """
        name = f"{self.name}_{order}" if order else self.name
        parts = getattr(kernels, name)(z.real, z.imag, *bias)
        types = [
            (total - anti, anti)
            for total in range(order + 1)
            for anti in range(1 if self.holomorphic else total + 1)
        ]
        pairs = zip(parts[::2], parts[1::2], strict=True)
        return {each: torch.complex(*pair) for each, pair in zip(types, pairs, strict=True)}

    def slopes(self, planes: Tensor, *bias: Tensor) -> tuple[Tensor, ...]:
        """Value and first derivatives at x + iy, planes [2, ..., n], as such planes.

        f = p + iq and f′ of a holomorphic function; else f, (p_x, q_y) and, unless the function is
        split, (p_y, q_x).
        """
        if self.holomorphic:
            p, q, *slope = getattr(kernels, f"{self.name}_1")(*planes, *bias)
            return torch.stack([p, q]), torch.stack(slope)
        real: Callable[..., tuple[Tensor, ...]] = getattr(kernels, f"{self.name}_real")
        if self.split:
            return real(planes, *bias)
        p, q, p_x, q_x, p_y, q_y = real(*planes, *bias)
        return torch.stack([p, q]), torch.stack([p_x, q_y]), torch.stack([p_y, q_x])


class ActivationLayer(nn.Module):
    """A registered activation as a layer; holds the bias per unit of those that have one."""

    def __init__(self, name: str, width: int) -> None:
        super().__init__()
        self.activation = get_activation(name)
        self.bias = nn.Parameter(torch.zeros(width)) if self.activation.biased else None

    def forward(self, z: Tensor) -> Tensor:
        """Apply the activation entry by entry."""
        return self.activation(z) if self.bias is None else self.activation(z, self.bias)

    def extra_repr(self) -> str:
        """What ``print`` shows between the brackets."""
        return self.activation.name


def get_activation(name: str, *, holomorphic: bool | None = None) -> Activation:
    """Look an activation up by name.

    Args:
        name: a key of ``ACTIVATIONS``.
        holomorphic: ask for a holomorphic one (True), a non-holomorphic one (False), or any (None).

    Raises:
        InputError: the name is unknown, or names a function that is refused (the message says why),
            or the activation is not of the kind asked for.
    """
    activation = ACTIVATIONS.get(name)
    if activation is None:
        if name in REFUSED:
            raise InputError(f"the activation {name!r} is refused: {REFUSED[name]}")
        raise InputError(f"expected an activation among {_names(holomorphic)}, but got {name!r}")
    if holomorphic is not None and activation.holomorphic is not holomorphic:
        wanted, got = ("a holomorphic", "is not") if holomorphic else ("a non-holomorphic", "is")
        raise InputError(
            f"expected {wanted} activation, one of {_names(holomorphic)}, but got {name!r}, "
            f"which {got} holomorphic"
        )
    return activation


def _names(holomorphic: bool | None) -> str:
    return ", ".join(
        name
        for name, activation in ACTIVATIONS.items()
        if holomorphic is None or activation.holomorphic is holomorphic
    )


def _distance_to_imaginary_lattice(offset: float, period: float) -> Callable[[Tensor], Tensor]:
    """The distance to the points i(offset + k period), k an integer."""

    def distance(z: Tensor) -> Tensor:
        rest = z.imag - offset
        return torch.hypot(z.real, rest - period * torch.round(rest / period))

    return distance


_HALF_ODD = (
    "simple poles at iπ(k + ½), k an integer",
    _distance_to_imaginary_lattice(math.pi / 2, math.pi),
)
_ODD = (
    "simple poles at iπ(2k + 1), k an integer",
    _distance_to_imaginary_lattice(math.pi, 2 * math.pi),
)
# What a formula does not say of itself; functions that are not named here have no poles.
_POLES = {"tanh": _HALF_ODD, "sigmoid": _ODD, "silu": _ODD}


def _generated(name: str) -> Activation:
    """The activation that derivations/functions/activations.py declares."""
    formula, holomorphic, parameters, split = kernels.FUNCTIONS[name]

    def function(z: Tensor, *bias: Tensor) -> Tensor:
        return activation(z, name, *bias)

    poles, distance = _POLES.get(name, ("none", None))
    return Activation(
        name, formula, function, holomorphic, poles, distance, bool(parameters), split
    )


ACTIVATIONS: Mapping[str, Activation] = MappingProxyType(
    {name: _generated(name) for name in kernels.FUNCTIONS}
)
"""The registered activations by name."""


def _refusals() -> dict[str, str]:
    cuts = {
        "log": "(-∞, 0]",
        "log1p": "(-∞, -1]",
        "sqrt": "(-∞, 0]",
        "pow": "(-∞, 0] unless the exponent is an integer",
        "softplus": "{x + iπ(2k + 1): x ≥ 0}, where 1 + exp(z) ≤ 0",
        "logsigmoid": "{x + iπ(2k + 1): x ≤ 0}, where 1 + exp(-z) ≤ 0",
        "mish": "those of the softplus inside it",
        "asinh": "(-i∞, -i] and [i, i∞)",
        "acosh": "(-∞, 1]",
        "atanh": "(-∞, -1] and [1, ∞)",
        "asin": "(-∞, -1] and [1, ∞)",
        "acos": "(-∞, -1] and [1, ∞)",
        "atan": "(-i∞, -i] and [i, i∞)",
    }
    reasons = {
        name: f"it has branch cuts, {where}; it jumps across them, so it is not holomorphic there "
        "and a decoder built from it is not even continuous. Take a meromorphic or an entire "
        "function instead: tanh, sigmoid, silu, sin, cubic"
        for name, where in cuts.items()
    }
    for alias, name in {
        "arcsinh": "asinh",
        "arccosh": "acosh",
        "arctanh": "atanh",
        "arcsin": "asin",
        "arccos": "acos",
        "arctan": "atan",
    }.items():
        reasons[alias] = reasons[name]

    smooth = "Take a C² function instead: split_softplus, split_gelu, split_silu, modulus_sigmoid"
    kinks = {
        "relu": "its derivative jumps at 0",
        "crelu": "its derivative jumps where Re z or Im z is 0",
        "split_relu": "its derivative jumps where Re z or Im z is 0",
        "zrelu": "it jumps at the edges of the first quadrant",
        "modrelu": "its derivative jumps on the circle |z| = -b",
        "leaky_relu": "its derivative jumps at 0",
        "prelu": "its derivative jumps at 0",
        "relu6": "its derivative jumps at 0 and 6",
        "elu": "its second derivative jumps at 0 (it is C¹ only)",
        "celu": "its second derivative jumps at 0 (it is C¹ only)",
        "selu": "its derivative jumps at 0",
        "hardtanh": "its derivative jumps at ±1",
        "hardswish": "its derivative jumps at ±3",
        "softshrink": "its derivative jumps at its threshold",
        "softsign": "its second derivative jumps at 0 (it is C¹ only)",
        "abs": "it has a corner at 0, and torch's second derivative of abs(z)**2 at 0 is 0, not 1",
        "cardioid": "the phase that it uses is not differentiable at 0",
    }
    for name, why in kinks.items():
        reasons[name] = f"{why}, and the metric needs C² activations. {smooth}"
    return reasons


REFUSED: Mapping[str, str] = MappingProxyType(_refusals())
"""Activations that are refused, by name, with the reason."""
