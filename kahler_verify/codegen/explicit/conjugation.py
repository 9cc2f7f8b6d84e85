"""Polarised expressions: z̄ is a symbol of its own, and conjugates are written out."""

from __future__ import annotations

from sympy import Abs, Expr, Function, I, Pow, Symbol, conjugate, im, log, re, sqrt, sympify

from kahler_verify.codegen.heads import HEADS
from kahler_verify.errors import GenerationError


class Conjugate(Symbol):
    """z̄ for a coordinate z: of a class of its own, so that no user's symbol is equal to it."""

    __slots__ = ()


def bar(z: Symbol) -> Symbol:
    """The symbol that stands for z̄."""
    return Conjugate(f"{z.name}_bar", complex=True)


def polarised(expr: Expr, coordinates: tuple[Symbol, ...]) -> Expr:
    """The expression in z and z̄ as independent symbols, without conjugate, re, im or Abs."""
    expr = sympify(expr)
    if isinstance(expr, conjugate):
        return conjugated(polarised(expr.args[0], coordinates), coordinates)
    if isinstance(expr, re | im | Abs):
        inner = polarised(expr.args[0], coordinates)
        other = conjugated(inner, coordinates)
        if isinstance(expr, re):
            return (inner + other) / 2
        return (inner - other) / (2 * I) if isinstance(expr, im) else sqrt(inner * other)
    if isinstance(expr, Pow) and isinstance(expr.base, Abs):  # |f|² is a polynomial, |f| is not
        inner = polarised(expr.base.args[0], coordinates)
        power = polarised(expr.exp, coordinates)
        return (inner * conjugated(inner, coordinates)) ** (power / 2)
    if expr.is_Float:
        raise GenerationError(f"expected exact numbers, got {expr}: write it as a Rational")
    if expr.is_Atom:
        return expr
    return expr.func(*[polarised(a, coordinates) for a in expr.args])


def conjugated(expr: Expr, coordinates: tuple[Symbol, ...]) -> Expr:
    """The conjugate of a polarised expression; other symbols must be declared real."""
    if isinstance(expr, Symbol):
        for z in coordinates:
            if expr == z:
                return bar(z)
            if expr == bar(z):
                return z
        if expr.is_real:
            return expr
        raise GenerationError(f"declare the parameter {expr} real=True, or write its conjugate out")
    if expr.is_number:
        return conjugate(expr)
    if isinstance(expr, log) or (expr.is_Pow and not expr.exp.is_Integer):
        raise GenerationError(
            f"conjugate, re, im and Abs of {expr} would be wrong across its cut, on the negative "
            "reals; write the real expression out"
        )
    if expr.is_Add or expr.is_Mul or expr.is_Pow:
        return expr.func(*[conjugated(a, coordinates) for a in expr.args])
    if isinstance(expr, Function) and type(expr).__name__ in HEADS:
        return expr.func(*[conjugated(a, coordinates) for a in expr.args])
    raise GenerationError(f"no conjugate is known for {type(expr).__name__}: {expr}")
