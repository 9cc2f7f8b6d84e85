"""Positive on a whole box, by interval arithmetic and bisection.

Every step is an enclosure in balls (Arb), so that what is found positive is positive at every point
of the box, between those that anyone would have tried, too.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from functools import reduce
from operator import add, mul
from typing import Any

import flint
from sympy import Expr, Integral, Pow, Rational, Symbol, cos, erf, exp, gamma, log, pi, sin, sympify

from kahler_verify.calculus.claims import Positive
from kahler_verify.errors import EvidenceError

PRECISION = 128
MOST_BOXES = 100_000
FUNCTIONS = {f: f.__name__ for f in (exp, log, sin, cos, gamma, erf)}  # as balls name them
Side = tuple[Rational, Rational]
Ball = Any  # flint.arb, or flint.acb inside an integral


@dataclass(frozen=True)
class Enclosure:
    """What came out: the boxes that cover the domain, or a point where it is not positive."""

    passed: bool
    boxes: int
    at: Mapping[Symbol, Rational] = field(default_factory=dict)
    value: float = 0.0


def enclose(part: Positive) -> Enclosure:
    """Bisect until every box is positive, a midpoint is not, or there are too many boxes.

    Raises:
        EvidenceError: a symbol has no interval, or a function no enclosure.
    """
    symbols = sorted(part.box, key=str)
    if missing := part.expr.free_symbols - set(symbols):
        raise EvidenceError(f"{part.what}: expected an interval for each of {missing}")
    todo = [tuple((sympify(low), sympify(high)) for low, high in (part.box[s] for s in symbols))]
    done = 0
    before, flint.ctx.prec = flint.ctx.prec, PRECISION
    try:
        while todo:
            box = todo.pop()
            done += 1
            if _over(part.expr, symbols, box) > 0:
                continue
            middle = tuple((low + high) / 2 for low, high in box)
            value = _over(part.expr, symbols, [(x, x) for x in middle])
            if value <= 0:
                at = dict(zip(symbols, middle, strict=True))
                return Enclosure(False, done, at, float(value.upper()))
            if done + len(todo) > MOST_BOXES or not value.is_finite():
                return Enclosure(False, done)
            widest = max(range(len(box)), key=lambda i: box[i][1] - box[i][0])
            low, high = box[widest]
            halves = ((low, middle[widest]), (middle[widest], high))
            todo += [(*box[:widest], half, *box[widest + 1 :]) for half in halves]
    finally:
        flint.ctx.prec = before
    return Enclosure(True, done)


def _over(expr: Expr, symbols: list[Symbol], box: tuple[Side, ...] | list[Side]) -> flint.arb:
    balls = {s: _ball(low).union(_ball(high)) for s, (low, high) in zip(symbols, box, strict=True)}
    return _value(expr, balls)


def _ball(number: Rational) -> flint.arb:
    return flint.arb(flint.fmpq(int(number.p), int(number.q)))


def _value(expr: Expr, balls: Mapping[Symbol, Ball]) -> Ball:
    if expr in balls:
        return balls[expr]
    if expr.is_Rational:
        return _ball(expr)
    if expr == pi:
        return flint.arb.pi()
    if expr.is_Pow and expr.exp.is_Integer:
        return _value(expr.base, balls) ** int(expr.exp)
    if expr.is_Pow:
        return _value(expr.base, balls) ** _value(expr.exp, balls)
    if isinstance(expr, Integral):
        return _integral(expr, balls)
    values = [_value(argument, balls) for argument in expr.args]
    if expr.is_Add or expr.is_Mul:
        return reduce(add if expr.is_Add else mul, values)
    if expr.func not in FUNCTIONS:
        raise EvidenceError(f"expected one of {', '.join(map(str, FUNCTIONS))}, got {expr}")
    return getattr(values[0], FUNCTIONS[expr.func])()


def _integral(expr: Integral, balls: Mapping[Symbol, Ball]) -> flint.arb:
    """Arb's rigorous quadrature, for integrands that are meromorphic in what they integrate over.

    Raises:
        EvidenceError: the integrand has a branch, or the integral is not over one interval.
    """
    integrand, *limits = expr.args
    if len(limits) != 1 or len(limits[0]) != 3:
        raise EvidenceError(f"expected an integral over one interval, got {expr}")
    x, low, high = limits[0]
    branches = [f for f in integrand.atoms(log, Pow) if f.has(x) and not _is_meromorphic(f, x)]
    if branches:
        raise EvidenceError(f"expected a meromorphic integrand, got {branches[0]} in {expr}")
    found = flint.acb.integral(
        lambda at, _: flint.acb(_value(integrand, {**balls, x: at})),
        flint.acb(_value(low, balls)),
        flint.acb(_value(high, balls)),
    )
    return found.real


def _is_meromorphic(f: Expr, x: Symbol) -> bool:
    return f.is_Pow and bool(f.exp.is_Integer or not f.base.has(x))


__all__ = ["Enclosure", "enclose"]
