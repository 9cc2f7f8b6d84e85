"""Mutants: planted faults that the evidence must notice, and which route notices which.

Each mutant is judged by every route by itself, so that the table says what would have been missed
by that route alone.  Whether a mutant computes the same as the original is decided by exact
evaluation at sizes, seeds and batch shapes that no route uses.
"""

from __future__ import annotations

import json
import random
import time
import warnings
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, field, replace
from functools import cached_property, partial
from itertools import combinations
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import torch
from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn
from sympy import Expr
from torch import Tensor

from kahler_verify.calculus.claims import Claim, Derived, Gram, Vanishing
from kahler_verify.calculus.derivation import Derivation, Kernel
from kahler_verify.calculus.letters import Jet
from kahler_verify.codegen.module import generate_module
from kahler_verify.codegen.registry import KERNELS, shipped
from kahler_verify.errors import EvidenceError
from kahler_verify.evidence.laws import properties
from kahler_verify.evidence.ledger.judging import EVERYWHERE, judge_part
from kahler_verify.evidence.mutants.faults import (
    FAILURES,
    FAULTS,
    LONGEST_BODY,
    Misprint,
    Mutant,
    Target,
    body_of_kernel,
    derived_mutants,
    kernel_mutants,
    metric_of,
    misprinted,
    printed_body,
    rule_mutants,
)
from kahler_verify.evidence.mutants.geometry_faults import GEOMETRY_RULES, Noticed, first_difference
from kahler_verify.evidence.mutants.head_faults import FoundFault, judge_heads
from kahler_verify.evidence.mutants.planted import MISPRINTS, RULES
from kahler_verify.evidence.mutants.reading_faults import Read, judge_readings
from kahler_verify.evidence.numbers.arithmetic import (
    Arithmetic,
    array,
    decimal,
    prime_field,
    rational,
    run_text,
)
from kahler_verify.evidence.numbers.samples import Sample, draw, fields_of
from kahler_verify.evidence.numbers.series import Point, evaluate_output
from kahler_verify.evidence.proofs.schwartz_zippel import vanishes
from kahler_verify.evidence.routes.autograd import Fields, differentiate
from kahler_verify.evidence.routes.known_answers import known_answer
from kahler_verify.files import write_text
from kahler_verify.running.kernel_set import KernelSet

Sizes = Mapping[str, int]
Tensors = Mapping[str, Any]
Test = Callable[["Candidate"], bool]  # whether the candidate passes

# Equivalence is decided here, and nowhere else: (sizes, seeds, whether the seeds make one batch).
ELSEWHERE: tuple[tuple[Sizes, tuple[int, ...], bool], ...] = (
    ({"d": 3, "n": 4, "K": 5}, (101,), False),
    ({"d": 3, "n": 4, "K": 5}, (102, 103, 104), True),  # as many points as d: broadcasting slips by
    ({"d": 2, "n": 3, "K": 4}, (105, 106), False),
    ({"d": 4, "n": 5, "K": 3}, (107,), False),
)
SMALL = {"d": 2, "n": 2, "K": 2}
LINE = {"d": 1, "n": 2, "K": 3}
GENERIC = {"d": 2, "n": 2, "K": 3}  # at K = 2 covariances have rank one, which hides transpositions
FLOAT64, FLOAT32 = 1e-9, 1e-3  # relative to the largest entry, at well-conditioned points
FAR, NEAR = 1e8, 1e-4  # where differences of components are 1e-8 of them; what is left of float64
CERTAIN = ("hermitian", "augmented_positive", "positive")
OF_METRICS = (
    "positive",
    "kaehler",
    "curvature_consistent",
    "curvature_chart_free",
    "metric_chart_free",
    "curvature_as_known",
)
# Of one kernel alone; the others are routes by themselves.
NOT_LAWS = ("batched", "vmapped", "precise_in_single")

# The cheapest first; each but "claims" and "holomorphic decoders" is tried on every kernel it fits.
ROUTES = {
    "d = 1": "the text in F_p[i], one latent dimension",
    "exact": "the text in F_p[i] at d = n = K = 2",
    "Hermitian, positive": "g is Hermitian and positive, [[g, k], [k̄, ḡ]] is positive",
    "batch": "a batch of points against its points",
    "known answers": "closed forms from textbooks",
    "laws": "all other properties: charts, symmetry, invariance, curvature",
    "autograd": "the definition differentiated by torch, float64",
    "float64": "the definition at 50 digits against float64",
    "float32": "the definition at 50 digits against float32",
    "holomorphic decoders": "the text in F_p[i], μ holomorphic and Σ constant",
    "heads": "a module's own heads over balls of 50 digits, and in float64",
    "claims": "the ledger's identities",
    "variants": "layouts, blocks, plans, planes and log det against the plain kernels",
}


@dataclass(frozen=True)
class Candidate:
    """A kernel's source on trial."""

    name: str
    text: str

    @cached_property
    def function(self) -> Callable[..., Any]:
        """The kernel as torch runs it."""
        scope: dict[str, Any] = {}
        exec(compile(self.text, f"<mutant of {self.name}>", "exec"), scope)
        function: Callable[..., Any] = scope[self.name]
        return function

    def outputs(self, tensors: Tensors, arithmetic: Arithmetic | None = None) -> list[Any]:
        """Its results on named tensors, in torch or in another arithmetic."""
        function = self.function
        if arithmetic is not None:
            function = run_text(self.text, arithmetic)[self.name]
        code = function.__code__
        out = function(*[tensors[a] for a in code.co_varnames[: code.co_argcount]])
        return list(out) if isinstance(out, tuple) else [out]


def _equal(found: Sequence[Any], truth: Sequence[Any]) -> bool:
    """Equality of object arrays, entry by entry."""
    pairs = [(np.asarray(f), np.asarray(t)) for f, t in zip(found, truth, strict=True)]
    return all(f.shape == t.shape for f, t in pairs) and all(
        x == y for f, t in pairs for x, y in zip(f.ravel(), t.ravel(), strict=True)
    )


def _close(found: Sequence[Tensor], truth: Sequence[Tensor], tolerance: float) -> bool:
    for f, t in zip(found, truth, strict=True):
        scale = max(1.0, float(t.abs().max()))
        if f.shape != t.shape or not float((f - t).abs().max()) <= tolerance * scale:
            return False
    return True


def _to_torch(values: Any) -> Tensor:
    flat = [complex(x) for x in np.asarray(values).ravel()]
    return torch.tensor(flat, dtype=torch.complex128).reshape(np.shape(values))


def _stacked(samples: Sequence[Tensors]) -> dict[str, Any]:
    return {n: array(np.stack([np.asarray(s[n]) for s in samples])) for n in samples[0]}


# ------------------------------------------------------------------ one kernel's evidence


class Bench:
    """All routes for one kernel, with every truth computed once.

    Raises:
        EvidenceError: the original itself fails a route.
    """

    def __init__(self, target: Target, heads: Mapping[Expr, str], text: str, *, trusted: bool):
        self.target, self.heads, self.text = target, heads, text
        self.kernel, self.derivation = target.kernel, target.derivation
        self.original = Candidate(target.kernel.name, target.body.text)
        self._elsewhere: dict[int, list[tuple[Tensors, list[Any]]]] = {}
        self.tests = self._tests()
        failed = [
            n for n, test in self.tests.items() if trusted and not passes(test, self.original)
        ]
        if failed:
            raise EvidenceError(f"{target.name}: the original fails {', '.join(failed)}")

    def draw(
        self, arithmetic: Arithmetic, seed: int, sizes: Sizes, kernel: Kernel | None = None
    ) -> Sample:
        """A random point."""
        return draw(kernel or self.kernel, arithmetic, random.Random(seed), sizes, self.heads)

    def _truth(self, point: Point) -> list[Any]:
        outputs = self.kernel.outputs.values()
        return [evaluate_output(o.definition, o.indices, point) for o in outputs]

    # -------------------------------------------------------------- routes
    def _tests(self) -> dict[str, Test]:
        tests: dict[str, Test] = {
            "d = 1": self._exact(self.draw(prime_field, 1, LINE)),
            "exact": self._exact(self.draw(prime_field, 2, SMALL)),
        }
        held = self._holomorphic()
        if held is not None:
            tests["holomorphic decoders"] = held
        tests |= self._decimals()
        answer = known_answer(self.derivation, self.kernel.name)
        if answer is not None:
            tests["known answers"] = lambda c: all(
                _close([value], [truth], FLOAT64) for value, truth in answer(self._set(c))
            )
        laws = self._laws()
        groups = {
            "batch": [x for x in laws if x[0].name == "batched"],
            "Hermitian, positive": [x for x in laws if x[0].name in CERTAIN],
            "laws": [x for x in laws if x[0].name not in (*CERTAIN, *NOT_LAWS)],
        }
        for name, group in groups.items():
            if group:
                tests[name] = partial(self._obeys, group)
        return {n: tests[n] for n in ROUTES if n in tests}

    def _exact(self, sample: Sample) -> Test:
        truth = self._truth(sample.point)
        return lambda c: _equal(c.outputs(sample.tensors, prime_field), truth)

    def _holomorphic(self) -> Test | None:
        """μ holomorphic and Σ constant, for kernels of a likelihood that do not assume it."""
        letters = {f.name: Jet(f) for f in fields_of(self.kernel) if "frozen" not in f.traits}
        if not {"mu", "Sigma"} <= set(letters) or self.kernel.assumptions:
            return None
        assumed = ((letters["mu"], "holomorphic"), (letters["Sigma"], "constant"))
        kernel = replace(self.kernel, assumptions=assumed)
        sample = self.draw(prime_field, 3, SMALL, kernel)
        full = self.draw(prime_field, 3, SMALL)
        tensors: dict[str, Any] = {n: x - x for n, x in full.tensors.items()}
        return self._exact(Sample(sample.point, {**tensors, **sample.tensors}))

    def _decimals(self) -> dict[str, Test]:
        sample = self.draw(decimal, 4, GENERIC)
        double = {n: _to_torch(x) for n, x in sample.tensors.items()}
        single = {n: x.to(torch.complex64) for n, x in double.items()}
        truth = [_to_torch(t) for t in self._truth(sample.point)]
        jets = {f: {o: _to_torch(x) for o, x in t.items()} for f, t in sample.point.jets.items()}
        sizes = {s: complex(x) for s, x in sample.point.sizes.items()}
        weights = sample.point.weights
        fields = Fields(GENERIC["d"], sizes, jets, None if weights is None else _to_torch(weights))
        other = [
            differentiate(o.definition, o.indices, fields) for o in self.kernel.outputs.values()
        ]
        return {
            "autograd": lambda c: _close(c.outputs(double), other, FLOAT64),
            "float64": lambda c: _close(c.outputs(double), truth, FLOAT64),
            "float32": lambda c: _close(
                [x.to(torch.complex128) for x in c.outputs(single)], truth, FLOAT32
            ),
        }

    # -------------------------------------------------------------- laws
    @cached_property
    def _module(self) -> Mapping[str, Any]:
        scope: dict[str, Any] = {"__name__": f"<kernels of {self.derivation.name}>"}
        exec(compile(self.text, scope["__name__"], "exec"), scope)
        return {n: v for n, v in scope.items() if n != "__builtins__"}

    def _set(self, candidate: Candidate) -> KernelSet:
        """The module with the candidate in its kernel's place."""
        return KernelSet(SimpleNamespace(**{**self._module, candidate.name: candidate.function}))

    def _laws(self) -> list[tuple[properties.Property, Derivation, Kernel, bool]]:
        """Laws with the kernel to try them on, and whether the candidate is the geometry's."""
        found = []
        name = self.kernel.name
        owner = metric_of(name)
        original = self._set(self.original)
        for law, kernels in properties.applicable(self.derivation, original):
            for kernel in kernels:
                whole = law.name in OF_METRICS and kernel.name == owner
                if kernel.name == name or whole:
                    found.append((law, self.derivation, kernel, False))
        if self.derivation.name == "hermitian_geometry":
            for subject, metric in (
                ("fubini_study", "metric"),
                ("gaussian_kl", "fisher_metric_scalar"),
            ):
                derivation = shipped_derivations()[subject]
                for law, kernels in properties.applicable(derivation, KernelSet(subject)):
                    if law.name.startswith("curvature"):
                        found += [(law, derivation, k, True) for k in kernels if k.name == metric]
        return found

    def _obeys(
        self,
        laws: Sequence[tuple[properties.Property, Derivation, Kernel, bool]],
        candidate: Candidate,
    ) -> bool:
        mine = self._set(candidate)
        for law, derivation, kernel, geometry in laws:
            kernels = KernelSet(derivation.name) if geometry else mine
            more = {"geometry": mine} if geometry else {}
            try:
                properties.check(law, derivation, kernel, kernels, seed=1, sizes=GENERIC, **more)
            except properties.DoesNotApply:  # a law about positive metrics, and there is none
                continue
        return True

    # -------------------------------------------------------------- equivalence
    def _points(self, n: int) -> list[tuple[Tensors, list[Any]]]:
        if n not in self._elsewhere:
            sizes, seeds, batch = ELSEWHERE[n]
            samples: list[Tensors] = [self.draw(rational, s, sizes).tensors for s in seeds]
            if batch:
                samples = [_stacked(samples)]
            self._elsewhere[n] = [(s, self.original.outputs(s, rational)) for s in samples]
        return self._elsewhere[n]

    @cached_property
    def _in_torch(self) -> dict[str, Tensor]:
        sample = self.draw(decimal, 100, ELSEWHERE[0][0])
        return {n: _to_torch(x) for n, x in sample.tensors.items()}

    def runs(self, candidate: Candidate) -> bool:
        """Whether it runs at one point in exact arithmetic and in torch, and keeps its shape."""
        ((tensors, truth),) = self._points(0)
        try:
            found = candidate.outputs(tensors, rational)
            in_torch = candidate.outputs(self._in_torch)
        except FAILURES:
            return False
        shapes = [tuple(np.shape(t)) for t in truth]
        return [np.shape(f) for f in found] == shapes == [tuple(f.shape) for f in in_torch]

    def equivalent(self, candidate: Candidate) -> bool:
        """Whether it equals the original over Q(i), at every point of :data:`ELSEWHERE`."""
        for n in range(len(ELSEWHERE)):
            for tensors, truth in self._points(n):
                try:
                    if not _equal(candidate.outputs(tensors, rational), truth):
                        return False
                except FAILURES:
                    return False
        return True

    @cached_property
    def _far(self) -> list[tuple[dict[str, Tensor], list[Tensor]]]:
        """Points with one or two component fields far from 0, where the original keeps digits."""
        if "w" not in self._in_torch:
            return []
        sample = self.draw(decimal, 5, {"d": 2, "n": 1, "K": 3})
        near = {n: _to_torch(x) for n, x in sample.tensors.items()}
        fields = [n for n in near if n.startswith("q_")]
        found = []
        for names in [*combinations(fields, 1), *combinations(fields, 2)]:
            tensors = near | {n: near[n] + FAR for n in names}
            exact = {n: self._lifted(x) for n, x in tensors.items()}
            truth = [_to_torch(x) for x in self.original.outputs(exact, decimal)]
            if _close(self.original.outputs(tensors), truth, NEAR):
                found.append((tensors, truth))
        return found

    def loses_digits(self, candidate: Candidate) -> bool:
        """Whether float64 fails where components nearly agree, and the original does not."""
        return any(not _close(candidate.outputs(x), truth, NEAR) for x, truth in self._far)

    @staticmethod
    def _lifted(values: Tensor) -> Any:
        """The same numbers at 50 digits."""
        return array([decimal.number(x) for x in values.ravel().tolist()], tuple(values.shape))


def passes(test: Test, candidate: Candidate) -> bool:
    """Whether a route accepts a candidate; one that cannot be run is not accepted."""
    try:
        return test(candidate)
    except FAILURES:
        return False


_shipped: dict[str, Derivation] = {}


def shipped_derivations() -> dict[str, Derivation]:
    """The shipped derivations, loaded once."""
    if not _shipped:
        _shipped.update(shipped())
    return _shipped


# ------------------------------------------------------------------ all shipped kernels


@dataclass
class Workshop:
    """The shipped kernels as targets, with their modules' heads."""

    targets: list[Target] = field(default_factory=list)
    heads: dict[str, Mapping[Expr, str]] = field(default_factory=dict)
    texts: dict[str, str] = field(default_factory=dict)
    benches: dict[str, Bench] = field(default_factory=dict)

    @classmethod
    def open(cls) -> Workshop:
        """Read every shipped module of a derivation with tensor kernels."""
        shop = cls()
        for name, derivation in shipped_derivations().items():
            path = KERNELS / f"{name}.py"
            kernels = [k for k in derivation.kernels if isinstance(k, Kernel)]
            if derivation.coordinates or not kernels or not path.is_file():
                continue  # unrolled kernels have no indices to transpose
            text = path.read_text(encoding="utf-8")
            shop.texts[name] = text
            shop.heads[name] = generate_module(derivation).heads if "\nHEADS = " in text else {}
            for kernel in kernels:
                if f"def {kernel.name}(" in text:
                    target = Target(derivation, kernel, body_of_kernel(text, kernel.name))
                    shop.targets.append(replace(target, shapes=shop._shapes(target)))
        return shop

    def _shapes(self, target: Target) -> dict[str, tuple[int, ...]]:
        """The shape of every tensor of a kernel at sizes that tell the axes apart."""
        heads = self.heads[target.derivation.name]
        sample = draw(target.kernel, decimal, random.Random(0), ELSEWHERE[0][0], heads)
        body = target.body
        lines = tuple(line for line in body.lines if line[0] != "return")
        probe = Candidate(body.name, replace(body, lines=(*lines, ("return", "locals()"))).text)
        (found,) = probe.outputs({n: _to_torch(x) for n, x in sample.tensors.items()})
        return {n: tuple(x.shape) for n, x in found.items()}

    def bench(self, name: str) -> Bench:
        """The evidence of one kernel."""
        if name not in self.benches:
            target = next(t for t in self.targets if t.name == name)
            own = target.derivation.name
            self.benches[name] = Bench(target, self.heads[own], self.texts[own], trusted=True)
        return self.benches[name]

    def mutants(self) -> Iterator[Mutant]:
        """Every mutant of every place; each source once with its true definition."""
        seen: set[tuple[str, str, bool]] = set()
        for mutant in self._all():
            key = mutant.kernel, mutant.text, mutant.definition is None
            if key not in seen:
                seen.add(key)
                yield mutant

    def _all(self) -> Iterator[Mutant]:
        for target in self.targets:
            yield from kernel_mutants(target)
        for target in self.targets:
            yield from derived_mutants(target, self.heads[target.derivation.name])
        regular = [(t, t.kernel.derived()) for t in self.targets if self._is_current(t)]
        for number, rule in enumerate(RULES, start=1):
            yield from rule_mutants(rule, number, regular, self.heads)
        for number, misprint in enumerate(MISPRINTS, start=1):
            yield misprint_mutant(number, misprint)

    def _is_current(self, target: Target) -> bool:
        """Whether the generator, unedited, prints what is shipped; long kernels are left out."""
        if len(target.body.lines) > LONGEST_BODY:
            return False
        heads = self.heads[target.derivation.name]
        return printed_body(target, target.kernel.derived(), heads).lines == target.body.lines


def misprint_mutant(number: int, misprint: Misprint) -> Mutant:
    """The kernel that the true generator makes of a mistyped definition."""
    derivation = misprinted(misprint)
    name = misprint.kernel.split(".")[1]
    return Mutant(
        f"derivation/misprint {number}/{misprint.kernel}",
        misprint.fault,
        "derivation",
        misprint.kernel,
        f"{misprint.file}: {misprint.old.strip()} → {misprint.new.strip() or '(nothing)'}",
        body_of_kernel(generate_module(derivation).text, name).text,
        derivation,
    )


# ------------------------------------------------------------------ claims


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


# ------------------------------------------------------------------ the run


@dataclass(frozen=True)
class Judged:
    """A mutant with its verdict.

    ``by`` are the routes that kill it, the cheapest first; ``missed_by`` those that apply and let
    it live.  ``runs`` is false where it raises, or has another shape, at a single point, so that no
    evidence is needed; ``loses_digits`` is true where it equals the original, but not in float64.
    """

    id: str
    fault: str
    place: str
    kernel: str
    description: str
    equivalent: bool
    loses_digits: bool
    runs: bool
    killed: bool
    by: list[str]
    missed_by: list[str]
    seconds: float


@dataclass(frozen=True)
class MutantResult:
    """All judged mutants."""

    mutants: list[Judged]

    @property
    def counted(self) -> list[Judged]:
        """Those that run and differ from the original."""
        return [m for m in self.mutants if m.runs and not m.equivalent]

    @property
    def survivors(self) -> list[Judged]:
        """Those that differ from the original and are not noticed."""
        return [m for m in self.mutants if not m.killed and not m.equivalent]

    @property
    def passed(self) -> bool:
        """Whether at least one mutant was judged, and none that differs survived."""
        return bool(self.counted) and not self.survivors

    @property
    def table(self) -> dict[str, dict[str, Any]]:
        """For each fault: how many, what killed them first, what each route alone would miss."""
        out = {}
        for fault in [f for f in FAULTS if any(m.fault == f for m in self.mutants)]:
            own = [m for m in self.mutants if m.fault == fault]
            out[fault] = _row(own)
        out["all"] = _row(self.mutants)
        return out


def _row(mutants: Sequence[Judged]) -> dict[str, Any]:
    counted = [m for m in mutants if m.runs and not m.equivalent]
    first = [m.by[0] for m in counted if m.by]
    return {
        "mutants": len(counted),
        "equivalent": sum(m.equivalent for m in mutants),
        "equivalent, loses digits": sum(m.loses_digits for m in mutants),
        "do not run": sum(not m.runs for m in mutants),
        "survived": sum(not m.killed for m in counted),
        "killed first by": {r: first.count(r) for r in ROUTES if r in first},
        "missed by alone": {
            r: [
                sum(r in m.missed_by for m in counted),
                sum(r in m.by + m.missed_by for m in counted),
            ]
            for r in ROUTES
        },
    }


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
        for name in [r for r in ROUTES if r in tests]:
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


def write_mutants(result: MutantResult, path: Path) -> None:
    """Write all mutants and the table as JSON."""
    data = {
        "mutants": [asdict(m) for m in result.mutants],
        "table": result.table,
        "routes": ROUTES,
        "passed": result.passed,
    }
    write_text(path, json.dumps(data, indent=1, ensure_ascii=False) + "\n")
