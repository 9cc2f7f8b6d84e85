"""Wick's rule: the mean of polynomials in a Gaussian r of mean zero and covariance Σ.

For circular complex r, E[r rᴴ] = Σ and E[r rᵀ] = 0, so the mean of a product is the sum over all
ways to pair each r with an rᴴ.  For real r each is paired with any other, and a word may be read
from its end, as its transpose.  This derives Fisher information from the score, without using the
divergence.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator

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
    terms = [_strings(t, residual) for t in _terms(expr)]
    return distribute(
        Add(*[c * _paired(s, residual, covariance, lambda _: True) for c, s in terms])
    )


def gaussian_covariance(x: Expr, y: Expr, residual: Jet, covariance: Expr = S.One) -> Expr:
    """E[xy] - E[x] E[y] over ``residual``: the pairings that join x with y, and no others.

    No conjugate is taken.  Uncancelled, so that no digits are lost where the covariance is small.

    Raises:
        DerivationError: the residual stands in something else than words such as rᴴAr.
    """
    out = S.Zero
    for c, left in [_strings(t, residual) for t in _terms(x)]:
        for e, right in [_strings(t, residual) for t in _terms(y)]:

            def connects(pairs: dict[End, End], first: int = len(left)) -> bool:
                return any((a[0] < first) != (b[0] < first) for a, b in pairs.items())

            out += c * e * _paired([*left, *right], residual, covariance, connects)
    return distribute(out)


def _terms(expr: Expr) -> tuple[Expr, ...]:
    """The terms of a polynomial, powers of sums multiplied out."""
    only = {"power_base": False, "power_exp": False, "log": False, "basic": False}
    return Add.make_args(expr.expand(mul=True, multinomial=True, **only))


def _strings(term: Expr, residual: Jet) -> tuple[Expr, list[list[Letter]]]:
    """A monomial as its coefficient and its pieces such as rᴴ…, …r, rᴴ…r."""
    coefficient: list[Expr] = []
    strings: list[list[Letter]] = []
    for factor in factors_of(term):
        if isinstance(factor, Tr) and factor.has(residual.field):
            strings += _cut(factor_word(factor.args[0])[1], residual)
        elif factor.has(residual.field):
            raise DerivationError(f"Wick's rule covers polynomials of words only, got {factor}")
        else:
            coefficient.append(factor)
    return Mul(*coefficient), strings


def _paired(
    strings: list[list[Letter]],
    residual: Jet,
    covariance: Expr,
    wanted: Callable[[dict[End, End]], bool],
) -> Expr:
    """The sum over the wanted pairings of a product of strings."""
    ends = [(i, False) for i, s in enumerate(strings) if s[0][0] == residual.H]
    ends += [(i, True) for i, s in enumerate(strings) if s[-1][0] == residual]
    joints = [] if covariance == 1 else [(covariance, 1)]
    pairings = _pairings(ends, "real" in residual.field.traits)
    return Add(*[_joined(strings, p, residual, joints) for p in pairings if wanted(p)])


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
