"""Factors, inverses, solutions and determinants of matrices.

From derivatives of the equations that they solve.  Torch's forward derivatives of solve, det and
slogdet are wrong when they are differentiated again (2.13), those of inv, lu_factor and lu_solve
are right.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import Any

import torch
from torch import Tensor

from kahler_verify.linear_algebra.products import is_transformed
from kahler_verify.rules.expansion import (
    Expansion,
    aligned,
    lifted,
    linear,
    total,
    without_graph,
)
from kahler_verify.rules.registry import NotCovered, rule
from kahler_verify.torch_state import outside_autocast

Varying = Expansion | Tensor


@rule("cholesky", "linalg_cholesky", holomorphic=False)
def cholesky(call: Any, x: Expansion, upper: bool = False) -> Expansion:
    """Of A = L Lᴴ: ∂L = L Φ(L⁻¹ ∂A L⁻ᴴ), Φ the lower triangle with half of the diagonal.

    For ∂_i∂_jL, ∂_i∂_jA - ∂_iL ∂_jLᴴ - ∂_jL ∂_iLᴴ takes the place of ∂A.
    """
    if upper:
        raise NotCovered
    with outside_autocast():
        return _factor(call(x.value), x)


def _factor(L: Tensor, x: Expansion) -> Expansion:
    first, second = x.rows
    if first is None:
        return x.constant(L)

    def along(change: Tensor) -> Tensor:
        half = torch.linalg.solve_triangular(L, change, upper=False)
        both = torch.linalg.solve_triangular(L, half.mH, upper=False)
        return L @ (both.tril() - torch.diag_embed(both.diagonal(dim1=-2, dim2=-1)) / 2)

    slope = along(_hermitian(first))
    if x.frame.order == 1:
        return Expansion(L, slope, None, x.frame)
    i, j = x.frame.pair_up(slope)
    mixed = i @ j.mH
    rest = -(mixed + mixed.mH)
    return Expansion(
        L, slope, along(rest if second is None else _hermitian(second) + rest), x.frame
    )


def _hermitian(rows: Tensor) -> Tensor:
    """What the lower triangle, which alone is read, stands for."""
    below = rows.tril(-1)
    diagonal = rows.diagonal(dim1=-2, dim2=-1).real
    return below + below.mH + torch.diag_embed(diagonal).to(rows.dtype)


@rule("inverse", "linalg_inv")
def inverse(call: Any, x: Expansion) -> Expansion:
    """∂A⁻¹ = -A⁻¹ ∂A A⁻¹."""
    X, one = call(x.value), torch.eye(x.value.shape[-1]).to(x.value)
    return _solved(X, lambda rows: X @ rows, x, one)


@rule("linalg_solve", several=True)
def solve(call: Any, A: Varying, B: Varying, *, left: bool = True) -> Expansion:
    """A⁻¹ B of matrices, or of vectors where these are as many as A."""
    a, b = (x.value if isinstance(x, Expansion) else x for x in (A, B))
    if not left:
        raise NotCovered
    if b.ndim == 1 or b.shape == a.shape[:-1]:
        column = partial(Tensor.unsqueeze, dim=-1)
        found = solve(call, A, linear(column, B) if isinstance(B, Expansion) else column(B))
        columns: Expansion = linear(lambda t: t.squeeze(-1), found)
        return columns
    inverse = torch.linalg.inv(a)
    X = call(a, b) if without_graph(a, b) else inverse @ b
    return _solved(X, lambda rows: inverse @ rows, A, B)


@rule("linalg_solve_triangular", several=True)
def solve_triangular(
    call: Any,
    A: Varying,
    B: Varying,
    *,
    upper: bool,
    left: bool = True,
    unitriangular: bool = False,
) -> Expansion:
    """The same of a triangle, which alone is read."""
    if not left or unitriangular:
        raise NotCovered
    a, b = (x.value if isinstance(x, Expansion) else x for x in (A, B))
    read = Tensor.triu if upper else Tensor.tril
    return _solved(call(a, b, upper=upper), lambda rows: call(a, rows, upper=upper), A, B, read)


def _solved(
    X: Tensor,
    by_inverse: Callable[[Tensor], Tensor],
    a: Varying,
    b: Varying,
    read: Callable[[Tensor], Tensor] = lambda rows: rows,
) -> Expansion:
    """X with A X = B: A ∂X = ∂B - ∂A X, and A ∂∂X = ∂∂B - ∂∂A X - ∂_iA ∂_jX - ∂_jA ∂_iX."""
    with outside_autocast():
        a, b = aligned([a, b])
        frame = next(x.frame for x in (a, b) if isinstance(x, Expansion))
        a_rows, b_rows = ((x.rows if isinstance(x, Expansion) else (None, None)) for x in (a, b))
        da, dda = (None if rows is None else lifted(read(rows), X.ndim) for rows in a_rows)
        db, ddb = (None if rows is None else lifted(rows, X.ndim) for rows in b_rows)
        first = total([db, None if da is None else -da @ X])
        if first is None:
            return Expansion(X, None, None, frame)
        slope = by_inverse(first)
        terms = [ddb, None if dda is None else -dda @ X]
        if frame.order > 1 and da is not None:
            (i, j), (p, q) = frame.pair_up(da), frame.pair_up(slope)
            terms += [-i @ q, -j @ p]
        bend = total(terms)
        return Expansion(X, slope, None if bend is None else by_inverse(bend), frame)


@rule("det", "linalg_det")
def determinant(call: Any, x: Expansion) -> Expansion:
    """∂ det A = det A Tr(A⁻¹ ∂A), of one elimination: where A is almost singular they cancel."""
    factor, inverse, sign = _eliminated(x.value)
    value = sign * factor.diagonal(dim1=-2, dim2=-1).prod(-1)
    if not is_transformed(value) and bool((value == 0).any()):  # A has no inverse
        raise NotCovered
    first, second = _log_det(x, inverse)
    if first is None:
        return x.constant(value)
    if x.frame.order > 1:
        i, j = x.frame.pair_up(first)
        second = total([second, i * j])
    return Expansion(value, value * first, None if second is None else value * second, x.frame)


@rule("logdet", "slogdet", "linalg_slogdet", holomorphic=False)
def log_determinant(call: Any, x: Expansion) -> Any:
    """∂ log |det A| = Tr(A⁻¹ ∂A) of real A, whose determinant keeps its sign."""
    if x.value.is_complex():
        raise NotCovered
    factor, inverse, _ = _eliminated(x.value)
    rows = _log_det(x, inverse)
    found = call(x.value)
    several = not isinstance(found, Tensor)
    value = found[1] if several else found
    if not without_graph(x.value):
        value = factor.diagonal(dim1=-2, dim2=-1).abs().log().sum(-1)
    out = Expansion(value, *rows, x.frame)
    return type(found)((x.constant(found[0]), out)) if several else out


def _eliminated(A: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """L and U, A⁻¹, and the sign of the permutation."""
    factor, pivots, _ = torch.linalg.lu_factor_ex(A)
    one = torch.eye(A.shape[-1]).to(A).expand_as(A).contiguous()
    places = torch.arange(1, A.shape[-1] + 1, device=A.device)
    swaps = (pivots != places).sum(-1)
    return factor, torch.linalg.lu_solve(factor, pivots, one), 1 - 2 * (swaps % 2)


def _log_det(x: Expansion, inverse: Tensor) -> tuple[Tensor | None, Tensor | None]:
    """Tr(A⁻¹ ∂A), and Tr(A⁻¹ ∂_i∂_jA) - Tr(A⁻¹ ∂_iA A⁻¹ ∂_jA)."""
    first, second = x.rows
    if first is None:
        return None, None
    traces = (inverse.mT * first).sum((-2, -1))
    if x.frame.order == 1:
        return traces, None
    i, j = x.frame.pair_up(inverse @ first)
    bend = -(i * j.mT).sum((-2, -1))
    return traces, bend if second is None else bend + (inverse.mT * second).sum((-2, -1))
