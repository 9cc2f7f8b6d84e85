"""Faults of reading, planted while evidence runs: what both sides shared would let them live."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from typing import Any

from sympy import Expr

from kahler_verify.calculus.derivation import Derivation
from kahler_verify.codegen.module import Module, generate_module
from kahler_verify.errors import EvidenceError
from kahler_verify.evidence.mutants.faults import FAILURES
from kahler_verify.evidence.mutants.reading_rules import EVIDENCE, GENERATOR
from kahler_verify.evidence.mutants.rules import Rule, edited
from kahler_verify.evidence.mutants.specimens import names, specimen
from kahler_verify.evidence.numbers.arithmetic import prime_field
from kahler_verify.evidence.proofs.schwartz_zippel import compare

SIZES = {"d": 2, "n": 2, "K": 2}
MOST_ENTRIES = 6  # of each kernel
MOST_SPECIMENS = 3  # that a fault is tried on, of those that show it


@dataclass(frozen=True)
class Read:
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


def _kernels(made: Module) -> tuple[str, Mapping[Expr, str]]:
    """What is compared here: the text but for ``heads()``, which has evidence of its own."""
    return made.text.partition("\ndef heads(")[0], made.heads


def judge_reading(rule: Rule, name: str) -> Read:
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
            if rule.place == "evidence" or _kernels(made) != _kernels(true):
                outcome = "killed" if differs(derivation, made) else "survived"
        except EvidenceError:
            outcome = "killed"
        except FAILURES:
            outcome = "refused"
    if rule.place == "evidence" and outcome == "survived":
        outcome = "does not show"  # the specimen does not use what was spoilt
    return Read(rule, name, outcome, time.perf_counter() - started)


def judge_readings(
    rules: tuple[Rule, ...] = (*GENERATOR, *EVIDENCE), most: int = MOST_SPECIMENS
) -> Iterator[Read]:
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


__all__ = ["Read", "judge_reading", "judge_readings"]
