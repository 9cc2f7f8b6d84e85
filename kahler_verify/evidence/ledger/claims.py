"""Verdicts of claims, computed from what they declare."""

from __future__ import annotations

import time
from typing import Any

from kahler_verify.calculus.claims import (
    Claim,
    Formula,
    Gram,
    Measured,
    Positive,
    Vanishing,
    Witness,
)
from kahler_verify.calculus.derivation import Derivation
from kahler_verify.codegen.registry import KERNELS
from kahler_verify.errors import EvidenceError
from kahler_verify.evidence.ledger.items import Item, Judgement
from kahler_verify.evidence.ledger.kernels import kernel_items
from kahler_verify.evidence.ledger.measurements import measured
from kahler_verify.evidence.ledger.parts import EVERYWHERE, INTERVALS, judge_part
from kahler_verify.evidence.ledger.region_claims import judge_region
from kahler_verify.evidence.proofs.witnesses import (
    evaluate_witness,
    plain_witness,
    random_witness,
)


def judge(claim: Claim, derivation: Derivation, profile: str = "default") -> Judgement:
    """Compute a claim's verdict.

    Raises:
        EvidenceError: the claim exercised no sample, a declared witness fails, routes contradict.
    """
    started = time.perf_counter()
    if claim.waits_for:
        return Judgement(
            claim.id,
            claim.statement,
            claim.source,
            "open",
            [],
            claim.expected,
            [],
            0.0,
            claim.waits_for,
        )
    if claim.measured is not None:
        return _measured(claim, claim.measured)
    evidence = [i for part in claim.parts for i in judge_part(part, EVERYWHERE, profile)]
    if claim.kernels:
        owner = claim.of or derivation
        evidence += kernel_items(owner, claim.kernels, profile, KERNELS / f"{owner.name}.py")
    holds = all(i.passed for i in evidence)
    under: list[str] = []
    if claim.regions:
        for region in claim.regions:
            item, found, where = judge_region(region)
            evidence.append(item)
            holds = holds and found == "proved"
            if found == "proved":
                under.append(where)
    if not holds and (claim.witnesses or all(i.passed for i in evidence if i.route == INTERVALS)):
        evidence += _refutation(claim)  # intervals name a point of their own
    for case in claim.cases:
        items = [i for part in case.parts or claim.parts for i in judge_part(part, case, profile)]
        evidence += [Item(i.route, f"{case.what}: {i.what}", *_rest(i)) for i in items]
        if items and all(i.passed for i in items):
            under.append(case.what)
    if not sum(i.samples for i in evidence):
        raise EvidenceError(f"{claim.id}: the claim exercised no sample")
    verdict = "holds" if holds else "holds under A" if under else "refuted"
    if holds:
        under = [claim.assumptions] if claim.assumptions else []
    return Judgement(
        claim.id,
        claim.statement,
        claim.source,
        verdict,
        under,
        claim.expected,
        evidence,
        time.perf_counter() - started,
    )


def _measured(claim: Claim, part: Measured) -> Judgement:
    """What results say of a claim; it is open where there are none."""
    started = time.perf_counter()
    items = measured(part)
    return Judgement(
        claim.id,
        claim.statement,
        claim.source,
        "open" if items is None else "measured",
        [],
        claim.expected,
        items or [],
        time.perf_counter() - started,
        "" if items is not None else f"{part.results}, which is not in this installation",
        part.command,
    )


def _rest(item: Item) -> tuple[str, bool, int, float | None, dict[str, Any]]:
    return item.outcome, item.passed, item.samples, item.error_log2, item.data


def _refutation(claim: Claim) -> list[Item]:
    """Exact values at the declared witnesses, or at a random point when none is declared."""
    items = [_witness_item(claim, w) for w in claim.witnesses]
    if not items and claim.parts:
        part = claim.parts[0]
        if isinstance(part, Vanishing) and not isinstance(part, Gram):
            data = random_witness(part)
            what = "random derivatives, d = n = K = 2"
            items = [
                Item("exact witness", what, _value(data["value"]) + " ≠ 0", True, 1, None, data)
            ]
        elif isinstance(part, Formula):
            raise EvidenceError(f"{claim.id}: not zero, but the claim declares no witness")
    return items


def _witness_item(claim: Claim, witness: Witness) -> Item:
    part = claim.parts[witness.part]
    if isinstance(part, Formula | Positive):
        data = plain_witness(part, witness)
    elif isinstance(part, Vanishing):
        data = evaluate_witness(part, witness)
    else:
        raise EvidenceError(f"{claim.id}: a witness needs an expression to evaluate")
    refuting = " ≤ 0" if isinstance(part, Positive) else " ≠ 0"
    outcome = _value(data["value"]) + refuting
    return Item("exact witness", witness.what, outcome, True, 1, None, data)


def _value(parts: list[str]) -> str:
    real, imaginary = parts
    if imaginary == "0":
        return real
    return f"{imaginary} i" if real == "0" else f"{real} + {imaginary} i"
