"""Wick's rule: the mean of polynomials in r ~ CN(0, Σ) with relation zero.

E[r rᴴ] = Σ and E[r rᵀ] = 0, so the mean of a product is the sum over all ways to pair each r with
an rᴴ.  This derives Fisher information from the score, without using the divergence.
"""

from __future__ import annotations

from itertools import permutations

from sympy import Add, Expr, Mul

from kahler_verify.calculus.letters import Jet
from kahler_verify.calculus.mixture import factors_of
from kahler_verify.calculus.words import Letter, Tr, distribute, factor_word, trace_of_word
from kahler_verify.errors import DerivationError


def gaussian_mean(expr: Expr, residual: Jet, covariance: Jet) -> Expr:
    """E over ``residual`` ~ CN(0, ``covariance``), relation 0, of a polynomial in traces.

    Raises:
        DerivationError: the residual stands in something else than words such as rᴴAr.
    """
    return distribute(
        Add(*[_mean_of_term(t, residual, covariance) for t in Add.make_args(distribute(expr))])
    )


def _mean_of_term(term: Expr, residual: Jet, covariance: Jet) -> Expr:
    coefficient: list[Expr] = []
    strings: list[list[Letter]] = []  # pieces such as rᴴ…, …r, rᴴ…r
    for factor in factors_of(term):
        if isinstance(factor, Tr) and factor.has(residual.field):
            strings += _cut(factor_word(factor.args[0])[1], residual)
        elif factor.has(residual.field):
            raise DerivationError(f"Wick's rule covers polynomials of words only, got {factor}")
        else:
            coefficient.append(factor)
    opening = [i for i, s in enumerate(strings) if s[0][0] == residual.H]
    closing = [i for i, s in enumerate(strings) if s[-1][0] == residual]
    if len(opening) != len(closing):
        return Mul(0)
    pairings = (dict(zip(closing, chosen, strict=True)) for chosen in permutations(opening))
    return Mul(*coefficient) * Add(*[_paired(strings, p, residual, covariance) for p in pairings])


def _cut(word: list[Letter], residual: Jet) -> list[list[Letter]]:
    """Cut a cyclic word before every rᴴ and behind every r."""
    allowed = (residual, residual.H)
    if any(b.has(residual.field) and (b not in allowed or power < 0) for b, power in word):
        raise DerivationError(f"Wick's rule needs {residual} itself, got {word}")
    starts = [i for i, (b, _) in enumerate(word) if b == residual.H]
    starts += [(i + 1) % len(word) for i, (b, _) in enumerate(word) if b == residual]
    cuts = sorted(set(starts))
    turned = word[cuts[0] :] + word[: cuts[0]]
    ends = [c - cuts[0] for c in cuts[1:]] + [len(word)]
    return [turned[i:j] for i, j in zip([0, *ends[:-1]], ends, strict=True)]


def _paired(
    strings: list[list[Letter]], follows: dict[int, int], residual: Jet, covariance: Jet
) -> Expr:
    """Join …r with rᴴ… by Σ, following the pairing, until every string is in a closed trace."""
    traces, seen = [], set()
    targets = set(follows.values())
    starts = [i for i in range(len(strings)) if i not in targets] + sorted(targets)
    for start in starts:
        if start in seen:
            continue
        word: list[Letter] = []
        here: int | None = start
        while here is not None and here not in seen:
            seen.add(here)
            word += [(b, p) for b, p in strings[here] if b not in (residual, residual.H)]
            here = follows.get(here)
            if here is not None:
                word.append((covariance, 1))
        traces.append(trace_of_word(word))
    return Mul(*traces)
