"""Mutants: planted faults that the evidence must notice, and which route notices which.

Each mutant is judged by every route by itself, so that the table says what would have been missed
by that route alone.  Whether a mutant computes the same as the original is decided by exact
evaluation at sizes, seeds and batch shapes that no route uses.
"""

from __future__ import annotations

import time
import warnings
from collections.abc import Iterator, Sequence
from typing import Any

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn

from kahler_verify.calculus.claims import Claim, Derived, Gram, Vanishing
from kahler_verify.calculus.derivation import Derivation
from kahler_verify.codegen.module import generate_module
from kahler_verify.errors import EvidenceError
from kahler_verify.evidence.ledger.parts import EVERYWHERE, judge_part
from kahler_verify.evidence.mutants.bench import SMALL, Bench, shipped_derivations
from kahler_verify.evidence.mutants.candidate import Candidate, Test, passes
from kahler_verify.evidence.mutants.faults import Mutant, Target, body_of_kernel
from kahler_verify.evidence.mutants.geometry_faults import GEOMETRY_RULES, Noticed, first_difference
from kahler_verify.evidence.mutants.head_faults import FoundFault, judge_heads
from kahler_verify.evidence.mutants.reading_faults import Read, judge_readings
from kahler_verify.evidence.mutants.verdicts import TESTS, Judged, MutantResult
from kahler_verify.evidence.mutants.workshop import Workshop
from kahler_verify.evidence.proofs.schwartz_zippel import vanishes


def changed_claims(original: Sequence[Claim], mutated: Sequence[Claim]) -> Iterator[str]:
    """Parts of claims that come out otherwise than for the original, the cheapest first."""
    for before, after in zip(original, mutated, strict=True):
        cases = [(before.parts, after.parts)]
        cases += [(x.parts, y.parts) for x, y in zip(before.cases, after.cases, strict=True)]
        for olds, news in cases:
            for old, new in zip(olds, news, strict=True):
                if type(old) is type(new) and old != new and holds(old) != holds(new):
                    yield f"{after.id}: {new.what}"


def holds(part: Any) -> bool:
    """A claim's part at d = n = K = 2, or by its normal form."""
    if isinstance(part, Vanishing) and not isinstance(part, Gram):
        return vanishes(part.expr, part.indices, SMALL, trials=1, most_entries=4).equal
    if isinstance(part, Derived | Gram):
        return all(item.passed for item in judge_part(part, EVERYWHERE, "default"))
    return True


def judge(mutant: Mutant, shop: Workshop) -> Judged:
    """Decide equivalence, then try every route."""
    bench = shop.bench(mutant.kernel)
    candidate = Candidate(bench.kernel.name, mutant.text)
    runs = bench.runs(candidate)
    equivalent = runs and bench.equivalent(candidate)
    by: list[str] = []
    missed: list[str] = []
    seconds = 0.0
    if runs and not equivalent:
        tests = dict(bench.tests)
        if mutant.definition is not None:
            tests = _tests_of_misprint(mutant.definition, bench)
        for name in [r for r in TESTS if r in tests]:
            started = time.perf_counter()
            alive = not by
            (missed if passes(tests[name], candidate) else by).append(name)
            if alive:
                seconds += time.perf_counter() - started
    return Judged(
        mutant.id,
        mutant.fault,
        mutant.place,
        mutant.kernel,
        mutant.description,
        equivalent,
        equivalent and bench.loses_digits(candidate),
        runs,
        bool(by) or not runs,
        by,
        missed,
        round(seconds, 4),
    )


def _tests_of_misprint(mutated: Derivation, bench: Bench) -> dict[str, Test]:
    """Routes that follow the mistyped definition, and the ledger's claims about it."""
    module = generate_module(mutated)
    kernel = next(k for k in mutated.kernels if k.name == bench.kernel.name)
    target = Target(mutated, kernel, body_of_kernel(module.text, kernel.name))
    other = Bench(target, module.heads, module.text, trusted=False)
    tests = dict(other.tests)
    if any(c.parts or c.cases for c in mutated.claims):
        known = {c.id: c for d in shipped_derivations().values() for c in d.claims}
        true = [known[c.id] for c in mutated.claims]
        tests["claims"] = lambda _: not any(changed_claims(true, mutated.claims))
    return tests


def run_mutants(
    *, console: Console | None = None, mutants: Sequence[Mutant] | None = None
) -> MutantResult:
    """Plant all faults, or judge the given mutants, and judge each by every route.

    Raises:
        EvidenceError: an original fails a route, or a line to edit is no longer there.
    """
    shop = Workshop.open()
    columns = (
        TextColumn("{task.description}"),
        BarColumn(),
        MofNCompleteColumn(),
        TimeElapsedColumn(),
    )
    judged = []
    shown = console or Console(stderr=True)
    with (
        warnings.catch_warnings(),
        Progress(
            *columns, console=shown, transient=True, disable=not shown.is_terminal
        ) as progress,
    ):
        warnings.simplefilter("ignore")
        task = progress.add_task("planting faults", total=None)
        planted = list(shop.mutants()) if mutants is None else list(mutants)
        progress.update(task, description="judging mutants", total=len(planted))
        rules = [(g, r) for g, of in GEOMETRY_RULES.items() for r in of] if mutants is None else []
        progress.update(task, total=len(planted) + len(rules))
        for mutant in planted:
            judged.append(judge(mutant, shop))
            progress.advance(task)
        for number, (group, rule) in enumerate(rules, start=1):
            judged.append(judged_geometry(number, first_difference(group, rule)))
            progress.advance(task)
        if mutants is None:
            progress.update(task, description="judging faults of reading")
            judged += [_of_reading(n, found) for n, found in enumerate(judge_readings(), start=1)]
            progress.update(task, description="judging faults of heads")
            judged += [judged_heads(n, found) for n, found in enumerate(judge_heads(), start=1)]
    return MutantResult(judged)


def judged_geometry(number: int, noticed: Noticed) -> Judged:
    """A fault in hand-written geometry, which no proof of a kernel can notice."""
    rule = noticed.rule
    return Judged(
        id=f"geometry/{noticed.group} {number}/{noticed.function}",
        fault=rule.fault,
        place="geometry",
        kernel=noticed.function,
        description=f"{rule.old} → {rule.new}; {noticed.by or 'not noticed'}",
        equivalent=False,
        loses_digits=False,
        runs=noticed.runs,
        killed=bool(noticed.by),
        by=["variants"] if noticed.by and noticed.runs else [],
        missed_by=[] if noticed.by else ["variants"],
        seconds=round(noticed.seconds, 4),
    )


def judged_heads(number: int, found: FoundFault) -> Judged:
    """A fault in the function ``heads`` of a module, by the route that runs it."""
    fault, by = found.fault, ["heads"] if found.noticed else []
    name = f"{fault.derivation}.heads"
    return Judged(
        f"kernel/heads {number}/{name}",
        fault.fault,
        "kernel",
        name,
        f"{fault.old} → {fault.new or '(nothing)'}; {found.said or 'off in float64 alone'}",
        equivalent=False,
        loses_digits=False,
        runs=True,
        killed=found.noticed,
        by=by,
        missed_by=[] if by else ["heads"],
        seconds=round(found.seconds, 4),
    )


def _of_reading(number: int, found: Read) -> Judged:
    """A fault of reading as a mutant: one that shows nowhere is an error of the list."""
    rule, killed = found.rule, found.outcome == "killed"
    if found.outcome not in ("killed", "survived"):
        raise EvidenceError(f"{found.name}: the fault shows in no specimen ({found.outcome})")
    return Judged(
        f"reading/{rule.place} {number}/{found.specimen}",
        rule.fault,
        rule.place,
        found.specimen,
        found.name,
        equivalent=False,
        loses_digits=False,
        runs=True,
        killed=killed,
        by=["exact"] if killed else [],
        missed_by=[] if killed else ["exact"],
        seconds=round(found.seconds, 4),
    )
