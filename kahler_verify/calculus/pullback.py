"""Pullbacks (adjoint derivatives) of numbers with respect to a matrix letter."""

from __future__ import annotations

from sympy import Add, Dummy, Expr, Mul, S

from kahler_verify.calculus.definition import Partial, derive
from kahler_verify.calculus.letters import Jet
from kahler_verify.calculus.words import Tr, factor_word, product
from kahler_verify.errors import DerivationError


def pullback(number: Expr, letter: Jet) -> Expr:
    """The matrix C with ∂(number) = Tr(C ∂letter) + terms of other letters, by the calculus.

    A loss of the number, with cotangent w, has the cotangent w Cᴴ at the letter.

    Raises:
        DerivationError: the derivative is not linear in one trace of ∂letter.
    """
    index = Dummy("i")
    moved = letter.partial(index, bar=False)
    out: Expr = S.Zero
    for term in Add.make_args(derive(Partial(number, index))):
        if not term.has(moved):
            continue
        traces = [f for f in Mul.make_args(term) if isinstance(f, Tr) and f.has(moved)]
        word = factor_word(traces[0].args[0])[1] if traces else []
        places = [n for n, (base, _) in enumerate(word) if base == moved]
        if len(traces) != 1 or len(places) != 1 or len(word) == 1:
            raise DerivationError(f"pullback: expected one trace of ∂{letter}, got {term}")
        (n,) = places  # the trace is cyclic: what follows the letter, then what stands before it
        out += term / traces[0] * product(word[n + 1 :] + word[:n])
    return out
