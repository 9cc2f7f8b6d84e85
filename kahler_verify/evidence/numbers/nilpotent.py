"""Truncated power series in nilpotent ε's, over any field: exact numbers give exact derivatives.

Every derivative adds an ε with ε² = 0; the coefficient of the product of all ε's is the derivative.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np

from kahler_verify.errors import EvidenceError
from kahler_verify.evidence.numbers.arithmetic import Arithmetic
from kahler_verify.evidence.numbers.arrays import Array, array

Mask = int
Coefficients = dict[Mask, Array]


@dataclass(frozen=True)
class Series:
    """Σ over subsets of ε's of a matrix; absent subsets are zero."""

    parts: Coefficients
    ring: Arithmetic

    def __add__(self, other: Series) -> Series:
        """The sum; a number beside a matrix is that multiple of the identity."""
        n = max((len(x) for x in (*self.parts.values(), *other.parts.values())), default=1)
        parts = {m: self._wide(x, n) for m, x in self.parts.items()}
        for mask, value in other.parts.items():
            wide = self._wide(value, n)
            parts[mask] = array(parts[mask] + wide) if mask in parts else wide
        return Series(parts, self.ring)

    def _wide(self, x: Array, n: int) -> Array:
        return array(x * self.ring.eye(n)) if x.shape == (1, 1) and n > 1 else x

    def __mul__(self, other: Series) -> Series:
        """The matrix product; a 1 × 1 factor multiplies as a number."""
        parts: Coefficients = {}
        for m, x in self.parts.items():
            for k, y in other.parts.items():
                if m & k:
                    continue
                number = x.shape == (1, 1) or y.shape == (1, 1)
                value = array(x * y) if number else self.ring.product(x, y)
                parts[m | k] = array(parts[m | k] + value) if m | k in parts else value
        return Series(parts, self.ring)

    def scaled(self, numerator: int, denominator: int = 1) -> Series:
        """A rational multiple."""
        top, bottom = self.ring.number(numerator), self.ring.number(denominator)
        return Series({m: x * (top / bottom) for m, x in self.parts.items()}, self.ring)

    @property
    def base(self) -> Array:
        """The part without ε."""
        if 0 in self.parts:
            return self.parts[0]
        shape = next(iter(self.parts.values())).shape if self.parts else (1, 1)
        return self.ring.zeros(*shape)

    def nilpotent(self) -> Series:
        """Everything but the base."""
        return Series({m: x for m, x in self.parts.items() if m}, self.ring)

    def trace(self) -> Series:
        """The trace of every part."""
        return Series(
            {m: array([sum(x[i, i] for i in range(1, len(x))) + x[0, 0]], (1, 1))
             for m, x in self.parts.items()},
            self.ring,
        )  # fmt: skip

    def inverse(self) -> Series:
        """X⁻¹ = Y Σ_j (-NY)^j with Y the inverse of the base and N the nilpotent rest."""
        y = constant(inverse(self.base, self.ring), self.ring)
        step = (self.nilpotent() * y).scaled(-1)
        total = power = constant(self.ring.eye(len(self.base)), self.ring)
        while power.parts:
            power = power * step
            total = total + power
        return y * total

    def log_det(self, head: Any) -> Series:
        """Log det of the base (given as ``head``) + tr log(1 + Y N)."""
        step = constant(inverse(self.base, self.ring), self.ring) * self.nilpotent()
        total = constant(array([head], (1, 1)), self.ring)
        power, j = step, 1
        while power.parts:
            total = total + power.trace().scaled((-1) ** (j + 1), j)
            power, j = power * step, j + 1
        return total

    def apply(self, taylor: Callable[[int], Any]) -> Series:
        """f of a number, from f's Taylor coefficients at the base: ``taylor(j)`` = f^(j)/j!."""
        step = self.nilpotent()
        total = constant(array([taylor(0)], (1, 1)), self.ring)
        power, j = step, 1
        while power.parts:
            total = total + power * constant(array([taylor(j)], (1, 1)), self.ring)
            power, j = power * step, j + 1
        return total

    def log(self, head: Any) -> Series:
        """Log of a number, that of its base being ``head``."""
        ring, below = self.ring, self.ring.number(1) / self.base[0, 0]

        def taylor(j: int) -> Any:
            value = ring.number((-1) ** (j + 1)) / ring.number(j) if j else head
            for _ in range(j):
                value = value * below
            return value

        return self.apply(taylor)

    def conjugate(self) -> Series:
        """The conjugate of every part."""
        return Series({m: array(x).conj() for m, x in self.parts.items()}, self.ring)

    def adjoint(self) -> Series:
        """The conjugate transpose of every part."""
        return Series({m: array(x).mH for m, x in self.parts.items()}, self.ring)

    def exp_of_nilpotent(self) -> Series:
        """Exp of what is left when the base is dropped."""
        total = constant(self.ring.eye(1), self.ring)
        power, j = self.nilpotent(), 1
        step = power
        while power.parts:
            total = total + power
            j += 1
            power = (power * step).scaled(1, j)
        return total


def constant(value: Array, ring: Arithmetic) -> Series:
    """A matrix without ε."""
    return Series({0: value}, ring)


def number(value: Any, ring: Arithmetic) -> Series:
    """A number without ε."""
    return constant(array([value], (1, 1)), ring)


def determinant(matrix: Array, ring: Arithmetic) -> Any:
    """The determinant by elimination."""
    rows, value = np.array(matrix, dtype=object), ring.number(1)
    n = len(rows)
    for i in range(n):
        pivot = next((j for j in range(i, n) if _is_invertible(rows[j, i])), None)
        if pivot is None:
            return ring.number(0)
        if pivot != i:
            rows[[i, pivot]] = rows[[pivot, i]]
            value = -value
        value = value * rows[i, i]
        for j in range(i + 1, n):
            rows[j] = rows[j] - rows[i] * (rows[j, i] / rows[i, i])
    return value


def inverse(matrix: Array, ring: Arithmetic) -> Array:
    """Gauss-Jordan elimination over any field, without pivot search beyond non-zero."""
    if ring.inverse is not None:
        return ring.inverse(matrix)
    n = len(matrix)
    rows = np.concatenate([np.asarray(matrix), np.asarray(ring.eye(n))], axis=1)
    for i in range(n):
        pivot = next((j for j in range(i, n) if _is_invertible(rows[j, i])), None)
        if pivot is None:
            raise EvidenceError("a sampled matrix is singular")
        rows[[i, pivot]] = rows[[pivot, i]]
        rows[i] = rows[i] / rows[i, i]
        for j in range(n):
            if j != i:
                rows[j] = rows[j] - rows[i] * rows[j, i]
    return array(rows[:, n:])


def _is_invertible(x: Any) -> bool:
    contains = getattr(x, "contains", None)
    return not contains(0) if contains is not None else bool(x != 0)
