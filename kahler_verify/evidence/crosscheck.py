"""The cross-check: every registered kernel, and a trained decoder, against independent routes."""

from __future__ import annotations

import math
import platform
import time
from collections.abc import Callable, Iterable, Mapping
from dataclasses import asdict, dataclass, field
from functools import partial
from pathlib import Path
from typing import Any

import sympy
import torch
from torch import Tensor

from kahler_verify.calculus.derivation import Derivation, Kernel
from kahler_verify.codegen.registry import KERNELS, shipped
from kahler_verify.errors import InputError, KahlerVerifyError
from kahler_verify.evidence.finding import EPSILON, MODEST, Finding
from kahler_verify.evidence.routes.cases import Subject, prepare
from kahler_verify.evidence.routes.complex_decoder_checks import (
    COMPLEX_DECODER_CHECKS,
    ComplexDecoderTrial,
)
from kahler_verify.evidence.routes.heads import compare_heads
from kahler_verify.evidence.routes.real_decoders import REAL_DECODER_CHECKS, RealDecoderTrial
from kahler_verify.evidence.routes.register import ROUTES
from kahler_verify.evidence.routes.torch_faults.self_test import FaultReport, run_self_test
from kahler_verify.evidence.routes.users_decoders import USERS_DECODER_CHECKS, UsersDecoder
from kahler_verify.evidence.working import done as done_by
from kahler_verify.geometry import Diagnosis, diagnose
from kahler_verify.models.checkpoint import Checkpoint, Model, load_checkpoint
from kahler_verify.models.data import held_out_labels
from kahler_verify.models.real_vae import RealVAE
from kahler_verify.processes import one_thread

SCHEMA = 1
LEAST_ROUTES = 3
DIAGNOSED = 32  # latents at which a decoder's geometry is described
# A faulty text may fail in any of these ways; each makes a failed row, not a crash.
FAILURES = (
    KahlerVerifyError,
    RuntimeError,
    ValueError,
    TypeError,
    LookupError,
    NameError,
    AttributeError,
    ArithmeticError,
)


@dataclass(frozen=True)
class CrossCheck:
    """All rows, what is missing, and what they were measured with."""

    rows: tuple[Finding, ...]
    missing: tuple[str, ...]
    faults: tuple[FaultReport, ...]
    environment: Mapping[str, str]
    seconds: float
    checkpoint: str | None = None
    notes: tuple[str, ...] = ()
    model: Model | None = field(default=None, repr=False, compare=False)
    held_out: Tensor | None = field(default=None, repr=False, compare=False)
    labels: Tensor | None = field(default=None, repr=False, compare=False)  # of held_out
    report: Mapping[str, Any] = field(default_factory=dict)
    diagnosis: Diagnosis | None = None
    diagnosed: str = "held-out latents"

    @property
    def failed(self) -> tuple[Finding, ...]:
        """The rows that fell short."""
        return tuple(row for row in self.rows if not row.passed)

    @property
    def passed(self) -> bool:
        """Whether checks were made, all passed and none is missing."""
        return bool(self.rows) and not self.failed and not self.missing

    @property
    def constant(self) -> float:
        """The largest constant C that was seen in C·ε·cond(g)."""
        return max((r.constant for r in self.rows if not math.isnan(r.constant)), default=math.nan)

    def to_dict(self) -> dict[str, Any]:
        """Plain values for JSON; numbers that are not finite become None."""
        return {
            "schema": SCHEMA,
            "passed": self.passed,
            "bound": {"C": MODEST, "epsilon": EPSILON, "largest_C_seen": _plain(self.constant)},
            "checkpoint": self.checkpoint,
            "seconds": round(self.seconds, 3),
            "environment": dict(self.environment),
            "rows": [_plain(row.to_json()) for row in self.rows],
            "missing": list(self.missing),
            "notes": list(self.notes),
            "autograd_faults": [_plain(asdict(fault)) for fault in self.faults],
            "diagnosis": (
                {"where": self.diagnosed, **self.diagnosis.to_json()} if self.diagnosis else None
            ),
        }


Progress = Callable[[int, int, str], None]


def crosscheck(
    checkpoint: str | Path | Checkpoint | UsersDecoder | None = None,
    *,
    derivations: Mapping[str, Derivation] | None = None,
    sources: Mapping[str, str] | None = None,
    data: str | Path | None = None,
    points: int = 3,
    seed: int = 0,
    progress: Progress | None = None,
    processes: int = 1,
) -> CrossCheck:
    """Compare every registered kernel with independent routes, and a decoder's geometry too.

    Args:
        checkpoint: a trained model, whose Fisher geometry is checked on latents of held-out data
            and on random latents; or a user's decoder, on the latents that come with it.
        derivations: whose kernels to check; the shipped ones by default.
        sources: generated texts by name, where they are not those of the installed kernels.
        data: held-out data for a checkpoint that was trained on a file (a path in a checkpoint is
            not followed).
        points: random points for each kernel.
        seed: of all random points and samples.
        progress: called as ``progress(done, total, label)``.
        processes: that check what is shipped; what they find does not depend on how many.

    Raises:
        CheckpointError: the checkpoint cannot be read.
        InputError: ``data`` cannot be read, or ``points`` is less than one.
    """
    if points < 1:
        raise InputError(f"points: expected at least 1, got {points}")
    with one_thread():  # matrices are tiny here: threads would only wait for one another
        return _crosscheck(
            checkpoint, derivations, sources, data, points, seed, progress, processes
        )


def _crosscheck(
    checkpoint: str | Path | Checkpoint | UsersDecoder | None,
    derivations: Mapping[str, Derivation] | None,
    sources: Mapping[str, str] | None,
    data: str | Path | None,
    points: int,
    seed: int,
    progress: Progress | None,
    processes: int,
) -> CrossCheck:
    start = time.perf_counter()
    derivations = derivations if derivations is not None else shipped()
    loaded = checkpoint
    if isinstance(checkpoint, str | Path):
        loaded = load_checkpoint(checkpoint)
    jobs = [(d, k) for d in derivations.values() for k in d.kernels]
    decoder: tuple[Any, Mapping[str, Any]] = (ComplexDecoderTrial, COMPLEX_DECODER_CHECKS)
    if isinstance(loaded, Checkpoint) and isinstance(loaded.model, RealVAE):
        decoder = (RealDecoderTrial, REAL_DECODER_CHECKS)
    if isinstance(loaded, UsersDecoder):
        decoder = (UsersDecoder, USERS_DECODER_CHECKS)
    kind, checks = decoder
    total = len(jobs) + len(checks) * (loaded is not None)
    tell = progress or (lambda *_: None)
    with torch.enable_grad():
        rows = _kernel_rows(derivations, sources or {}, points, seed, processes, tell, total)
        missing = _missing(jobs, rows)
        notes: list[str] = []
        model, held_out, report, diagnosis, diagnosed = None, None, {}, None, ""
        labels: Tensor | None = None
        if isinstance(loaded, Checkpoint):
            trial = kind.of(loaded, data, seed, notes)
            for done, (label, check) in enumerate(checks.items(), start=len(jobs)):
                tell(done, total, f"decoder: {label}")
                rows += check(trial)
            diagnosed, diagnosis = _diagnosis(trial, notes)
            model, held_out, report = trial.model, trial.held_out, loaded.report
            labels = held_out_labels(model.config.data, model.config.seed, data)
            if trial.held_out is None:
                notes.append("no held-out data: the checkpoint's data has no name; pass data=")
        if isinstance(loaded, UsersDecoder):
            for done, (label, check) in enumerate(checks.items(), start=len(jobs)):
                tell(done, total, f"decoder: {label}")
                rows += check(loaded)
    faults = tuple(run_self_test())
    tell(total, total, "done")
    name = None
    if isinstance(checkpoint, UsersDecoder):
        name = checkpoint.name
    elif checkpoint is not None:
        name = "a model in memory" if isinstance(checkpoint, Checkpoint) else Path(checkpoint).name
    return CrossCheck(
        rows=tuple(rows),
        missing=tuple(missing),
        faults=faults,
        environment={
            "python": platform.python_version(),
            "torch": torch.__version__,
            "sympy": sympy.__version__,
            "seed": str(seed),
        },
        seconds=time.perf_counter() - start,
        checkpoint=name,
        notes=tuple(notes),
        model=model,
        held_out=held_out,
        labels=labels,
        report=report,
        diagnosis=diagnosis,
        diagnosed=diagnosed,
    )


def _plain(value: Any) -> Any:
    if isinstance(value, float):
        return value if math.isfinite(value) else None
    if isinstance(value, dict):
        return {k: _plain(v) for k, v in value.items()}
    if isinstance(value, list | tuple):
        return [_plain(v) for v in value]
    return value


def _kernel_rows(
    derivations: Mapping[str, Derivation],
    sources: Mapping[str, str],
    points: int,
    seed: int,
    processes: int,
    tell: Progress,
    total: int,
) -> list[Finding]:
    """What is found of all kernels, in their order; of what is shipped, by several processes."""
    chosen = [derivation for derivation in derivations.values() if derivation.kernels]
    known = shipped()
    if sources or not all(known.get(each.name) is each for each in chosen):
        processes = 1  # derivations do not travel between processes
    work = [
        partial(_check_shipped, each.name, points, seed)
        if processes > 1
        else partial(_check, each, sources, points, seed)
        for each in chosen
    ]
    found: list[list[Finding]] = [[] for _ in chosen]
    checked = 0
    for place, rows in done_by(work, processes):
        tell(checked, total, chosen[place].name)
        if rows is not None:
            found[place] = rows
            checked += len(chosen[place].kernels)
    return [row for rows in found for row in rows]


def _check_shipped(name: str, points: int, seed: int) -> list[Finding]:
    with torch.enable_grad():
        return _check(shipped()[name], {}, points, seed)


def _check(
    derivation: Derivation, sources: Mapping[str, str], points: int, seed: int
) -> list[Finding]:
    """Of a derivation's kernels, and what the text computes for them."""
    subjects: dict[str, Subject] = {}
    rows: list[Finding] = []
    for kernel in derivation.kernels:
        rows += _check_kernel(subjects, derivation, kernel, sources, points, seed)
    if derivation.name in subjects:
        rows += _check_heads(subjects[derivation.name], points, seed)
    return rows


def _check_kernel(
    subjects: dict[str, Subject],
    derivation: Derivation,
    kernel: Kernel,
    sources: Mapping[str, str],
    points: int,
    seed: int,
) -> list[Finding]:
    name = f"{derivation.name}.{kernel.name}"
    try:
        if derivation.name not in subjects:
            text = sources.get(derivation.name)
            if text is None:
                text = (KERNELS / f"{derivation.name}.py").read_text(encoding="utf-8")
            subjects[derivation.name] = Subject.of(derivation, text)
        case = prepare(subjects[derivation.name], kernel, count=points, seed=seed)
    except (*FAILURES, SyntaxError, OSError) as error:
        return [_failed(name, "prepare", "random points", f"{type(error).__name__}: {error}")]
    rows = []
    for route_name in derivation.routes:
        route = ROUTES.get(route_name)
        if route is None:
            rows.append(_failed(name, route_name, "random points", "there is no such route"))
            continue
        try:
            if not route.applies(case):
                continue
            begin = time.perf_counter()
            finding = route.run(case)
        except FAILURES as error:
            reason = f"{type(error).__name__}: {error}"
            rows.append(_failed(name, route_name, "random points", reason))
            continue
        seconds = time.perf_counter() - begin
        rows.append(finding.named(name, route_name, "random points", seconds))
    return rows


def _check_heads(subject: Subject, points: int, seed: int) -> list[Finding]:
    """What the text itself computes for its kernels: over balls, and in float64."""
    name, begin = f"{subject.derivation.name}.heads", time.perf_counter()
    try:
        found = compare_heads(
            subject.derivation, subject.text, subject.heads, points=points, seed=seed
        )
    except FAILURES as error:
        return [_failed(name, "mpmath", "random points", f"{type(error).__name__}: {error}")]
    if found is None:
        return []
    return [found.named(name, "mpmath", "random points", time.perf_counter() - begin)]


def _failed(what: str, route: str, where: str, reason: str) -> Finding:
    complaint = " ".join(reason.split())[:300]
    return Finding(unit="", complaints=(complaint,), what=what, route=route, where=where)


def _missing(jobs: Iterable[tuple[Derivation, Kernel]], rows: Iterable[Finding]) -> list[str]:
    """Kernels that fewer than three routes reached."""
    reached: dict[str, set[str]] = {}
    for row in rows:
        if row.points:
            reached.setdefault(row.what, set()).add(row.route)
    out = []
    for derivation, kernel in jobs:
        name = f"{derivation.name}.{kernel.name}"
        found = reached.get(name, set())
        if len(found) < LEAST_ROUTES:
            out.append(f"{name}: {len(found)} routes, expected at least {LEAST_ROUTES}")
    return out


def _diagnosis(
    trial: ComplexDecoderTrial | RealDecoderTrial, notes: list[str]
) -> tuple[str, Diagnosis | None]:
    """Where the decoder's geometry is described, and how; a note where it cannot be."""
    where, latents = next(iter(trial.latents.items()))
    z = latents if trial.held_out is None else trial.held_out[:DIAGNOSED]
    try:
        return where, diagnose(trial.metric, z)
    except InputError as error:  # of a degenerate metric there is nothing to describe
        notes.append(f"no diagnosis at {where}: {error}")
        return where, None
