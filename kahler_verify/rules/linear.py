"""Linear layers and products of matrices."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor
from torch.nn import functional

from kahler_verify.rules.arithmetic import plus, times
from kahler_verify.rules.expansion import (
    Expansion,
    Head,
    by_point,
    lifted,
    linear,
    multilinear,
    without_graph,
)
from kahler_verify.rules.registry import NotCovered, rule
from kahler_verify.torch_state import in_autocast

Varying = Expansion | Tensor


@rule("linear", several=True)
def linear_layer(call: Any, x: Varying, weight: Varying, bias: Varying | None = None) -> Expansion:
    """H Wᵀ + b; it waits to be multiplied out, since a metric may fold W in."""
    if isinstance(x, Expansion) and not isinstance(weight, Expansion):
        if isinstance(bias, Expansion):
            raise NotCovered
        if x.outside.ndim < 2 or weight.ndim != 2:
            return linear(lambda t: call(t, weight), x, value=call(x.value, weight, bias))
        waits = call is functional.linear and _may_wait(x.outside, weight, bias)
        value = None if waits else call(x.value, weight, bias)
        return Expansion(value, None, None, x.frame, Head(x, weight, bias))
    out = multilinear(call, x, weight)
    return out if bias is None else plus(out, bias)


def _may_wait(x: Tensor, weight: Tensor, bias: Tensor | None) -> bool:
    """Is it a product that torch takes, and the same in another place?"""
    sources = [x, weight] if bias is None else [x, weight, bias]
    fits = x.shape[-1] == weight.shape[-1] and (bias is None or bias.shape == weight.shape[:1])
    if not fits or any((t.dtype, t.device) != (x.dtype, x.device) for t in sources):
        return False
    counted = not any(t.is_inference() for t in sources[1:]) or torch.is_inference_mode_enabled()
    return counted and without_graph(*sources) and not in_autocast(x.device)


def _matrices(f: Any, arguments: list[Tensor], with_rows: set[int]) -> Tensor:
    """Products of stacks broadcast by themselves, once all have as many axes."""
    ndim = max(a.ndim - (k in with_rows) for k, a in enumerate(arguments))
    return f(*[lifted(a, ndim) if k in with_rows else a for k, a in enumerate(arguments)])


@rule("matmul", "bmm", "mm", several=True)
def matrix_product(call: Any, a: Varying, b: Varying) -> Expansion:
    """AB."""
    ndims = [x.value.ndim if isinstance(x, Expansion) else x.ndim for x in (a, b)]
    if min(ndims) < 2:
        return multilinear(torch.matmul, a, b)
    if ndims[1] == 2 and not isinstance(b, Expansion):
        assert isinstance(a, Expansion)
        return linear(lambda t: t @ b, a, by_point)
    return multilinear(torch.matmul, a, b, rows=_matrices)


@rule(
    "mv",
    "dot",
    "vdot",
    "inner",
    "outer",
    "ger",
    "kron",
    "chain_matmul",
    "bilinear",
    several=True,
    holomorphic=False,
)
def product_of_vectors(call: Any, *factors: Any) -> Expansion:
    """What is linear in each of its arguments (``bilinear`` with a bias: in all but that)."""
    if getattr(call, "__name__", "") == "bilinear" and len(factors) == 4:
        out = multilinear(lambda x, y, w: call(x, y, w, None), *factors[:3])
        return out if factors[3] is None else plus(out, factors[3])
    return multilinear(call, *factors)


@rule("einsum", several=True)
def einsum(call: Any, equation: str, *operands: Any, **named: Any) -> Expansion:
    """A sum of products."""
    factors = (
        operands[0] if len(operands) == 1 and isinstance(operands[0], tuple | list) else operands
    )
    return multilinear(lambda *values: torch.einsum(equation, *values), *factors)


@rule("tensordot", several=True)
def tensordot(call: Any, a: Varying, b: Varying, *rest: Any, **named: Any) -> Expansion:
    """A sum over the axes of two tensors."""
    return multilinear(lambda x, y: call(x, y, *rest, **named), a, b)


@rule("addmm", "addbmm", "baddbmm", "addmv", several=True)
def sum_and_product(
    call: Any, shift: Varying, a: Varying, b: Varying, *, beta: Any = 1, alpha: Any = 1
) -> Expansion:
    """β M + α AB."""
    name = getattr(call, "__name__", "")
    if name == "addbmm":
        raise NotCovered
    product = multilinear(torch.matmul, a, b)
    return plus(_times(shift, beta), _times(product, alpha))


def _times(x: Any, factor: Any) -> Any:
    return x if isinstance(factor, int | float) and factor == 1 else times(x, factor)


@rule("addcmul", several=True)
def sum_and_entrywise_product(
    call: Any, shift: Varying, a: Varying, b: Varying, *, value: Any = 1
) -> Expansion:
    """M + c A∘B."""
    return plus(shift, _times(times(a, b), value))
