"""Independent routes to what a kernel computes, and how far the kernel is from each of them.

A case is a kernel with random points.  Numbers are dyadic, so that the 50-digit arithmetic and
float64 see exactly the same inputs.  A route returns one error for each point, in the g-normalised
frame: each lower latent index is divided by √g_aa (an upper one is multiplied), and errors count
relative to the largest entry, or to 1 where all entries are smaller.
"""

from __future__ import annotations

import math
import random
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import reduce
from types import SimpleNamespace
from typing import Any

import mpmath
import numpy as np
import torch
from sympy import Expr
from torch import Tensor
from torch.distributions import MultivariateNormal, kl_divergence
from torch.func import jacfwd, jacrev

from kahler_verify.calculus.definition import OnDiagonal, Partial
from kahler_verify.calculus.derivation import Derivation, Kernel, Output
from kahler_verify.calculus.letters import Jet
from kahler_verify.codegen.module import generate_module
from kahler_verify.errors import EvidenceError
from kahler_verify.evidence.laws.readings import coordinate_of
from kahler_verify.evidence.numbers.arithmetic import Arithmetic, Array, array, decimal, run_text
from kahler_verify.evidence.numbers.domains import domain_value, point_inside
from kahler_verify.evidence.numbers.samples import (
    Sample,
    derivative_order,
    draw,
    exact_ring,
    fields_of,
    is_real_latent,
)
from kahler_verify.evidence.numbers.series import Point, evaluate_output
from kahler_verify.evidence.routes.autograd import Fields, Place, differentiate, evaluate
from kahler_verify.evidence.routes.componentwise import componentwise
from kahler_verify.evidence.routes.known_answers import known_answer
from kahler_verify.running.kernel_set import KernelSet

EPSILON = float(np.finfo(np.float64).eps)
MODEST = 64.0  # the C of the bound C·ε·cond(g)
STANDARD_ERRORS = 5.0
DECIMAL_BOUND = 1e-40  # of what is compared at 50 digits on both sides
# Numbers of samples: with fewer steps the rate of a kernel with few entries strays by chance.
LADDER = (1_000, 4_000, 16_000, 64_000)
SIZES = {"d": 2, "n": 3, "K": 4}
LARGEST_CONDITION = 1e4  # of g in its frame
LARGEST_INPUT_CONDITION = 20.0  # of positive matrices among the inputs


@dataclass(frozen=True)
class RandomPoint:
    """A point in three forms: at 50 digits, as kernels take it, and for autograd.

    ``computed`` are the kernel's float64 results; ``scale`` [d] is √g_aa and ``condition`` that of
    g in the frame where its diagonal is 1.
    """

    point: Point
    fields: Fields
    computed: Mapping[str, Tensor]
    scale: Tensor
    condition: float


@dataclass(frozen=True)
class Subject:
    """A derivation with the generated text that is on trial, executed.

    ``heads`` says which expression each transcendental input of a kernel stands for.
    """

    derivation: Derivation
    text: str
    kernels: KernelSet
    metric: Output | None
    heads: Mapping[Expr, str]

    @classmethod
    def of(cls, derivation: Derivation, text: str) -> Subject:
        """Execute a generated text."""
        heads: Mapping[Expr, str] = {}
        if "\nHEADS = " in text:
            heads = generate_module(derivation).heads
        kernels = KernelSet(executed(derivation.name, text))
        return cls(derivation, text, kernels, _metric_of(derivation), heads)

    @property
    def d(self) -> int:
        """The latent dimension of its random points."""
        return len(self.derivation.coordinates) or SIZES["d"]


@dataclass(frozen=True)
class Case:
    """A kernel on trial, with random points."""

    subject: Subject
    kernel: Kernel
    points: tuple[RandomPoint, ...]
    seed: int

    @property
    def derivation(self) -> Derivation:
        """What the kernel was generated from."""
        return self.subject.derivation

    @property
    def kernels(self) -> KernelSet:
        """The executed text."""
        return self.subject.kernels

    @property
    def name(self) -> str:
        """``derivation.kernel``."""
        return f"{self.derivation.name}.{self.kernel.name}"

    @property
    def order(self) -> int:
        """How many derivatives the definition takes."""
        orders = [sum(derivative_order(o.definition)) for o in self.kernel.outputs.values()]
        return max(orders)

    @property
    def vanishes(self) -> bool:
        """Whether the generator found the kernel to be zero, and wrote no code."""
        return self.kernel.name in self.kernels.vanishing


@dataclass(frozen=True)
class Outcome:
    """What a route found: one error, bound and condition number for each point.

    ``complaints`` are failures that are not errors at points, as where autograd's modes differ.
    """

    errors: tuple[float, ...]
    bounds: tuple[float, ...]
    conditions: tuple[float, ...] = ()
    unit: str = "g-frame"
    note: str = ""
    complaints: tuple[str, ...] = ()
    scales: bool = False  # whether bounds are C·ε·cond(g)


@dataclass(frozen=True)
class Route:
    """An independent way to a kernel's value, where it applies."""

    name: str
    title: str
    applies: Callable[[Case], bool]
    run: Callable[[Case], Outcome]


# ------------------------------------------------------------------------------- points


def _dyadic(value: float) -> Any:
    """A number of 16 binary places: sums of a few stay exact in float64."""
    return decimal.number(round(value * 2**16) / 2**16)


_dyadic_decimal: Arithmetic = replace(
    decimal,
    draw=lambda rng: _dyadic(rng.gauss(0, 0.7)) + decimal.number(1j) * _dyadic(rng.gauss(0, 0.7)),
    draw_positive=lambda rng: _dyadic(rng.uniform(0.5, 2)),
)


def prepare(subject: Subject, kernel: Kernel, *, count: int = 3, seed: int = 0) -> Case:
    """Draw points for a kernel and run the text's kernel on all of them in one batch.

    Raises:
        EvidenceError: the text has no such kernel, or no well-conditioned points were found.
    """
    derivation, kernels = subject.derivation, subject.kernels
    if kernel.name not in kernels:
        raise EvidenceError(f"{derivation.name}: the generated text has no kernel {kernel.name!r}")
    rng = random.Random(f"{seed} {derivation.name} {kernel.name}")
    drawn: list[tuple[Point, Fields, Mapping[str, Tensor], Tensor, float]] = []
    for _ in range(100 * count):
        sample = draw_dyadic(kernel, rng)
        if derivation.domain is not None:
            sample = moved_inside(derivation, sample, rng, subject.d)
        fields = _fields(sample.point, subject.d, is_real_latent(kernel))
        if not _is_well_conditioned(fields):
            continue
        scale, condition = _frame(subject, fields)
        if condition <= LARGEST_CONDITION:
            tensors = {n: to_torch(t) for n, t in sample.tensors.items()}
            if has_real_tensors(kernel):  # some of torch's functions take no complex numbers
                tensors = {n: t.real for n, t in tensors.items()}
            drawn.append((sample.point, fields, tensors, scale, condition))
        if len(drawn) == count:
            break
    else:
        raise EvidenceError(f"{derivation.name}.{kernel.name}: no well-conditioned points found")
    batch = {n: torch.stack([tensors[n] for _, _, tensors, _, _ in drawn]) for n in drawn[0][2]}
    results = _run(kernels, kernel, batch, subject.d, count)
    points = tuple(
        RandomPoint(point, fields, {n: r[i] for n, r in results.items()}, scale, condition)
        for i, (point, fields, _, scale, condition) in enumerate(drawn)
    )
    return Case(subject, kernel, points, seed)


def _is_well_conditioned(fields: Fields) -> bool:
    """Bounds count cond(g) alone, so that Σ must not add to it."""
    positive = [t[0, 0] for f, t in fields.jets.items() if "positive" in f.traits]
    return all(torch.linalg.cond(x).item() <= LARGEST_INPUT_CONDITION for x in positive)


def moved_inside(derivation: Derivation, sample: Sample, rng: random.Random, d: int) -> Sample:
    """The sample where its coordinates lie in the derivation's domain."""
    point, tensors, name = sample.point, dict(sample.tensors), "z"
    own = coordinate_of(derivation)
    if own is not None:
        name = own.name
    if name not in tensors:  # a kernel that does not take the coordinates
        return sample
    if domain_value(derivation, point, [complex(x) for x in tensors[name]]) > 0:
        return sample
    z = [_dyadic(x.real) + decimal.number(1j) * _dyadic(x.imag)
         for x in point_inside(derivation, point, rng, d)]  # fmt: skip
    if own is None:
        values = {**point.values, **dict(zip(point.coordinates, z, strict=True))}
        moved = replace(point, values=values)
    else:
        table = {**point.jets[own], (0, 0): array(z, (d, 1))}
        moved = replace(point, jets={**point.jets, own: table})
    return Sample(moved, {**tensors, name: array(z, (d,))})


def executed(name: str, text: str) -> SimpleNamespace:
    """What a generated text defines, with torch."""
    scope: dict[str, Any] = {"__name__": f"<kernels of {name}>"}
    exec(compile(text, f"<kernels of {name}>", "exec"), scope)
    return SimpleNamespace(**{k: v for k, v in scope.items() if k != "__builtins__"})


def _run(
    kernels: KernelSet, kernel: Kernel, batch: Mapping[str, Tensor], d: int, count: int
) -> dict[str, Tensor]:
    named = {"n": SIZES["n"], "K": SIZES["K"], "d": d}
    size = lambda i: named.get(str(getattr(i, "size", None)), d)  # noqa: E731
    shapes = {n: (count, *map(size, o.indices)) for n, o in kernel.outputs.items()}
    if kernel.name in kernels.vanishing:
        return {n: torch.zeros(s, dtype=torch.complex128) for n, s in shapes.items()}
    out = kernels.call(kernel.name, batch)
    out = out if isinstance(out, tuple) else (out,)
    found = dict(zip(kernel.outputs, out, strict=True))
    for n, shape in shapes.items():
        if found[n].shape not in (shape, shape[1:]):  # a constant has no batch
            raise EvidenceError(f"{kernel.name}: expected {n} {shape}, got {tuple(found[n].shape)}")
    return {n: found[n].expand(shape).to(torch.complex128) for n, shape in shapes.items()}


def has_real_tensors(kernel: Kernel) -> bool:
    """Whether all tensors of a kernel are real."""
    return is_real_latent(kernel) and all("real" in f.traits for f in fields_of(kernel))


def draw_dyadic(kernel: Kernel, rng: random.Random) -> Sample:
    """A sample that float64 holds exactly, with coordinates of moderate size."""
    sample = draw(kernel, _dyadic_decimal, rng, SIZES)
    point, tensors = sample.point, dict(sample.tensors)
    if point.weights is not None:  # dyadic, and exactly of sum one
        heads = [_dyadic(float(mpmath.re(w))) for w in point.weights[:-1]]
        last = decimal.number(1) - reduce(lambda x, y: x + y, heads, decimal.number(0))
        point.weights = tensors["w"] = array([*heads, last], (len(heads) + 1,))
    half = decimal.number(0.5)
    for own, table in point.jets.items():
        if "coordinate" in own.traits:
            jets = {**table, (0, 0): array(np.asarray(table[0, 0]) * half)}
            point.jets = {**point.jets, own: jets}
            tensors[own.name] = array(np.asarray(jets[0, 0])[..., 0])
    if kernel.coordinates:
        point.values = {
            s: x * half if s in kernel.coordinates else x for s, x in point.values.items()
        }
        tensors["z"] = array(
            [point.values[z] for z in kernel.coordinates], (len(kernel.coordinates),)
        )
    return Sample(point, tensors)


def _fields(point: Point, d: int, real: bool = False) -> Fields:
    jets = {f: {o: to_torch(x) for o, x in t.items()} for f, t in point.jets.items()}
    weights = None if point.weights is None else to_torch(point.weights)
    numbers = {s: complex(x) for s, x in (*point.sizes.items(), *point.values.items())}
    return Fields(d, numbers, jets, weights, point.coordinates, real)


def to_torch(values: Array) -> Tensor:
    """Numbers of any arithmetic rounded to complex128."""
    flat = [complex(x) for x in np.asarray(values).ravel()]
    return torch.tensor(flat, dtype=torch.complex128).reshape(values.shape)


def _frame(subject: Subject, fields: Fields) -> tuple[Tensor, float]:
    """√g_aa and cond of g; an indefinite g counts by its absolute value (g²)^½."""
    d = fields.d
    g = torch.eye(d, dtype=torch.complex128)
    for own, table in fields.jets.items():
        if own.name == "g":
            g = table[0, 0]
    if subject.metric is not None:
        g = differentiate(subject.metric.definition, subject.metric.indices, fields)
    if not bool(torch.isfinite(g).all()):
        return torch.ones(d, dtype=torch.float64), math.inf
    values, vectors = torch.linalg.eigh((g + g.mH) / 2)
    if bool((values == 0).all()):  # a value, or a gradient, drawn without second derivatives
        return torch.ones(d, dtype=torch.float64), 1.0
    g = (vectors * values.abs()) @ vectors.mH
    scale = g.diagonal().real.sqrt()
    normalised = torch.linalg.eigvalsh(g / (scale[:, None] * scale))
    smallest, largest = normalised.min().item(), normalised.max().item()
    return scale, largest / smallest if smallest > 0 else math.inf


def _metric_of(derivation: Derivation) -> Output | None:
    """The output that defines the metric g_{ab̄} of a derivation."""
    for kernel in derivation.kernels:
        for name, out in kernel.outputs.items():
            if name == "g" and len(out.indices) == 2 and not out.upper:
                return out
    return None


# ------------------------------------------------------------------------------- errors


def frame_error(value: Tensor, truth: Tensor, scale: Tensor, raised: Sequence[int] = ()) -> float:
    """The largest error in the g-frame, relative to the largest entry of the truth, or to 1."""
    value, truth = value - 0, truth - 0
    for axis in range(value.ndim):
        if scale.ndim and value.shape[axis] != len(scale):
            continue  # an axis over outputs has no frame
        factor = scale if axis in raised else 1 / scale
        shape = [-1 if n == axis else 1 for n in range(value.ndim)]
        value, truth = value * factor.reshape(shape), truth * factor.reshape(shape)
    size = max(1.0, truth.abs().max().item())
    error = (value - truth).abs().max().item() / size
    return math.inf if math.isnan(error) else error


def _bound(condition: float) -> float:
    return MODEST * EPSILON * condition


def _errors(case: Case, at: RandomPoint, truth: Mapping[str, Tensor]) -> float:
    outputs = case.kernel.outputs
    return max(
        frame_error(at.computed[n], t, at.scale, raised_axes(outputs[n])) for n, t in truth.items()
    )


def raised_axes(out: Output) -> tuple[int, ...]:
    """The axes of an output that are upper indices."""
    return tuple(n for n, i in enumerate(out.indices) if i in out.upper)


def _outcome(points: Sequence[RandomPoint], errors: Sequence[float], **more: Any) -> Outcome:
    conditions = tuple(p.condition for p in points)
    return Outcome(tuple(errors), tuple(map(_bound, conditions)), conditions, scales=True, **more)


# ------------------------------------------------------------------------------- the routes


def _by_autograd(case: Case) -> Outcome:
    points = case.points[:1] if case.order > 3 else case.points[:2]
    errors, complaints = [], []
    for at in points:
        worst = 0.0
        for n, out in case.kernel.outputs.items():
            truths = [
                differentiate(out.definition, out.indices, at.fields, mode)
                for mode in ("reverse", "forward")
            ]
            worst = max(worst, *[_errors(case, at, {n: t}) for t in truths])
            apart = frame_error(truths[0], truths[1], at.scale, raised_axes(out))
            if not apart <= _bound(at.condition):
                complaints.append(f"{n}: autograd's two modes differ by {apart:.1e}")
        errors.append(worst)
    note = "reverse over reverse; forward over reverse"
    return _outcome(points, errors, note=note, complaints=tuple(complaints))


def _by_decimals(case: Case) -> Outcome:
    points = case.points[:1] if case.order > 3 else case.points
    errors = []
    for at in points:
        truth = {
            n: to_torch(evaluate_output(o.definition, o.indices, at.point))
            for n, o in case.kernel.outputs.items()
        }
        errors.append(_errors(case, at, truth))
    return _outcome(points, errors, note=decimal.name)


def _exactly(case: Case) -> Outcome:
    """The text itself in an exact field: equality, without a tolerance."""
    rng, ring = random.Random(case.seed), exact_ring(case.kernel)
    sample = draw(case.kernel, ring, rng, SIZES, case.subject.heads)
    truth = [
        evaluate_output(o.definition, o.indices, sample.point) for o in case.kernel.outputs.values()
    ]
    note = f"equality over {ring.name}"
    if case.vanishes:
        same = all(x == 0 for t in truth for x in np.asarray(t).ravel())
        return Outcome((0.0 if same else math.inf,), (0.0,), unit="exact", note=note)
    function = run_text(case.subject.text, ring)[case.kernel.name]
    names = case.kernels.arguments(case.kernel.name)
    found = function(*[sample.tensors[n] for n in names])
    found = found if isinstance(found, tuple) else (found,)
    same = all(
        f.shape == t.shape
        and all(x == y for x, y in zip(np.asarray(f).ravel(), np.asarray(t).ravel(), strict=True))
        for f, t in zip(found, truth, strict=True)
    )
    return Outcome((0.0 if same else math.inf,), (0.0,), unit="exact", note=note)


def _by_known_answers(case: Case) -> Outcome:
    answer = known_answer(case.derivation, case.kernel.name)
    if answer is None:
        raise EvidenceError(f"{case.name} has no known answer")
    errors = []
    for value, truth in answer(case.kernels):
        size = max(1.0, truth.abs().max().item())
        error = (value - truth).abs().max().item() / size
        errors.append(math.inf if math.isnan(error) else error)
    bound = _bound(1.0)
    return Outcome(tuple(errors), (bound,) * len(errors), unit="relative", note="closed forms")


def _is_fisher(case: Case) -> bool:
    """Whether all outputs are second derivatives of a divergence of Gaussians on the diagonal."""
    return _is_hessian(case) and all(
        isinstance(o.definition, OnDiagonal) for o in case.kernel.outputs.values()
    )


def _is_hessian(case: Case) -> bool:
    names = {f.name for f in fields_of(case.kernel)}
    return names == {"mu", "Sigma"} and all(
        _partial_of(o) is not None and _partial_of(o).args[0] == case.derivation.definition
        and len(o.indices) == 2
        for o in case.kernel.outputs.values()
    )  # fmt: skip


def _partial_of(out: Output) -> Any:
    inner = out.definition.args[0] if isinstance(out.definition, OnDiagonal) else out.definition
    return inner if isinstance(inner, Partial) else None


def _gaussian(at: RandomPoint, u: Tensor, *, frozen: bool = False) -> tuple[Tensor, Tensor]:
    """μ [n, 1] and Σ [n, n] at z + u, or where they are frozen at a base point z₀ of its own."""
    letters = {f.name: Jet(f) for f in at.fields.jets if ("frozen" in f.traits) == frozen}
    place = Place(at.fields, u)
    return evaluate(letters["mu"], place).value, evaluate(letters["Sigma"], place).value


def wirtinger_hessian(real: Tensor) -> tuple[Tensor, Tensor]:
    """∂_a∂_b̄ f and ∂_a∂_b f [..., d, d] of a real f from its Hessian in (x, y), [..., 2d, 2d]."""
    d = real.shape[-1] // 2
    xx, xy = real[..., :d, :d], real[..., :d, d:]
    yx, yy = real[..., d:, :d], real[..., d:, d:]
    mixed = torch.complex(xx + yy, xy - yx) / 4
    return mixed, torch.complex(xx - yy, -(xy + yx)) / 4


def realified(mean: Tensor, covariance: Tensor) -> MultivariateNormal:
    """The law of [Re x, Im x] for x ~ CN(mean [D], covariance [D, D])."""
    top = torch.cat([covariance.real, -covariance.imag], -1)
    bottom = torch.cat([covariance.imag, covariance.real], -1)
    loc = torch.cat([mean.real, mean.imag], -1)
    joint = torch.cat([top, bottom], -2) / 2
    return MultivariateNormal(loc, (joint + joint.mT) / 2, validate_args=False)


def _has_real_outputs(case: Case) -> bool:
    """Whether the Gaussian is one over real vectors."""
    return all("real" in f.traits for f in fields_of(case.kernel))


def _by_torch_kl(case: Case) -> Outcome:
    errors = []
    law = _real_normal if _has_real_outputs(case) else realified
    for at in case.points:
        zero = at.fields.start
        mean0, covariance0 = _gaussian(at, zero, frozen=not _is_fisher(case))
        fixed = law(mean0[:, 0], covariance0)

        def divergence(u: Tensor, at: RandomPoint = at, fixed: Any = fixed) -> Tensor:
            mean, covariance = _gaussian(at, u)
            return kl_divergence(fixed, law(mean[:, 0], covariance))

        hessian = jacrev(jacrev(divergence))(zero)
        mixed, pure = (hessian, hessian) if at.fields.real else wirtinger_hessian(hessian)
        errors.append(_errors(case, at, _named(case, mixed, pure)))
    return _outcome(case.points, errors, note="torch.distributions, realified")


def _real_normal(mean: Tensor, covariance: Tensor) -> MultivariateNormal:
    """The law of a real Gaussian whose numbers are held as complex ones."""
    covariance = (covariance.real + covariance.real.mT) / 2
    return MultivariateNormal(mean.real, covariance, validate_args=False)


def _named(case: Case, mixed: Tensor, pure: Tensor) -> dict[str, Tensor]:
    """A kernel's outputs among ∂_a∂_b̄ and ∂_a∂_b."""
    return {n: mixed if _partial_of(o).anti else pure for n, o in case.kernel.outputs.items()}


def _by_sampling(case: Case) -> Outcome:
    generator = torch.Generator().manual_seed(case.seed)
    weight = 0.5 if _has_real_outputs(case) else 1.0  # of the exponent of a Gaussian's density
    levels = []
    for at in case.points[:2]:
        zero = at.fields.start
        mean, covariance = _gaussian(at, zero)
        factor = torch.linalg.cholesky(covariance)

        def log_density(u: Tensor, x: Tensor, at: RandomPoint = at) -> Tensor:
            """Log p(x; μ, Σ) + const of samples [N, n] by the formula of the density."""
            moved, spread = _gaussian(at, u)
            root = torch.linalg.cholesky(spread)
            white = torch.linalg.solve_triangular(root, x.mT - moved, upper=False)
            squares = (white * white.conj()).real.sum(0)
            return weight * (-squares - 2 * root.diagonal().real.log().sum())

        def scores(
            count: int,
            zero: Tensor = zero,
            mean: Tensor = mean,
            factor: Tensor = factor,
            log_density: Callable[[Tensor, Tensor], Tensor] = log_density,
        ) -> Tensor:
            noise = torch.randn(count, len(mean), 2, generator=generator, dtype=torch.float64)
            x = noise[..., 0] + 0j if weight < 1 else torch.view_as_complex(noise) / 2**0.5
            x = x @ factor.mT + mean.mT
            return jacfwd(lambda u: log_density(u, x))(zero)

        found = {}
        for n, o in case.kernel.outputs.items():
            found["g" if at.fields.real or _partial_of(o).anti else "k"] = at.computed[n]
        levels.append(fisher_deviations(scores, found, real=at.fields.real))
    return sampling_outcome(levels, tuple(p.condition for p in case.points[:2]))


def fisher_deviations(
    scores: Callable[[int], Tensor], found: Mapping[str, Tensor], *, real: bool = False
) -> list[Tensor]:
    """For each number of samples, all entries' deviations from ``found`` in standard errors.

    ``scores`` gives ∂ log p in (x, y) for N fresh samples, [N, 2d]; g = E[s s̄ᵀ] and k = E[s sᵀ] for
    s = ½(∂_x - i∂_y) log p.  With ``real`` it gives them along real coordinates, [N, d].
    """
    levels = []
    for count in LADDER:
        gradient = scores(count)
        if real:
            s = gradient + 0j
        else:
            x, y = gradient.chunk(2, -1)
            s = torch.complex(x, -y) / 2
        deviations = []
        for name, value in found.items():
            other = s.conj() if name == "g" else s
            products = torch.einsum("na,nb->nab", s, other)
            for part, truth in ((products.real, value.real), (products.imag, value.imag)):
                spread = part.std(0) / count**0.5
                rounding = 100 * EPSILON * value.abs().max()
                deviations.append(((part.mean(0) - truth) / (spread + rounding)).flatten())
        levels.append(torch.cat(deviations))
    return levels


def sampling_outcome(levels: Sequence[Sequence[Tensor]], conditions: tuple[float, ...]) -> Outcome:
    """Deviations in standard errors, and whether errors shrink like N^-1/2.

    A right kernel's deviations stay of order 1 while the standard error falls as N^-1/2; a wrong
    kernel's grow as N^1/2.
    """
    errors = tuple(max(x.abs().max().item() for x in point) for point in levels)
    rms = [
        torch.cat([p[n] for p in levels]).square().mean().sqrt().item() for n in range(len(LADDER))
    ]
    logs = np.log(np.maximum(rms, 1e-300)) - 0.5 * np.log(LADDER)
    slope = float(np.polyfit(np.log(LADDER), logs, 1)[0])
    complaints: tuple[str, ...] = ()
    if not -0.85 < slope < -0.15:
        complaints = (f"the error goes as N^{slope:.2f}, expected N^-0.50",)
    note = f"{LADDER[0]} to {LADDER[-1]} samples, error ~ N^{slope:.2f}"
    bounds = (STANDARD_ERRORS,) * len(errors)
    return Outcome(errors, bounds, conditions, "standard errors", note, complaints)


def _by_components(case: Case) -> Outcome:
    """Definitions written out over entries and differentiated by SymPy's own ``diff``."""
    subject = case.subject
    entries = 3 if case.order < 3 else 1  # written-out derivatives are slow
    error = componentwise(case.kernel, subject.text, subject.heads, case.seed, entries)
    note = f"SymPy's diff at n = K = 2, up to {entries} of an output's entries"
    return Outcome((error,), (DECIMAL_BOUND,), unit="relative", note=note)


def _always(_: Case) -> bool:
    return True


def _can_be_written_out(case: Case) -> bool:
    """Fourth derivatives of a divergence, written out over entries, take a minute."""
    on_diagonal = any(o.definition.has(OnDiagonal) for o in case.kernel.outputs.values())
    return not case.vanishes and not (on_diagonal and case.order > 3)


ROUTES: Mapping[str, Route] = {
    r.name: r
    for r in (
        Route("autograd", "the definition, differentiated by torch", _always, _by_autograd),
        Route("mpmath", "the definition at 50 digits", _always, _by_decimals),
        Route("exact", "the kernel's text in exact arithmetic", _always, _exactly),
        Route("componentwise", "SymPy, entry by entry", _can_be_written_out, _by_components),
        Route("torch_kl", "Hessian of torch's Gaussian KL", _is_hessian, _by_torch_kl),
        Route("monte_carlo", "Fisher information of samples", _is_fisher, _by_sampling),
        Route(
            "known",
            "known answers",
            lambda case: known_answer(case.derivation, case.kernel.name) is not None,
            _by_known_answers,
        ),
    )
}
