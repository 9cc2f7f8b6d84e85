"""Faults in how definitions are read: by the generator, and by evidence itself.

The generator reads z̄, re, im, |·| and heads before it differentiates; evidence reads the same
notation by itself.  Each fault is planted while evidence runs, so that what both sides share would
let it live.  Specimens are potentials whose kernels show the fault.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from functools import cache
from typing import Any

from sympy import Abs, Expr, I, Rational, Symbol, conjugate, cos, exp, im, log, re, sin, sqrt, tanh

from kahler_verify.calculus.definition import Partial
from kahler_verify.calculus.derivation import (
    Derivation,
    Kernel,
    Output,
    explicit_coordinates,
    potential,
)
from kahler_verify.calculus.letters import coordinates, dimension, index, parameter
from kahler_verify.codegen import explicit, lowering, module
from kahler_verify.codegen.module import Module, generate_module
from kahler_verify.errors import EvidenceError
from kahler_verify.evidence import functions, nilpotent, series
from kahler_verify.evidence.arithmetic import prime_field
from kahler_verify.evidence.faults import (
    AXIS,
    CONJUGATE,
    FACTOR,
    FAILURES,
    LOST,
    POWER,
    SIGN,
    TRANSPOSED,
    Rule,
    edited,
)
from kahler_verify.evidence.schwartz_zippel import compare
from kahler_verify.evidence.series import Scope

SIZES = {"d": 2, "n": 2, "K": 2}
MOST_ENTRIES = 6  # of each kernel
MOST_SPECIMENS = 3  # that a fault is tried on, of those that show it


def _specimens() -> dict[str, Derivation]:
    z1, z2 = explicit_coordinates("z1 z2")
    t = Symbol("t", positive=True)
    d = dimension("d")
    z, s, x = coordinates("z", d), parameter("s", hermitian=True), coordinates("x", d, real=True)
    r = z.H * z
    third = Rational(1, 3)
    written: dict[str, Expr] = {
        "exp_of_im": exp(im(z1)) + Abs(z1) ** 2 + Abs(z2) ** 2,
        "parts": re(z1 * z2) ** 2
        + im(z1 * z2**2) ** 2
        + Abs(z1) ** 4
        + re(I * z1)
        + re(z2 * exp(z1)),
        "modulus": Abs(z1) + Abs(z1**2 + 2 * I * conjugate(z2)) ** 3 + im(z1) / 9,
        "conjugates": conjugate(exp(z1 * z2)) * z2 + conjugate(z2) * exp(z1 + I * conjugate(z2)),
        "circles": cos(im(z1)) + t * tanh(re(z2)) + sin(re(z1) + im(z2)),
        "roots": log(2 + (1 + Abs(z1) ** 2) ** (2 * third)) + sqrt(1 + t * Abs(z2) ** 2) ** -1,
    }
    found = {n: potential(n, phi, coordinates=(z1, z2)) for n, phi in written.items()}
    letters = {
        "letters": log(1 + exp(r)) + (1 + s * r) ** third + exp(-s * r / 5),
        "nested": log(1 + sqrt(1 + log(1 + r))),
    }
    found |= {n: potential(n, phi) for n, phi in letters.items()}
    found = {  # the order of axes shows in fourth derivatives; they are slow for what is nested
        n: x if n == "parts" else replace(x, kernels=x.kernels[:3]) for n, x in found.items()
    }
    a, b = index("a b", d, real=True)
    phi = log(1 + exp(x.H * x)) * x.H * x
    out = {"g": Output(Partial(phi, a, b), (a, b))}
    found["real"] = Derivation("real", "", (Kernel("metric", out),), d, definition=phi)
    return found


@cache
def specimen(name: str) -> tuple[Derivation, Module]:
    """A specimen with the kernels that the true generator makes of it."""
    derivation = _specimens()[name]
    return derivation, generate_module(derivation)


def names() -> tuple[str, ...]:
    """All specimens."""
    return tuple(_specimens())


# Rules of the generator that rewrite what a user wrote.
GENERATOR = (
    Rule(SIGN, explicit.polarised, "(inner - other) / (2 * I)", "(other - inner) / (2 * I)"),
    Rule(FACTOR, explicit.polarised, "(inner + other) / 2", "inner + other"),
    Rule(FACTOR, explicit.polarised, "(2 * I)", "I"),
    Rule(LOST, explicit.polarised, "/ (2 * I)", "/ 2"),
    Rule(POWER, explicit.polarised, "sqrt(inner * other)", "inner * other"),
    Rule(CONJUGATE, explicit.polarised, "sqrt(inner * other)", "sqrt(inner * inner)"),
    Rule(POWER, explicit.polarised, "** (expr.exp / 2)", "** expr.exp"),
    Rule(
        CONJUGATE,
        explicit.polarised,
        "(inner * conjugated(inner, coordinates)) ** (expr.exp / 2)",
        "inner ** expr.exp",
    ),
    Rule(
        CONJUGATE,
        explicit.polarised,
        "return conjugated(polarised(expr.args[0], coordinates), coordinates)",
        "return polarised(expr.args[0], coordinates)",
    ),
    Rule(CONJUGATE, explicit.conjugated, "return bar(z)", "return z"),
    Rule(
        CONJUGATE,
        explicit.conjugated,
        "if expr == bar(z):\n                return z",
        "if expr == bar(z):\n                return bar(z)",
    ),
    Rule(CONJUGATE, explicit.conjugated, "return conjugate(expr)", "return expr"),
    Rule(SIGN, explicit.conjugated, "return conjugate(expr)", "return -conjugate(expr)"),
    Rule(
        CONJUGATE,
        explicit.conjugated,
        "in HEADS:\n        return expr.func(*[conjugated(a, coordinates) for a in expr.args])",
        "in HEADS:\n        return expr",
    ),
    Rule(
        LOST,
        explicit.conjugated,
        "or expr.is_Pow:\n"
        "        return expr.func(*[conjugated(a, coordinates) for a in expr.args])",
        "or expr.is_Pow:\n        return expr.func(conjugated(expr.args[0], coordinates), "
        "*expr.args[1:])",
    ),
    Rule(
        CONJUGATE,
        explicit.components,
        "[bar(coordinates[i]) for i in by[hol:]]",
        "[coordinates[i] for i in by[hol:]]",
    ),
    Rule(
        CONJUGATE,
        explicit.components,
        "[coordinates[i] for i in by[:hol]]",
        "[bar(coordinates[i]) for i in by[:hol]]",
    ),
    Rule(TRANSPOSED, explicit.components, "entry[order.index(n)]", "entry[order[n]]"),
    Rule(LOST, explicit.components, "phi.diff(*symbols)", "phi.diff(*symbols[:1])"),
    Rule(
        FACTOR,
        explicit.with_heads,
        "probe.head(expr)",
        "probe.head(expr.func(*[2 * a for a in expr.args]))",
    ),
    Rule(SIGN, explicit.with_heads, "Symbol(probe.head(expr), ", "-Symbol(probe.head(expr), "),
    Rule(
        AXIS, explicit.begin, 'f"z.select(-1, {i})"', 'f"z.select(-1, {len(coordinates) - 1 - i})"'
    ),
    Rule(CONJUGATE, explicit.begin, 'f"{names[z]}.conj()"', 'f"{names[z]}"'),
    Rule(
        TRANSPOSED,
        module._explicit_kernel,
        "by.index(i) for i in out.indices",
        "n for n in range(len(by))[::-1]",
    ),
    Rule(FACTOR, lowering.normal_head, "distribute(a) for a", "distribute(2 * a) for a"),
    Rule(CONJUGATE, module._declared, "bar(z): conjugate(z)", "bar(z): z"),
    Rule(SIGN, module._declared, "bar(z): conjugate(z)", "bar(z): -conjugate(z)"),
    Rule(
        AXIS,
        module._declared,
        "bar(z): conjugate(z)",
        "bar(z): conjugate(derivation.coordinates[0])",
    ),
)

# Rules by which evidence reads.
EVIDENCE = (
    Rule(CONJUGATE, Scope.mirrored, "not bar", "bar", "evidence"),
    Rule(CONJUGATE, series._conjugates, "mirrored.conjugate()", "mirrored", "evidence"),
    Rule(CONJUGATE, series._conjugates, "scope.mirrored())", "scope)", "evidence"),
    Rule(SIGN, series._conjugates, "number(-1j)", "number(1j)", "evidence"),
    Rule(FACTOR, series._conjugates, "(one + other).scaled(1, 2)", "(one + other)", "evidence"),
    Rule(
        FACTOR,
        series._conjugates,
        "number(ring.number(-1j), ring).scaled(1, 2)",
        "number(ring.number(-1j), ring)",
        "evidence",
    ),
    Rule(POWER, series._conjugates, "Fraction(1, 2)", "Fraction(1)", "evidence"),
    Rule(CONJUGATE, series._conjugates, "one * other", "one * one", "evidence"),
    Rule(CONJUGATE, series._symbol, "and not bar", "and bar", "evidence"),
    Rule(LOST, series._symbol, "and not bar", "and bar is None", "evidence"),
    Rule(AXIS, series._symbol, "direction == own", "direction != own", "evidence"),
    Rule(
        CONJUGATE,
        series._derivative,
        "(i, True) for i in anti",
        "(i, False) for i in anti",
        "evidence",
    ),
    Rule(
        CONJUGATE,
        series._derivative,
        "None if is_real_index(i) else bar",
        "True if is_real_index(i) else bar",
        "evidence",
    ),
    Rule(
        CONJUGATE, series._letter, "scope.mirrored() if jet.dagger else scope", "scope", "evidence"
    ),
    Rule(
        CONJUGATE,
        series._field,
        "for i, bar in chosen if not bar",
        "for i, bar in chosen if bar",
        "evidence",
    ),
    Rule(TRANSPOSED, nilpotent.Series.adjoint, "array(x).mH", "array(x).mT", "evidence"),
    Rule(CONJUGATE, series._terms, "[(c, v.conjugate()) for c, v in inner]", "inner", "evidence"),
    Rule(SIGN, series._terms, "(c / 2, -i * v)", "(c / 2, i * v)", "evidence"),
    Rule(FACTOR, series._terms, "return [(c / 2, v)", "return [(c, v)", "evidence"),
    Rule(
        LOST,
        series._terms,
        "out = [(c * e, v * w) for c, v in out for e, w in more]",
        "out = more",
        "evidence",
    ),
    Rule(SIGN, series.rational_power, "power - i", "power + i", "evidence"),
    Rule(LOST, series.rational_power, "value * below *", "value *", "evidence"),
    Rule(FACTOR, series.rational_power, "/ ring.number(factorial(j))", "", "evidence"),
    Rule(POWER, series._power, "(whole // 2)", "whole", "evidence"),
    Rule(CONJUGATE, series._power, "inner * conjugate(inner)", "inner * inner", "evidence"),
    Rule(SIGN, series._function, "(up + down.scaled(-1))", "(up + down)", "evidence"),
    Rule(SIGN, series._function, "scope, -factor)", "scope, factor)", "evidence"),
    Rule(
        LOST,
        series._function,
        "turned = kind in (sin, cos, tan, cot)",
        "turned = kind in (cos,)",
        "evidence",
    ),
    Rule(SIGN, nilpotent.Series.log, "(-1) ** (j + 1)", "(-1) ** j", "evidence"),
    Rule(FACTOR, nilpotent.Series.log, "/ ring.number(j)", "", "evidence"),
    Rule(LOST, nilpotent.Series.exp_of_nilpotent, ".scaled(1, j)", "", "evidence"),
    Rule(CONJUGATE, nilpotent.Series.conjugate, "array(x).conj()", "array(x)", "evidence"),
    Rule(POWER, functions.Functions.power, "c - whole", "(c - whole) / 2", "evidence"),
    Rule(
        POWER,
        functions.Functions.power,
        "self._whole(x, whole)",
        "self._whole(x, whole + 1)",
        "evidence",
    ),
)


@dataclass(frozen=True)
class Reading:
    """A fault of reading in one specimen: whether it shows there, and whether it was noticed."""

    rule: Rule
    specimen: str
    outcome: str  # "killed", "survived", "refused" or "does not show"
    seconds: float

    @property
    def name(self) -> str:
        """What was edited, and how."""
        function: Callable[..., Any] = self.rule.function
        return f"{function.__qualname__}: {self.rule.old} → {self.rule.new or '(nothing)'}"


def differs(derivation: Derivation, made: Module) -> bool:
    """Whether a kernel's text is not equal to its definition, over F_p[i], at one point."""
    for kernel in derivation.kernels:
        if f"def {kernel.name}(" not in made.text:
            continue
        _, pairs = compare(kernel, made.text, prime_field, SIZES, 1, made.heads, MOST_ENTRIES)
        if any(x != y for x, y in pairs):
            return True
    return False


def judge_reading(rule: Rule, name: str) -> Reading:
    """Plant a fault, and compare a specimen's kernels with its definition while it stands.

    Raises:
        EvidenceError: the unspoilt kernels of the specimen differ from their definition.
    """
    started = time.perf_counter()
    derivation, true = specimen(name)
    outcome = "does not show"
    with edited(rule):
        try:
            made = true if rule.place == "evidence" else generate_module(derivation)
            if rule.place == "evidence" or (made.text, made.heads) != (true.text, true.heads):
                outcome = "killed" if differs(derivation, made) else "survived"
        except EvidenceError:
            outcome = "killed"
        except FAILURES:
            outcome = "refused"
    if rule.place == "evidence" and outcome == "survived":
        outcome = "does not show"  # the specimen does not use what was spoilt
    return Reading(rule, name, outcome, time.perf_counter() - started)


def judge_readings(
    rules: tuple[Rule, ...] = (*GENERATOR, *EVIDENCE), most: int = MOST_SPECIMENS
) -> Iterator[Reading]:
    """Each rule on the first specimens that show it, or its last outcome where none does."""
    for rule in rules:
        shown = 0
        for name in names():
            found = judge_reading(rule, name)
            if found.outcome in ("killed", "survived"):
                shown += 1
                yield found
            if shown == most:
                break
        if not shown:
            yield found


__all__ = ["EVIDENCE", "GENERATOR", "Reading", "judge_reading", "judge_readings", "specimen"]
