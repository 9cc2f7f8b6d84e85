"""The definition, differentiated by numbers alone: truncated power series in nilpotent ε's.

Independent of the calculus and of the generator.  Every derivative ∂_a that a definition asks for
adds an ε with ε² = 0 to the point; the coefficient of the product of all ε's is the derivative.
This holds over any field, so that exact arithmetic gives exact derivatives.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace
from itertools import product
from math import prod
from typing import Any

import numpy as np
from sympy import (
    Abs,
    Add,
    E,
    Expr,
    Function,
    NumberSymbol,
    Pow,
    Rational,
    S,
    Symbol,
    conjugate,
    exp,
    im,
    log,
    pi,
    re,
)

from kahler_verify.calculus.definition import (
    Contract,
    Covariance,
    Entry,
    Expected,
    OnDiagonal,
    Partial,
)
from kahler_verify.calculus.letters import Bar, Field, Index, Jet, is_real_index
from kahler_verify.calculus.mixture import Centred, LogSumExp, Mean, Moment, Total, is_component
from kahler_verify.calculus.words import LogDet, Tr, adjoint
from kahler_verify.codegen.explicit import bar, polarised
from kahler_verify.codegen.lowering import normal_head
from kahler_verify.errors import EvidenceError
from kahler_verify.evidence.arithmetic import Arithmetic, Array, array

Mask = int
Coefficients = dict[Mask, Array]


@dataclass(frozen=True)
class Series:
    """Σ over subsets of ε's of a matrix; absent subsets are zero."""

    parts: Coefficients
    ring: Arithmetic

    def __add__(self, other: Series) -> Series:
        parts = dict(self.parts)
        for mask, value in other.parts.items():
            parts[mask] = array(parts[mask] + value) if mask in parts else value
        return Series(parts, self.ring)

    def __mul__(self, other: Series) -> Series:
        """The matrix product; a 1 × 1 factor multiplies as a number."""
        parts: Coefficients = {}
        for m, x in self.parts.items():
            for k, y in other.parts.items():
                if m & k:
                    continue
                number = x.shape == (1, 1) or y.shape == (1, 1)
                value = array(x * y) if number else self._product(x, y)
                parts[m | k] = array(parts[m | k] + value) if m | k in parts else value
        return Series(parts, self.ring)

    def _product(self, x: Array, y: Array) -> Array:
        if self.ring.matmul is not None and x.size + y.size > 32:
            return self.ring.matmul(x, y)
        return array(np.matmul(np.asarray(x), np.asarray(y)))

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


@dataclass
class Point:
    """Values of all fields and their derivatives at one point, in one arithmetic.

    ``jets[field][h, a]`` is an array [d × h, d × a, rows, cols], with a leading axis K for
    component fields; ``weights`` [K] are normalised; ``heads`` holds values of transcendental
    functions by expression and is filled on demand where the arithmetic cannot compute them.
    """

    ring: Arithmetic
    sizes: Mapping[Symbol, int]
    jets: Mapping[Field, Mapping[tuple[int, int], Array]]
    weights: Array | None = None
    heads: dict[Expr, Any] = field(default_factory=dict)
    draw_head: Callable[[], Any] | None = None
    coordinates: tuple[Symbol, ...] = ()  # of explicit potentials
    values: Mapping[Symbol, Any] = field(default_factory=dict)  # of z_i, z̄_i and real parameters


@dataclass(frozen=True)
class Scope:
    """Index values, the ε's in force (direction, is it antiholomorphic), and which move z₀ too."""

    values: Mapping[Symbol, int]
    epsilons: tuple[tuple[int, bool | None], ...] = ()  # None: of a real coordinate
    shared: int | None = None  # inside OnDiagonal: how many ε's move z₀ together with z
    component: int | None = None


def evaluate_output(definition: Expr, indices: tuple[Symbol, ...], point: Point) -> Array:
    """All entries of an output: an object array over its latent indices."""
    shape = tuple(extent(i, point.sizes) for i in indices)
    out = []
    for entry in product(*map(range, shape)):
        value = evaluate(definition, point, Scope(dict(zip(indices, entry, strict=True))))
        out.append(value.base[0, 0])
    return array(out, shape)


def extent(i: Symbol, sizes: Mapping[Symbol, int]) -> int:
    """How many values an index takes."""
    size = getattr(i, "size", None)
    if size is not None:
        return int(size.subs(dict(sizes)))
    return next((n for s, n in sizes.items() if s.name == "d"), 1)


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
    if point.coordinates and expr.has(conjugate, re, im, Abs):
        return evaluate(polarised(expr, point.coordinates), point, scope)
    if expr in point.values:
        return _coordinate(expr, point, scope)
    if isinstance(expr, Symbol):
        if expr not in point.sizes:
            raise EvidenceError(f"the symbol {expr} has no value at this point")
        return constant(ring.eye(1), ring).scaled(point.sizes[expr])
    if expr is S.ImaginaryUnit:
        return constant(array([ring.number(1j)], (1, 1)), ring)
    if isinstance(expr, NumberSymbol):
        return constant(array([head_value(expr, point, scope)], (1, 1)), ring)
    if expr.is_Rational:
        return constant(ring.eye(1), ring).scaled(int(expr.p), int(expr.q))
    if expr.is_Add:
        parts = [evaluate(t, point, scope) for t in expr.args]
        return _accumulate(parts, lambda x, y: x + y)
    if expr.is_Mul:
        parts = [evaluate(f, point, scope) for f in expr.args]
        return _accumulate(parts, lambda x, y: x * y)
    if isinstance(expr, Tr):
        return evaluate(expr.args[0], point, scope).trace()
    if isinstance(expr, Entry):
        return _entry(expr, point, scope)
    if isinstance(expr, Contract):
        return _contract(expr, point, scope)
    if isinstance(expr, LogDet):
        return evaluate(expr.args[0], point, scope).log_det(_head(expr, point, scope))
    if isinstance(expr, LogSumExp | Mean | Moment | Centred):
        return _mixture(expr, point, scope)
    if isinstance(expr, Total):
        parts = [
            evaluate(expr.args[0], point, replace(scope, component=k))
            for k in range(len(point.weights))
        ]
        return _accumulate(parts, lambda x, y: x + y)
    if expr.is_Pow and expr.exp.is_Integer:
        return _integer_power(evaluate(expr.base, point, scope), int(expr.exp))
    if isinstance(expr, Function | Pow):
        return _function(expr, point, scope)
    raise EvidenceError(f"evidence has no rule for {type(expr).__name__}: {expr}")


def _accumulate(parts: list[Series], join: Callable[[Series, Series], Series]) -> Series:
    total = parts[0]
    for part in parts[1:]:
        total = join(total, part)
    return total


def _integer_power(base: Series, power: int) -> Series:
    if power < 0:
        return _integer_power(base.inverse(), -power)
    one = constant(base.ring.eye(len(base.base)), base.ring)
    return _accumulate([base] * power, lambda x, y: x * y) if power else one


def _partial(expr: Partial, point: Point, scope: Scope) -> Series:
    new: list[tuple[int, bool | None]] = [
        (scope.values[i], None if is_real_index(i) else False) for i in expr.hol
    ]
    new += [(scope.values[i], True) for i in expr.anti]
    first = len(scope.epsilons)
    inner = evaluate(expr.args[0], point, replace(scope, epsilons=(*scope.epsilons, *new)))
    wanted = sum(1 << (first + j) for j in range(len(new)))
    parts = {m ^ wanted: x for m, x in inner.parts.items() if m & wanted == wanted}
    return Series(parts or {0: array(inner.base - inner.base)}, point.ring)


def _letter(jet: Jet, point: Point, scope: Scope) -> Series:
    """The Taylor polynomial of a field (or of its adjoint) in the ε's; indices add directions."""
    if jet.field.abbreviated:
        return _abbreviation(jet, point, scope)
    frozen = "frozen" in jet.field.traits
    own = jet.field
    if frozen and scope.shared is not None:  # on the diagonal z₀ is z
        own = jet.field.without_traits("frozen")
    seen = scope.epsilons[: scope.shared] if frozen and scope.shared is not None else scope.epsilons
    if frozen and scope.shared is None:
        seen = ()
    table = point.jets[own]
    hol = [scope.values[i] for i in jet.hol]
    anti = [scope.values[i] for i in jet.anti]
    parts: Coefficients = {}
    for mask in range(1 << len(seen)):
        chosen = [seen[j] for j in range(len(seen)) if mask >> j & 1]
        # the adjoint of a field depends on z̄ where the field depends on z
        more_hol = [i for i, bar in chosen if bar in (jet.dagger, None)]
        more_anti = [i for i, bar in chosen if bar not in (jet.dagger, None)]
        order = (len(hol) + len(more_hol), len(anti) + len(more_anti))
        if order not in table:
            continue
        value = table[order]
        if "component" in own.traits:
            if scope.component is None:
                raise EvidenceError(f"{jet} depends on the component k outside of a mean")
            value = value[scope.component]
        value = array(np.asarray(value)[tuple(hol + more_hol + anti + more_anti)])
        parts[mask] = value.mH if jet.dagger else value
    return Series(parts, point.ring)


# Rational nodes with the moments of a normal number up to the fifth: E x² = 1, E x⁴ = 3.
NODES = ((0, 1, 2), (1, 1, 6), (-1, 1, 6), (2, 1, 12), (-2, 1, 12))


def _expected(expr: Expected, point: Point, scope: Scope) -> Series:
    """The mean of what is of degree at most 5 in each entry of a standard normal vector."""
    inner, residual = expr.args
    size = point.jets[residual.field][0, 0].size
    terms = []
    for nodes in product(NODES, repeat=size):
        value = array([point.ring.number(x) for x, _, _ in nodes], (size, 1))
        jets = {**point.jets, residual.field: {(0, 0): value}}
        top, bottom = prod(p for _, p, _ in nodes), prod(q for _, _, q in nodes)
        terms.append(evaluate(inner, replace(point, jets=jets), scope).scaled(top, bottom))
    return _accumulate(terms, lambda x, y: x + y)


def _abbreviation(jet: Jet, point: Point, scope: Scope) -> Series:
    """The matrix of what a letter abbreviates, entry by entry."""
    inner, own = jet.field.abbreviated
    expr = Partial(inner, *jet.hol, *map(Bar, jet.anti))
    if jet.dagger:
        expr = adjoint(expr)
    shape = [*[extent(i, point.sizes) for i in own], 1, 1][:2]
    entries = {
        place: evaluate(
            expr,
            point,
            replace(scope, values={**scope.values, **dict(zip(own, place, strict=False))}),
        )
        for place in product(*map(range, shape))
    }
    parts = {}
    for mask in {m for e in entries.values() for m in e.parts}:
        zero = point.ring.number(0)
        flat = [e.parts[mask][0, 0] if mask in e.parts else zero for e in entries.values()]
        value = array(flat, tuple(shape))
        parts[mask] = value.mT if jet.dagger else value
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
    return _accumulate(terms, lambda x, y: x + y)


def _mixture(expr: Expr, point: Point, scope: Scope) -> Series:
    """log Σ_k w_k e^{q_k - q_k(z)}, and means under the weights it moves to."""
    ring = point.ring
    if point.weights is None:
        raise EvidenceError("a mixture needs weights")
    each = range(len(point.weights))
    exponents = [evaluate(expr.args[0], point, replace(scope, component=k)) for k in each]
    moved = [
        q.exp_of_nilpotent() * constant(array([w], (1, 1)), ring)
        for q, w in zip(exponents, point.weights, strict=True)
    ]
    total = _accumulate(moved, lambda x, y: x + y)
    if isinstance(expr, LogSumExp):
        head = _head(expr, point, scope)
        return total.apply(
            lambda j: head if j == 0 else ring.number((-1) ** (j + 1)) / ring.number(j)
        )
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
    return _accumulate([w * v for w, v in zip(weights, values, strict=True)], lambda a, b: a + b)


def _head(expr: Expr, point: Point, scope: Scope) -> Any:
    """The value of a transcendental function at the point itself."""
    key = _key(_at(expr, scope), scope)
    if key not in point.heads:
        if point.draw_head is None:
            raise EvidenceError(f"the value of {expr} is not known at this point")
        point.heads[key] = point.draw_head()
    return point.heads[key]


def _key(expr: Expr, scope: Scope) -> Any:
    """What a drawn value belongs to: an expression, the values of its indices, the component."""
    indices = sorted(set(scope.values) & free_indices(expr), key=str)
    if not indices and not is_component(expr):
        return expr
    names = {i: Symbol(f"i{n}") for n, i in enumerate(indices)}
    component = scope.component if is_component(expr) else None
    return expr.xreplace(names), tuple(scope.values[i] for i in indices), component


def free_indices(expr: Expr) -> set[Symbol]:
    """Indices that are not summed inside the expression."""
    if isinstance(expr, Contract):
        return free_indices(expr.args[0]) - set(expr.indices)
    if isinstance(expr, Symbol):
        return {expr}
    return set().union(*[free_indices(a) for a in expr.args])


def head_values(expr: Expr, point: Point) -> Array:
    """The values of a head as kernels take it: over components, then over its indices."""
    indices = sorted((i for i in free_indices(expr) if isinstance(i, Index)), key=str)
    components = range(len(point.weights)) if is_component(expr) else (None,)
    shape = tuple(extent(i, point.sizes) for i in indices)
    values = [
        head_value(expr, point, Scope(dict(zip(indices, entry, strict=True)), component=k))
        for k in components
        for entry in product(*map(range, shape))
    ]
    return array(values, (*[len(components)] * is_component(expr), *shape))


def _at(expr: Expr, scope: Scope) -> Expr:
    """On the diagonal z₀ is z."""
    if scope.shared is None:
        return expr
    return expr.xreplace(
        {j: Jet(j.field.without_traits("frozen"), *j.args[1:]) for j in expr.atoms(Jet)}
    )


def _function(expr: Expr, point: Point, scope: Scope) -> Series:
    """f(s) from f's derivatives, which SymPy gives in terms of f itself and its relatives."""
    if isinstance(expr, Pow) and not expr.exp.is_Rational:
        return _general_power(expr, point, scope)
    (place,) = [n for n, a in enumerate(expr.args) if not (a.is_number or a in point.sizes)] or [0]
    argument = evaluate(expr.args[place], point, scope)
    x = Symbol("_x")
    slopes = [expr.func(*expr.args[:place], x, *expr.args[place + 1 :])]
    for _ in range(len(scope.epsilons)):
        slopes.append(slopes[-1].diff(x))
    start = argument.base[0, 0]

    def number(e: Expr) -> Any:
        if e == x:
            return start
        if e in point.sizes:
            return point.ring.number(point.sizes[e])
        if e.is_Rational:
            return point.ring.number(int(e.p)) / point.ring.number(int(e.q))
        if e.is_Add or e.is_Mul:
            values = [number(a) for a in e.args]
            total = values[0]
            for v in values[1:]:
                total = total + v if e.is_Add else total * v
            return total
        if e.is_Pow and e.exp.is_Integer:
            base, total = number(e.base), point.ring.number(1)
            for _ in range(abs(int(e.exp))):
                total = total * base
            return total if e.exp > 0 else point.ring.number(1) / total
        return head_value(e.subs(x, expr.args[place]), point, scope)

    factorial = [1]
    for j in range(1, len(slopes)):
        factorial.append(factorial[-1] * j)
    return argument.apply(lambda j: number(slopes[j]) / point.ring.number(factorial[j]))


def _general_power(expr: Pow, point: Point, scope: Scope) -> Series:
    """a^b = a₀^b₀ exp(b log a - b₀ log a₀)."""
    power = evaluate(expr.exp, point, scope)
    head = constant(array([head_value(expr, point, scope)], (1, 1)), point.ring)
    if not power.nilpotent().parts:  # then the value of log a₀ drops out
        start = point.ring.number(1)
    else:
        start = head_value(log(expr.base), point, scope)
    base = evaluate(expr.base, point, scope)
    ring, inverse_base = point.ring, base.ring.number(1) / base.base[0, 0]

    def taylor(j: int) -> Any:
        value = start if j == 0 else ring.number((-1) ** (j + 1)) / ring.number(j)
        for _ in range(j):
            value = value * inverse_base
        return value

    return head * (power * base.apply(taylor)).exp_of_nilpotent()


def _coordinate(symbol: Expr, point: Point, scope: Scope) -> Series:
    """z_i, z̄_i (moved by their own ε's) or a parameter of a potential in explicit coordinates."""
    one = point.ring.eye(1)
    parts = {0: array([point.values[symbol]], (1, 1))}
    for j, (direction, barred) in enumerate(scope.epsilons):
        z = point.coordinates[direction]
        if symbol == (bar(z) if barred else z):
            parts[1 << j] = one
    return Series(parts, point.ring)


def head_value(e: Expr, point: Point, scope: Scope) -> Any:
    """The value of a transcendental function at the point.

    Where it is drawn, what SymPy combines stays consistent: e^{2u} is (e^u)², s^(p + n) is s^p s^n.
    """
    here = replace(scope, epsilons=())
    e = _at(e, scope)
    if normal_head(e) != e:
        return evaluate(normal_head(e), point, here).base[0, 0]
    if isinstance(e, exp) and evaluate(e.args[0], point, here).base[0, 0] == 0:
        return point.ring.number(1)  # as on a diagonal, where no head is free
    if point.ring.function is not None:
        key = _key(e, scope)
        if key not in point.heads:
            point.heads[key] = _compute(e, point, here)
        return point.heads[key]
    if isinstance(e, exp):
        return _product(_shares(e.args[0], lambda u: exp(u)), point, scope)
    if isinstance(e, Pow):
        number, rest = e.exp.as_coeff_Add()
        whole = number.p // number.q
        value = _integer_power(evaluate(e.base, point, here), whole).base[0, 0]
        if number != whole:
            value = value * _root(e.base ** (number - whole), point, here)
        return value * _product(_shares(rest, lambda u: Pow(e.base, u)), point, here)
    return _head(e, point, scope)


SHARES = 12  # e^{cu} is drawn as the 12c-th power of e^{u/12}


def _shares(exponent: Expr, head: Callable[[Expr], Expr]) -> list[tuple[Expr, int]]:
    """e^{Σ c u} as powers of e^{u/12}; terms with other denominators are heads of their own."""
    out = []
    for term in Add.make_args(exponent.expand()):
        number, u = term.as_coeff_Mul()
        steps = SHARES * number
        if steps.is_Integer:
            out.append((head(u / SHARES), int(steps)))
        else:
            out.append((head(term), 1))
    return out


def _product(powers: list[tuple[Expr, int]], point: Point, scope: Scope) -> Any:
    value = point.ring.number(1)
    for e, steps in powers:
        drawn = _head(e, point, scope)
        for _ in range(abs(steps)):
            value = value * drawn if steps > 0 else value / drawn
    return value


def _root(e: Pow, point: Point, scope: Scope) -> Any:
    """base^(p/q), 0 < p/q < 1: the true square root where one is known, or powers of a drawn root.

    A drawn root h of x stands for a letter: identities that use h^q = x need ``square_root``.
    """
    if e.exp.q == 2 and point.ring.square_root is not None:
        return point.ring.square_root(evaluate(e.base, point, scope).base[0, 0])
    power = _shares(e.exp, lambda _: Pow(e.base, Rational(1, SHARES)))[0]
    return _product([power], point, scope)


def _compute(e: Expr, point: Point, here: Scope) -> Any:
    call = point.ring.function
    if call is None:
        raise EvidenceError(f"{point.ring.name} cannot compute {e}")
    if e is pi:
        return call("atan", point.ring.number(1)) * point.ring.number(4)
    if e is E:
        return call("exp", point.ring.number(1))
    if isinstance(e, NumberSymbol):
        raise EvidenceError(f"{point.ring.name} has no value for {e}")
    arguments = [evaluate(a, point, here).base[0, 0] for a in e.args]
    if isinstance(e, Pow):
        return call("exp", call("log", arguments[0]) * arguments[1])
    return call(type(e).__name__, *arguments)
