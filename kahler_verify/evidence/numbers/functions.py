"""Values of transcendental functions at a point, in number systems that may have none.

Where numbers can be computed with (50 digits, float64), so can functions.  In an exact field a
value is a *letter*, drawn where it is first met.  It belongs to the number that its function is
taken of, not to a way of writing it, so that every spelling of an argument finds the same letter.
Letters obey the laws that a right kernel may use:

    e^(u + v) = e^u e^v,   conj e^u = e^ū,   e^(c log x) = x^c,   log 1/x = -log x,   (x^1/q)^q = x

and sines, tangents and their like are made of exponentials.  Nothing is taken from the generator.
"""

from __future__ import annotations

import random
from collections.abc import Iterable
from dataclasses import dataclass, field
from fractions import Fraction
from functools import cache
from math import floor, lcm, prod
from typing import Any

from sympy import Expr, Symbol

from kahler_verify.errors import EvidenceError
from kahler_verify.evidence.numbers.arithmetic import Arithmetic

Term = tuple[Fraction, Any]  # a rational times a number of the field
ARGUMENT = Symbol("_x")
SHARES = 12  # the letter of v is e^(v/12), so that halves, thirds and quarters are its powers


@cache
def slope(function: Expr, order: int) -> Expr:
    """The derivative of a function of ``ARGUMENT``, in terms of it and its relatives."""
    return function.diff(ARGUMENT, order)


@dataclass
class Functions:
    """The functions of one point; ``rng`` draws letters, and is not needed where none are."""

    ring: Arithmetic
    rng: random.Random | None = None
    exponentials: list[tuple[Any, Any]] = field(default_factory=list)  # (v, e^(v/12))
    logarithms: list[tuple[Any, Any]] = field(default_factory=list)  # (x, log x)
    others: dict[tuple[Any, ...], Any] = field(default_factory=dict)
    roots: dict[Any, int] = field(default_factory=dict)  # x, and of which order its roots are

    @property
    def conjugates(self) -> int:
        """How many times more zeros an expression may have than its degree says, because of roots.

        A polynomial in q-th roots divides its norm, of q times the degree, and points are drawn
        among those that have the roots.
        """
        return prod(q * _chance(x, q) for x, q in self.roots.items())

    # ------------------------------------------------------------------ exponentials
    def exponential(self, terms: Iterable[Term]) -> Any:
        """e^(Σ c v)."""
        one = self.ring.number(1)
        if self.ring.function is not None:
            total = self.ring.number(0)
            for c, v in terms:
                total = total + v * self._number(c)
            return one if total == 0 else self.ring.function("exp", total)
        together: dict[Any, Fraction] = {}
        for c, v in terms:
            together[v] = together.get(v, Fraction(0)) + c
        value = one
        for v, c in together.items():
            if c and v != 0:
                value = value * self._exponential(c, v)
        return value

    def _exponential(self, c: Fraction, v: Any) -> Any:
        if self.ring.bound is not None:
            return self.ring.bound(2 * SHARES * c)  # e^(iv) of a real v is a quotient w/w̄
        for x, letter in self.logarithms:
            for base, exponent in ((x, letter), (x.conjugate(), letter.conjugate())):
                ratio = self.ring.fraction(v / exponent) if exponent != 0 else None
                if ratio is not None:
                    return self.power(base, c * ratio)
        for u, letter in self.exponentials:
            for exponent, known in ((u, letter), (u.conjugate(), letter.conjugate())):
                ratio = self.ring.fraction(v / exponent)
                if ratio is not None:
                    return self.power(known, SHARES * c * ratio)
        letter = self._letter(v)
        if v.conjugate() == -v:
            letter = self.ring.draw(self._source())
            letter = letter / letter.conjugate()
        self.exponentials.append((v, letter))
        return self.power(letter, SHARES * c)

    def _letter(self, *of: Any) -> Any:
        """A number to stand for a function: real where all that it is taken of is real."""
        if all(x == x.conjugate() for x in of):
            return self.ring.draw_positive(self._source())
        return self.ring.draw(self._source())

    def _source(self) -> random.Random:
        if self.rng is None:
            raise EvidenceError("the value of a function is not known at this point")
        return self.rng

    def _number(self, c: Fraction) -> Any:
        return self.ring.number(c.numerator) / self.ring.number(c.denominator)

    # ------------------------------------------------------------------ logarithms and powers
    def log(self, x: Any) -> Any:
        """Log x."""
        if self.ring.function is not None:
            return self.ring.function("log", x)
        if self.ring.bound is not None:
            return self.ring.bound(Fraction(1))
        if x == 1:
            return self.ring.number(0)
        for a, letter in self.logarithms:
            if x == a:
                return letter
            if x * a == 1:
                return -letter
            if x == a.conjugate():
                return letter.conjugate()
            if x * a.conjugate() == 1:
                return -letter.conjugate()
        letter = self._letter(x)
        self.logarithms.append((x, letter))
        return letter

    def power(self, x: Any, c: Fraction) -> Any:
        """x^c.

        Raises:
            NotASquare: x has no such root in the field.
        """
        whole = floor(c)
        if c != whole and self.ring.function is not None:
            if x == 0 and c > 0:
                return x
            return self.ring.function("exp", self.ring.function("log", x) * self._number(c))
        value = self._whole(x, whole)
        return value if c == whole else value * self._root(x, c - whole)

    def _whole(self, x: Any, power: int) -> Any:
        base, value, left = x, self.ring.number(1), abs(power)
        while left:
            value = value * base if left & 1 else value
            base, left = base * base if left > 1 else base, left >> 1
        return value if power >= 0 else self.ring.number(1) / value

    def _root(self, x: Any, c: Fraction) -> Any:
        """x^c for 0 < c < 1."""
        if self.ring.root is None:
            raise EvidenceError(f"{self.ring.name} has no root of order {c.denominator} of {x}")
        self.roots[x] = lcm(self.roots.get(x, 1), c.denominator)
        return self.ring.root(x, c)

    # ------------------------------------------------------------------ all others
    def other(self, name: str, *of: Any) -> Any:
        """The value of a function without laws, or of a number such as pi."""
        if self.ring.function is not None and name != "LogSumExp":
            return self.ring.function(name, *of)
        if self.ring.bound is not None:
            return self.ring.bound(Fraction(1))
        key = (name, *of)
        if key not in self.others:
            mirrored = (name, *[x.conjugate() for x in of])
            known = self.others.get(mirrored)
            self.others[key] = known.conjugate() if known is not None else self._letter(*of)
        return self.others[key]

    def pi(self) -> Any:
        """π = 4 atan 1."""
        if self.ring.function is None:
            return self.other("pi")
        return self.ring.function("atan", self.ring.number(1)) * self.ring.number(4)


def _chance(x: Any, q: int) -> int:
    """One number in so many, real or complex as x is, has a q-th root as ``PRIME`` wants it."""
    if x == x.conjugate():
        return 2 if q % 2 == 0 else 1
    return (16 if q % 2 == 0 else 1) * (3 if q % 3 == 0 else 1) * (5 if q % 5 == 0 else 1)
