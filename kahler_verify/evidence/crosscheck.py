"""The cross-check: every registered kernel, and a trained decoder, against independent routes."""

from __future__ import annotations

import math
import platform
import time
from collections.abc import Callable, Iterable, Mapping
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import sympy
import torch
from torch import Tensor

from kahler_verify.calculus.derivation import Derivation, Kernel
from kahler_verify.codegen.registry import KERNELS, shipped
from kahler_verify.errors import InputError, KahlerVerifyError
from kahler_verify.evidence.routes import complex_decoders as decoder_routes
from kahler_verify.evidence.routes.autograd_faults import FaultReport, run_self_test
from kahler_verify.evidence.routes.heads import FLOAT64, compare_heads
from kahler_verify.evidence.routes.kernel import (
    EPSILON,
    MODEST,
    ROUTES,
    Outcome,
    Subject,
    frame_error,
    prepare,
    sampling_outcome,
)
from kahler_verify.evidence.routes.real_decoders import REAL_DECODER_CHECKS, RealDecoderTrial
from kahler_verify.geometry import Diagnosis, FisherMetric, diagnose
from kahler_verify.models.checkpoint import Checkpoint, Model, load_checkpoint
from kahler_verify.models.data import held_out_samples
from kahler_verify.models.real_vae import RealVAE
from kahler_verify.models.vae import ComplexVAE, VAEConfig
from kahler_verify.networks.decoder import Decoder

SCHEMA = 1
LEAST_ROUTES = 3
METRIC_FLOAT64, METRIC_FLOAT32 = 1e-12, 1e-4
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
class CheckRow:
    """One kernel (or one quantity of a decoder) against one route.

    Attributes:
        kernel: ``derivation.kernel``, or ``decoder.quantity``.
        route: a name in ``ROUTES``.
        where: "random points", "held-out latents" or "random latents".
        points: how many points were compared; a check of none fails.
        error: the largest error.
        bound: what the error must stay below, at the point that comes closest to failing.
        condition: the largest condition number of g in the g-normalised frame, or NaN.
        unit: "g-frame" (relative, each latent index divided by √g_aa), "relative", "standard
            errors" or "exact".
        passed: whether every point stayed below its bound and nothing was complained of.
        seconds: how long it took.
        note: what was compared, or why it failed.
        errors: the error at each point.
        constant: the largest error / (ε cond(g)), for rows whose bound is C ε cond(g); else NaN.
    """

    kernel: str
    route: str
    where: str
    points: int
    error: float
    bound: float
    condition: float
    unit: str
    passed: bool
    seconds: float
    note: str = ""
    errors: tuple[float, ...] = ()
    constant: float = math.nan


@dataclass(frozen=True)
class CrossCheck:
    """All rows, what is missing, and what they were measured with."""

    rows: tuple[CheckRow, ...]
    missing: tuple[str, ...]
    faults: tuple[FaultReport, ...]
    environment: Mapping[str, str]
    seconds: float
    checkpoint: str | None = None
    notes: tuple[str, ...] = ()
    model: Model | None = field(default=None, repr=False, compare=False)
    held_out: Tensor | None = field(default=None, repr=False, compare=False)
    report: Mapping[str, Any] = field(default_factory=dict)
    diagnosis: Diagnosis | None = None
    diagnosed: str = "held-out latents"

    @property
    def failed(self) -> tuple[CheckRow, ...]:
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
            "rows": [_plain(asdict(row)) for row in self.rows],
            "missing": list(self.missing),
            "notes": list(self.notes),
            "autograd_faults": [_plain(asdict(fault)) for fault in self.faults],
            "diagnosis": (
                {"where": self.diagnosed, **self.diagnosis.to_json()} if self.diagnosis else None
            ),
        }


Progress = Callable[[int, int, str], None]


def crosscheck(
    checkpoint: str | Path | Checkpoint | None = None,
    *,
    derivations: Mapping[str, Derivation] | None = None,
    sources: Mapping[str, str] | None = None,
    data: str | Path | None = None,
    points: int = 3,
    seed: int = 0,
    progress: Progress | None = None,
) -> CrossCheck:
    """Compare every registered kernel with independent routes, and a decoder's geometry too.

    Args:
        checkpoint: a trained model, whose Fisher geometry is checked on latents of held-out data
            and on random latents.
        derivations: whose kernels to check; the shipped ones by default.
        sources: generated texts by name, where they are not those of the installed kernels.
        data: held-out data for a checkpoint that was trained on a file (a path in a checkpoint is
            not followed).
        points: random points for each kernel.
        seed: of all random points and samples.
        progress: called as ``progress(done, total, label)``.

    Raises:
        CheckpointError: the checkpoint cannot be read.
        InputError: ``data`` cannot be read, or ``points`` is less than one.
    """
    if points < 1:
        raise InputError(f"points: expected at least 1, got {points}")
    threads = torch.get_num_threads()
    torch.set_num_threads(1)  # matrices are tiny here: threads would only wait for one another
    try:
        return _crosscheck(checkpoint, derivations, sources, data, points, seed, progress)
    finally:
        torch.set_num_threads(threads)


def _crosscheck(
    checkpoint: str | Path | Checkpoint | None,
    derivations: Mapping[str, Derivation] | None,
    sources: Mapping[str, str] | None,
    data: str | Path | None,
    points: int,
    seed: int,
    progress: Progress | None,
) -> CrossCheck:
    start = time.perf_counter()
    derivations = derivations if derivations is not None else shipped()
    loaded = checkpoint
    if checkpoint is not None and not isinstance(checkpoint, Checkpoint):
        loaded = load_checkpoint(checkpoint)
    jobs = [(d, k) for d in derivations.values() for k in d.kernels]
    real = isinstance(loaded, Checkpoint) and isinstance(loaded.model, RealVAE)
    checks = len(REAL_DECODER_CHECKS if real else DECODER_CHECKS)
    total = len(jobs) + checks * (loaded is not None)
    tell = progress or (lambda *_: None)
    rows: list[CheckRow] = []
    subjects: dict[str, Subject] = {}
    with torch.enable_grad():
        for done, (derivation, kernel) in enumerate(jobs):
            tell(done, total, f"{derivation.name}.{kernel.name}")
            rows += _check_kernel(subjects, derivation, kernel, sources or {}, points, seed)
            if kernel is derivation.kernels[-1] and derivation.name in subjects:
                rows += _check_heads(subjects[derivation.name], points, seed)
        missing = _missing(jobs, rows)
        notes: list[str] = []
        model, held_out, report, diagnosis, diagnosed = None, None, {}, None, ""
        if isinstance(loaded, Checkpoint):
            trial: DecoderTrial | RealDecoderTrial
            if real:
                trial = RealDecoderTrial.of(loaded, data, seed, notes)
                for done, (label, look) in enumerate(REAL_DECODER_CHECKS.items(), len(jobs)):
                    tell(done, total, f"decoder: {label}")
                    rows += [
                        _row(f"decoder.{name}", route, where, outcome, seconds)
                        for name, route, where, outcome, seconds in look(trial)
                    ]
            else:
                trial = DecoderTrial.of(loaded, data, seed, notes)
                for done, (label, check) in enumerate(DECODER_CHECKS.items(), start=len(jobs)):
                    tell(done, total, f"decoder: {label}")
                    rows += check(trial)
            diagnosed, diagnosis = _diagnosis(trial, notes)
            model, held_out, report = trial.model, trial.held_out, loaded.report
            if trial.held_out is None:
                notes.append("no held-out data: the checkpoint's data has no name; pass data=")
    faults = tuple(run_self_test())
    tell(total, total, "done")
    name = None
    if loaded is not None:
        name = "a model in memory" if isinstance(checkpoint, Checkpoint) else Path(checkpoint).name  # type: ignore[arg-type]
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


# ------------------------------------------------------------------------------- kernels


def _check_kernel(
    subjects: dict[str, Subject],
    derivation: Derivation,
    kernel: Kernel,
    sources: Mapping[str, str],
    points: int,
    seed: int,
) -> list[CheckRow]:
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
            outcome = route.run(case)
        except FAILURES as error:
            reason = f"{type(error).__name__}: {error}"
            rows.append(_failed(name, route_name, "random points", reason))
            continue
        rows.append(_row(name, route_name, "random points", outcome, time.perf_counter() - begin))
    return rows


def _check_heads(subject: Subject, points: int, seed: int) -> list[CheckRow]:
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
    outcome = Outcome(
        found.errors,
        (FLOAT64,) * len(found.errors),
        unit="relative",
        note="balls of 50 digits",
        complaints=found.complaints,
    )
    return [_row(name, "mpmath", "random points", outcome, time.perf_counter() - begin)]


def _failed(kernel: str, route: str, where: str, reason: str) -> CheckRow:
    nan = math.nan
    reason = " ".join(reason.split())[:300]
    return CheckRow(kernel, route, where, 0, nan, nan, nan, "", False, 0.0, reason)


def _row(kernel: str, route: str, where: str, outcome: Outcome, seconds: float) -> CheckRow:
    """A failed row where the outcome has no point, an error above its bound, or a complaint."""
    pairs = list(zip(outcome.errors, outcome.bounds, strict=True))
    inside = all(error <= bound for error, bound in pairs)  # false for NaN
    closest = max(
        pairs, key=lambda p: math.inf if not p[0] <= p[1] else p[0] / p[1] if p[1] else 0.0,
        default=(math.nan, math.nan),
    )  # fmt: skip
    constant = math.nan
    if outcome.unit == "g-frame" and outcome.scales:
        ratios = zip(outcome.errors, outcome.conditions, strict=True)
        constant = max(error / (EPSILON * condition) for error, condition in ratios)
    return CheckRow(
        kernel=kernel,
        route=route,
        where=where,
        points=len(pairs),
        error=max(outcome.errors, default=math.nan),
        bound=closest[1],
        condition=max(outcome.conditions, default=math.nan),
        unit=outcome.unit,
        passed=bool(pairs) and inside and not outcome.complaints,
        seconds=seconds,
        note="; ".join([*outcome.complaints, outcome.note]) if outcome.complaints else outcome.note,
        errors=tuple(outcome.errors),
        constant=constant,
    )


def _missing(jobs: Iterable[tuple[Derivation, Kernel]], rows: Iterable[CheckRow]) -> list[str]:
    """Kernels that fewer than three routes reached."""
    reached: dict[str, set[str]] = {}
    for row in rows:
        if row.points:
            reached.setdefault(row.kernel, set()).add(row.route)
    out = []
    for derivation, kernel in jobs:
        name = f"{derivation.name}.{kernel.name}"
        found = reached.get(name, set())
        if len(found) < LEAST_ROUTES:
            out.append(f"{name}: {len(found)} routes, expected at least {LEAST_ROUTES}")
    return out


# ------------------------------------------------------------------------------- decoders


@dataclass(frozen=True)
class DecoderTrial:
    """A decoder in float64 with its latents, [n, d] complex128, by where they come from."""

    model: ComplexVAE
    metric: FisherMetric  # on trial
    single: ComplexVAE  # the same weights in float32
    latents: Mapping[str, Tensor]
    held_out: Tensor | None
    seed: int

    @classmethod
    def of(
        cls, checkpoint: Checkpoint, data: str | Path | None, seed: int, notes: list[str]
    ) -> DecoderTrial:
        """Encode held-out samples and draw latents from the prior."""
        config = checkpoint.config
        assert isinstance(config, VAEConfig)
        copies = []
        for dtype in (torch.float64, torch.float32):
            copy = ComplexVAE(config)
            copy.load_state_dict(checkpoint.model.state_dict())
            copies.append(copy.to(dtype).requires_grad_(False).eval())
        model, single = copies
        latents, held_out = {}, None
        samples = held_out_samples(config.data, config.seed, data)
        if samples is not None:
            held_out, _ = model.encoder(samples)
            latents["held-out latents"] = _single_precision(held_out[:8])
        generator = torch.Generator().manual_seed(seed)
        pairs = torch.randn(8, config.latent_dim, 2, generator=generator, dtype=torch.float64)
        latents["random latents"] = _single_precision(torch.view_as_complex(pairs) / 2**0.5)
        family = f"{config.decoder} decoder, {config.covariance} covariance"
        notes.append(f"{family}, {config.likelihood} likelihood, d = {config.latent_dim}")
        return cls(model, FisherMetric(model.decoder), single, latents, held_out, seed)

    @property
    def decoder(self) -> Decoder:
        """The decoder in float64."""
        return self.model.decoder

    def frame(self, z: Tensor) -> tuple[Tensor, float]:
        """√g_aa at z [d] and cond of g where its diagonal is 1."""
        g = decoder_routes.by_autograd(self.decoder, z)[0]
        scale = g.diagonal().real.sqrt()
        values = torch.linalg.eigvalsh(g / (scale[:, None] * scale))
        smallest, largest = values.min().item(), values.max().item()
        return scale, largest / smallest if smallest > 0 else math.inf


def _diagnosis(
    trial: DecoderTrial | RealDecoderTrial, notes: list[str]
) -> tuple[str, Diagnosis | None]:
    """Where the decoder's geometry is described, and how; a note where it cannot be."""
    where, latents = next(iter(trial.latents.items()))
    z = latents if trial.held_out is None else trial.held_out[:DIAGNOSED]
    try:
        return where, diagnose(trial.metric, z)
    except InputError as error:  # of a degenerate metric there is nothing to describe
        notes.append(f"no diagnosis at {where}: {error}")
        return where, None


def _single_precision(z: Tensor) -> Tensor:
    """Latents that float32 holds exactly, so that both precisions see the same points."""
    return z.to(torch.complex64).to(torch.complex128)


Truth = Callable[[DecoderTrial, Tensor], list[list[Tensor]]]


def _metric_rows(trial: DecoderTrial, route: str, count: int, truth: Truth) -> list[CheckRow]:
    """G and k at some points of each kind against what a route says, once for each of its modes."""
    rows = []
    for where, latents in trial.latents.items():
        begin = time.perf_counter()
        z = latents[:count]
        found = (trial.metric.metric_matrix(z), trial.metric.complementary_part(z))
        errors: list[list[float]] = [[], []]
        conditions, complaints = [], []
        for i, point in enumerate(z):
            scale, condition = trial.frame(point)
            answers = truth(trial, point)
            for n in range(2):
                errors[n].append(max(frame_error(found[n][i], a[n], scale) for a in answers))
                apart = frame_error(answers[0][n], answers[-1][n], scale)
                if not apart <= METRIC_FLOAT64:
                    complaints.append(f"autograd's two modes differ by {apart:.1e}")
            conditions.append(condition)
        seconds = (time.perf_counter() - begin) / 2
        for n, quantity in enumerate(("metric", "complementary part")):
            outcome = Outcome(
                tuple(errors[n]),
                (METRIC_FLOAT64,) * len(errors[n]),
                tuple(conditions),
                note=DECODER_NOTES[route],
                complaints=tuple(complaints),
            )
            rows.append(_row(f"decoder.{quantity}", route, where, outcome, seconds))
    return rows


DECODER_NOTES = {
    "autograd": "KL through the decoder, reverse over reverse; forward over reverse",
    "mpmath": "forward pass of our own at 50 digits",
    "torch_kl": "torch.distributions, realified, through the decoder",
}


def _by_autograd(trial: DecoderTrial) -> list[CheckRow]:
    def truth(trial: DecoderTrial, z: Tensor) -> list[list[Tensor]]:
        reverse = decoder_routes.by_autograd(trial.decoder, z)
        return [reverse, decoder_routes.by_autograd(trial.decoder, z, mode="forward")]

    return _metric_rows(trial, "autograd", 6, truth)


def _by_torch_kl(trial: DecoderTrial) -> list[CheckRow]:
    def truth(trial: DecoderTrial, z: Tensor) -> list[list[Tensor]]:
        return [decoder_routes.by_torch_kl(trial.decoder, z)]

    return _metric_rows(trial, "torch_kl", 4, truth)


def _by_decimals(trial: DecoderTrial) -> list[CheckRow]:
    def truth(trial: DecoderTrial, z: Tensor) -> list[list[Tensor]]:
        return [decoder_routes.decimal_metric(trial.decoder, z)]

    return _metric_rows(trial, "mpmath", 2 if trial.decoder.is_holomorphic else 1, truth)


def _by_sampling(trial: DecoderTrial) -> list[CheckRow]:
    rows = []
    for where, latents in trial.latents.items():
        begin = time.perf_counter()
        z = latents[:1]
        g, k = trial.metric.metric_matrix(z), trial.metric.complementary_part(z)
        generator = torch.Generator().manual_seed(trial.seed)
        levels = [
            decoder_routes.by_sampling(trial.decoder, z[i], g[i], k[i], generator)
            for i in range(len(z))
        ]
        conditions = tuple(trial.frame(point)[1] for point in z)
        outcome = sampling_outcome(levels, conditions)
        seconds = time.perf_counter() - begin
        rows.append(_row("decoder.metric", "monte_carlo", where, outcome, seconds))
    return rows


def _derivatives(trial: DecoderTrial) -> list[CheckRow]:
    """∂_c g, the connection and the closedness defect, from autograd's third derivatives."""
    rows = []
    metric = trial.metric
    for where, latents in trial.latents.items():
        begin = time.perf_counter()
        z = latents[:2]
        found = {
            "derivative": metric._metric_d(z),
            "connection": metric.christoffels(z),
            "closedness defect": metric.kahler_defect(z),
        }
        errors: dict[str, list[float]] = {name: [] for name in found}
        conditions = []
        for i, point in enumerate(z):
            scale, condition = trial.frame(point)
            g, _, g_d = decoder_routes.by_autograd(trial.decoder, point, third=True)
            truths = {
                "derivative": g_d,
                "connection": torch.linalg.solve(g.mT, g_d.mT).mT,
                "closedness defect": g_d - g_d.transpose(0, 1),
            }
            for name, truth in truths.items():
                raised = (2,) if name == "connection" else ()
                errors[name].append(frame_error(found[name][i], truth, scale, raised))
            conditions.append(condition)
        seconds = (time.perf_counter() - begin) / len(found)
        for name, each in errors.items():
            bounds = tuple(MODEST * EPSILON * c for c in conditions)
            note = "third derivatives of KL through the decoder"
            outcome = Outcome(tuple(each), bounds, tuple(conditions), note=note, scales=True)
            rows.append(_row(f"decoder.{name}", "autograd", where, outcome, seconds))
    return rows


def _decimal_derivatives(trial: DecoderTrial) -> list[CheckRow]:
    """∂_c g and ∂_c∂_ē g in some directions, and the curvature made of them, at 50 digits."""
    begin = time.perf_counter()
    where, latents = next(iter(trial.latents.items()))
    z = latents[:1]
    d = z.shape[-1]
    cheap = trial.decoder.is_holomorphic
    directions = (0,)
    entries = tuple(range(d)) if cheap else (0,)
    scale, condition = trial.frame(z[0])
    g_d, g_db = decoder_routes.decimal_derivatives(trial.decoder, z[0], directions, entries)
    g = decoder_routes.decimal_metric(trial.decoder, z[0])[0]
    moves, size = len(directions), len(entries)
    first, second = trial.metric._metric_d(z)[0], trial.metric._metric_db(z)[0]
    compared = {
        "derivative": (first[:moves], g_d, 1),
        "second derivative": (second[:moves, :moves, :size, :size], g_db, 2),
    }
    if cheap:  # R_{ab̄cē} = G_c G⁻¹ G_ē - G_{cē}
        solved = torch.linalg.solve(g, g_d.mH)
        curvature = torch.einsum("cax,exb->abce", g_d, solved) - g_db.permute(2, 3, 0, 1)
        found = trial.metric.curvature_tensor(z)[0][..., :moves, :moves]
        compared["curvature"] = (found.permute(2, 3, 0, 1), curvature.permute(2, 3, 0, 1), 2)
    seconds = (time.perf_counter() - begin) / len(compared)
    rows = []
    for name, (value, truth, leading) in compared.items():
        for axis in range(value.ndim):
            own = scale[: moves if axis < leading else value.shape[axis]]
            shape = [-1 if n == axis else 1 for n in range(value.ndim)]
            value, truth = value / own.reshape(shape), truth / own.reshape(shape)
        error = frame_error(value, truth, torch.ones(0))  # in the frame already
        bounds = (MODEST * EPSILON * condition,)
        note = f"50 digits through the decoder, {moves} of {d} directions"
        outcome = Outcome((error,), bounds, (condition,), note=note, scales=True)
        rows.append(_row(f"decoder.{name}", "mpmath", where, outcome, seconds))
    return rows


def _in_single_precision(trial: DecoderTrial) -> list[CheckRow]:
    rows = []
    metric = FisherMetric(trial.single.decoder, check=False)  # checked in float64
    for where, latents in trial.latents.items():
        begin = time.perf_counter()
        found = metric.metric_matrix(latents.to(torch.complex64)).to(torch.complex128)
        errors, conditions = [], []
        for i, point in enumerate(latents):
            scale, condition = trial.frame(point)
            truth = decoder_routes.by_autograd(trial.decoder, point)[0]
            errors.append(frame_error(found[i], truth, scale))
            conditions.append(condition)
        bounds = (METRIC_FLOAT32,) * len(errors)
        note = "float32 metric against float64 autograd"
        outcome = Outcome(tuple(errors), bounds, tuple(conditions), note=note)
        seconds = time.perf_counter() - begin
        rows.append(_row("decoder.metric (float32)", "autograd", where, outcome, seconds))
    return rows


DECODER_CHECKS: Mapping[str, Callable[[DecoderTrial], list[CheckRow]]] = {
    "autograd": _by_autograd,
    "torch's KL": _by_torch_kl,
    "50 digits": _by_decimals,
    "samples": _by_sampling,
    "third derivatives": _derivatives,
    "derivatives at 50 digits": _decimal_derivatives,
    "float32": _in_single_precision,
}
