"""Wick's rule: the mean of polynomials in a Gaussian r of mean zero and covariance Σ.

For circular complex r, E[r rᴴ] = Σ and E[r rᵀ] = 0, so the mean of a product is the sum over all ways
to pair each r with an rᴴ.  For real r each is paired with any other, and a word may be read from its
end, as its transpose.  This derives Fisher information from the score, without using the divergence.
"""

from __future__ import annotations

from collections.abc import Iterator

from sympy import Add, Expr, Mul, S

from kahler_verify.calculus.letters import Jet
from kahler_verify.calculus.mixture import factors_of
from kahler_verify.calculus.words import (
    Letter,
    Tr,
    distribute,
    factor_word,
    trace_of_word,
    transposed,
)
from kahler_verify.errors import DerivationError

End = tuple[int, bool]  # a string's number, and whether this is the end where r stands (or rᴴ)


def gaussian_mean(expr: Expr, residual: Jet, covariance: Expr = S.One) -> Expr:
    """E over ``residual`` ~ CN(0, ``covariance``), or N(0, ``covariance``) where it is real.

    Raises:
        DerivationError: the residual stands in something else than words such as rᴴAr.
    """
    terms = Add.make_args(expr.expand(mul=True, multinomial=True, basic=False, log=False,
                                      power_base=False, power_exp=False))  # fmt: skip
    return distribute(Add(*[_mean_of_term(t, residual, covariance) for t in terms]))


def _mean_of_term(term: Expr, residual: Jet, covariance: Expr) -> Expr:
    coefficient: list[Expr] = []
    strings: list[list[Letter]] = []  # pieces such as rᴴ…, …r, rᴴ…r
    for factor in factors_of(term):
        if isinstance(factor, Tr) and factor.has(residual.field):
            strings += _cut(factor_word(factor.args[0])[1], residual)
        elif factor.has(residual.field):
            raise DerivationError(f"Wick's rule covers polynomials of words only, got {factor}")
        else:
            coefficient.append(factor)
    ends = [(i, False) for i, s in enumerate(strings) if s[0][0] == residual.H]
    ends += [(i, True) for i, s in enumerate(strings) if s[-1][0] == residual]
    real = "real" in residual.field.traits
    joints = [] if covariance == 1 else [(covariance, 1)]
    out = [_joined(strings, pairs, residual, joints) for pairs in _pairings(ends, real)]
    return Mul(*coefficient) * Add(*out)


def _cut(word: list[Letter], residual: Jet) -> list[list[Letter]]:
    """Cut a cyclic word before every rᴴ and behind every r."""
    allowed = (residual, residual.H)
    if any(b.has(residual.field) and (b not in allowed or power < 0) for b, power in word):
        raise DerivationError(f"Wick's rule needs {residual} itself, got {word}")
    starts = [i for i, (b, _) in enumerate(word) if b == residual.H]
    starts += [(i + 1) % len(word) for i, (b, _) in enumerate(word) if b == residual]
    cuts = sorted(set(starts))
    turned = word[cuts[0] :] + word[: cuts[0]]
    edges = [c - cuts[0] for c in cuts[1:]] + [len(word)]
    return [turned[i:j] for i, j in zip([0, *edges[:-1]], edges, strict=True)]


def _pairings(ends: list[End], real: bool) -> Iterator[dict[End, End]]:
    """All ways to join ends in pairs: any two of a real r, an r with an rᴴ of a complex one."""
    if not ends:
        yield {}
        return
    first, *rest = ends
    for n, other in enumerate(rest):
        if real or first[1] != other[1]:
            for pairs in _pairings(rest[:n] + rest[n + 1 :], real):
                yield {first: other, other: first, **pairs}


def _joined(
    strings: list[list[Letter]], pairs: dict[End, End], residual: Jet, joints: list[Letter]
) -> Expr:
    """Follow the strings from joint to joint, backwards where one is entered at its end."""
    traces, todo = [], set(range(len(strings)))
    loose = [(i, e) for e in (False, True) for i in todo if (i, e) not in pairs]
    for start in [*loose, *[(i, False) for i in todo]]:
        if start[0] not in todo:
            continue
        word: list[Letter] = []
        here: End | None = start
        while here is not None and here[0] in todo:
            number, backwards = here
            todo.discard(number)
            inside = [(b, p) for b, p in strings[number] if b not in (residual, residual.H)]
            if backwards:
                turned = transposed(inside)
                if turned is None:
                    raise DerivationError(f"no transpose is known of {inside}: declare it real")
                inside = turned
            word += inside
            here = pairs.get((number, not backwards))
            word += joints if here is not None else []
        traces.append(trace_of_word(word) if word else residual.shape[0])
    return Mul(*traces)
