"""The definition, read and differentiated by numbers alone.

Independent of the calculus and of the generator: every node of a definition has its meaning here.
Every derivative ∂_a that a definition asks for adds an ε with ε² = 0 to the point; the coefficient
of the product of all ε's is the derivative.  z and z̄ are moved by ε's of their own, so that the
conjugate of f is the conjugate of its series with ∂ and ∂̄ exchanged: (∂f̄) = conj(∂̄f).  re, im and
Abs are made of it: re f = (f + f̄)/2, im f = (f - f̄)/(2i), |f|² = f f̄.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import replace
from fractions import Fraction
from functools import reduce
from itertools import product
from math import factorial
from operator import add, mul
from typing import Any

from sympy import (
    Abs,
    E,
    Expr,
    Function,
    Pow,
    S,
    Symbol,
    adjoint,
    conjugate,
    cos,
    cosh,
    cot,
    coth,
    exp,
    im,
    log,
    pi,
    re,
    sin,
    sinh,
    tan,
    tanh,
)

from kahler_verify.calculus.definition import Covariance, Expected, OnDiagonal, Partial
from kahler_verify.calculus.indexed import Contract, Entry
from kahler_verify.calculus.letters import Index, Jet, is_real_index
from kahler_verify.calculus.mixture import Centred, LogSumExp, Mean, Moment, Total, is_component
from kahler_verify.calculus.pointwise import sigmoid, softplus
from kahler_verify.calculus.words import LogDet, Tr
from kahler_verify.errors import EvidenceError
from kahler_verify.evidence.numbers.arrays import Array, array
from kahler_verify.evidence.numbers.functions import ARGUMENT, Term, slope
from kahler_verify.evidence.numbers.means import nodes_for
from kahler_verify.evidence.numbers.nilpotent import Series, number
from kahler_verify.evidence.numbers.points import Point, Scope, extent, free_indices
from kahler_verify.evidence.numbers.powers import integer_power, log_det_of, log_of, rational_power
from kahler_verify.evidence.numbers.readings import fields_within
from kahler_verify.evidence.numbers.taylor import field_of, symbol_of


def evaluate_output(definition: Expr, indices: tuple[Symbol, ...], point: Point) -> Array:
    """All entries of an output: an object array over its latent indices."""
    shape = tuple(extent(i, point.sizes) for i in indices)
    out = []
    for entry in product(*map(range, shape)):
        value = evaluate(definition, point, Scope(dict(zip(indices, entry, strict=True))))
        out.append(value.base[0, 0])
    return array(out, shape)


def evaluate(expr: Expr, point: Point, scope: Scope) -> Series:
    """The series of an expression at a point."""
    ring = point.ring
    if isinstance(expr, Partial):
        return _partial(expr, point, scope)
    if isinstance(expr, OnDiagonal):
        return evaluate(expr.args[0], point, replace(scope, shared=len(scope.epsilons)))
    if isinstance(expr, Expected):
        return _expected(expr, point, scope)
    if isinstance(expr, Covariance):
        x, y, residual = expr.args
        means = _expected(Expected(x, residual), point, scope).scaled(-1)
        both = _expected(Expected(x * y, residual), point, scope)
        return both + means * _expected(Expected(y, residual), point, scope)
    if isinstance(expr, Jet):
        return _letter(expr, point, scope)
    if isinstance(expr, Symbol):
        return symbol_of(expr, point, scope)
    if expr is S.ImaginaryUnit:
        return number(ring.number(1j), ring)
    if expr.is_Rational:
        return number(ring.number(1), ring).scaled(int(expr.p), int(expr.q))
    if expr.is_Add:
        parts = [evaluate(t, point, scope) for t in expr.args]
        return reduce(add, parts)
    if expr.is_Mul:
        parts = [evaluate(f, point, scope) for f in expr.args]
        return reduce(mul, parts)
    if isinstance(expr, conjugate | adjoint | re | im | Abs):
        return _conjugates(expr, point, scope)
    if isinstance(expr, Tr):
        return evaluate(expr.args[0], point, scope).trace()
    if isinstance(expr, Entry):
        return _entry(expr, point, scope)
    if isinstance(expr, Contract):
        return _contract(expr, point, scope)
    if isinstance(expr, LogDet):
        return _once(expr, expr.args[0], point, scope, lambda matrix: log_det_of(matrix, point))
    if isinstance(expr, LogSumExp | Mean | Moment | Centred):
        return _mixture(expr, point, scope)
    if isinstance(expr, Total):
        parts = [
            evaluate(expr.args[0], point, replace(scope, component=k))
            for k in range(len(_weights(point)))
        ]
        return reduce(add, parts)
    if isinstance(expr, Pow):
        return _power(expr, point, scope)
    if expr is pi:
        return number(point.functions.pi(), ring)
    if expr is E:
        return number(point.functions.exponential([(Fraction(1), ring.number(1))]), ring)
    if isinstance(expr, Function):
        return _function(expr, point, scope)
    raise EvidenceError(f"evidence has no rule for {type(expr).__name__}: {expr}")


def _once(
    expr: Expr, inner: Expr, point: Point, scope: Scope, compute: Callable[[Series], Series]
) -> Series:
    """A function of what stands inside; of a letter computed once for all that moves alike."""
    if not isinstance(inner, Jet) or inner.field.abbreviated or inner.hol or inner.anti:
        return compute(evaluate(inner, point, scope))
    key = (expr, scope.epsilons, scope.shared, scope.component)
    if key not in point.known:
        point.known[key] = compute(evaluate(inner, point, scope))
    found: Series = point.known[key]
    return found


def value_of(expr: Expr, point: Point, scope: Scope) -> Any:
    """The value of a number at the point itself."""
    return evaluate(expr, point, scope.still).base[0, 0]


def _partial(expr: Partial, point: Point, scope: Scope) -> Series:
    """A derivative; while a mean is taken, what is the same at all nodes is computed at one."""
    if not point.averaged or point.averaged & fields_within(expr):
        return _derivative(expr.args[0], expr.hol, expr.anti, point, scope)
    places = frozenset(scope.values.items())
    key = (expr, places, scope.epsilons, scope.shared, scope.component)
    if key not in point.known:
        point.known[key] = _derivative(expr.args[0], expr.hol, expr.anti, point, scope)
    found: Series = point.known[key]
    return found


def _derivative(
    expr: Expr, hol: Iterable[Symbol], anti: Iterable[Symbol], point: Point, scope: Scope
) -> Series:
    """∂^hol ∂̄^anti: the coefficient of one ε more for each; a real direction is its own bar."""
    new = [(i, False) for i in hol] + [(i, True) for i in anti]
    moved = [(scope.values[i], None if is_real_index(i) else bar) for i, bar in new]
    first = len(scope.epsilons)
    inner = evaluate(expr, point, replace(scope, epsilons=(*scope.epsilons, *moved)))
    wanted = sum(1 << (first + j) for j in range(len(new)))
    parts = {m ^ wanted: x for m, x in inner.parts.items() if m & wanted == wanted}
    return Series(parts or {0: array(inner.base - inner.base)}, point.ring)


def _letter(jet: Jet, point: Point, scope: Scope) -> Series:
    """A letter; an adjoint is that of the series with ∂ and ∂̄ exchanged."""
    inner = scope.mirrored() if jet.dagger else scope
    out = _abbreviation(jet, point, inner) if jet.field.abbreviated else field_of(jet, point, inner)
    return out.adjoint() if jet.dagger else out


def _expected(expr: Expected, point: Point, scope: Scope) -> Series:
    """The mean of a polynomial in a standard normal vector."""
    inner, residual = expr.args
    size = point.jets[residual.field][0, 0].size
    terms = []
    for at, weight in nodes_for(inner, residual, size):
        value = array([point.ring.number(x) for x in at], (size, 1))
        jets = {**point.jets, residual.field: {(0, 0): value}}
        node = replace(point, jets=jets, averaged=point.averaged | {residual.field})
        node.known = point.known  # of letters that have an inverse, which the residual has not
        found = evaluate(inner, node, scope)
        terms.append(found.scaled(weight.numerator, weight.denominator))
    return reduce(add, terms)


def _abbreviation(jet: Jet, point: Point, scope: Scope) -> Series:
    """The matrix of what a letter abbreviates, entry by entry."""
    inner, own = jet.field.abbreviated
    shape = [*[extent(i, point.sizes) for i in own], 1, 1][:2]
    entries = []
    for place in product(*[range(extent(i, point.sizes)) for i in own]):
        here = replace(scope, values={**scope.values, **dict(zip(own, place, strict=True))})
        entries.append(_derivative(inner, jet.hol, jet.anti, point, here))
    parts = {}
    for mask in {m for e in entries for m in e.parts}:
        zero = point.ring.number(0)
        flat = [e.parts[mask][0, 0] if mask in e.parts else zero for e in entries]
        parts[mask] = array(flat, tuple(shape))
    return Series(parts, point.ring)


def _entry(expr: Entry, point: Point, scope: Scope) -> Series:
    matrix = evaluate(expr.word, point, scope)
    where = [scope.values[i] for i in expr.indices]
    parts = {}
    for mask, value in matrix.parts.items():
        row, col = (
            where if len(where) == 2 else ((where[0], 0) if value.shape[1] == 1 else (0, where[0]))
        )
        parts[mask] = array([value[row, col]], (1, 1))
    return Series(parts, point.ring)


def _contract(expr: Contract, point: Point, scope: Scope) -> Series:
    terms = []
    for entry in product(*[range(extent(i, point.sizes)) for i in expr.indices]):
        values = {**scope.values, **dict(zip(expr.indices, entry, strict=True))}
        terms.append(evaluate(expr.args[0], point, replace(scope, values=values)))
    return reduce(add, terms)


def _conjugates(expr: Expr, point: Point, scope: Scope) -> Series:
    """f̄, re f = (f + f̄)/2, im f = (f - f̄)/(2i) and |f| = √(f f̄)."""
    (inner,) = expr.args
    mirrored = evaluate(inner, point, scope.mirrored())
    if isinstance(expr, adjoint):
        return mirrored.adjoint()
    other = mirrored.conjugate()
    if isinstance(expr, conjugate):
        return other
    one, ring = evaluate(inner, point, scope), point.ring
    if isinstance(expr, re):
        return (one + other).scaled(1, 2)
    if isinstance(expr, im):
        return (one + other.scaled(-1)) * number(ring.number(-1j), ring).scaled(1, 2)
    return rational_power(one * other, Fraction(1, 2), point)


def _mixture(expr: Expr, point: Point, scope: Scope) -> Series:
    """log Σ_k w_k e^{q_k - q_k(z)}, and means under the weights it moves to."""
    ring, given = point.ring, _weights(point)
    each = range(len(given))
    exponents = [evaluate(expr.args[0], point, replace(scope, component=k)) for k in each]
    moved = [q.exp_of_nilpotent() * number(w, ring) for q, w in zip(exponents, given, strict=True)]
    total = reduce(add, moved)
    if isinstance(expr, LogSumExp):
        at_rest = point.functions.other("LogSumExp", *[q.base[0, 0] for q in exponents])
        return total.log(at_rest)
    weights = [w * total.inverse() for w in moved]
    if isinstance(expr, Centred):
        if scope.component is None:
            raise EvidenceError(f"{expr} depends on the component k outside of a mean")
        mean = _mean(expr.args[1], weights, point, scope)
        return evaluate(expr.args[1], point, scope) + mean.scaled(-1)
    return _mean(expr.args[1], weights, point, scope)


def _mean(x: Expr, weights: list[Series], point: Point, scope: Scope) -> Series:
    if not is_component(x):
        return evaluate(x, point, scope)
    values = [evaluate(x, point, replace(scope, component=k)) for k in range(len(weights))]
    return reduce(add, [w * v for w, v in zip(weights, values, strict=True)])


def _weights(point: Point) -> Array:
    if point.weights is None:
        raise EvidenceError("a mixture needs weights")
    return point.weights


def head_values(expr: Expr, point: Point) -> Array:
    """The values of an expression as kernels take heads: over components, then over its indices."""
    indices = sorted((i for i in free_indices(expr) if isinstance(i, Index)), key=str)
    components = range(len(_weights(point))) if is_component(expr) else (None,)
    shape = tuple(extent(i, point.sizes) for i in indices)
    values = [
        value_of(expr, point, Scope(dict(zip(indices, entry, strict=True)), component=k))
        for k in components
        for entry in product(*map(range, shape))
    ]
    return array(values, (*[len(components)] * is_component(expr), *shape))


def _terms(expr: Expr, point: Point, scope: Scope) -> list[Term]:
    """An exponent at the point, as a sum of rational multiples of numbers.

    Products of sums are multiplied out, so that every way of writing the exponent agrees.
    """
    ring, one = point.ring, point.ring.number(1)
    if expr.is_Rational:
        return [(Fraction(int(expr.p), int(expr.q)), one)] if expr != 0 else []
    if expr.is_Add:
        return [t for a in expr.args for t in _terms(a, point, scope)]
    if expr.is_commutative and (
        expr.is_Mul or (expr.is_Pow and expr.exp.is_Integer and expr.exp > 0)
    ):
        factors = expr.args if expr.is_Mul else [expr.base] * int(expr.exp)
        out = [(Fraction(1), one)]
        for factor in factors:
            more = _terms(factor, point, scope)
            out = [(c * e, v * w) for c, v in out for e, w in more]
        return out
    if isinstance(expr, conjugate | re | im):
        inner = _terms(expr.args[0], point, scope)
        other = [(c, v.conjugate()) for c, v in inner]
        if isinstance(expr, conjugate):
            return other
        if isinstance(expr, re):
            return [(c / 2, v) for c, v in (*inner, *other)]
        i = ring.number(1j)
        return [(c / 2, -i * v) for c, v in inner] + [(c / 2, i * v) for c, v in other]
    return [(Fraction(1), value_of(expr, point, scope))]


def _exponential(expr: Expr, point: Point, scope: Scope, factor: complex = 1) -> Series:
    """e^(factor · expr) for a factor ±1 or ±i."""
    ring = point.ring
    unit = ring.number(factor)
    terms = [(c, unit * v) for c, v in _terms(expr, point, scope.still)]
    moved = evaluate(expr, point, scope) * number(unit, ring)
    return number(point.functions.exponential(terms), ring) * moved.exp_of_nilpotent()


def _power(expr: Pow, point: Point, scope: Scope) -> Series:
    if expr.exp.is_Integer:
        whole = int(expr.exp)
        if isinstance(expr.base, Abs) and whole % 2 == 0:  # |f|² is a polynomial, |f| is not
            (inner,) = expr.base.args
            return evaluate((inner * conjugate(inner)) ** (whole // 2), point, scope)
        return _once(expr, expr.base, point, scope, lambda base: integer_power(base, whole))
    if expr.exp.is_Rational:
        power = Fraction(int(expr.exp.p), int(expr.exp.q))
        base = evaluate(expr.base, point, scope)
        return rational_power(base, power, point)
    # a^b = e^(b log a)
    base, ring = evaluate(expr.base, point, scope), point.ring
    at_rest = point.functions.log(base.base[0, 0])
    terms = [(c, v * at_rest) for c, v in _terms(expr.exp, point, scope.still)]
    moved = evaluate(expr.exp, point, scope) * base.log(at_rest)
    return number(point.functions.exponential(terms), ring) * moved.exp_of_nilpotent()


def _function(expr: Function, point: Point, scope: Scope) -> Series:
    kind, ring = type(expr), point.ring
    argument = expr.args[0]
    one = number(ring.number(1), ring)
    if kind is exp:
        return _exponential(argument, point, scope)
    if kind is log:
        return log_of(evaluate(argument, point, scope), point)
    if kind is sigmoid:
        return (one + _exponential(argument, point, scope, -1)).inverse()
    if kind is softplus:
        return log_of(one + _exponential(argument, point, scope), point)
    turned = kind in (sin, cos, tan, cot)
    if turned or kind in (sinh, cosh, tanh, coth):
        factor: complex = 1j if turned else 1  # sin x = sinh(ix)/i, cos x = cosh(ix)
        up = _exponential(argument, point, scope, factor)
        down = _exponential(argument, point, scope, -factor)
        by = number(one.base[0, 0] / ring.number(factor), ring)
        odd, even = (up + down.scaled(-1)).scaled(1, 2) * by, (up + down).scaled(1, 2)
        if kind in (sin, sinh):
            return odd
        if kind in (cos, cosh):
            return even
        return odd * even.inverse() if kind in (tan, tanh) else even * odd.inverse()
    return _other_function(expr, point, scope)


def _other_function(expr: Function, point: Point, scope: Scope) -> Series:
    """f from its derivatives, which SymPy gives in terms of f itself and its relatives."""
    moving = [n for n, a in enumerate(expr.args) if not a.is_number]
    if len(moving) > 1:
        raise EvidenceError(f"evidence has no rule for {type(expr).__name__}: {expr}")
    place = moving[0] if moving else 0
    argument = evaluate(expr.args[place], point, scope)
    values = [int(a) if a.is_Integer else value_of(a, point, scope) for a in expr.args]
    here = replace(point, coordinates=(), values={ARGUMENT: argument.base[0, 0]})
    plain = expr.func(*expr.args[:place], ARGUMENT, *expr.args[place + 1 :])

    def taylor(j: int) -> Any:
        if j == 0:
            return point.functions.other(type(expr).__name__, *values)
        return value_of(slope(plain, j), here, Scope({})) / point.ring.number(factorial(j))

    return argument.apply(taylor)
