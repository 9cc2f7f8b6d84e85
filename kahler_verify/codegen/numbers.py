"""Code of numbers, and of sums with rational coefficients."""

from __future__ import annotations

from collections.abc import Callable

from sympy import Expr, Integer, Mul, Rational, S

from kahler_verify.calculus.indexed import free_indices
from kahler_verify.calculus.letters import Jet, is_real_index
from kahler_verify.calculus.mixture import factors_of
from kahler_verify.errors import GenerationError


def is_real(expr: Expr) -> bool:
    """Whether real letters, symbols and indices and rational numbers alone make it up."""
    if expr.has(S.ImaginaryUnit):
        return False
    if not all(s.is_real for s in expr.free_symbols - free_indices(expr)):
        return False
    return all(
        "real" in j.field.traits and not j.anti and all(map(is_real_index, j.hol))
        for j in expr.atoms(Jet)
    )


def is_exact(expr: Expr) -> bool:
    """Is it i, or a rational number?"""
    return expr.is_Rational or expr is S.ImaginaryUnit


def fraction(expr: Expr) -> tuple[Expr, Expr]:
    """A product as (what stands above, what stands below)."""
    above, below = [], []
    for f in Mul.make_args(expr):
        base, power = f.as_base_exp()
        if f.is_Rational:
            above.append(Integer(f.p))
            below.append(Integer(f.q))
        elif power.is_Integer and power < 0:
            below.append(base ** (-power))
        else:
            above.append(f)
    return Mul(*above), Mul(*below)


def units(product: Expr) -> list[Expr]:
    """The factors of a product, a square as two; none of 1."""
    return [f for f in factors_of(product) if f != 1] if product != 1 else []


def integer_code(number: Expr) -> str:
    """An integer as torch takes it: of 64 bits.

    Raises:
        GenerationError: it is larger.
    """
    if abs(int(number)) >= 2**63:
        raise GenerationError(
            f"expected integers below 2^63, which torch can multiply tensors by, got {number}: "
            "make it a parameter, or write the potential in explicit coordinates"
        )
    return str(number)


def signed_sum(terms: list[tuple[Expr, Expr]], code: Callable[[Expr], str]) -> str:
    """Code of Σ coefficient × term with rational coefficients, signs in front."""
    out = ""
    for coefficient, term in sorted(terms, key=lambda t: (bool(t[0] < 0), str(t[1]))):
        size = abs(Rational(coefficient))
        body = code(term) if term != 1 else ""
        if size.p != 1 or not body:
            above = integer_code(Integer(size.p))
            body = f"{above} * {body}" if body else above
        if size.q != 1:
            body = f"{body} / {integer_code(Integer(size.q))}"
        sign = "-" if coefficient < 0 else "+"
        out += f" {sign} {body}" if out else (f"-{body}" if coefficient < 0 else body)
    return out
