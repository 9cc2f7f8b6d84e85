"""Intervals in float64 that hold all rounding, many at once: a centre and a radius each.

Elementary functions are built from sums, products and quotients alone, whose rounding IEEE 754
fixes, so that no library's accuracy is taken on trust.  Sums of n terms, in whatever order, are off
by at most (n + 1) u of the sum of moduli, u = 2⁻⁵³.

Source: Higham, Accuracy and Stability of Numerical Algorithms, 2002, ch. 3; Rump, BIT 39, 1999.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import torch
from torch import Tensor, nn

from kahler_verify.geometry.pulled_back import PulledBackMetric
from kahler_verify.geometry.riemannian import RiemannianMetric

ROUNDING = 2.0**-53
TINY = 1e-300  # above what underflow may lose
LOG2 = (6.93147180369123816490e-01, 1.90821492927058770002e-10)  # the first has 33 bits
FUNCTION_ERROR = 5e-14  # absolute; an exponential is within 40 u of itself, so these within 200 u
LINEAR = 20  # where torch's softplus becomes linear, by default


class Enclosure(NamedTuple):
    """Numbers of which each is within a radius of a centre; tensors of one shape."""

    centre: Tensor
    radius: Tensor

    def __mul__(self, other: Enclosure) -> Enclosure:  # type: ignore[override]  # no repetition
        centre = self.centre * other.centre
        radius = self.centre.abs() * other.radius + self.radius * other.magnitude()
        return rounded(centre, radius, ROUNDING * centre.abs())

    def __add__(self, other: Enclosure) -> Enclosure:  # type: ignore[override]
        centre = self.centre + other.centre
        return rounded(centre, self.radius + other.radius, ROUNDING * centre.abs())

    def magnitude(self) -> Tensor:
        """The largest modulus."""
        return (self.centre.abs() + self.radius) * (1 + 4 * ROUNDING)

    def ends(self) -> tuple[Tensor, Tensor]:
        """A lower and an upper end."""
        room = self.radius + 2 * ROUNDING * self.magnitude() + TINY
        return self.centre - room, self.centre + room

    def norm(self) -> Enclosure:
        """√Σ x² over the last axis."""
        centre = self.centre.norm(dim=-1)
        radius = self.radius.norm(dim=-1)
        n = self.centre.shape[-1] + 8
        return rounded(centre, radius, n * ROUNDING * (centre + radius))


def rounded(centre: Tensor, radius: Tensor, error: Tensor) -> Enclosure:
    """With an error of the centre; the radius's own rounding is a few units."""
    return Enclosure(centre, (radius + error) * (1 + 16 * ROUNDING) + TINY)


def exactly(centre: Tensor) -> Enclosure:
    """Floats, and no more than them."""
    return Enclosure(centre, torch.zeros_like(centre))


def between(lower: Tensor, upper: Tensor, error: float) -> Enclosure:
    """From a little below one to a little above the other."""
    centre = (lower + upper) / 2
    return rounded(centre, (upper - lower) / 2, error + 4 * ROUNDING * centre.abs())


def linear(weight: Tensor, bias: Tensor | None, x: Enclosure) -> Enclosure:
    """W x + b, of x [..., n]."""
    size, n = weight.abs(), weight.shape[1] + 4
    centre, moduli = x.centre @ weight.mT, x.centre.abs() @ size.mT
    if bias is not None:
        centre, moduli = centre + bias, moduli + bias.abs()
    radius = x.radius @ size.mT * (1 + 2 * n * ROUNDING)
    return rounded(centre, radius, 2 * n * ROUNDING * moduli)


def _decay(x: Tensor) -> Tensor:
    """e^{-|x|} for |x| ≤ 700, else e^{-700}: 2⁻ⁿ e^{-r} with r = |x| - n log 2, off by 3 u."""
    x = x.abs().clamp_max(700)
    n = (x / LOG2[0]).round()
    r = (x - n * LOG2[0]) - n * LOG2[1]  # the first product and difference are exact
    total = torch.ones_like(r)
    for k in range(14, 0, -1):  # |r| < 0.35, and what is left out is below 1e-19
        total = 1 - r * total / k
    return total * _POWERS.to(x.device)[n.nan_to_num(0).long()]


_POWERS = torch.tensor([2.0**-n for n in range(1100)], dtype=torch.float64)


def _log1p(t: Tensor) -> Tensor:
    """Log(1 + t) for 0 ≤ t ≤ 1: 2 artanh w with w = t/(2 + t) ≤ 1/3."""
    w = t / (2 + t)
    total = torch.zeros_like(t)
    for k in range(16, -1, -1):  # what is left out is below 1e-17
        total = 1 / (2 * k + 1) + w * w * total
    return 2 * w * total


def _nearest_and_farthest(x: Enclosure) -> tuple[Tensor, Tensor]:
    """The least and the largest |x|."""
    lower, upper = x.ends()
    least = torch.maximum(lower, -upper).clamp_min(0)
    return least, torch.maximum(lower.abs(), upper.abs())


Parts = tuple[Enclosure, Enclosure, Enclosure]


def tanh(x: Enclosure) -> Parts:
    """Tanh, its slope 4t/(1 + t)² with t = e^{-2|x|}, and its second derivative."""

    def value(x: Tensor) -> Tensor:
        t = _decay(2 * x)
        return (1 - t) / (1 + t) * x.sign()

    def slope(x: Tensor) -> Tensor:
        t = _decay(2 * x)
        return 4 * t / (1 + t) ** 2

    lower, upper = x.ends()
    y = between(value(lower), value(upper), FUNCTION_ERROR)
    near, far = _nearest_and_farthest(x)
    first = between(slope(far), slope(near), FUNCTION_ERROR)
    return y, first, y * first * exactly(torch.full_like(y.centre, -2))


def sigmoid(x: Enclosure) -> Parts:
    """The logistic function, its slope t/(1 + t)² with t = e^{-|x|}, and its second derivative."""

    def value(x: Tensor) -> Tensor:
        t = _decay(x)
        return torch.where(x < 0, t, 1) / (1 + t)

    def slope(x: Tensor) -> Tensor:
        t = _decay(x)
        return t / (1 + t) ** 2

    lower, upper = x.ends()
    y = between(value(lower), value(upper), FUNCTION_ERROR)
    near, far = _nearest_and_farthest(x)
    first = between(slope(far), slope(near), FUNCTION_ERROR)
    one, less = exactly(torch.ones_like(y.centre)), exactly(torch.full_like(y.centre, -2))
    return y, first, first * (one + y * less)


def softplus(x: Enclosure) -> Parts:
    """Log(1 + eˣ), NaN where torch's own is linear, and the logistic function with its slope."""

    def value(x: Tensor) -> Tensor:
        return x.clamp_min(0) + _log1p(_decay(x))

    first, second, _ = sigmoid(x)
    lower, upper = x.ends()
    y = between(value(lower), value(upper), FUNCTION_ERROR)
    beyond = torch.where(upper < LINEAR, 0, torch.nan)
    return Enclosure(y.centre + beyond, y.radius), first, second


FUNCTIONS = {nn.Tanh: tanh, nn.Sigmoid: sigmoid, nn.Softplus: softplus}


class Jets(NamedTuple):
    """Values [..., n] of functions, with derivatives along directions.

    Attributes:
        value: x.
        first: along each direction.
        second: along each two of them, (0, 0), (0, 1), …, (1, 1), …; empty where unwanted.
    """

    value: Enclosure
    first: Sequence[Enclosure]
    second: Sequence[Enclosure]


def through(layers: Sequence[nn.Module], jets: Jets) -> Jets:
    """The jets of a network's output; its layers are those that ``FUNCTIONS`` knows, and linear."""
    for layer in layers:
        if isinstance(layer, nn.Linear):
            weight = layer.weight.detach().double()
            bias = None if layer.bias is None else layer.bias.detach().double()
            jets = Jets(
                linear(weight, bias, jets.value),
                [linear(weight, None, x) for x in jets.first],
                [linear(weight, None, x) for x in jets.second],
            )
        elif not isinstance(layer, nn.Identity):
            y, slope, bend = FUNCTIONS[type(layer)](jets.value)
            pairs = [(x, z) for k, x in enumerate(jets.first) for z in jets.first[k:]]
            second = zip(jets.second, pairs, strict=False)
            jets = Jets(
                y,
                [slope * x for x in jets.first],
                [slope * both + bend * (x * z) for both, (x, z) in second],
            )
    return jets


def known_layers(metric: RiemannianMetric) -> list[nn.Module] | None:
    """The layers of a pull-back, in their order, where intervals can go through all; else None."""
    return _layers(metric.function) if type(metric) is PulledBackMetric else None


def _layers(function: object) -> list[nn.Module] | None:
    """Layers in their order, where each of them is known; else None."""
    if isinstance(function, nn.Sequential) and not function._forward_hooks:
        parts = [_layers(module) for module in function]
        return None if any(p is None for p in parts) else [x for p in parts for x in p or ()]
    if type(function) in (nn.Linear, nn.Tanh, nn.Sigmoid, nn.Identity):
        return [function]  # type: ignore[list-item]  # one of these
    if type(function) is nn.Softplus and (function.beta, function.threshold) == (1, LINEAR):
        return [function]
    return None
