"""Faults in what the calculus derived for a kernel, before it is printed."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from itertools import combinations
from typing import Any

from sympy import Add, Expr, Integer, Mul

from kahler_verify.calculus.letters import Jet, dimension
from kahler_verify.calculus.mixture import Centred, Mean, Moment, factors_of
from kahler_verify.calculus.words import Tr
from kahler_verify.evidence.mutants.faults import (
    AXIS,
    CONJUGATE,
    FACTOR,
    FAILURES,
    LONGEST_BODY,
    LOST,
    SIGN,
    TRANSPOSED,
    UNCENTRED,
    WEIGHT,
    Mutant,
    Target,
    printed_body,
    spread,
)


def _other_letter(term: Expr) -> Iterator[Expr]:
    """One ∂̄ turned into ∂, or one adjoint dropped."""
    for jet in sorted(term.atoms(Jet), key=str):
        if jet.anti:
            moved = Jet(jet.field, (*jet.hol, jet.anti[0]), jet.anti[1:], jet.dagger)
            yield term.xreplace({jet: moved})
        elif jet.hol:
            yield term.xreplace({jet: Jet(jet.field, jet.hol[1:], jet.hol[:1], jet.dagger)})


def _other_indices(term: Expr, indices: Sequence[Any]) -> Iterator[Expr]:
    for i, j in combinations(indices, 2):
        yield term.xreplace({i: j, j: i})


def _other_order(term: Expr) -> Iterator[Expr]:
    """Two letters of one word exchanged."""
    for word in sorted(term.atoms(Tr), key=str):
        letters = [x for x in word.args[0].args if isinstance(x, Jet)]
        for x, y in combinations(letters, 2):
            if x != y and x.shape == y.shape:
                yield term.xreplace({word: word.xreplace({x: y, y: x})})


def _uncentred(term: Expr) -> Iterator[Expr]:
    """E[xy] instead of E[x°y°]."""
    for moment in sorted(term.atoms(Moment), key=str):
        q, inside = moment.args
        factors = factors_of(inside)
        if len(factors) == 2 and all(isinstance(f, Centred) for f in factors):
            means = Mul(*[Mean(q, f.args[1]) for f in factors])
            yield term.xreplace({moment: moment + means})


def _sum_not_mean(term: Expr) -> Iterator[Expr]:
    if term.atoms(Mean, Moment):
        yield dimension("K") * term


def _term_edits(term: Expr, indices: Sequence[Any]) -> Iterator[tuple[str, Expr]]:
    yield SIGN, -term
    yield FACTOR, 2 * term
    yield LOST, Integer(0)
    yield from ((CONJUGATE, t) for t in _other_letter(term))
    yield from ((TRANSPOSED, t) for t in _other_indices(term, indices))
    yield from ((AXIS, t) for t in _other_order(term))
    yield from ((UNCENTRED, t) for t in _uncentred(term))
    yield from ((WEIGHT, t) for t in _sum_not_mean(term))


def derived_mutants(target: Target, heads: Mapping[Expr, str]) -> Iterator[Mutant]:
    """One fault of each class in what the calculus derived for one kernel."""
    if len(target.body.lines) > LONGEST_BODY:
        return
    derived = target.kernel.derived()
    base = printed_body(target, derived, heads)
    candidates: dict[str, list[tuple[str, Expr, Expr, Expr]]] = {}
    for name, out in target.kernel.outputs.items():
        terms = Add.make_args(derived[name])
        for n, term in enumerate(terms):
            for fault, new in _term_edits(term, out.indices):
                whole = Add(*terms[:n], new, *terms[n + 1 :])
                if whole != derived[name] and whole != 0:
                    candidates.setdefault(fault, []).append((name, term, new, whole))
    for fault, found in candidates.items():
        for number, (name, term, new, whole) in enumerate(spread(found, 1)):
            try:
                body = printed_body(target, {**derived, name: whole}, heads)
            except FAILURES:  # nothing to run: no mutant
                continue
            if body != base:
                yield Mutant(
                    f"derivation/{target.name}/{fault}/{number}",
                    fault,
                    "derivation",
                    target.name,
                    f"{name}: {_short(term)} → {_short(new)}",
                    body.text,
                )


def _short(value: object) -> str:
    text = str(value)
    return text if len(text) < 120 else f"{text[:117]}…"
