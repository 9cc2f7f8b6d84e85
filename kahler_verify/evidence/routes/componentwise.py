"""Component by component: explicit matrices of polynomials, differentiated by SymPy's own ``diff``.

Every field becomes a matrix of polynomials in commuting symbols x_i for z_i and y_i for z̄_i (and
two more for z₀) whose derivatives at the origin are those of a random sample.  The definition is
written out over these entries, differentiated, and evaluated at the origin; the kernel's text gets
the same sample.  Neither the calculus nor nilpotent series take part.

Kernels without transcendental inputs are compared over Q(i), others with 50 digits.  Not covered:
matrices larger than 2 × 2 and more than a few random entries of each output, because written-out
derivatives explode; constants such as det's and log-sum-exp's own values, which kernels take as
inputs.
"""

from __future__ import annotations

import inspect
import random
from collections.abc import Mapping
from dataclasses import dataclass, replace
from itertools import product
from math import factorial, prod
from typing import Any

import numpy as np
from sympy import (
    Abs,
    Add,
    Expr,
    Function,
    I,
    ImmutableMatrix,
    Integer,
    Mul,
    Pow,
    Rational,
    S,
    Symbol,
    conjugate,
    exp,
    im,
    log,
    re,
    sqrt,
)

from kahler_verify.calculus.definition import Expected, OnDiagonal, Partial
from kahler_verify.calculus.derivation import Kernel
from kahler_verify.calculus.indexed import Contract, Entry
from kahler_verify.calculus.letters import Jet
from kahler_verify.calculus.mixture import Centred, LogSumExp, Mean, Moment, Total, is_component
from kahler_verify.calculus.words import LogDet, Tr
from kahler_verify.errors import EvidenceError
from kahler_verify.evidence.numbers.arithmetic import decimal, rational, run_text
from kahler_verify.evidence.numbers.means import nodes_for
from kahler_verify.evidence.numbers.points import extent
from kahler_verify.evidence.numbers.readings import derivative_order, is_real_latent
from kahler_verify.evidence.numbers.samples import draw
from kahler_verify.evidence.routes.entries import Page, determinant, inverse, value_at_origin

SIZES = {"d": 2, "n": 2, "K": 2}


@dataclass(frozen=True)
class Place:
    """Index values, the component k, and whether z₀ is z here."""

    indices: Mapping[Symbol, int]
    component: int | None = None
    on_diagonal: bool = False


def componentwise(
    kernel: Kernel,
    text: str,
    heads: Mapping[Expr, str] | None = None,
    seed: int = 0,
    entries: int = 3,
) -> float:
    """Largest error of ``entries`` random entries of every output; 0.0 means equality over Q(i).

    Args:
        kernel: the kernel's declaration.
        text: the generated module that has it.
        heads: expressions of the transcendental inputs, as in ``Module.heads``.
        seed: of the random point and the choice of entries.
        entries: how many entries of each output, at most.

    Raises:
        EvidenceError: the definition has a matrix that is larger than 2 × 2 or a node without a
        rule.
    """
    inputs = _arguments(text, kernel.name)
    ring = decimal if inputs & set((heads or {}).values()) else rational
    rng = random.Random(seed)
    sample = draw(kernel, ring, rng, SIZES, heads)
    found = run_text(text, ring)[kernel.name](
        *[sample.tensors[n] for n in _ordered(text, kernel.name)]
    )
    d = len(kernel.coordinates) or SIZES["d"]
    worst = 0.0
    results = found if isinstance(found, tuple) else (found,)
    for result, out in zip(results, kernel.outputs.values(), strict=True):
        shape = [extent(i, sample.point.sizes) for i in out.indices]
        places = list(product(*map(range, shape)))
        for place in rng.sample(places, min(entries, len(places))):
            where = Place(dict(zip(out.indices, place, strict=True)))
            limits = _limits(out.definition, where.indices, d)
            page = Page(sample.point, d, is_real_latent(kernel), limits)
            truth = value_at_origin(_write(out.definition, page, where), page, {})
            ours = np.asarray(result)[place]
            if ring is decimal:
                worst = max(worst, float(abs(ours - truth) / (1 + abs(truth))))
            elif ours != truth:
                return float("inf")
    return worst


def _limits(
    definition: Expr, indices: Mapping[Symbol, int], d: int
) -> tuple[tuple[int, ...], tuple[int, ...]]:
    """How many derivatives of each direction an entry takes: higher powers vanish at the origin."""
    if definition.has(Contract) or any(j.field.abbreviated for j in definition.atoms(Jet)):
        hol, anti = derivative_order(definition)
        return (hol,) * d, (anti,) * d
    nodes = definition.atoms(Partial, Jet)
    hols = [indices[i] for i in {i for node in nodes for i in node.hol}]
    antis = [indices[i] for i in {i for node in nodes for i in node.anti}]
    return tuple(map(hols.count, range(d))), tuple(map(antis.count, range(d)))


def _ordered(text: str, name: str) -> list[str]:
    return list(inspect.signature(run_text(text, rational)[name]).parameters)


def _arguments(text: str, name: str) -> set[str]:
    return set(_ordered(text, name))


def _write(expr: Expr, page: Page, place: Place) -> Any:
    """The expression over entries: a SymPy expression, or a matrix of them."""
    if isinstance(expr, Partial):
        out = _write(expr.args[0], page, place)
        for i in expr.hol:
            out = out.diff(page.axis(place.indices[i], bar=False))
        for i in expr.anti:
            out = out.diff(page.axis(place.indices[i], bar=True))
        return out
    if isinstance(expr, OnDiagonal):
        merge = {
            page.axis(i, bar=b, frozen=True): page.axis(i, bar=b)
            for i in range(page.d)
            for b in (False, True)
        }
        return _write(expr.args[0], page, replace(place, on_diagonal=True)).xreplace(merge)
    if isinstance(expr, Expected):
        return _expected(expr, page, place)
    if isinstance(expr, Jet):
        return _letter(expr, page, place)
    if isinstance(expr, conjugate):
        return page.bar(_write(expr.args[0], page, place))
    if isinstance(expr, re | im | Abs):
        one = _write(expr.args[0], page, place)
        other = page.bar(one)
        if isinstance(expr, Abs):
            return sqrt(one * other)
        return (one + other) / 2 if isinstance(expr, re) else (one - other) / (2 * I)
    if isinstance(expr, Symbol):
        return _symbol(expr, page)
    if expr.is_number:
        return expr
    if isinstance(expr, Tr):
        matrix = _write(expr.args[0], page, place)
        return matrix.trace() if isinstance(matrix, ImmutableMatrix) else matrix
    if isinstance(expr, LogDet):
        return log(determinant(_write(expr.args[0], page, place)))
    if isinstance(expr, Entry):
        matrix = _write(expr.word, page, place)
        where = [place.indices[i] for i in expr.indices]
        return matrix[where[0], where[1]] if len(where) == 2 else matrix[where[0]]
    if isinstance(expr, Contract):
        terms = []
        for entry in product(*[range(extent(i, page.point.sizes)) for i in expr.indices]):
            indices = {**place.indices, **dict(zip(expr.indices, entry, strict=True))}
            terms.append(_write(expr.args[0], page, replace(place, indices=indices)))
        return Add(*terms)
    if isinstance(expr, LogSumExp | Mean | Moment | Centred):
        return _mixture(expr, page, place)
    if isinstance(expr, Total):
        each = range(len(page.point.weights if page.point.weights is not None else ()))
        return Add(*[_write(expr.args[0], page, replace(place, component=k)) for k in each])
    if expr.is_Add or expr.is_Mul:
        parts = [_write(a, page, place) for a in expr.args]
        total = parts[0]
        for part in parts[1:]:
            total = total + part if expr.is_Add else _times(total, part)
        return total
    if expr.is_Pow and expr.exp.is_Integer:
        base = _write(expr.base, page, place)
        if not isinstance(base, ImmutableMatrix):
            return base**expr.exp
        return base**expr.exp if expr.exp > 0 else inverse(base) ** (-expr.exp)
    if isinstance(expr, Function | Pow):
        return expr.func(*[_write(a, page, place) for a in expr.args])
    raise EvidenceError(f"component by component: no rule for {type(expr).__name__}: {expr}")


def _times(x: Any, y: Any) -> Any:
    """A product in which a 1 × 1 matrix is a number."""
    x, y = (m[0, 0] if isinstance(m, ImmutableMatrix) and m.shape == (1, 1) else m for m in (x, y))
    return x * y


def _symbol(symbol: Symbol, page: Page) -> Expr:
    coordinates = page.point.coordinates
    if symbol in coordinates:
        i = coordinates.index(symbol)
        named = Symbol(f"at_{i}"), Symbol(f"at_{i}_bar")
        page.bars |= {named[0]: named[1], named[1]: named[0]}
        value = page.point.values[symbol]
        page.values |= {named[0]: value, named[1]: value.conjugate()}
        return named[0] + page.axis(i, bar=False)
    if symbol in page.point.values:
        page.values[symbol] = page.point.values[symbol]
        return symbol
    if symbol in page.point.sizes:
        return Integer(page.point.sizes[symbol])
    raise EvidenceError(f"the symbol {symbol} has no value at this point")


def _letter(jet: Jet, page: Page, place: Place) -> Any:
    """A field's matrix of polynomials, differentiated as the letter says; 1 × 1 is a number."""
    if jet.field.abbreviated:
        return _abbreviation(jet, page, place)
    frozen = "frozen" in jet.field.traits
    own = jet.field
    if place.on_diagonal:  # the same function, of x0 and y0
        own = own.without_traits("frozen")
    k = place.component if "component" in own.traits else None
    if (own, k, frozen) not in page.fields:
        page.fields[own, k, frozen] = _polynomials(page.point.jets[own], page, k, frozen)
    out = page.fields[own, k, frozen]
    for i in jet.hol:
        out = out.diff(page.axis(place.indices[i], bar=False))
    for i in jet.anti:
        out = out.diff(page.axis(place.indices[i], bar=True))
    if jet.dagger:
        out = page.bar(out.T)
    return out[0, 0] if out.shape == (1, 1) else out


def _expected(expr: Expected, page: Page, place: Place) -> Expr:
    """The mean of a polynomial in a standard normal vector."""
    inner, residual = expr.args
    size = page.point.jets[residual.field][0, 0].size
    terms = []
    for at, weight in nodes_for(inner, residual, size):
        page.fields[residual.field, None, False] = ImmutableMatrix(at)
        share = Rational(weight.numerator, weight.denominator)
        terms.append(share * _write(inner, page, place))
    return Add(*terms)


def _abbreviation(jet: Jet, page: Page, place: Place) -> Any:
    """The matrix of what a letter abbreviates, differentiated as the letter says."""
    inner, own = jet.field.abbreviated
    shape = [*[extent(i, page.point.sizes) for i in own], 1, 1][:2]
    entries = []
    for entry in product(*[range(extent(i, page.point.sizes)) for i in own]):
        indices = {**place.indices, **dict(zip(own, entry, strict=True))}
        out = _write(inner, page, replace(place, indices=indices))
        for i in jet.hol:
            out = out.diff(page.axis(place.indices[i], bar=False))
        for i in jet.anti:
            out = out.diff(page.axis(place.indices[i], bar=True))
        entries.append(out)
    matrix = ImmutableMatrix(*shape, entries)
    if jet.dagger:
        matrix = page.bar(matrix.T)
    return matrix[0, 0] if matrix.shape == (1, 1) else matrix


def _polynomials(
    table: Mapping[tuple[int, int], Any], page: Page, k: int | None, frozen: bool
) -> ImmutableMatrix:
    """Σ ∂^α∂̄^β f z^α z̄^β / (α! β!), a matrix."""
    total: Any = None
    for (hol, anti), array in sorted(table.items()):
        values = np.asarray(array if k is None else array[k])
        if max(values.shape[hol + anti :]) > 2:
            raise EvidenceError(f"component by component: {values.shape} is larger than 2 × 2")
        for at in product(range(page.d), repeat=hol + anti):
            if any(list(part) != sorted(part) for part in (at[:hol], at[hol:])):
                continue  # one term for each multi-index
            powers = tuple(tuple(map(part.count, range(page.d))) for part in (at[:hol], at[hol:]))
            if not page.meets(*powers) and not page.meets(*powers[::-1]):  # an adjoint swaps them
                continue
            below = prod(factorial(p) for p in (*powers[0], *powers[1]))
            monomial = Mul(
                *[page.axis(i, bar=False, frozen=frozen) for i in at[:hol]],
                *[page.axis(i, bar=True, frozen=frozen) for i in at[hol:]],
            )
            rows = [[page.coefficient(x) * monomial / below for x in row] for row in values[at]]
            term = ImmutableMatrix(rows)
            total = term if total is None else total + term
    return total


def _mixture(expr: Expr, page: Page, place: Place) -> Any:
    q, weights = expr.args[0], page.point.weights
    if weights is None:
        raise EvidenceError("a mixture needs weights")
    terms = []
    for k, w in enumerate(weights):
        written = _write(q, page, replace(place, component=k))
        start = written.xreplace({s: S.Zero for s in page.bars if s.name[0] in "xy"})
        terms.append(page.coefficient(w) * exp(written - start))  # the weights are those at 0
    total = Add(*terms)
    if isinstance(expr, LogSumExp):
        return log(total)
    x = expr.args[1]
    if isinstance(expr, Centred):
        return _write(x, page, place) - _mean(x, terms, total, page, place)
    return _mean(x, terms, total, page, place)


def _mean(x: Expr, terms: list[Expr], total: Expr, page: Page, place: Place) -> Any:
    if not is_component(x):
        return _write(x, page, place)
    values = [_write(x, page, replace(place, component=k)) for k in range(len(terms))]
    return Add(*[w * v for w, v in zip(terms, values, strict=True)]) / total
