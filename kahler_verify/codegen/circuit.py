"""Arithmetic circuits: straight-line programs of numbers, differentiated as they stand.

A derivative is taken of the program, line by line and by the chain rule, never of an expanded
expression: every number and every derivative of one is a node that is made once.  Nodes carry their
value at a random point of F_p[i], p = 2^61 - 1, where conjugation is i ↦ -i.  Nodes whose values
agree there, up to a power of i, are one node, and a value of zero is zero, so that no rule of
simplification is needed.  Two different rational functions agree at a random point with a
probability of about degree / p (Schwartz 1980, Zippel 1979); evidence compares what is printed with
the definition elsewhere.

Neither SymPy nor torch is imported here.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Hashable
from dataclasses import dataclass, field
from fractions import Fraction
from functools import reduce
from math import gcd, lcm
from typing import Literal, NamedTuple

from kahler_verify.errors import GenerationError

PRIME = 2**61 - 1  # ≡ 3 mod 4, so that x² + 1 is irreducible and F_p[i] is a field

Residue = tuple[int, int]  # x + iy in F_p[i]
Operation = Literal["one", "input", "sum", "product", "quotient"]


class Gaussian(NamedTuple):
    """x + iy with rational x and y, exactly."""

    x: Fraction
    y: Fraction

    def times(self, other: Gaussian) -> Gaussian:
        """The product."""
        x = self.x * other.x - self.y * other.y
        return Gaussian(x, self.x * other.y + self.y * other.x)

    def plus(self, other: Gaussian) -> Gaussian:
        """The sum."""
        return Gaussian(self.x + other.x, self.y + other.y)

    def inverse(self) -> Gaussian:
        """1 / (x + iy)."""
        norm = self.x**2 + self.y**2
        return Gaussian(self.x / norm, -self.y / norm)

    @property
    def residue(self) -> Residue:
        """The same number in F_p[i]."""
        return (_residue(self.x), _residue(self.y))


def exact(x: Fraction | int, y: Fraction | int = 0) -> Gaussian:
    """x + iy."""
    return Gaussian(Fraction(x), Fraction(y))


ZERO = exact(0)
UNITS = (exact(1), exact(0, 1), exact(-1), exact(0, -1))  # the powers of i


# The derivative of a number by an input.
Slope = Callable[["Node"], "Term"]


@dataclass(frozen=True, eq=False)
class Node:
    """A number that is computed once.

    Attributes:
        operation: what is done with the operands; an ``input`` is given from outside.
        operands: terms of a sum, two factors, or a dividend and its divisor; coefficients other
            than one occur in sums alone.
        value: its value at the random point.
        number: its place in the order in which nodes were made, so that operands come first.
        slope: its derivative, where that is not what its operation says.
    """

    operation: Operation
    operands: tuple[Term, ...]
    value: Residue
    number: int
    slope: Slope | None = field(default=None, repr=False)


class Term(NamedTuple):
    """An exact number times a node."""

    coefficient: Gaussian
    node: Node

    @property
    def value(self) -> Residue:
        """Its value at the random point."""
        return times(self.coefficient.residue, self.node.value)

    @property
    def is_zero(self) -> bool:
        """Is it the number 0?"""
        return self.coefficient == ZERO

    @property
    def is_number(self) -> bool:
        """Is it a number, the same at every point?"""
        return self.node.operation == "one" or self.is_zero

    def scaled(self, factor: Gaussian) -> Term:
        """The term times an exact number."""
        return Term(self.coefficient.times(factor), self.node)


class Circuit:
    """All nodes by their values, and the derivatives that were taken of them."""

    def __init__(self) -> None:
        self._known: dict[Residue, tuple[int, Node]] = {}  # by a canonical associate of the value
        self._slopes: dict[tuple[Node, Node], Term] = {}
        self._count = 0
        self.one = self._node("one", (), (1, 0)).node
        self.zero = Term(exact(0), self.one)

    def _node(
        self,
        operation: Operation,
        operands: tuple[Term, ...],
        value: Residue,
        slope: Slope | None = None,
    ) -> Term:
        """The node, or i^k times the one that was known before and has its value up to i^k."""
        if value == (0, 0):
            return self.zero
        turns, canonical = _canonical(value)
        if canonical not in self._known:
            self._known[canonical] = turns, Node(operation, operands, value, self._count, slope)
            self._count += 1
        before, node = self._known[canonical]
        return Term(UNITS[(before - turns) % 4], node)

    # ------------------------------------------------------------------ arithmetic
    def number(self, value: Gaussian) -> Term:
        """An exact number."""
        return Term(value, self.one)

    def input(self, value: Residue, slope: Slope | None = None) -> Term:
        """A number that is given; ``slope`` is its derivative by a coordinate, by default 0."""
        return self._node("input", (), value, slope)

    def add(self, *terms: Term) -> Term:
        """A sum: terms of one node are collected, and a common rational factor stands outside."""
        collected: dict[Node, Gaussian] = {}
        for c, node in terms:
            collected[node] = c.plus(collected.get(node, exact(0)))
        parts = [Term(c, n) for n, c in collected.items() if c != ZERO]
        if len(parts) < 2:
            return parts[0] if parts else self.zero
        parts.sort(key=lambda term: term.node.number)
        content = common_factor([term.coefficient for term in parts])
        inner = tuple(term.scaled(content.inverse()) for term in parts)
        value = reduce(plus, [term.value for term in inner])
        return self._node("sum", inner, value).scaled(content)

    def multiply(self, a: Term, b: Term, slope: Slope | None = None) -> Term:
        """A product; numbers stand outside.  ``slope`` is its derivative, if not by Leibniz."""
        coefficient = a.coefficient.times(b.coefficient)
        if coefficient == ZERO:
            return self.zero
        x, y = sorted((a.node, b.node), key=lambda node: node.number)
        if x is self.one:
            return Term(coefficient, y)
        operands = (Term(exact(1), x), Term(exact(1), y))
        own: Slope | None = None
        if slope is not None:
            own = lambda by: slope(by).scaled(coefficient.inverse())  # noqa: E731
        value = times(x.value, y.value)
        return self._node("product", operands, value, own).scaled(coefficient)

    def divide(self, a: Term, b: Term) -> Term:
        """A quotient; numbers stand outside.

        Raises:
            GenerationError: the divisor vanishes identically.
        """
        if b.is_zero:
            raise GenerationError("the expression divides by a part that is zero everywhere")
        coefficient = a.coefficient.times(b.coefficient.inverse())
        if coefficient == ZERO:
            return self.zero
        if b.node is self.one:
            return Term(coefficient, a.node)
        operands = (Term(exact(1), a.node), Term(exact(1), b.node))
        value = times(a.node.value, inverse(b.node.value))
        return self._node("quotient", operands, value).scaled(coefficient)

    def power(self, a: Term, n: int) -> Term:
        """a^n for a whole n, by repeated squaring."""
        if n < 0:
            return self.divide(self.number(exact(1)), self.power(a, -n))
        if n < 2:
            return a if n else self.number(exact(1))
        half = self.power(a, n // 2)
        square = self.multiply(half, half)
        return self.multiply(square, a) if n % 2 else square

    # ------------------------------------------------------------------ derivatives
    def derivative(self, a: Term, by: Node) -> Term:
        """∂a / ∂by, where ``by`` is an input; all other inputs stay where their slopes say so."""
        if a.node is self.one:
            return self.zero
        key = (a.node, by)
        if key not in self._slopes:
            self._slopes[key] = self._slope(a.node, by)
        return self._slopes[key].scaled(a.coefficient)

    def _slope(self, node: Node, by: Node) -> Term:
        if node is by:
            return self.number(exact(1))
        if node.slope is not None:
            return node.slope(by)
        if node.operation == "sum":
            return self.add(*[self.derivative(term, by) for term in node.operands])
        if node.operation == "product":
            x, y = node.operands
            return self.add(
                self.multiply(self.derivative(x, by), y), self.multiply(x, self.derivative(y, by))
            )
        if node.operation == "quotient":  # (x/y)' = x'/y - (x/y)(y'/y): a recurrence, no powers
            x, y = node.operands
            own, other = self.derivative(x, by), self.derivative(y, by)
            drag = self.multiply(Term(exact(-1), node), self.divide(other, y))
            return self.add(self.divide(own, y), drag)
        return self.zero


# ---------------------------------------------------------------------- the field F_p[i]


def plus(a: Residue, b: Residue) -> Residue:
    """a + b."""
    return (a[0] + b[0]) % PRIME, (a[1] + b[1]) % PRIME


def times(a: Residue, b: Residue) -> Residue:
    """a b."""
    return (a[0] * b[0] - a[1] * b[1]) % PRIME, (a[0] * b[1] + a[1] * b[0]) % PRIME


def conjugate(a: Residue) -> Residue:
    """x - iy."""
    return a[0], -a[1] % PRIME


def inverse(a: Residue) -> Residue:
    """1 / a."""
    below = pow(a[0] * a[0] + a[1] * a[1], -1, PRIME)
    return a[0] * below % PRIME, -a[1] * below % PRIME


def random_residue(key: Hashable, *, real: bool = False) -> Residue:
    """A residue that depends on the key alone, and is not zero."""
    digest = hashlib.sha512(repr(key).encode()).digest()
    x, y = (1 + int.from_bytes(part) % (PRIME - 1) for part in (digest[:32], digest[32:]))
    return x, 0 if real else y


def _residue(x: Fraction) -> int:
    return x.numerator * pow(x.denominator, -1, PRIME) % PRIME


def _canonical(value: Residue) -> tuple[int, Residue]:
    """The least of i^k times a value, and k."""
    x, y = value
    turned = [(x, y), (-y % PRIME, x), (-x % PRIME, -y % PRIME), (y, -x % PRIME)]
    least = min(turned)
    return turned.index(least), least


def common_factor(coefficients: list[Gaussian]) -> Gaussian:
    """What to take out, so that coprime Gaussian integers are left and the first is positive."""
    parts = [part for c in coefficients for part in c]
    below = lcm(*[part.denominator for part in parts])
    above = gcd(*[int(part * below) for part in parts])
    lead = coefficients[0]
    unit = next(u for u in UNITS if (t := lead.times(u.inverse())).x > 0 and t.y >= 0)
    return unit.times(exact(Fraction(above, below)))
