"""The register of laws, which every derivation inherits, a user's own too.

A law says to which kernels of a derivation it applies, and decides it from the derivation
itself: from the indices of its definitions, the traits and shapes of its fields, and what they
depend on.  Its check draws a random trial and raises :class:`PropertyViolation`, with the numbers,
when it fails.

Kernels are tested on fields with consistent random derivatives.  Where a derivation makes a metric
that :mod:`kahler_verify.geometry` can hold, the metric's geometry is tested too.  The laws are in
the files beside this one; here they are gathered and checked.
"""

from __future__ import annotations

import random
from collections.abc import Iterator, Mapping
from itertools import product

from kahler_verify.calculus.derivation import Derivation, Kernel
from kahler_verify.errors import EvidenceError, PropertyViolation
from kahler_verify.evidence.finding import Finding
from kahler_verify.evidence.laws import calls, charts, divergences, kernels, metrics
from kahler_verify.evidence.laws.law import DoesNotApply, Law, Trial
from kahler_verify.running.kernel_set import KernelSet

__all__ = ["LAWS", "DoesNotApply", "Law", "Trial", "applicable", "check", "check_all"]

LAWS: dict[str, Law] = {
    name: law
    for file in (kernels, calls, divergences, metrics, charts)
    for name, law in file.LAWS.items()
}


def applicable(derivation: Derivation, kernels: KernelSet) -> Iterator[tuple[Law, list[Kernel]]]:
    """The laws of a derivation, each with its kernels; kernels that vanish have no code."""
    coded = [k for k in derivation.kernels if k.name not in kernels.vanishing]
    for law in LAWS.values():
        chosen = [k for k in coded if law.applies(derivation, k)]
        if chosen:
            yield law, chosen


def check(
    law: Law,
    derivation: Derivation,
    kernel: Kernel,
    kernels: KernelSet,
    *,
    seed: int = 0,
    sizes: Mapping[str, int] | None = None,
    geometry: KernelSet | None = None,
) -> None:
    """Check one law of one kernel on one random trial.

    Raises:
        PropertyViolation: it does not hold; the message carries seed, sizes and numbers.
    """
    sizes = dict(sizes or {"d": 2, "n": 3, "K": 3})
    trial = Trial(derivation, kernel, kernels, random.Random(seed), sizes)
    if geometry is not None:
        trial.geometry = geometry
    try:
        law.check(trial)
    except PropertyViolation as error:
        raise PropertyViolation(
            f"{derivation.name}.{kernel.name} is not {law.name} ({law.statement}): {error} "
            f"[seed {seed}, {sizes}]"
        ) from None


def check_all(
    derivation: Derivation, kernels: KernelSet, *, examples: int = 5, seed: int = 0
) -> dict[str, Finding]:
    """Every law of a derivation: how many trials were made, and the first violation of it."""
    findings = {}
    for law, chosen in applicable(derivation, kernels):
        trials, complaints = 0, tuple[str, ...]()
        for example, kernel in product(range(examples), chosen):
            sizes = {"d": 1 + example % 3, "n": 1 + example % 4, "K": 1 + example % 4}
            try:
                check(law, derivation, kernel, kernels, seed=seed + example, sizes=sizes)
                trials += 1
            except DoesNotApply:
                continue
            except EvidenceError as error:  # violated, or no trial could be made
                trials, complaints = trials + 1, (str(error),)
                break
        if trials:
            findings[law.name] = Finding(
                complaints=complaints, trials=trials, what=law.name, route="property"
            )
    return findings
