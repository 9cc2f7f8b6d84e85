"""Definitions with unevaluated derivatives, and their evaluation by the calculus.

A derivation states what it wants as a paper does: ``OnDiagonal(Partial(KL, a, Bar(b)))``.  These
nodes stay unevaluated in the definition; :func:`derive` evaluates them with the calculus, while
evidence evaluates the same nodes by numbers alone, and so checks the calculus without sharing code
with it.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from sympy import Add, Expr, Mul, S, Symbol, sympify

from kahler_verify.calculus.letters import Bar, Field, Jet
from kahler_verify.calculus.wirtinger import wirtinger
from kahler_verify.calculus.words import Tr, adjoint, distribute, scalars, shape_of
from kahler_verify.errors import DerivationError


class Definition(Expr):
    """Base of the unevaluated nodes; a node has the shape of what it differentiates."""

    @property
    def shape(self) -> tuple[Expr, Expr]:
        return shape_of(self.args[0])

    def _eval_is_commutative(self) -> bool:
        return self.shape == (1, 1)


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


class Entry(Expr):
    """One component of a vector, ``Entry(v, a)``, or of a matrix, ``Entry(G, a, b)``.

    Indices that occur twice in a term and not in the output are summed (Einstein's convention).
    Entries of vectors and matrices over the latent space join words to latent indices.
    """

    is_commutative = True

    def __new__(cls, matrix: Expr, *indices: Symbol) -> Expr:
        matrix = sympify(matrix)
        if isinstance(matrix, Definition):
            return Expr.__new__(cls, matrix, *indices)
        matrix = distribute(matrix)
        if matrix.is_Add:
            return Add(*[cls(t, *indices) for t in matrix.args])
        if matrix == 0:
            return S.Zero
        coefficient = Mul(*[f for f in Mul.make_args(matrix) if f.is_commutative])
        word = Mul(*[f for f in Mul.make_args(matrix) if not f.is_commutative])
        if word == 1:
            raise DerivationError(f"Entry: expected a matrix, got the scalar {matrix}")
        rows, cols = shape_of(word)
        expected = (rows != 1) + (cols != 1)
        if len(indices) != expected:
            raise DerivationError(
                f"Entry: expected {expected} indices for a {rows} × {cols} matrix, got {indices}"
            )
        entry = Expr.__new__(cls, word, *indices)
        return coefficient * entry

    @property
    def word(self) -> Expr:
        return self.args[0]

    @property
    def indices(self) -> tuple[Symbol, ...]:
        return self.args[1:]

    def _latex(self, printer: Any) -> str:
        return rf"\left[{printer._print(self.word)}\right]_{{{''.join(map(str, self.indices))}}}"


class Contract(Expr):
    """The number Σ over the given indices of an expression of entries, closed off from outside.

    It can be divided by, or raised to a power, without its indices meeting those of other factors.
    """

    is_commutative = True

    def __new__(cls, expr: Expr, *indices: Symbol) -> Expr:
        return Expr.__new__(cls, sympify(expr), *indices)

    @property
    def indices(self) -> tuple[Symbol, ...]:
        return self.args[1:]

    def _latex(self, printer: Any) -> str:
        return rf"\left({printer._print(self.args[0])}\right)"


def derive(definition: Expr) -> Expr:
    """Evaluate every ``Partial`` and ``OnDiagonal`` of a definition by the calculus."""
    return _derive(scalars(definition))


def _derive(expr: Expr) -> Expr:
    if isinstance(expr, Partial):
        out = _derive(expr.args[0])
        for i in expr.hol:
            out = wirtinger(out, i)
        for i in expr.anti:
            out = wirtinger(out, i, True)
        return out
    if isinstance(expr, OnDiagonal):
        return on_diagonal(_derive(expr.args[0]))
    if isinstance(expr, Entry):
        return Entry(_derive(expr.word), *expr.indices)
    if not expr.has(Definition):
        return expr
    return distribute(expr.func(*[_derive(a) for a in expr.args]))


def map_letters(expr: Expr, change: Callable[[Jet], Expr]) -> Expr:
    """Replace every letter and restore all normal forms (traces, means, entries)."""
    if isinstance(expr, Jet):
        return change(expr)
    if expr.is_Atom or not isinstance(expr, Expr):
        return expr
    return distribute(expr.func(*[map_letters(a, change) for a in expr.args]))


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
