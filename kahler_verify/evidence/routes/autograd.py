"""The definition in torch float64, differentiated by autograd in real coordinates.

Independent of the calculus and of the generator: the nodes ``Partial`` and ``OnDiagonal`` of a
definition become nested ``jacrev`` over (x, y), combined into ∂_a = ½(∂_x - i∂_y).  Autograd has
silent faults (see ``torch_faults``), so that inverses and determinants go through ``cholesky``
and ``solve_triangular`` alone, squares are products, and a second mode (forward over reverse)
confirms.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from functools import reduce
from math import factorial, prod
from typing import Literal

import torch
from sympy import Abs, Expr, Function, I, Symbol, conjugate, im, re
from torch import Tensor
from torch.func import jacfwd, jacrev

from kahler_verify.calculus.definition import (
    Contract,
    Covariance,
    Entry,
    Expected,
    OnDiagonal,
    Partial,
)
from kahler_verify.calculus.letters import Bar, Field, Jet
from kahler_verify.calculus.mixture import Centred, LogSumExp, Mean, Moment, Total, is_component
from kahler_verify.calculus.words import LogDet, Tr
from kahler_verify.errors import EvidenceError
from kahler_verify.evidence.numbers.means import nodes_for
from kahler_verify.evidence.routes.terms import (
    COMPONENT,
    FUNCTIONS,
    Term,
    adjoint,
    aligned,
    integer_power,
    log_det,
    number,
    over_components,
    plus,
    times,
    trace,
    without_repeats,
)

Mode = Literal["reverse", "forward"]


@dataclass(frozen=True)
class TaylorFields:
    """Fields at one point as Taylor polynomials, complex128.

    ``jets[field][h, a]`` is [(K,) d × h, d × a, rows, cols]; ``weights`` [K] of a mixture are those
    at the point itself.
    """

    d: int
    numbers: Mapping[Symbol, complex]  # dimensions, coordinates and their conjugates, parameters
    jets: Mapping[Field, Mapping[tuple[int, int], Tensor]]
    weights: Tensor | None = None
    coordinates: tuple[Symbol, ...] = ()  # of explicit potentials
    real: bool = False  # whether the latent coordinates are real

    @property
    def start(self) -> Tensor:
        """No displacement: in (x, y) of complex coordinates, in x of real ones."""
        return torch.zeros(self.d if self.real else 2 * self.d, dtype=torch.float64)


@dataclass(frozen=True)
class Place:
    """Where to evaluate: z and z₀ moved by u and u₀ (real [2d]); u₀ is None off the diagonal."""

    fields: TaylorFields
    u: Tensor
    u0: Tensor | None = None
    mode: Mode = "reverse"


def differentiate(
    definition: Expr, indices: tuple[Symbol, ...], fields: TaylorFields, mode: Mode = "reverse"
) -> Tensor:
    """All entries of an output at u = 0, complex128 [d × len(indices)].

    ``mode`` "reverse" nests ``jacrev``; "forward" takes the outermost derivative by ``jacfwd``.

    Raises:
        EvidenceError: the definition holds something without a rule.
    """
    start = Place(fields, fields.start, mode=mode)
    term = evaluate(definition, start)
    if not term.is_number or set(term.axes) - set(indices):
        raise EvidenceError(f"expected a number over the indices {indices}, got {term.axes}")
    sizes = [_extent(i, fields) for i in indices]
    return aligned(term, indices)[..., 0, 0].expand(sizes).clone()


def _extent(i: Symbol, fields: TaylorFields) -> int:
    size = getattr(i, "size", None)
    if size is None:
        return fields.d
    return int(size.subs({s: int(x.real) for s, x in fields.numbers.items()}))


def evaluate(expr: Expr, place: Place) -> Term:
    """The value of an expression at a place."""
    if isinstance(expr, Partial):
        return _partial(expr, place)
    if isinstance(expr, OnDiagonal):
        return evaluate(expr.args[0], replace(place, u0=place.u))
    if isinstance(expr, Expected):
        return _expected(expr, place)
    if isinstance(expr, Covariance):
        x, y, residual = expr.args
        means = times(
            evaluate(Expected(x, residual), place), evaluate(Expected(y, residual), place)
        )
        return plus(evaluate(Expected(x * y, residual), place), Term(means.axes, -means.value))
    if isinstance(expr, Jet):
        return _abbreviation(expr, place) if expr.field.abbreviated else _letter(expr, place)
    if isinstance(expr, Symbol):
        return _symbol(expr, place)
    if expr.is_Rational or expr is I:
        return number(complex(expr))
    if expr.is_Add:
        return reduce(plus, [evaluate(t, place) for t in expr.args])
    if expr.is_Mul:
        return reduce(times, [evaluate(f, place) for f in expr.args])
    if isinstance(expr, Tr):
        return trace(evaluate(expr.args[0], place))
    if isinstance(expr, Entry):
        return _entry(expr, evaluate(expr.word, place))
    if isinstance(expr, Contract):
        return _contract(expr, place)
    if isinstance(expr, LogDet):
        return log_det(evaluate(expr.args[0], place), _is_positive(expr.args[0]))
    if isinstance(expr, Total):
        return over_components(evaluate(expr.args[0], place))
    if isinstance(expr, LogSumExp | Mean | Moment | Centred):
        return _mixture(expr, place)
    if expr.is_Pow and expr.exp.is_Integer:
        return integer_power(evaluate(expr.base, place), int(expr.exp), _is_positive(expr.base))
    if expr.is_Pow and expr.exp.is_Rational:
        base = evaluate(expr.base, place)
        return Term(base.axes, torch.exp(complex(expr.exp) * torch.log(base.value)))
    if isinstance(expr, conjugate | re | im | Abs):
        return _conjugates(expr, evaluate(expr.args[0], place))
    if isinstance(expr, Function) and type(expr).__name__ in FUNCTIONS:
        inner = evaluate(expr.args[-1], place)
        orders = [evaluate(a, place).value for a in expr.args[:-1]]  # of polygamma
        return Term(inner.axes, FUNCTIONS[type(expr).__name__](*orders, inner.value))
    raise EvidenceError(f"autograd evidence has no rule for {type(expr).__name__}: {expr}")


# ------------------------------------------------------------------------------- derivatives


def _partial(expr: Partial, place: Place) -> Term:
    axes: list[tuple[Symbol, ...]] = []
    inner_place = replace(place, mode="reverse")

    def real(u: Tensor) -> Tensor:
        term = evaluate(expr.args[0], replace(inner_place, u=u))
        axes[:] = [term.axes]
        return torch.stack([term.value.real, term.value.imag], -1)

    order = len(expr.hol) + len(expr.anti)
    derivative: Callable[[Tensor], Tensor] = real
    for step in range(order):
        forward = place.mode == "forward" and step == order - 1
        derivative = (jacfwd if forward else jacrev)(derivative)
    if place.fields.real:
        found = derivative(place.u)
        pair = found.ndim - order - 1
        value = torch.complex(found.select(pair, 0), found.select(pair, 1)) * 1  # see _adjoint
        value = value.movedim(list(range(pair, pair + order)), list(range(order)))
    else:
        value = wirtinger_jet(derivative(place.u), len(expr.hol), len(expr.anti))
    return without_repeats(Term((*expr.hol, *expr.anti, *axes[0]), value))


def wirtinger_jet(derivative: Tensor, hol: int, anti: int) -> Tensor:
    """Real derivatives [*inner, 2, 2d, …, 2d] to ∂^hol ∂̄^anti, [d, …, d, *inner]."""
    order = hol + anti
    pair = derivative.ndim - order - 1
    value = torch.complex(derivative.select(pair, 0), derivative.select(pair, 1))
    for n in range(order):
        x, y = value.movedim(pair + n, 0).chunk(2)
        value = ((x - 1j * y) / 2 if n < hol else (x + 1j * y) / 2).movedim(0, pair + n)
    return value.movedim(list(range(pair, pair + order)), list(range(order)))


def _letter(jet: Jet, place: Place) -> Term:
    """The Taylor polynomial of a field, or of its adjoint, at the displaced point."""
    own, u = jet.field, place.u
    if "frozen" in own.traits:  # on the diagonal z₀ is z
        if place.u0 is None:
            u = torch.zeros_like(place.u)
        else:
            own, u = own.without_traits("frozen"), place.u0
    hol, anti = len(jet.hol), len(jet.anti)
    step = u.to(torch.complex128) if place.fields.real else torch.complex(*u.chunk(2))
    lead = int("component" in own.traits)
    total = None
    for (h, a), table in place.fields.jets[own].items():
        if h < hol or a < anti:
            continue
        value = table
        for _ in range(h - hol):  # jets are symmetric in their indices of one kind
            value = torch.tensordot(step, value, dims=([0], [lead]))
        for _ in range(a - anti):
            value = torch.tensordot(step.conj(), value, dims=([0], [lead + hol]))
        value = value / (factorial(h - hol) * factorial(a - anti))
        total = value if total is None else total + value
    if total is None:
        raise EvidenceError(f"no derivatives of {own.name} are known at this point")
    axes = (*(COMPONENT,) * lead, *jet.hol, *jet.anti)
    return without_repeats(Term(axes, adjoint(total) if jet.dagger else total))


def _abbreviation(jet: Jet, place: Place) -> Term:
    """The matrix of what a letter abbreviates."""
    inner, own = jet.field.abbreviated
    term = evaluate(Partial(inner, *jet.hol, *map(Bar, jet.anti)), place)
    free = tuple(a for a in term.axes if a not in own)
    value = aligned(term, (*free, *own))[..., 0, 0]
    for _ in range(2 - len(own)):
        value = value.unsqueeze(-1)
    sizes = [_extent(i, place.fields) for i in own] + [1, 1]
    value = value.expand(*value.shape[:-2], *sizes[:2])
    return Term(free, adjoint(value) if jet.dagger else value)


def _expected(expr: Expected, place: Place) -> Term:
    """The mean of a polynomial in a standard normal vector."""
    inner, residual = expr.args
    shape = place.fields.jets[residual.field][0, 0].shape
    terms = []
    for at, weight in nodes_for(inner, residual, shape[0]):
        value = torch.tensor([[float(x)] for x in at], dtype=torch.complex128)
        fields = replace(place.fields, jets={**place.fields.jets, residual.field: {(0, 0): value}})
        term = evaluate(inner, replace(place, fields=fields))
        terms.append(Term(term.axes, term.value * float(weight)))
    return reduce(plus, terms)


def _symbol(symbol: Symbol, place: Place) -> Term:
    fields = place.fields
    if symbol not in fields.numbers:
        raise EvidenceError(f"the symbol {symbol} has no value at this point")
    here = number(fields.numbers[symbol])
    if symbol not in fields.coordinates:
        return here
    x, y = place.u.chunk(2)
    i = fields.coordinates.index(symbol)
    return Term((), here.value + torch.complex(x[i], y[i]))


def _conjugates(expr: Expr, inner: Term) -> Term:
    """Conjugate, re, im, or Abs as √(x x̄), which torch differentiates rightly."""
    x, other = inner.value, inner.value.conj()
    value = {
        conjugate: lambda: other,
        re: lambda: (x + other) / 2,
        im: lambda: (x - other) / 2j,
        Abs: lambda: torch.sqrt(x * other),
    }[type(expr)]()
    return Term(inner.axes, value)


def _entry(expr: Entry, matrix: Term) -> Term:
    value = matrix.value
    if len(expr.indices) == 1:  # a column or a row
        value = value.squeeze(-1) if value.shape[-1] == 1 else value.squeeze(-2)
    return without_repeats(Term((*matrix.axes, *expr.indices), value[..., None, None]))


def _contract(expr: Contract, place: Place) -> Term:
    term = evaluate(expr.args[0], place)
    missing = [i for i in expr.indices if i not in term.axes]
    summed = [term.axes.index(i) for i in expr.indices if i in term.axes]
    value = term.value.sum(summed) if summed else term.value
    rest = tuple(a for a in term.axes if a not in expr.indices)
    return Term(rest, value * prod(_extent(i, place.fields) for i in missing))


def _is_positive(expr: Expr) -> bool:
    return isinstance(expr, Jet) and "positive" in expr.field.traits


# ------------------------------------------------------------------------------- mixtures


def _mixture(expr: Expr, place: Place) -> Term:
    """log Σ_k w_k e^{q_k - q_k(z)}, and means under the weights it moves to."""
    weights = place.fields.weights
    if weights is None:
        raise EvidenceError("a mixture needs weights")
    q = evaluate(expr.args[0], place)
    rest = torch.zeros_like(place.u)
    u0 = None if place.u0 is None else torch.zeros_like(place.u0)
    q_here = evaluate(expr.args[0], replace(place, u=rest, u0=u0))
    moved = times(
        Term((COMPONENT,), weights[:, None, None]),
        Term(q.axes, torch.exp(q.value - aligned(q_here, q.axes))),
    )
    total = over_components(moved)
    if isinstance(expr, LogSumExp):
        return Term(total.axes, torch.log(total.value))
    under = times(moved, Term(total.axes, total.value.reciprocal()))
    x = evaluate(expr.args[1], place)
    mean = x if not is_component(expr.args[1]) else over_components(times(under, x))
    if isinstance(expr, Centred):
        return plus(x, Term(mean.axes, -mean.value))
    return mean
