"""Powers and logarithms of series."""

from __future__ import annotations

from fractions import Fraction
from functools import reduce
from math import factorial
from operator import mul
from typing import Any

from kahler_verify.evidence.numbers.nilpotent import Series, constant, determinant, number
from kahler_verify.evidence.numbers.points import Point


def rational_power(base: Series, power: Fraction, point: Point) -> Series:
    """x^c by the binomial series."""
    start, ring = base.base[0, 0], point.ring
    head, one = point.functions.power(start, power), ring.number(1)
    if not base.nilpotent().parts:
        return number(head, ring)
    below = one / start

    def taylor(j: int) -> Any:
        value = head
        for i in range(j):
            step = power - i
            value = value * below * ring.number(step.numerator) / ring.number(step.denominator)
        return value / ring.number(factorial(j))

    return base.apply(taylor)


def integer_power(base: Series, power: int) -> Series:
    """x^n of a number or a square matrix."""
    if power < 0:
        return integer_power(base.inverse(), -power)
    one = constant(base.ring.eye(len(base.base)), base.ring)
    return reduce(mul, [base] * power) if power else one


def log_of(argument: Series, point: Point) -> Series:
    """Log x of a number."""
    return argument.log(point.functions.log(argument.base[0, 0]))


def log_det_of(matrix: Series, point: Point) -> Series:
    """Log det, which belongs to the determinant."""
    functions = point.functions
    if point.ring.bound is not None:  # such numbers have no determinant
        return matrix.log_det(point.ring.bound(Fraction(1)))
    return matrix.log_det(functions.log(determinant(matrix.base, point.ring)))
