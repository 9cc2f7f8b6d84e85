"""Convolutions and transposed convolutions in one to three dimensions."""

from __future__ import annotations

from typing import Any

from torch import Tensor

from kahler_verify.linear_algebra.convolutions import convolution as fastest
from kahler_verify.rules.arithmetic import plus
from kahler_verify.rules.expansion import Expansion, by_point, by_vmap, linear, multilinear
from kahler_verify.rules.registry import rule

Varying = Expansion | Tensor


@rule(
    *("conv1d", "conv2d", "conv3d", "conv_transpose1d", "conv_transpose2d", "conv_transpose3d"),
    several=True,
)
def convolution(
    call: Any,
    input: Varying,  # noqa: A002  (torch's name)
    weight: Varying,
    bias: Varying | None = None,
    *rest: Any,
    **named: Any,
) -> Expansion:
    """Linear in its input, and in its weight; the bias shifts the value alone."""
    if not isinstance(weight, Expansion) and not isinstance(bias, Expansion):
        assert isinstance(input, Expansion)
        rows = by_point if input.value.ndim == weight.ndim else by_vmap

        def apply(t: Tensor) -> Tensor:
            return fastest(call, t, weight, *rest, **named)

        value = fastest(call, input.value, weight, *rest, as_torch_has_it=True, **named)
        if bias is not None:
            value = value + bias.reshape(-1, *[1] * (weight.ndim - 2))
        return linear(apply, input, rows, value)
    out = multilinear(lambda x, w: call(x, w, None, *rest, **named), input, weight)
    if bias is None:
        return out
    axes = (weight.value if isinstance(weight, Expansion) else weight).ndim - 2
    shape = (-1, *[1] * axes)
    if isinstance(bias, Expansion):
        return plus(out, linear(lambda t: t.reshape(shape), bias))
    return plus(out, bias.reshape(shape))
