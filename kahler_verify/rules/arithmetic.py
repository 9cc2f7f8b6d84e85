"""Sums, products, quotients and powers, of tensors that vary and of such that do not."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from kahler_verify.kernels import real_functions as kernels
from kahler_verify.rules.expansion import (
    Expansion,
    aligned,
    by_vmap,
    chain,
    lifted,
    linear,
    multilinear,
    without_graph,
)
from kahler_verify.rules.registry import NotCovered, rule

Number = int | float | complex
Varying = Expansion | Tensor | Number


def _value(x: Varying) -> Any:
    return x.value if isinstance(x, Expansion) else x


def _broadcast(rows: Tensor | None, shape: torch.Size) -> Tensor | None:
    """Rows of a term, in the shape that the sum has."""
    if rows is None or rows.shape[1:] == shape:
        return rows
    return lifted(rows, len(shape)).expand(-1, *shape)


def _same_for_all_points(rows: Tensor) -> bool:
    return rows.ndim > 1 and rows.shape[1] > 1 and rows.stride(1) == 0


def _sum(a: Tensor | None, b: Tensor | None, sign: int) -> Tensor | None:
    if b is None:
        return a
    if a is None:
        return b if sign > 0 else -b
    if _same_for_all_points(a) and _same_for_all_points(b):
        return (a[:, :1] + sign * b[:, :1]).expand_as(a)
    return a + b if sign > 0 else a - b


def plus(a: Varying, b: Varying, sign: int = 1) -> Expansion:
    """A + b or a - b, with broadcasting."""
    a, b = aligned([a, b])
    value = _value(a) + _value(b) if sign > 0 else _value(a) - _value(b)
    if isinstance(a, Expansion) and not isinstance(b, Expansion) and a.head is None:
        first = a.rows_before_factor[0]
        if first is not None and (first.shape[1:], first.dtype) == (value.shape, value.dtype):
            return a.with_value(value)
    none = (None, None)
    first, second = (
        _typed(_sum(_broadcast(p, value.shape), _broadcast(q, value.shape), sign), value)
        for p, q in zip(
            a.rows if isinstance(a, Expansion) else none,
            b.rows if isinstance(b, Expansion) else none,
            strict=True,
        )
    )
    frame = a.frame if isinstance(a, Expansion) else b.frame  # type: ignore[union-attr]
    return Expansion(value, first, second, frame)


def _typed(rows: Tensor | None, value: Tensor) -> Tensor | None:
    """A real jet plus a complex constant is complex, and so on."""
    return rows if rows is None or rows.dtype == value.dtype else rows.to(value.dtype)


def _shifted(x: Expansion, value: Tensor, shift: Any) -> Expansion | None:
    """X plus a constant that shifts the bias of a head, so that it stays one; else None."""
    head = x.waiting_head
    if head is None or value.shape != x.value.shape or value.dtype != x.value.dtype:
        return None
    shift = torch.as_tensor(shift, dtype=value.dtype, device=value.device)
    if shift.ndim > 1:
        return None
    bias = (shift if head.bias is None else head.bias + shift).expand(value.shape[-1:])
    return Expansion(value, None, None, x.frame, head.changed(bias=bias))


@rule("add", several=True)
def add(call: Any, a: Varying, b: Varying, *, alpha: Number = 1) -> Expansion:
    """A + αb."""
    b = b if alpha == 1 else times(b, alpha)
    for x, y in ((a, b), (b, a)):
        if isinstance(x, Expansion) and not isinstance(y, Expansion):
            kept = _shifted(x, _value(a) + _value(b), y)
            if kept is not None:
                return kept
    return plus(a, b)


@rule("sub", several=True)
def subtract(call: Any, a: Varying, b: Varying, *, alpha: Number = 1) -> Expansion:
    """A - αb."""
    if alpha != 1:
        return plus(a, times(b, alpha), -1)
    if isinstance(a, Expansion) and not isinstance(b, Expansion):
        kept = _shifted(a, a.value - b, -b)
        if kept is not None:
            return kept
    return plus(a, b, -1)


@rule("rsub", several=True)
def subtract_from(call: Any, a: Varying, b: Varying, *, alpha: Number = 1) -> Expansion:
    """B - αa."""
    return subtract(call, b, a, alpha=alpha)


@rule("neg")
def negative(call: Any, x: Expansion) -> Expansion:
    """-x."""
    return times(x, -1)


@rule("positive", "__pos__")
def unchanged(call: Any, x: Expansion) -> Expansion:
    """+x."""
    return x


def _entrywise(f: Any, arguments: list[Tensor], with_rows: set[int]) -> Tensor:
    ndim = max(a.ndim - (k in with_rows) for k, a in enumerate(arguments))
    return f(*[lifted(a, ndim) if k in with_rows else a for k, a in enumerate(arguments)])


def times(a: Varying, b: Varying) -> Any:
    """The product, entry by entry, with broadcasting."""
    if not isinstance(a, Expansion):
        return a * b if not isinstance(b, Expansion) else times(b, a)
    if isinstance(b, Expansion):
        return multilinear(torch.mul, a, b, rows=_entrywise)
    value = a.value * b
    if a.waiting_head is not None and _scales_outputs(a, value, b):
        head = a.waiting_head
        weight = head.weight * (b.reshape(-1, 1) if isinstance(b, Tensor) else b)
        bias = None if head.bias is None else head.bias * b
        return Expansion(value, None, None, a.frame, head.changed(weight=weight, bias=bias))
    if (isinstance(b, Tensor) and b.ndim > a.value.ndim) or value.shape != a.value.shape:
        return linear(lambda t: t * b, a, by_vmap, value)
    first, second, waiting = a.rows_before_factor
    if isinstance(b, Tensor) and waiting is None and _slope_may_take(a, first, b):
        return Expansion(value, first, second, a.frame, None, b.detach().clone())
    first, second = (None if r is None else _scaled(r, b) for r in a.rows)
    return Expansion(value, first, second, a.frame)


def _slope_may_take(x: Expansion, first: Tensor | None, factor: Tensor) -> bool:
    """Is a factor better kept for the slope behind it, which is smaller than rows are?"""
    if first is None or x.head is not None or x.frame.order > 1:
        return False
    if first.is_complex() or first.requires_grad:
        return False
    plain = factor.dtype == first.dtype and not _same_for_all_points(first)
    return plain and without_graph(first, factor)


def _scales_outputs(a: Expansion, value: Tensor, factor: Any) -> bool:
    """Is the factor a constant, or one for each output?"""
    if value.shape != a.value.shape or value.dtype != a.value.dtype:
        return False
    if not isinstance(factor, Tensor):
        return True
    return factor.ndim == 0 or (factor.ndim == 1 and len(factor) == value.shape[-1])


def _scaled(rows: Tensor, factor: Any) -> Tensor:
    """Rows times a constant of no more axes than the value has."""
    if _same_for_all_points(rows):
        return (rows[:, :1] * factor).expand_as(rows)
    return rows * factor


@rule("mul", several=True)
def multiply(call: Any, a: Varying, b: Varying) -> Expansion:
    """Ab."""
    return times(a, b)


@rule("div", several=True)
def divide(call: Any, a: Varying, b: Varying, *, rounding_mode: str | None = None) -> Expansion:
    """A/b."""
    if rounding_mode is not None:
        raise NotCovered
    if isinstance(b, Expansion):
        return times(a, reciprocal(b)).with_value(_value(a) / b.value)
    if not isinstance(b, Tensor) and b == 0:
        raise NotCovered
    assert isinstance(a, Expansion)
    return times(a, 1 / b).with_value(a.value / b)


def reciprocal(x: Expansion) -> Expansion:
    """1/x."""
    return by_kernel(x, "reciprocal")


@rule("pow", "float_power", several=True)
def power(call: Any, base: Varying, exponent: Varying) -> Expansion:
    """A power with a constant exponent, or of a positive constant base."""
    if isinstance(exponent, Expansion):
        if isinstance(base, Expansion):
            raise NotCovered
        base = torch.as_tensor(base, dtype=exponent.value.dtype, device=exponent.value.device)
        if base.ndim or base.is_complex() or not float(base) > 0:
            raise NotCovered
        return by_kernel(times(exponent, base.log()), "exp")
    if getattr(call, "__name__", "") == "float_power" or not isinstance(base, Expansion):
        raise NotCovered
    if isinstance(exponent, int | float):
        if exponent == 1:
            return base
        if exponent == 0:
            return base.constant(torch.ones_like(base.value))
        if exponent in (2, -1, 0.5, -0.5):
            name = {2: "square", -1: "reciprocal", 0.5: "sqrt", -0.5: "rsqrt"}[exponent]
            return by_kernel(base, name)
    return by_kernel(base, "power", exponent)


def by_kernel(x: Expansion, name: str, *parameters: Any) -> Expansion:
    """A function of derivations/functions/real_functions.py, entry by entry."""
    if not x.varies:
        return x.constant(getattr(kernels, name)(x.value, *parameters))
    linear_pieces = kernels.FUNCTIONS[name][2]
    order = 1 if linear_pieces else x.frame.order
    return chain(x, *getattr(kernels, f"{name}_{order}")(x.value, *parameters))
