"""The derivation ∂_i (and ∂_ī): linear, Leibniz, and one rule for each head.

SymPy's own ``diff`` is not used on words: it differentiates noncommutative powers wrongly and
returns 0 for ``log(Determinant(A))``.  Here an expression that no rule covers is an error, never a
zero.
"""

from __future__ import annotations

from functools import cache

from sympy import (
    Abs,
    Add,
    Derivative,
    Expr,
    Function,
    Integer,
    Mul,
    Piecewise,
    Pow,
    S,
    Subs,
    Symbol,
    arg,
    conjugate,
    im,
    log,
    re,
    sign,
)

from kahler_verify.calculus.indexed import Contract, Entry, contracted
from kahler_verify.calculus.letters import Jet
from kahler_verify.calculus.mixture import (
    Centred,
    LogSumExp,
    Mean,
    Moment,
    Total,
    is_component,
)
from kahler_verify.calculus.words import LogDet, Tr, distribute, shape_of, trace
from kahler_verify.errors import DerivationError

MOST_TERMS = 2000  # printing takes about 40 s for 1000
NOT_ANALYTIC = (
    Abs,
    Piecewise,
    arg,
    conjugate,
    im,
    re,
    sign,
)  # SymPy differentiates along the reals


def component_function(expr: Expr) -> Expr | None:
    """A function of a component field that no total sums over, which has no rule; or None."""
    if isinstance(expr, Jet | Total) or not expr.args:
        return None
    function = isinstance(expr, Function) and not isinstance(expr, Tr | LogDet | Centred)
    if function and is_component(expr):
        return expr
    found = (component_function(a) for a in expr.args if isinstance(a, Expr))
    return next((f for f in found if f is not None), None)


@cache
def wirtinger(expr: Expr, i: Symbol, bar: bool = False) -> Expr:
    """∂_i of an expression, or ∂_ī with ``bar=True``; expanded."""
    if isinstance(expr, Jet):
        return _jet(expr, i, bar)
    if expr.is_number or isinstance(expr, Symbol):
        return S.Zero
    if expr.is_Add:
        return _sum(expr, i, bar)
    if expr.is_Mul:
        return _leibniz(expr.args, i, bar)
    if expr.is_Pow:
        return _power(expr, i, bar)
    if isinstance(expr, Tr):
        return Tr(wirtinger(expr.args[0], i, bar))
    if isinstance(expr, LogDet):
        matrix = expr.args[0]
        return trace(Pow(matrix, -1) * wirtinger(matrix, i, bar), shape_of(matrix)[0])
    if isinstance(expr, Entry):
        return Entry(wirtinger(expr.word, i, bar), *expr.indices)
    if isinstance(expr, Contract):
        return contracted(wirtinger(expr.args[0], i, bar), *expr.indices)
    if isinstance(expr, Total):
        return Total(wirtinger(expr.args[0], i, bar))
    if isinstance(expr, LogSumExp):
        q = expr.args[0]
        return Mean(q, wirtinger(q, i, bar))
    if isinstance(expr, Mean):
        q, x = expr.args
        return Mean(q, wirtinger(x, i, bar)) + _with_score(q, Centred(q, x), i, bar)
    if isinstance(expr, Moment):
        q, y = expr.args
        return Moment(q, wirtinger(y, i, bar)) + _with_score(q, y, i, bar)
    if isinstance(expr, Centred):
        q, x = expr.args
        return Centred(q, wirtinger(x, i, bar)) - _with_score(q, expr, i, bar)
    if isinstance(expr, Function):
        return _chain(expr, i, bar)
    raise DerivationError(f"no derivation rule for {type(expr).__name__}: {expr}")


def _jet(jet: Jet, i: Symbol, bar: bool) -> Expr:
    """A letter's next derivative; an abbreviation's is zero where what it stands for has none."""
    moved = jet.partial(i, bar=bar)
    if jet.field.abbreviated and moved != 0:
        plain: Expr = jet.field.abbreviated[0]
        for j in moved.hol:
            plain = wirtinger(plain, j, False)
        for j in moved.anti:
            plain = wirtinger(plain, j, True)
        return moved if plain != 0 else S.Zero
    return moved


def _sum(expr: Expr, i: Symbol, bar: bool) -> Expr:
    count, terms = 0, []
    for term in expr.args:
        terms.append(wirtinger(term, i, bar))
        count += len(Add.make_args(terms[-1]))
        if count > MOST_TERMS:
            raise DerivationError(
                f"a derivative has more than {MOST_TERMS} terms, and a kernel of that size would "
                "take minutes to generate: nest fewer functions, or write the potential in "
                "explicit coordinates"
            )
    return Add(*terms)


def _with_score(q: Expr, y: Expr, i: Symbol, bar: bool) -> Expr:
    """E[y ∂q°]: how the weights move under ∂."""
    return Moment(q, y * Centred(q, wirtinger(q, i, bar)))


def _leibniz(factors: tuple[Expr, ...], i: Symbol, bar: bool) -> Expr:
    terms = []
    for n, factor in enumerate(factors):
        moved = wirtinger(factor, i, bar)
        if moved != 0:
            terms.append(Mul(*factors[:n], moved, *factors[n + 1 :]))
    return distribute(Add(*terms))


def _power(expr: Expr, i: Symbol, bar: bool) -> Expr:
    base, power = expr.base, expr.exp
    if base.is_commutative:
        moved = wirtinger(base, i, bar)
        out = power * base ** (power - 1) * moved if moved != 0 else S.Zero
        moved_power = wirtinger(power, i, bar)
        if moved_power != 0:
            out += expr * log(base) * moved_power
        return distribute(out)
    if not isinstance(power, Integer):
        raise DerivationError(f"matrix powers must be integers, got {expr}")
    inverse = Pow(base, -1)
    unit, moved = (
        (base, wirtinger(base, i, bar))
        if power > 0
        else (
            inverse,
            -inverse * wirtinger(base, i, bar) * inverse,
        )
    )
    steps = abs(int(power))
    return distribute(Add(*[unit**n * moved * unit ** (steps - 1 - n) for n in range(steps)]))


def _chain(expr: Function, i: Symbol, bar: bool) -> Expr:
    if isinstance(expr, NOT_ANALYTIC):
        raise DerivationError(f"{type(expr).__name__} is not analytic, so no rule covers {expr}")
    terms = []
    for n, argument in enumerate(expr.args, start=1):
        moved = wirtinger(argument, i, bar)
        if moved != 0:
            slope = expr.fdiff(n)
            if slope.has(Derivative, Subs):
                raise DerivationError(f"SymPy knows no derivative of {type(expr).__name__}: {expr}")
            terms.append(slope * moved)
    return distribute(Add(*terms))
