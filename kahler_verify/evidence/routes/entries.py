"""Definitions written out over entries: their symbols, what these stand for, and the value at 0."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

from sympy import Expr, I, ImmutableMatrix, Pow, S, Symbol, exp

from kahler_verify.calculus.letters import Field
from kahler_verify.errors import EvidenceError
from kahler_verify.evidence.numbers.arithmetic import Arithmetic
from kahler_verify.evidence.numbers.points import Point


@dataclass
class Page:
    """The symbols that a definition is written in, and what the coefficients are."""

    point: Point
    d: int
    real: bool  # whether the latent coordinates are real: then x is its own conjugate
    limits: tuple[tuple[int, ...], tuple[int, ...]]  # how often each x_i and y_i is differentiated
    values: dict[Symbol, Any] = field(default_factory=dict)
    bars: dict[Symbol, Symbol] = field(default_factory=dict)
    fields: dict[tuple[Field, int | None, bool], ImmutableMatrix] = field(default_factory=dict)

    def __post_init__(self) -> None:
        for name in ("x", "x0"):
            for i in range(self.d):
                one = Symbol(f"{name}_{i}")
                other = one if self.real else Symbol(f"{name.replace('x', 'y')}_{i}")
                self.bars |= {one: other, other: one}
                self.values |= {one: self.point.ring.number(0), other: self.point.ring.number(0)}

    def axis(self, i: int, *, bar: bool, frozen: bool = False) -> Symbol:
        """x_i, or y_i for z̄_i; a real coordinate is its own conjugate."""
        return Symbol(("y" if bar and not self.real else "x") + ("0" if frozen else "") + f"_{i}")

    def meets(self, hol: tuple[int, ...], anti: tuple[int, ...]) -> bool:
        """Can a monomial with these powers survive the derivatives of this entry?"""
        pairs = zip((*hol, *anti), (*self.limits[0], *self.limits[1]), strict=True)
        return all(power <= limit for power, limit in pairs)

    def coefficient(self, value: Any) -> Expr:
        """A symbol for a number of the sample."""
        if value == 0:
            return S.Zero
        n = len(self.values)
        one, other = Symbol(f"k_{n}"), Symbol(f"l_{n}")
        self.values |= {one: value, other: value.conjugate()}
        self.bars |= {one: other, other: one}
        return one

    def bar(self, expr: Any) -> Any:
        """The conjugate: x and y change places, coefficients are conjugated."""
        return expr.xreplace({**self.bars, I: -I})


def determinant(matrix: Any) -> Expr:
    """Of a number, or of a matrix up to 2 × 2."""
    if not isinstance(matrix, ImmutableMatrix):
        return matrix
    if len(matrix) == 1:
        return matrix[0, 0]
    return matrix[0, 0] * matrix[1, 1] - matrix[0, 1] * matrix[1, 0]


def inverse(matrix: ImmutableMatrix) -> ImmutableMatrix:
    """Of a matrix up to 2 × 2."""
    det = determinant(matrix)
    if len(matrix) == 1:
        return ImmutableMatrix([[1 / det]])
    (a, b), (c, d) = matrix.tolist()
    return ImmutableMatrix([[d / det, -b / det], [-c / det, a / det]])


def value_at_origin(expr: Expr, page: Page, known: dict[Expr, Any]) -> Any:
    """The value at the origin."""
    if expr in known:
        return known[expr]
    ring = page.point.ring
    if expr in page.values:
        value = page.values[expr]
    elif expr.is_Rational:
        value = ring.number(int(expr.p)) / ring.number(int(expr.q))
    elif expr is S.ImaginaryUnit:
        value = ring.number(1j)
    elif expr.is_Add or expr.is_Mul:
        parts = [value_at_origin(a, page, known) for a in expr.args]
        value = parts[0]
        for part in parts[1:]:
            value = value + part if expr.is_Add else value * part
    elif expr.is_Pow and expr.exp.is_Integer:
        base, value = value_at_origin(expr.base, page, known), ring.number(1)
        for _ in range(abs(int(expr.exp))):
            value = value * base
        value = value if expr.exp > 0 else ring.number(1) / value
    else:
        value = _function(expr, [value_at_origin(a, page, known) for a in expr.args], ring)
    known[expr] = value
    return value


def _function(expr: Expr, values: list[Any], ring: Arithmetic) -> Any:
    if isinstance(expr, exp) and values[0] == 0:
        return ring.number(1)
    if ring.function is None:
        raise EvidenceError(f"{ring.name} has no value for {expr}")
    if isinstance(expr, Pow):
        return ring.function("exp", ring.function("log", values[0]) * values[1])
    given = [int(a) if a.is_Integer else v for a, v in zip(expr.args, values, strict=True)]
    return ring.function(type(expr).__name__, *given)
