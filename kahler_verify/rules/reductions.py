"""Sums, means, soft maxima and norms."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from kahler_verify.linear_algebra.products import is_transformed
from kahler_verify.rules.arithmetic import by_kernel, plus, times
from kahler_verify.rules.complex_parts import squared_modulus
from kahler_verify.rules.expansion import Expansion, linear
from kahler_verify.rules.registry import NotCovered, rule


@rule("sum", "mean", "cumsum", "trace")
def sums(call: Any, x: Expansion, *arguments: Any, **named: Any) -> Expansion:
    """Linear."""
    return linear(lambda t: call(t, *arguments, **named), x)


def _weights(x: Expansion, dim: int) -> tuple[Tensor, Any, Any]:
    """Y = softmax x, u_i = ∂_i x - ⟨∂_i x⟩, w_ij = ∂_i∂_j x + u_i u_j - ⟨…⟩, in the mean by y."""
    dim = dim % x.value.ndim
    y = torch.softmax(x.value, dim)
    first, second = x.rows
    if first is None:
        return y, None, None

    def deviation(rows: Tensor) -> Tensor:
        return rows - (rows * y).sum(dim + 1, keepdim=True)

    u = deviation(first)
    if x.frame.order == 1:
        return y, u, None
    left, right = x.frame.pair_up(u)
    w = left * right
    return y, u, deviation(w if second is None else w + second)


@rule("softmax", "_softmax", holomorphic=False)
def softmax(call: Any, x: Expansion, dim: int, dtype: Any = None) -> Expansion:
    """∂_i y = y u_i, ∂_i∂_j y = y w_ij."""
    if x.value.ndim == 0 or dtype not in (None, x.value.dtype):
        raise NotCovered
    if x.frame.order == 1 and x.rows[0] is not None:
        dim = dim % x.value.ndim
        y = torch.softmax(x.value, dim)
        part = x.rows[0] * y
        mean = part.sum(dim + 1, keepdim=True)
        # in place, as scores of attention are the largest there is; vmap has no rule for that
        followed = is_transformed(part)
        rows = part - y * mean if followed else part.addcmul_(y, mean, value=-1)
        return Expansion(y, rows, None, x.frame)
    y, u, w = _weights(x, dim)
    return Expansion(y, None if u is None else y * u, None if w is None else y * w, x.frame)


@rule("logsumexp", holomorphic=False)
def logsumexp(call: Any, x: Expansion, dim: Any, keepdim: bool = False) -> Expansion:
    """log Σ exp x: the mean of ∂_i x, and that of ∂_i∂_j x + u_i u_j, by softmax x."""
    if x.value.ndim == 0:
        return x
    axes = [dim] if isinstance(dim, int) else list(dim)
    axes = [a % x.value.ndim for a in axes]
    value = torch.logsumexp(x.value, axes, keepdim=keepdim)
    first, second = x.rows
    if first is None:
        return x.constant(value)
    y = (x.value - torch.logsumexp(x.value, axes, keepdim=True)).exp()
    behind = [a + 1 for a in axes]

    def mean(rows: Tensor, keep: bool) -> Tensor:
        return (rows * y).sum(behind, keepdim=keep)

    out = None
    if x.frame.order == 2:
        left, right = x.frame.pair_up(first - mean(first, True))
        w = left * right
        out = mean(w if second is None else w + second, keepdim)
    return Expansion(value, mean(first, keepdim), out, x.frame)


@rule("log_softmax", "_log_softmax", holomorphic=False)
def log_softmax(call: Any, x: Expansion, dim: int, dtype: Any = None) -> Expansion:
    """X - log Σ exp x."""
    if x.value.ndim == 0 or dtype not in (None, x.value.dtype):
        raise NotCovered
    return plus(x, logsumexp(call, x, dim, True), -1).with_value(torch.log_softmax(x.value, dim))


@rule("logaddexp", several=True, holomorphic=False)
def logaddexp(call: Any, a: Any, b: Any) -> Expansion:
    """b + log(1 + exp(a - b))."""
    if not all(isinstance(x, Expansion | Tensor) for x in (a, b)):
        raise NotCovered
    return plus(b, by_kernel(plus(a, b, -1), "softplus", 1.0, 1.0))


@rule("var", "std", holomorphic=False)
def variance(
    call: Any, x: Expansion, dim: Any = None, *, correction: float = 1, keepdim: bool = False
) -> Expansion:
    """Σ(x - ⟨x⟩)²/(n - c), and its root."""
    if x.value.is_complex() or isinstance(dim, bool):
        raise NotCovered
    value = call(x.value, dim, correction=correction, keepdim=keepdim)
    axes = (
        list(range(x.value.ndim)) if dim is None else [dim] if isinstance(dim, int) else list(dim)
    )
    n = 1
    for a in axes:
        n *= x.value.shape[a]
    c = plus(x, linear(lambda t: t.mean(axes, keepdim=True), x), -1)
    out = linear(lambda t: t.sum(axes, keepdim=keepdim) / (n - correction), by_kernel(c, "square"))
    out = out if call.__name__ == "var" else by_kernel(out, "sqrt")
    return out.with_value(value)


@rule("linalg_vector_norm", "linalg_norm", holomorphic=False)
def vector_norm(
    call: Any,
    x: Expansion,
    ord: Any = 2,  # noqa: A002  (torch's name)
    dim: Any = None,
    keepdim: bool = False,
    **named: Any,
) -> Expansion:
    """Euclidean: the root of Σ x x̄, smooth but at 0."""
    matrix = call.__name__ == "linalg_norm" and dim is None and x.value.ndim > 1
    if ord not in (None, 2) or matrix or named.get("dtype") is not None:
        raise NotCovered
    axes = list(range(x.value.ndim)) if dim is None else dim
    square = squared_modulus(x)
    return by_kernel(linear(lambda t: t.sum(axes, keepdim=keepdim), square), "sqrt")


@rule("normalize", python=True, holomorphic=False)
def normalize(
    call: Any, x: Expansion, p: float = 2.0, dim: Any = 1, eps: float = 1e-12, out: Any = None
) -> Expansion:
    """x/‖x‖, smooth but within ε of 0, where torch divides by ε."""
    if p != 2 or out is not None:
        raise NotCovered
    square = linear(lambda t: t.sum(dim, keepdim=True), squared_modulus(x))
    inverse = by_kernel(square, "rsqrt")
    return times(x, inverse).with_value(call(x.value, p, dim, eps))


@rule("cdist", python=True, several=True, holomorphic=False)
def distances(
    call: Any,
    x1: Expansion | Tensor,
    x2: Expansion | Tensor,
    p: float = 2.0,
    compute_mode: str = "use_mm_for_euclid_dist_if_necessary",
) -> Expansion:
    """Euclidean: ‖a_i - b_j‖ as [..., i, j], smooth but where two points are one."""
    if p != 2:
        raise NotCovered
    a, b = _unsqueezed(x1, -2), _unsqueezed(x2, -3)
    square = by_kernel(plus(a, b, -1), "square")
    out = by_kernel(linear(lambda t: t.sum(-1), square), "sqrt")
    values = [x.value if isinstance(x, Expansion) else x for x in (x1, x2)]
    return out.with_value(call(*values, p, compute_mode))


def _unsqueezed(x: Expansion | Tensor, axis: int) -> Expansion | Tensor:
    if isinstance(x, Expansion):
        return linear(lambda t: t.unsqueeze(axis), x)
    return x.unsqueeze(axis)
