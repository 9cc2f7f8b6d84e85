"""Functions that act entry by entry, by generated kernels.

They are those of derivations/functions/real_functions.py.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from torch import Tensor

from kahler_verify.rules.arithmetic import by_kernel, times
from kahler_verify.rules.complex_parts import squared_modulus
from kahler_verify.rules.expansion import Expansion, chain, linear
from kahler_verify.rules.registry import NotCovered, rule

# Analytic where they are defined: the real formula, at complex arguments, is the complex one.
ANALYTIC = (
    *("tanh", "sigmoid", "silu", "exp", "exp2", "expm1", "log", "log2", "log10", "log1p", "sqrt"),
    *("rsqrt", "reciprocal", "square", "sin", "cos", "tan", "asin", "acos", "atan"),
    *("sinh", "cosh", "asinh", "acosh", "atanh"),
)
REAL = ("erf", "erfc", "lgamma", "digamma", "mish", "logsigmoid")
# Values are torch's own where the kernel's formula would lose digits.
_OWN_VALUE = {"erfc"}


def _function(name: str) -> Callable[..., Expansion]:
    def apply(call: Any, x: Expansion) -> Expansion:
        out = by_kernel(x, name)
        return out.with_value(call(x.value)) if name in _OWN_VALUE else out

    return apply


for _name in ANALYTIC:
    rule(_name)(_function(_name))
for _name in REAL:
    rule(_name, holomorphic=False)(_function(_name))


@rule("softplus", holomorphic=False)
def softplus(call: Any, x: Expansion, beta: float = 1, threshold: float = 20) -> Expansion:
    """log(1 + exp(βx))/β; torch's value jumps by 2e-9 at its threshold, the derivatives do not."""
    out = by_kernel(x, "softplus", beta, 1 / beta)
    return out.with_value(call(x.value, beta, threshold))


@rule("gelu", holomorphic=False)
def gelu(call: Any, x: Expansion, *, approximate: str = "none") -> Expansion:
    """X Φ(x), or torch's approximation of it by tanh."""
    return by_kernel(x, "gelu" if approximate == "none" else "gelu_tanh")


@rule("logit", holomorphic=False)
def logit(call: Any, x: Expansion, eps: float | None = None) -> Expansion:
    """log(x/(1 - x)); with a margin it is clamped, and has kinks."""
    if eps is not None:
        raise NotCovered
    return by_kernel(x, "logit")


# Joined of pieces: right on each, and named as what they are where pieces meet.


def _kinked(x: Expansion, smoothness: int, call: str, name: str, *parameters: Any) -> Expansion:
    x.frame.record.kink(call, smoothness)
    return by_kernel(x, name, *parameters)


@rule("relu", holomorphic=False)
def relu(call: Any, x: Expansion) -> Expansion:
    """max(x, 0)."""
    return _kinked(x, 0, "relu", "relu")


@rule("leaky_relu", holomorphic=False)
def leaky_relu(call: Any, x: Expansion, negative_slope: float = 0.01) -> Expansion:
    """X above 0, and slope · x below."""
    return _kinked(x, 0, "leaky_relu", "leaky_relu", negative_slope)


@rule("prelu", holomorphic=False)
def prelu(call: Any, x: Expansion, weight: Tensor) -> Expansion:
    """The same with a slope for each channel, which is the second axis."""
    if weight.numel() > 1:
        weight = weight.reshape(-1, *[1] * (x.value.ndim - 2))
    return _kinked(x, 0, "prelu", "leaky_relu", weight)


@rule("rrelu", holomorphic=False)
def rrelu(
    call: Any,
    x: Expansion,
    lower: float = 1 / 8,
    upper: float = 1 / 3,
    training: bool = False,
    *rest: Any,
) -> Expansion:
    """Leaky ReLU with the mean slope; in training mode the slope is random."""
    if training:
        raise NotCovered
    return _kinked(x, 0, "rrelu", "leaky_relu", (lower + upper) / 2)


@rule("elu", holomorphic=False)
def elu(
    call: Any, x: Expansion, alpha: float = 1.0, scale: float = 1.0, input_scale: float = 1.0
) -> Expansion:
    """C¹ where both pieces have one slope at 0."""
    smoothness = 1 if alpha * input_scale == 1 else 0
    return _kinked(x, smoothness, "elu", "elu", alpha, input_scale, scale)


@rule("celu", holomorphic=False)
def celu(call: Any, x: Expansion, alpha: float = 1.0) -> Expansion:
    """C¹."""
    return _kinked(x, 1, "celu", "elu", alpha, 1 / alpha, 1.0)


@rule("selu", holomorphic=False)
def selu(call: Any, x: Expansion) -> Expansion:
    """C⁰: its slopes at 0 are 1.05 and 1.76."""
    alpha, scale = 1.6732632423543772848170429916717, 1.0507009873554804934193349852946
    return _kinked(x, 0, "selu", "elu", alpha, 1.0, scale)


@rule("softsign", python=True, holomorphic=False)
def softsign(call: Any, x: Expansion) -> Expansion:
    """x/(1 + |x|)."""
    return _kinked(x, 1, "softsign", "softsign")


@rule("hardswish", holomorphic=False)
def hardswish(call: Any, x: Expansion) -> Expansion:
    """X min(max(x + 3, 0), 6)/6."""
    return _kinked(x, 0, "hardswish", "hardswish")


@rule("hardsigmoid", holomorphic=False)
def hardsigmoid(call: Any, x: Expansion) -> Expansion:
    """min(max(x + 3, 0), 6)/6."""
    return _kinked(x, 0, "hardsigmoid", "hardsigmoid")


@rule("softshrink", holomorphic=False)
def softshrink(call: Any, x: Expansion, lambd: float = 0.5) -> Expansion:
    """X drawn towards 0 by λ, and 0 within."""
    return _kinked(x, 0, "softshrink", "softshrink", lambd)


def _clipped(x: Expansion, name: str, value: Tensor, inside: Tensor) -> Expansion:
    x.frame.record.kink(name, 0)
    return chain(x, value, inside.to(value.dtype))


@rule("clamp", "clamp_min", "clamp_max", holomorphic=False)
def clamp(call: Any, x: Expansion, *bounds: Any, **named: Any) -> Expansion:
    """Torch's derivative is 1 on the bounds."""
    value = call(x.value, *bounds, **named)
    return _clipped(x, call.__name__, value, value == x.value)


@rule("hardtanh", "relu6", holomorphic=False)
def hardtanh(call: Any, x: Expansion, *bounds: Any, **named: Any) -> Expansion:
    """Torch's derivative is 0 on the bounds."""
    value = call(x.value, *bounds, **named)
    usual = (-1.0, 1.0) if call.__name__ == "hardtanh" else (0.0, 6.0)
    given = dict(zip(("min_val", "max_val"), bounds, strict=False)) | named
    low, high = given.get("min_val", usual[0]), given.get("max_val", usual[1])
    return _clipped(x, call.__name__, value, (low < x.value) & (x.value < high))


@rule("hardshrink", "threshold", holomorphic=False)
def jump(call: Any, x: Expansion, *bounds: Any, **named: Any) -> Expansion:
    """X, or a constant: these jump."""
    value = call(x.value, *bounds, **named)
    x.frame.record.kink(call.__name__, -1)
    if call.__name__ == "threshold":  # where torch's derivative is 0
        inside = x.value > (bounds[0] if bounds else named["threshold"])
    else:
        inside = (value == x.value) & (value != 0)
    return chain(x, value, inside.to(value.dtype))


@rule("glu", holomorphic=False)
def gated(call: Any, x: Expansion, dim: int = -1) -> Expansion:
    """A σ(b) of the two halves a, b."""
    a, b = linear(lambda t: t.chunk(2, dim), x)
    return times(a, by_kernel(b, "sigmoid"))


# Complex arguments


@rule("abs", holomorphic=False)
def absolute(call: Any, x: Expansion) -> Expansion:
    """|x| of a real x has a kink; |z| is (z z̄)^½, and smooth but at 0."""
    if not x.value.is_complex():
        return _kinked(x, 0, "abs", "abs")
    return by_kernel(squared_modulus(x), "sqrt")
