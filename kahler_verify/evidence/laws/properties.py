"""Properties that every derivation inherits, a user's own too: one registry.

A property says to which kernels of a derivation it applies, and decides it from the derivation
itself: from the indices of its definitions, the traits and shapes of its fields, and what they
depend on.  Its check draws a random trial and raises :class:`PropertyViolation`, with the numbers,
when it fails.

Kernels are tested on fields with consistent random derivatives.  Where a derivation makes a metric
that :mod:`kahler_verify.geometry` can hold, the metric's geometry is tested too.  The laws are in
``laws_of_kernels`` and ``laws_of_metrics``; here they are gathered and checked.
"""

from __future__ import annotations

import random
from collections.abc import Iterator, Mapping
from itertools import product

from kahler_verify.calculus.derivation import Derivation, Kernel
from kahler_verify.errors import EvidenceError, PropertyViolation
from kahler_verify.evidence.laws import kernels as laws_of_kernels
from kahler_verify.evidence.laws import metrics as laws_of_metrics
from kahler_verify.evidence.laws.law import DoesNotApply, Property, Trial
from kahler_verify.running.kernel_set import KernelSet

__all__ = ["PROPERTIES", "DoesNotApply", "Property", "Trial", "applicable", "check", "check_all"]

PROPERTIES: dict[str, Property] = {**laws_of_kernels.LAWS, **laws_of_metrics.LAWS}


def applicable(
    derivation: Derivation, kernels: KernelSet
) -> Iterator[tuple[Property, list[Kernel]]]:
    """The properties of a derivation, each with its kernels; kernels that vanish have no code."""
    coded = [k for k in derivation.kernels if k.name not in kernels.vanishing]
    for law_ in PROPERTIES.values():
        chosen = [k for k in coded if law_.applies(derivation, k)]
        if chosen:
            yield law_, chosen


def check(
    law_: Property,
    derivation: Derivation,
    kernel: Kernel,
    kernels: KernelSet,
    *,
    seed: int = 0,
    sizes: Mapping[str, int] | None = None,
    geometry: KernelSet | None = None,
) -> None:
    """Check one property of one kernel on one random trial.

    Raises:
        PropertyViolation: it does not hold; the message carries seed, sizes and numbers.
    """
    sizes = dict(sizes or {"d": 2, "n": 3, "K": 3})
    trial = Trial(derivation, kernel, kernels, random.Random(seed), sizes)
    if geometry is not None:
        trial.geometry = geometry
    try:
        law_.check(trial)
    except PropertyViolation as error:
        raise PropertyViolation(
            f"{derivation.name}.{kernel.name} is not {law_.name} ({law_.statement}): {error} "
            f"[seed {seed}, {sizes}]"
        ) from None


def check_all(
    derivation: Derivation, kernels: KernelSet, *, examples: int = 5, seed: int = 0
) -> dict[str, tuple[int, str]]:
    """Every property of a derivation: how many trials were made, and the first violation or ""."""
    results = {}
    for law_, chosen in applicable(derivation, kernels):
        trials, failure = 0, ""
        for example, kernel in product(range(examples), chosen):
            sizes = {"d": 1 + example % 3, "n": 1 + example % 4, "K": 1 + example % 4}
            try:
                check(law_, derivation, kernel, kernels, seed=seed + example, sizes=sizes)
                trials += 1
            except DoesNotApply:
                continue
            except EvidenceError as error:  # violated, or no trial could be made
                trials, failure = trials + 1, str(error)
                break
        if trials:
            results[law_.name] = (trials, failure)
    return results
