"""Words: noncommutative products of letters, and the scalars made of them (trace, log det).

Two heads suffice for divergences.  ``Tr`` is linear and has a cyclic normal form, so that equality
of trace expressions is equality of SymPy expressions; ``LogDet`` is opaque until it is
differentiated.
"""

from __future__ import annotations

from itertools import pairwise
from typing import Any

from sympy import (
    Abs,
    Add,
    Dummy,
    Expr,
    Function,
    I,
    Mul,
    Pow,
    S,
    Symbol,
    conjugate,
    im,
    re,
    sqrt,
    sympify,
)

from kahler_verify.calculus.letters import ONE, Jet
from kahler_verify.errors import DerivationError

Letter = tuple[Expr, int]  # (a jet or a compound matrix, +1 or -1)


def distribute(expr: Expr) -> Expr:
    """Multiply sums out, and nothing else: denominators such as (1 + zᴴz)⁻² stay as they are."""
    expr = sympify(expr)
    if not expr.is_commutative:
        expr = expr.replace(
            lambda e: e.is_Pow and not e.is_commutative and e.base.is_Add and e.exp.is_positive,
            lambda e: e.expand(multinomial=True),
        )
    below = [p for p in expr.atoms(Pow) if p.is_commutative and p.base.is_Add and _is_below(p)]
    names = {p.base: Dummy() for p in below}
    if len(names) < 2:
        return _multiplied_out(expr)
    # SymPy multiplies a product of different denominators out, which explodes where functions are
    # nested: they go by a name meanwhile
    named = _multiplied_out(expr.xreplace({p: names[p.base] ** p.exp for p in below}))
    found = named.xreplace({name: base for base, name in names.items()})
    return found if found == expr else distribute(found)  # sums may have met their denominators


def _multiplied_out(expr: Expr) -> Expr:
    return expr.expand(
        mul=True, multinomial=False, power_base=False, power_exp=False, log=False, basic=False
    )


def _is_below(power: Pow) -> bool:
    """Whether it stands in a denominator."""
    return bool(power.exp.could_extract_minus_sign())


def factor_word(term: Expr) -> tuple[Expr, list[Letter]]:
    """A monomial as (commutative coefficient, word)."""
    commuting, rest = Mul.make_args(term), []
    coefficient = Mul(*[f for f in commuting if f.is_commutative])
    for f in (f for f in commuting if not f.is_commutative):
        base, power = f.as_base_exp()
        if not power.is_Integer:
            raise DerivationError(f"matrix powers must be integers, got {f}")
        bases = [b for b in Mul.make_args(base) if not b.is_commutative]
        if len(bases) > 1 and power < 0:
            raise DerivationError(f"write the inverse of a product factor by factor, got {f}")
        rest += [(b, 1 if power > 0 else -1) for b in bases] * abs(int(power))
    return coefficient, rest


def product(word: list[Letter]) -> Expr:
    """The word as a SymPy product."""
    return Mul(*[base if power == 1 else Pow(base, -1) for base, power in word])


def shape_of(expr: Expr) -> tuple[Expr, Expr]:
    """Rows and columns of a matrix expression; commutative expressions are 1 × 1."""
    if expr.is_commutative or isinstance(expr, Function):
        return ONE, ONE
    if hasattr(expr, "shape"):
        return expr.shape
    if expr.is_Add:
        shapes = {shape_of(t) for t in expr.args}
        if len(shapes) != 1:
            raise DerivationError(f"cannot add shapes {sorted(map(str, shapes))} in {expr}")
        return shapes.pop()
    if expr.is_Pow:
        rows, cols = shape_of(expr.base)
        if rows != cols:
            raise DerivationError(f"only square matrices have powers, got {rows} × {cols}: {expr}")
        return rows, cols
    if expr.is_Mul:
        factors = [shape_of(f) for f in expr.args if not f.is_commutative]
        factors = [s for s in factors if s != (1, 1)] or [(ONE, ONE)]
        for left, right in pairwise(factors):
            if left[1] != right[0]:
                raise DerivationError(f"shapes {left} and {right} do not multiply in {expr}")
        return factors[0][0], factors[-1][1]
    raise DerivationError(f"no shape is known for {type(expr).__name__}: {expr}")


def adjoint(expr: Expr) -> Expr:
    """The adjoint of a matrix expression, the conjugate of a scalar one."""
    expr = sympify(expr)
    if hasattr(expr, "H"):  # letters and unevaluated derivatives of them
        return expr.H
    if isinstance(expr, Tr):
        return Tr(adjoint(expr.args[0]))
    if expr.is_Add:
        return Add(*[adjoint(t) for t in expr.args])
    if expr.is_Mul:
        return Mul(*[adjoint(f) for f in reversed(expr.args)])
    if expr.is_Pow:  # principal powers, off their branch cut
        return Pow(adjoint(expr.base), adjoint(expr.exp))
    if isinstance(expr, LogDet):  # of Hermitian matrices only
        return expr
    if isinstance(expr, Symbol) or expr.is_number:
        return expr.conjugate()
    if isinstance(expr, Function) or hasattr(expr, "conjugates_its_arguments"):
        return expr.func(*[adjoint(a) for a in expr.args])
    raise DerivationError(f"no adjoint is known for {type(expr).__name__}: {expr}")


def transposed(word: list[Letter]) -> list[Letter] | None:
    """The transpose of a word of real letters; None where a letter has none."""
    if not all(isinstance(b, Jet) and "real" in b.field.traits for b, _ in word):
        return None
    return [(b.T, power) for b, power in reversed(word)]


def cancel(word: list[Letter]) -> list[Letter]:
    """Remove neighbours X X⁻¹."""
    out: list[Letter] = []
    for letter in word:
        if out and out[-1][0] == letter[0] and out[-1][1] == -letter[1]:
            out.pop()
        else:
            out.append(letter)
    return out


def word_key(word: list[Letter]) -> list[tuple[str, int]]:
    """What words are ordered by."""
    return [(str(base), power) for base, power in word]


def trace_of_word(word: list[Letter]) -> Expr:
    """The trace of a word in normal form; where everything cancels, the size of the identity."""
    size = shape_of(product(word[:1]))[0]
    word = cancel(word)
    while len(word) > 1 and word[0][0] == word[-1][0] and word[0][1] == -word[-1][1]:
        word = word[1:-1]
    if not word:
        return size
    rows = [i for i, (b, _) in enumerate(word) if shape_of(b)[0] == 1]
    if rows:  # cut the cycle at every 1 × 1 joint: each piece row…column is a number of its own
        word = word[rows[0] :] + word[: rows[0]]
        starts = [i for i, (b, _) in enumerate(word) if shape_of(b)[0] == 1]
        pieces = [word[i:j] for i, j in zip(starts, [*starts[1:], len(word)], strict=True)]
        numbers = [min(_both(piece), key=word_key) for piece in pieces]
        return Mul(*[Tr(product(number), evaluate=False) for number in numbers])
    turns = (way[i:] + way[:i] for way in _both(word) for i in range(len(word)))
    return Tr(product(min(turns, key=word_key)), evaluate=False)


def _both(word: list[Letter]) -> list[list[Letter]]:
    """A word and, of real letters, its transpose, which has the same trace."""
    other = transposed(word)
    return [word] if other is None else [word, other]


class Tr(Function):
    """Trace: linear, cyclic; of a 1 × 1 product, the number itself."""

    is_commutative = True

    @classmethod
    def eval(cls, x: Expr) -> Expr | None:
        x = distribute(x)
        if x.is_Add:
            return Add(*[cls(t) for t in x.args])
        coefficient, word = factor_word(x)
        if not word:
            if x == 0:
                return S.Zero
            raise DerivationError(
                f"Tr({x}): the size of this identity is unknown; write its dimension instead"
            )
        rows, cols = shape_of(product(word))
        if rows != cols:
            raise DerivationError(f"Tr: expected a square matrix, got {rows} × {cols}: {x}")
        normal = trace_of_word(word)
        if coefficient == 1 and isinstance(normal, Tr) and normal.args[0] == x:
            return None
        return coefficient * normal

    def _latex(self, printer: Any, exp: Any = None) -> str:
        word = factor_word(self.args[0])[1]
        body = printer._print(self.args[0])
        if shape_of(product(word[:1]))[0] != 1:
            body = rf"\operatorname{{tr}}\left({body}\right)"
        elif exp is not None:
            body = rf"\left({body}\right)"
        return body if exp is None else rf"{body}^{{{exp}}}"


def trace(matrix: Expr, size: Expr) -> Expr:
    """Trace of a matrix in which products may have cancelled to multiples of the identity."""
    terms = Add.make_args(distribute(matrix))
    return Add(*[t * size if t.is_commutative else Tr(t) for t in terms])


class LogDet(Function):
    """log det of a Hermitian positive matrix."""

    is_commutative = True

    @classmethod
    def eval(cls, x: Expr) -> Expr | None:
        if x.is_commutative:
            raise DerivationError(f"LogDet: expected a matrix, got the scalar {x}")
        rows, cols = shape_of(x)
        if rows != cols:
            raise DerivationError(f"LogDet: expected a square matrix, got {rows} × {cols}: {x}")
        return None

    def _latex(self, printer: Any, exp: Any = None) -> str:
        body = rf"\log\det {printer._print(self.args[0])}"
        return body if exp is None else rf"\left({body}\right)^{{{exp}}}"


def scalars(expr: Expr) -> Expr:
    """Wrap every 1 × 1 product (such as zᴴAz) into ``Tr``, so that papers' notation can be typed.

    ``conjugate``, ``re``, ``im`` and ``Abs`` are written out by adjoints: |x|² = x x̄.

    Raises:
        DerivationError: shapes do not fit, or a number is a float (write it as a fraction).
    """
    expr = sympify(expr)
    if expr.is_Float:
        raise DerivationError(
            f"expected exact numbers, got {expr}: write Rational('{float(expr)}')"
        )
    if not isinstance(expr, Expr) or isinstance(expr, Tr | LogDet | Jet) or expr.is_Atom:
        return expr
    if isinstance(expr, conjugate | re | im | Abs) and expr.has(Jet):
        return _conjugates_written_out(expr)
    if expr.is_Pow and isinstance(expr.base, Abs) and expr.has(Jet):
        return _square(expr.base.args[0]) ** (scalars(expr.exp) / 2)
    if expr.is_Pow:
        return scalars(expr.base) ** scalars(expr.exp)
    if expr.is_commutative or not expr.is_Mul:
        out = expr.func(*[scalars(a) for a in expr.args])
        shape_of(out)  # raises where terms do not fit
        return out
    matrices = [f for f in expr.args if not f.is_commutative]
    if matrices and all(isinstance(f, conjugate) for f in matrices):
        inner = Mul(*[f.args[0] for f in matrices])  # SymPy took the conjugate of a number apart
        if shape_of(inner) == (1, 1):
            others = [scalars(f) for f in expr.args if f.is_commutative]
            return Mul(*others, adjoint(scalars(inner)))
    factors = [scalars(f) for f in expr.args]
    numbers = [f for f in factors if shape_of(f) == (1, 1)]
    matrices = Mul(*[f for f in factors if shape_of(f) != (1, 1)])
    if matrices != 1 and shape_of(matrices) == (1, 1):
        matrices = Tr(matrices)
    return Mul(*numbers, matrices)


def _conjugates_written_out(expr: Expr) -> Expr:
    if shape_of(expr.args[0]) != (1, 1):
        raise DerivationError(
            f"{type(expr).__name__}: expected a number, got the matrix in {expr}: write adjoint"
        )
    if isinstance(expr, Abs):
        return sqrt(_square(expr.args[0]))
    x = scalars(expr.args[0])
    bar = adjoint(x)
    if isinstance(expr, conjugate):
        return bar
    return (x + bar) / 2 if isinstance(expr, re) else (x - bar) / (2 * I)


def _square(x: Expr) -> Expr:
    return scalars(x) * adjoint(scalars(x))
