"""Means over a standard normal vector, by rational nodes that are exact for low degrees.

The nodes are 0, ±e_i, ±2e_i and ±e_i ± e_j, 2n² + 2n + 1 for n entries.  Odd moments vanish by
symmetry; E x_i² = 1, E x_i⁴ = 3 and E x_i²x_j² = 1 give rational weights, with which polynomials of
degree at most five have their means.  Nothing is taken from Wick's rule.
"""

from __future__ import annotations

from collections.abc import Iterator
from fractions import Fraction
from itertools import combinations, product

from sympy import Add, Expr, Mul, Pow, adjoint, conjugate

from kahler_verify.calculus.definition import Partial
from kahler_verify.calculus.indexed import Contract, Entry
from kahler_verify.calculus.letters import Field, Jet
from kahler_verify.calculus.words import Tr
from kahler_verify.errors import EvidenceError

HIGHEST = 5  # degree of which means are exact
LINEAR = (Partial, Contract, Entry, Tr, adjoint, conjugate)
Node = tuple[tuple[int, ...], Fraction]


def normal_nodes(size: int) -> tuple[Node, ...]:
    """Points of Z^size with their weights."""
    twice, pair = Fraction(1, 12), Fraction(1, 4)  # of ±2e_i and ±e_i ± e_j
    once = Fraction(2 - size, 2) - 4 * twice  # of ±e_i, so that E x_i² = 1
    found: list[Node] = []
    for i in range(size):
        found += [(_at(size, {i: x}), once if abs(x) == 1 else twice) for x in (1, -1, 2, -2)]
    for i, j in combinations(range(size), 2):
        found += [(_at(size, {i: x, j: y}), pair) for x, y in product((1, -1), repeat=2)]
    rest = 1 - sum((weight for _, weight in found), Fraction(0))
    return (_at(size, {}), rest), *found


def _at(size: int, entries: dict[int, int]) -> tuple[int, ...]:
    return tuple(entries.get(i, 0) for i in range(size))


def nodes_for(expr: Expr, residual: Jet, size: int) -> Iterator[Node]:
    """Nodes over which an expression's mean is exact.

    Raises:
        EvidenceError: the expression is no polynomial of degree at most five in the residual, or
            the residual is no real vector.
    """
    if "real" not in residual.field.traits:
        raise EvidenceError(f"means are over real normal vectors, and {residual} is not real")
    degree = degree_in(expr, residual.field)
    if degree > HIGHEST:
        raise EvidenceError(
            f"means are exact up to degree {HIGHEST} in {residual}, and this is of degree {degree}"
        )
    yield from normal_nodes(size)


def degree_in(expr: Expr, field: Field) -> int:
    """The degree of a polynomial in a field.

    Raises:
        EvidenceError: the field stands in something else than sums, products and derivatives.
    """
    if isinstance(expr, Jet):
        inner = degree_in(expr.field.abbreviated[0], field) if expr.field.abbreviated else 0
        return 1 if expr.field == field else inner
    parts = [degree_in(a, field) for a in expr.args if isinstance(a, Expr)]
    if not any(parts):
        return 0
    if isinstance(expr, Add):
        return max(parts)
    if isinstance(expr, Mul):
        return sum(parts)
    if isinstance(expr, Pow) and expr.exp.is_Integer and expr.exp > 0:
        return parts[0] * int(expr.exp)
    if isinstance(expr, LINEAR):
        return parts[0]
    raise EvidenceError(f"a mean needs a polynomial in {field}, got {type(expr).__name__}: {expr}")
