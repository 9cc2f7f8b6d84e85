"""The ledger of claims: verdicts computed from declarative claims, each with its evidence."""

from __future__ import annotations

import hashlib
import json
import math
import os
import platform
import tempfile
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass, field, replace
from functools import partial
from pathlib import Path
from typing import Any

import flint
import numpy as np
import sympy
import torch
from rich.console import Console
from rich.progress import Progress, TextColumn, TimeElapsedColumn
from sympy import Add, Expr, Rational, simplify

from kahler_verify.calculus.claims import (
    Case,
    Claim,
    Derived,
    Formula,
    Gram,
    Measured,
    Part,
    Positive,
    Vanishing,
    Witness,
)
from kahler_verify.calculus.definition import Covariance, Expected, assume, derive
from kahler_verify.calculus.derivation import Derivation
from kahler_verify.calculus.letters import Jet
from kahler_verify.calculus.mixture import Centred, Moment, factors_of
from kahler_verify.calculus.words import adjoint, distribute
from kahler_verify.codegen import compiled
from kahler_verify.codegen.module import Module, generate_module
from kahler_verify.codegen.registry import KERNELS, PACKAGE, load_file, shipped
from kahler_verify.derivations import shipped_folder
from kahler_verify.errors import EvidenceError
from kahler_verify.evidence.ledger.dependencies import Reads, watched
from kahler_verify.evidence.proofs.enclosures import enclose
from kahler_verify.evidence.proofs.schwartz_zippel import (
    reads_as_written,
    schwartz_zippel,
    vanishes,
)
from kahler_verify.evidence.proofs.witnesses import (
    evaluate_witness,
    formula_witness,
    random_witness,
)
from kahler_verify.evidence.routes.heads import compare_heads
from kahler_verify.files import write_text
from kahler_verify.running.kernel_set import KernelSet

SIZES = {
    "default": ({"d": 1, "n": 1, "K": 1}, {"d": 2, "n": 3, "K": 3}, {"d": 3, "n": 4, "K": 5}),
    "thorough": (
        {"d": 1, "n": 1, "K": 1},
        {"d": 2, "n": 3, "K": 3},
        {"d": 3, "n": 5, "K": 5},
        {"d": 3, "n": 16, "K": 8},
        {"d": 2, "n": 32, "K": 16},
    ),
}
MOST_ENTRIES = {"default": 8, "thorough": 16}
WIDE = {
    "d": 2,
    "n": 32,
    "K": 16,
}  # one wide trial for kernels, on one entry, in the default profile
MOST_NORMAL = 5  # entries of a normal vector that means are taken over


@dataclass(frozen=True)
class Item:
    """One piece of evidence: its route, what it looked at, what came out of how many samples."""

    route: str
    what: str
    outcome: str
    passed: bool
    samples: int
    error_log2: float | None = None  # of the probability that this piece is wrong
    data: dict[str, Any] = field(default_factory=dict)


@dataclass(frozen=True)
class Judgement:
    """A claim with its verdict; ``under`` is the A of “holds under A”."""

    id: str
    statement: str
    source: str
    verdict: str
    under: list[str]
    expected: str
    evidence: list[Item]
    seconds: float
    waits_for: str = ""
    command: str = ""  # that measures again


@dataclass(frozen=True)
class Ledger:
    """All judgements, and the kernels that were compared with their definitions.

    ``kernels`` also holds the properties of a user's derivation, the variants of kernels that run,
    and the public methods with the kernels behind them.
    """

    claims: list[Judgement]
    kernels: list[Item]

    @property
    def methods(self) -> list[Item]:
        """Of ``kernels`` the public methods."""
        return [item for item in self.kernels if item.route == METHODS]

    @property
    def passed(self) -> bool:
        """Whether every kernel equals its definition, and whatever else was tried holds."""
        return all(item.passed for item in self.kernels)


# ---------------------------------------------------------------- parts


def _normal_form(part: Vanishing, traits: tuple[tuple[Jet, str], ...]) -> Item:
    left = assume(derive(part.expr), *traits)
    terms = 0 if left == 0 else len(Add.make_args(left))
    outcome = "zero" if left == 0 else f"{terms} terms are left"
    return Item("normal form", part.what, outcome, left == 0, 1)


def _numbers(part: Vanishing, case: Case, profile: str) -> list[Item]:
    """Schwartz-Zippel at several sizes; a case of fixed sizes at one choice of the others."""
    most = MOST_ENTRIES[profile]
    plan = [(sizes, most) for sizes in SIZES[profile]]
    if case.sizes:
        plan = [({**SIZES[profile][1], **case.sizes}, most)]
    elif profile == "default":
        plan.append((WIDE, 1))
    plan = [(s, m) for s, m in plan if _is_affordable(part.expr, s)]
    items = []
    for sizes, entries in plan:
        trial = vanishes(
            part.expr, part.indices, sizes, assumptions=case.traits, most_entries=entries
        )
        shown = ", ".join(f"{k} = {v}" for k, v in sizes.items())
        items.append(
            Item(
                "Schwartz-Zippel",
                f"{part.what} at {shown}",
                "zero" if trial.equal else "not zero",
                trial.equal,
                trial.entries,
                trial.error_log2,
                {"degree": trial.degree, "trials": trial.trials},
            )
        )
        if not trial.equal:
            break  # larger sizes could only say the same
    return items


def _is_affordable(expr: Expr, sizes: Mapping[str, int]) -> bool:
    """Evidence takes means over normal vectors node by node, of which there are 5^n."""
    return sizes["n"] <= MOST_NORMAL or not expr.has(Expected, Covariance)


def _gram(part: Gram) -> Item:
    """Whether each term is a positive multiple of E[X_a X̄_b]."""
    a, b = part.indices
    for term in Add.make_args(derive(part.expr)):
        coefficient, rest = term.as_coeff_Mul()
        factors = factors_of(rest.args[1]) if isinstance(rest, Moment) else []
        square = len(factors) == 2 and all(isinstance(f, Centred) for f in factors)
        if square:
            other = adjoint(factors[0]).xreplace({a: b, b: a})
            square = other == factors[1]
        if not (square and coefficient > 0):
            return Item("Gram form", part.what, f"{term} is not a square", False, 1)
    return Item("Gram form", part.what, "a mean of squares with positive weights", True, 1)


def _formula(part: Formula) -> Item:
    symbols = sorted(part.left.free_symbols | part.right.free_symbols, key=str)
    if not symbols:
        raise EvidenceError(f"{part.what}: both sides are constants, there is nothing to check")
    zero = simplify(part.left - part.right) == 0
    points, agree = 20, True
    for n in range(points):
        # positive and far apart, so that logarithms and square roots stay real
        values = {
            s: Rational(7 + 3 * i + 5 * n, 11 + 2 * i) / (1 + i) for i, s in enumerate(symbols)
        }
        left, right = (side.subs(values).evalf(50) for side in (part.left, part.right))
        agree = agree and abs(left - right) < Rational(1, 10**40) * (1 + abs(left))
    if zero != agree:
        raise EvidenceError(
            f"{part.what}: simplification and evaluation at {points} points disagree"
        )
    outcome = "equal" if zero else "not equal"
    return Item("SymPy and 50 digits", part.what, outcome, zero, points)


def _positive(part: Positive) -> Item:
    """Whether intervals show an expression to be positive on the whole box, or a point refutes it.

    Raises:
        EvidenceError: neither.
    """
    found = enclose(part)
    outcome = f"positive on {found.boxes} boxes that cover it"
    if not found.passed:
        if not found.at:
            raise EvidenceError(f"{part.what}: {found.boxes} boxes do not decide it")
        at = ", ".join(f"{s} = {x}" for s, x in found.at.items())
        outcome = f"at most {found.value:.2g} at {at}"
    return Item(INTERVALS, part.what, outcome, found.passed, found.boxes)


def judge_part(part: Part, case: Case, profile: str) -> list[Item]:
    """All evidence for one part under a case's assumptions.

    Raises:
        EvidenceError: two routes contradict each other.
    """
    if isinstance(part, Formula):
        return [_formula(part)]
    if isinstance(part, Derived):
        left = distribute(part.left - part.right)
        outcome = "one normal form" if left == 0 else f"they differ by {left}"
        return [Item("two derivations", part.what, outcome, left == 0, 2)]
    if isinstance(part, Gram):
        return [_gram(part)]
    if isinstance(part, Positive):
        return [_positive(part)]
    if part.expr == 0:
        raise EvidenceError(f"{part.what}: it is zero as written, there is nothing to check")
    items = _numbers(part, case, profile)
    if part.normal_form and not case.sizes:
        form = _normal_form(part, case.traits)
        if form.passed and not all(i.passed for i in items):
            raise EvidenceError(f"{part.what}: the normal form is zero, and numbers are not")
        if not form.passed and all(i.passed for i in items):
            form = Item(form.route, form.what, "not simplified, numbers decide", True, 1)
        items.insert(0, form)
    return items


# ---------------------------------------------------------------- claims

EVERYWHERE = Case("")
INTERVALS = "interval arithmetic"


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
        from kahler_verify.evidence.ledger.region_claims import judge_region

        for region in claim.regions:
            item, found, where = judge_region(region)
            evidence.append(item)
            holds = holds and found == "proved"
            if found == "proved":
                under.append(where)
    if not holds and all(i.passed for i in evidence if i.route == INTERVALS):
        evidence += _refutation(claim)  # intervals name their own point
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
    from kahler_verify.evidence.ledger.measurements import measured

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
    if isinstance(part, Formula):
        data = formula_witness(part, witness)
    elif isinstance(part, Vanishing):
        data = evaluate_witness(part, witness)
    else:
        raise EvidenceError(f"{claim.id}: a witness needs an expression to evaluate")
    return Item("exact witness", witness.what, _value(data["value"]) + " ≠ 0", True, 1, None, data)


def _value(parts: list[str]) -> str:
    real, imaginary = parts
    if imaginary == "0":
        return real
    return f"{imaginary} i" if real == "0" else f"{real} + {imaginary} i"


# ---------------------------------------------------------------- kernels


def kernel_items(
    derivation: Derivation,
    names: Sequence[str] = (),
    profile: str = "default",
    on_disk: Path | None = None,
) -> list[Item]:
    """Kernels of a derivation (all by default) against their definition, by Schwartz-Zippel.

    What is judged is the text of the file ``on_disk``, where there is one: the code that runs.
    """
    module = generate_module(derivation)
    text = module.text
    if on_disk is not None and on_disk.is_file():
        text = on_disk.read_text(encoding="utf-8")
    due = [k for k in derivation.kernels if f"def {k.name}(" in module.text]
    module = replace(module, text=text)
    chosen = [k for k in due if f"def {k.name}(" in text]
    unknown = set(names) - {k.name for k in due}
    if unknown:
        raise EvidenceError(f"{derivation.name} has no kernels {sorted(unknown)}")
    items = []
    if derivation.written is not None and derivation.written != derivation.definition:
        same = reads_as_written(derivation, SIZES[profile][1])
        outcome = "has the values of what is written" if same else "is not what is written"
        items.append(
            Item("Schwartz-Zippel", f"{derivation.name}: the definition", outcome, same, 3)
        )
    for kernel in chosen:
        if names and kernel.name not in names:
            continue
        sizes = [(s, MOST_ENTRIES[profile]) for s in SIZES[profile]]
        if names and profile == "default":
            sizes.append((WIDE, 1))
        if derivation.coordinates:
            sizes = [({"d": len(derivation.coordinates), "n": 1, "K": 1}, MOST_ENTRIES[profile])]
        definitions = [out.definition for out in kernel.outputs.values()]
        sizes = [(s, m) for s, m in sizes if all(_is_affordable(e, s) for e in definitions)]
        entries, equal, worst = 0, True, -1e9
        for size, most in sizes:
            trial = schwartz_zippel(
                kernel, module.text, size, heads=module.heads, most_entries=most
            )
            entries, equal = entries + trial.entries, equal and trial.equal
            worst = max(worst, trial.error_log2)
        outcome = "equals its definition" if equal else "differs from its definition"
        items.append(
            Item(
                "Schwartz-Zippel",
                f"{derivation.name}.{kernel.name}",
                outcome,
                equal,
                entries,
                worst,
                {"sizes": [s for s, _ in sizes]},
            )
        )
    route = "Schwartz-Zippel"
    items += [
        Item(route, f"{derivation.name}.{k.name}", "is not in the file", False, 1)
        for k in due
        if k not in chosen and (not names or k.name in names)
    ]
    return items + _head_items(derivation, module)


def _head_items(derivation: Derivation, module: Module) -> list[Item]:
    """The values that the module itself computes for its kernels."""
    what = partial(Item, "balls and float64", f"{derivation.name}.heads")
    try:
        found = compare_heads(derivation, module.text, module.heads)
    except EvidenceError as error:
        return [what(str(error), False, 0)]
    if found is None:
        return []
    worst = max(found.errors, default=math.inf)
    outcome = "; ".join(found.complaints) or f"right over balls, to {worst:.1e} in float64"
    return [what(outcome, found.passed, found.values)]


def property_items(derivation: Derivation) -> list[Item]:
    """Every registered property that applies to a derivation, on random trials."""
    from kahler_verify.evidence.laws.properties import check_all

    results = check_all(derivation, KernelSet(compiled.compile(derivation)), examples=3)
    return [
        Item("property", f"{derivation.name}: {name}", failure or "holds", not failure, trials)
        for name, (trials, failure) in results.items()
    ]


def variant_items() -> list[Item]:
    """Layouts, plans, planes and eliminations against the plain kernels, a line for each group."""
    from kahler_verify.evidence.laws.variants import GROUPS, compared

    items = []
    for group in GROUPS:
        found = compared(group)
        failed = [c for c in found if not c.passed]
        worst = max((c.error for c in failed or found), default=float("nan"))
        story = f"agree with the plain kernels to {worst:.1e}"
        if failed:
            story = f"{len(failed)} differ, {failed[0].what} by {failed[0].error:.1e}"
        passed = bool(found) and not failed
        items.append(Item("variants", f"variants of {group}", story, passed, len(found)))
    return items


def method_items() -> list[Item]:
    """The kernels that run when a public method of a metric is called; none is a fault."""
    from kahler_verify.evidence.methods import behind_methods

    return [
        Item(
            METHODS,
            f"{row.metric}.{row.method}",
            row.by_module if row.passed else f"no kernel runs: {', '.join(row.without[:3])}",
            row.passed,
            row.calls,
            None,
            {"kernels": sorted(row.kernels)},
        )
        for row in behind_methods()
    ]


# ---------------------------------------------------------------- the ledger

METHODS = "observed calls"


def prove(
    what: Sequence[str] = (),
    *,
    profile: str = "default",
    use_cache: bool = True,
    console: Console | None = None,
) -> Ledger:
    """Judge claims by id, the claims and kernels of derivation files, or all that is shipped.

    Verdicts are cached by the fingerprint of derivations with all files that they load, generator,
    evidence and dependencies.

    Raises:
        EvidenceError: an id is unknown, or evidence could not be had.
    """
    with watched() as reads:
        return _prove(what, profile, use_cache, console, reads)


def _prove(
    what: Sequence[str], profile: str, use_cache: bool, console: Console | None, reads: Reads
) -> Ledger:
    if profile not in SIZES:
        raise EvidenceError(f"profile: expected one of {', '.join(SIZES)}, got {profile!r}")
    files = [w for w in what if w.endswith(".py")]
    ids = [w for w in what if w not in files]
    known = list(shipped().values())
    claims = {c.id: (c, d) for d in known for c in d.claims}
    unknown = [i for i in ids if i not in claims]
    if unknown:
        raise EvidenceError(f"claims: expected ids among {', '.join(claims)}, got {unknown}")
    chosen: list[tuple[str, Callable[[], Judgement | list[Item]]]] = []
    users = [(f, d) for f in files for d in load_file(f)]
    judged_claims = [("", *claims[i]) for i in (ids if what else claims)]
    judged_claims += [(f, claim, d) for f, d in users for claim in d.claims]
    chosen += [(f"{f}{d.name}: {c.id}", partial(judge, c, d, profile)) for f, c, d in judged_claims]
    own = [(f, d) for f, d in users if d.kernels]
    chosen += [(f"{f}properties of {d.name}", partial(property_items, d)) for f, d in own]
    compared = [(f, d, Path(f).with_name(f"{d.name}_kernels.py")) for f, d in own]
    if not what:
        compared = [("", d, KERNELS / f"{d.name}.py") for d in known if d.kernels]
    chosen += [
        (f"{f}kernels of {d.name}", partial(kernel_items, d, (), profile, path))
        for f, d, path in compared
    ]
    if not what:
        chosen += [("variants", variant_items), ("public methods", method_items)]
    cache = Cache(profile, files, reads) if use_cache and reads.certain else None
    judged: list[Judgement] = []
    kernels: list[Item] = []
    columns = (TextColumn("proving {task.description}"), TimeElapsedColumn())
    shown = console or Console(stderr=True)
    silent = not shown.is_terminal  # else a blank line is left in a log
    with Progress(*columns, console=shown, transient=True, disable=silent) as progress:
        task = progress.add_task("", total=len(chosen))
        for name, work in chosen:
            progress.update(task, description=name)
            result = cache.get(name) if cache else None
            if result is None:
                result = work()
                if cache:
                    cache.put(name, result)
            if isinstance(result, Judgement):
                judged.append(result)
            else:
                kernels += result
            progress.advance(task)
    if cache and cache.failure:
        where = f"the cache {cache.folder.parent} cannot be written ({cache.failure.strerror})"
        shown.print(
            f"{where}: verdicts are not kept for the next time",
            markup=False,
            highlight=False,
            soft_wrap=True,
        )
    return Ledger(judged, kernels)


class Cache:
    """Verdicts on disk, valid while nothing that they depend on has changed."""

    def __init__(self, profile: str, files: Sequence[str], reads: Reads | None = None):
        from kahler_verify.evidence.ledger.measurements import results_folders

        digest = hashlib.sha256(profile.encode())
        sources = sorted(shipped_folder().rglob("*.py")) + [Path(f) for f in files]
        sources += sorted(PACKAGE.rglob("*.py"))
        sources += [p for folder in results_folders() for p in sorted(folder.glob("*.json"))]
        sources += [p for f in files for p in sorted(Path(f).parent.glob("*_kernels.py"))]
        covered = {s.resolve() for s in sources}
        helpers = sorted((reads.files if reads is not None and files else set()) - covered)
        for source in (*sources, *helpers):
            digest.update(source.name.encode() + source.read_bytes())
        versions = (sympy.__version__, flint.__version__, torch.__version__, np.__version__)
        digest.update(f"{versions} {platform.python_version()}".encode())
        try:
            home = os.environ.get("KAHLER_VERIFY_CACHE") or Path.home() / ".cache" / "kahler_verify"
        except RuntimeError:  # nobody's home
            home = Path(tempfile.gettempdir()) / "kahler_verify"
        self.folder = Path(home) / digest.hexdigest()[:24]
        self.reads, self.covered = reads if files else None, covered | set(helpers)
        self.failure: OSError | None = None  # verdicts do not depend on whether they can be kept

    def _path(self, name: str) -> Path:
        return self.folder / f"{hashlib.sha256(name.encode()).hexdigest()[:16]}.json"

    def _is_unforeseen(self) -> bool:
        """Whether files were read that the folder's name does not tell of; its own do not count."""
        if self.reads is None:
            return False
        home = self.folder.parent.resolve()
        return any(home not in path.parents for path in self.reads.files - self.covered)

    def get(self, name: str) -> Judgement | list[Item] | None:
        """A stored verdict, or None."""
        path = self._path(name)
        try:
            if not path.is_file():
                return None
            data = json.loads(path.read_text(encoding="utf-8"))
            if isinstance(data, list):
                return [Item(**i) for i in data]
            return Judgement(**{**data, "evidence": [Item(**i) for i in data["evidence"]]})
        except (OSError, ValueError, TypeError, KeyError):  # not what was written: judge again
            return None

    def put(self, name: str, result: Judgement | list[Item]) -> None:
        """Store a verdict, or remember in ``failure`` why that cannot be done.

        One that depends on files that were first read while it was found is not kept.
        """
        if self._is_unforeseen():
            return
        data = [asdict(i) for i in result] if isinstance(result, list) else asdict(result)
        if self.failure is None:
            try:
                write_text(self._path(name), json.dumps(data))
            except OSError as error:
                self.failure = error


def write_evidence(ledger: Ledger, path: Path) -> int:
    """Write what the independent re-checker can judge again; how many items there are.

    ``python -m kahler_verify.evidence.recheck FILE`` evaluates them without the rest of the
    project.
    """
    items = [i.data["recheck"] for j in ledger.claims for i in j.evidence if "recheck" in i.data]
    write_text(path, json.dumps({"format": 1, "items": items}, indent=1, ensure_ascii=False))
    return len(items)


def write_ledger(ledger: Ledger, path: Path) -> None:
    """Write the ledger as JSON: ``{"claims": [{"id", "verdict", …}], "kernels": […]}``.

    ``"methods"`` gives, for each public method of a metric, the kernels that its calls ran.
    """
    data = {
        "claims": [asdict(j) for j in ledger.claims],
        "kernels": [asdict(i) for i in ledger.kernels if i.route != METHODS],
        "methods": [asdict(i) for i in ledger.methods],
        "passed": ledger.passed,
    }
    write_text(path, json.dumps(data, indent=1, ensure_ascii=False))


__all__ = [
    "Cache",
    "Item",
    "Judgement",
    "Ledger",
    "judge",
    "kernel_items",
    "prove",
    "write_evidence",
    "write_ledger",
]
