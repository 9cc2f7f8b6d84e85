"""Numbers x + iy over a field of real numbers or residues."""

from __future__ import annotations

import math
from typing import Any

from kahler_verify.errors import EvidenceError


class Gaussian:
    """x + iy over a field of real numbers or residues (fmpq, nmod)."""

    __slots__ = ("x", "y")

    def __init__(self, x: Any, y: Any):
        self.x, self.y = x, y

    def _lift(self, other: Any) -> Gaussian:
        if isinstance(other, Gaussian):
            return other
        zero = self.x - self.x
        if isinstance(other, int):
            return Gaussian(zero + other, zero)
        if isinstance(other, float) and math.isfinite(other):  # an exact binary fraction
            top, below = other.as_integer_ratio()
            return Gaussian((zero + top) / (zero + below), zero)
        if isinstance(other, complex) and other.real.is_integer() and other.imag.is_integer():
            return Gaussian(zero + int(other.real), zero + int(other.imag))
        raise EvidenceError(f"expected an exact number in a kernel, got {other!r}")

    def __add__(self, other: Any) -> Gaussian:
        o = other if other.__class__ is Gaussian else self._lift(other)
        return Gaussian(self.x + o.x, self.y + o.y)

    __radd__ = __add__

    def __sub__(self, other: Any) -> Gaussian:
        o = self._lift(other)
        return Gaussian(self.x - o.x, self.y - o.y)

    def __rsub__(self, other: Any) -> Gaussian:
        return self._lift(other) - self

    def __mul__(self, other: Any) -> Gaussian:
        o = other if other.__class__ is Gaussian else self._lift(other)
        a, b, c, d = self.x, self.y, o.x, o.y
        return Gaussian(a * c - b * d, a * d + b * c)

    __rmul__ = __mul__

    def __truediv__(self, other: Any) -> Gaussian:
        o = self._lift(other)
        norm = o.x * o.x + o.y * o.y
        top = self * o.conjugate()
        return Gaussian(top.x / norm, top.y / norm)

    def __rtruediv__(self, other: Any) -> Gaussian:
        return self._lift(other) / self

    def __neg__(self) -> Gaussian:
        return Gaussian(-self.x, -self.y)

    def __pow__(self, power: int) -> Gaussian:
        value, base = self._lift(1), self
        while power:
            value = value * base if power & 1 else value
            base, power = base * base, power >> 1
        return value

    def conjugate(self) -> Gaussian:
        """The complex conjugate."""
        return Gaussian(self.x, -self.y)

    def __eq__(self, other: object) -> bool:
        o = self._lift(other)
        return bool(self.x == o.x and self.y == o.y)

    def __hash__(self) -> int:
        return hash((str(self.x), str(self.y)))

    def __repr__(self) -> str:
        return f"({self.x} + {self.y}i)"
