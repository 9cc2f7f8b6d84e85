"""Definitions with unevaluated derivatives, and their evaluation by the calculus.

A derivation states what it wants as a paper does: ``OnDiagonal(Partial(KL, a, Bar(b)))``.  These
nodes stay unevaluated in the definition; :func:`derive` evaluates them with the calculus, while
evidence evaluates the same nodes by numbers alone, and so checks the calculus without sharing code
with it.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from sympy import Expr, Symbol

from kahler_verify.calculus.indexed import (
    Contract as Contract,  # those who evaluate take all nodes here
)
from kahler_verify.calculus.indexed import Definition as Definition
from kahler_verify.calculus.indexed import Entry as Entry
from kahler_verify.calculus.letters import Bar, Field, Index, Jet
from kahler_verify.calculus.wick import gaussian_covariance, gaussian_mean
from kahler_verify.calculus.wirtinger import component_function, wirtinger
from kahler_verify.calculus.words import Tr, adjoint, distribute, scalars, shape_of
from kahler_verify.errors import DerivationError


class Partial(Definition):
    """∂_a … ∂_b̄ … of an expression: ``Partial(KL, a, Bar(b))``."""

    def __new__(cls, expr: Expr, *indices: Symbol | Bar) -> Expr:
        expr = scalars(expr)
        if not indices:
            return expr
        for i in indices:
            if not isinstance(i, Symbol | Bar):
                raise DerivationError(f"Partial: expected indices such as a or Bar(b), got {i!r}")
        return Expr.__new__(cls, expr, *indices)

    @property
    def hol(self) -> tuple[Symbol, ...]:
        return tuple(i for i in self.args[1:] if not isinstance(i, Bar))

    @property
    def anti(self) -> tuple[Symbol, ...]:
        return tuple(i.index for i in self.args[1:] if isinstance(i, Bar))

    @property
    def H(self) -> Expr:
        """The adjoint: (∂_a X)ᴴ = ∂_ā Xᴴ."""
        flipped = [i.index if isinstance(i, Bar) else Bar(i) for i in self.args[1:]]
        return Partial(adjoint(self.args[0]), *flipped)

    def _latex(self, printer: Any) -> str:
        marks = [str(i) for i in self.hol] + [rf"\bar{{{i}}}" for i in self.anti]
        body = printer._print(self.args[0])
        return rf"\partial_{{{''.join(marks)}}}\left[{body}\right]"


class OnDiagonal(Definition):
    """Set the base point z₀ to z after all derivatives inside have been taken."""

    def __new__(cls, expr: Expr) -> Expr:
        return Expr.__new__(cls, scalars(expr))

    @property
    def H(self) -> Expr:
        """The adjoint."""
        return OnDiagonal(adjoint(self.args[0]))

    def _latex(self, printer: Any) -> str:
        return rf"\left.{printer._print(self.args[0])}\right|_{{z_0=z}}"


class Expected(Definition):
    """The mean over a standard normal vector: ``Expected(m, eps)``, eps ~ N(0, 1)."""

    def __new__(cls, expr: Expr, residual: Jet) -> Expr:
        return Expr.__new__(cls, scalars(expr), residual)

    @property
    def H(self) -> Expr:
        """The adjoint."""
        return Expected(adjoint(self.args[0]), self.args[1])


class Covariance(Definition):
    """E[xy] - E[x] E[y] over a standard normal vector (no conjugate is taken).

    It is derived as the pairings that connect x with y, so that no digits cancel.
    """

    def __new__(cls, x: Expr, y: Expr, residual: Jet) -> Expr:
        return Expr.__new__(cls, scalars(x), scalars(y), residual)

    @property
    def H(self) -> Expr:
        """The adjoint."""
        x, y, residual = self.args
        return Covariance(adjoint(x), adjoint(y), residual)


def derive(definition: Expr) -> Expr:
    """Evaluate every ``Partial`` and ``OnDiagonal`` of a definition by the calculus."""
    return _derive(scalars(definition))


def _derive(expr: Expr) -> Expr:
    if isinstance(expr, Partial):
        out = _derive(expr.args[0])
        stray = component_function(out)
        if stray is not None:
            raise DerivationError(f"a function of a component field needs a mixture head: {stray}")
        for i in expr.hol:
            out = wirtinger(out, i)
        for i in expr.anti:
            out = wirtinger(out, i, True)
        return out
    if isinstance(expr, OnDiagonal):
        return on_diagonal(_derive(expr.args[0]))
    if isinstance(expr, Jet):
        return expr
    if isinstance(expr, Expected):
        return gaussian_mean(_derive(expr.args[0]), expr.args[1])
    if isinstance(expr, Covariance):
        x, y, residual = expr.args
        return gaussian_covariance(_derive(x), _derive(y), residual)
    if isinstance(expr, Entry):
        return Entry(_derive(expr.word), *expr.indices)
    if not expr.has(Definition):
        return expr
    return distribute(expr.func(*[_derive(a) for a in expr.args]))


def map_letters(expr: Expr, change: Callable[[Jet], Expr]) -> Expr:
    """Replace every letter and restore all normal forms (traces, means, entries)."""
    if isinstance(expr, Jet):
        return change(_abbreviation_of(expr, change) if expr.field.abbreviated else expr)
    if expr.is_Atom or not isinstance(expr, Expr):
        return expr
    return distribute(expr.func(*[map_letters(a, change) for a in expr.args]))


def _abbreviation_of(jet: Jet, change: Callable[[Jet], Expr]) -> Jet:
    args = jet.field.args
    field = Field(*args[:4], map_letters(args[4], change), *args[5:])
    return Jet(field, jet.hol, jet.anti, jet.dagger)


def at_base(expr: Expr) -> Expr:
    """The expression at the base point z₀: every letter is frozen."""
    return map_letters(scalars(expr), lambda j: j.at_base())


def on_diagonal(expr: Expr) -> Expr:
    """z₀ → z: frozen letters become running ones."""
    return _with_letters(
        expr, lambda j: Jet(j.field.without_traits("frozen"), j.hol, j.anti, j.dagger)
    )


def assume(expr: Expr, *assumptions: tuple[Jet, str]) -> Expr:
    """Give fields further traits: ``assume(g, (mu, "holomorphic"), (Sigma, "constant"))``."""
    if not assumptions:
        return expr
    traits: dict[Field, tuple[str, ...]] = {}
    for letter, trait in assumptions:
        for each in (letter.field, letter.field.with_traits("frozen")):
            traits[each] = (*traits.get(each, ()), trait)

    def change(j: Jet) -> Expr:
        if j.field not in traits:
            return j
        return Jet(j.field.with_traits(*traits[j.field]), j.hol, j.anti, j.dagger)

    return _with_letters(expr, change)


def _with_letters(expr: Expr, change: Callable[[Jet], Expr]) -> Expr:
    """``map_letters`` that keeps the size of traces whose word cancels to an identity."""
    expr = (
        expr.replace(lambda e: isinstance(e, Tr), lambda e: _retrace(e.args[0], change))
        if expr.has(Tr)
        else expr
    )
    return map_letters(expr, change)


def _retrace(matrix: Expr, change: Callable[[Jet], Expr]) -> Expr:
    mapped = map_letters(matrix, change)
    return shape_of(matrix)[0] if mapped == 1 else Tr(mapped)


def bregman(partition: Expr, *letters: Jet) -> Expr:
    """KL(η₀ ‖ η) of an exponential family: A(η) - A(η₀) - ⟨∇A(η₀), η - η₀⟩.

    ``partition`` is the log-partition function A, an expression of the ``letters`` η.
    """
    i = Index("step", real=True)
    steps = {letter.partial(i, bar=False): letter - letter.at_base() for letter in letters}
    steps |= {j.H: adjoint(x) for j, x in steps.items()}
    slope = map_letters(wirtinger(scalars(partition), i), lambda j: steps.get(j, j.at_base()))
    return scalars(partition) - at_base(partition) - slope
