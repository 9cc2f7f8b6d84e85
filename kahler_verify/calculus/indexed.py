"""Index notation: entries of words, and sums over indices that are closed off from outside."""

from __future__ import annotations

from itertools import permutations
from typing import Any

from sympy import Add, Expr, Mul, S, Symbol, sympify

from kahler_verify.calculus.letters import Jet
from kahler_verify.calculus.words import (
    adjoint,
    distribute,
    factor_word,
    product,
    shape_of,
    transposed,
    word_key,
)
from kahler_verify.errors import DerivationError

MOST_RENAMED = 4  # summed indices of one number, of which all orders are tried


class Definition(Expr):
    """Base of the unevaluated nodes; a node has the shape of what it differentiates."""

    @property
    def shape(self) -> tuple[Expr, Expr]:
        return shape_of(self.args[0])

    def _eval_is_commutative(self) -> bool:
        return self.shape == (1, 1)


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
        if (expected == 1 and rows == 1) or expected == 2:
            # a real row is a column, and [Xᵀ]_ba is X_ab
            other = transposed(factor_word(word)[1])
            if other is not None:
                ways = [(word_key(factor_word(word)[1]), str(indices), word, indices)]
                back = product(other)
                ways.append((word_key(other), str(indices[::-1]), back, indices[::-1]))
                _, _, word, indices = min(ways, key=lambda way: way[:2]) if rows != 1 else ways[1]
        entry = Expr.__new__(cls, word, *indices)
        return coefficient * entry

    @property
    def H(self) -> Expr:
        """The conjugate: that of X_ab is (Xᴴ)_ba."""
        return Entry(adjoint(self.word), *self.indices[::-1])

    @property
    def word(self) -> Expr:
        return self.args[0]

    @property
    def indices(self) -> tuple[Symbol, ...]:
        return self.args[1:]

    def _latex(self, printer: Any) -> str:
        return rf"\left[{printer._print(self.word)}\right]_{{{''.join(map(str, self.indices))}}}"


def free_indices(expr: Expr) -> set[Symbol]:
    """The indices of derivatives, entries and abbreviations that are not summed inside."""
    if isinstance(expr, Contract):
        return free_indices(expr.args[0]) - set(expr.indices)
    if isinstance(expr, Jet):
        return {*expr.hol, *expr.anti, *expr.field.arguments}
    own: set[Symbol] = set()
    if isinstance(expr, Entry):
        own = set(expr.indices)
    elif isinstance(expr, Definition):
        own = {*getattr(expr, "hol", ()), *getattr(expr, "anti", ())}
    return own.union(*[free_indices(a) for a in expr.args if isinstance(a, Expr)])


class Contract(Expr):
    """The number Σ over the given indices of an expression of entries, closed off from outside.

    It can be divided by, or raised to a power, without its indices meeting those of other factors.
    """

    is_commutative = True

    def __new__(cls, expr: Expr, *indices: Symbol) -> Expr:
        expr = sympify(expr)
        return S.Zero if expr == 0 else Expr.__new__(cls, expr, *indices)

    @property
    def H(self) -> Expr:
        """The conjugate."""
        return Contract(adjoint(self.args[0]), *self.indices)

    @property
    def indices(self) -> tuple[Symbol, ...]:
        return self.args[1:]

    def _latex(self, printer: Any) -> str:
        return rf"\left({printer._print(self.args[0])}\right)"


def contracted(expr: Expr, *indices: Symbol) -> Expr:
    """The same number in normal form: term by term, with what is not summed in front."""
    terms = []
    for term in Add.make_args(distribute(expr)):
        factors = Mul.make_args(term)
        inside = [f for f in factors if f.free_symbols & set(indices)]
        shared = Mul(*[f for f in factors if f not in inside])
        if inside:
            terms.append(shared * Contract(*_renamed(Mul(*inside), indices)))
        else:
            terms.append(Contract(term, *indices))
    return Add(*terms)


def _renamed(expr: Expr, indices: tuple[Symbol, ...]) -> tuple[Expr, ...]:
    """One spelling for what differs by the names of summed indices alone."""
    indices = tuple(sorted(indices, key=str))
    if len(indices) < 2 or len(indices) > MOST_RENAMED:
        return expr, *indices
    kinds = {i: getattr(i, "size", None) for i in indices}
    ways = []
    for order in permutations(indices):
        if all(kinds[i] == kinds[j] for i, j in zip(indices, order, strict=True)):
            turned = expr.xreplace(dict(zip(indices, order, strict=True)))
            ways.append((str(turned), turned))
    return min(ways, key=lambda way: way[0])[1], *indices
