"""Cases: a kernel's text with random points, in three forms.

Numbers are dyadic, so that the 50-digit arithmetic and float64 see exactly the same inputs.
"""

from __future__ import annotations

import math
import random
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from functools import reduce
from types import SimpleNamespace
from typing import Any

import mpmath
import numpy as np
import torch
from sympy import Expr
from torch import Tensor

from kahler_verify.calculus.derivation import Derivation, Kernel, Output
from kahler_verify.codegen.module import generate_module
from kahler_verify.errors import EvidenceError
from kahler_verify.evidence.finding import Finding, frame_error, modest_bound, raised_axes
from kahler_verify.evidence.numbers.arithmetic import Arithmetic, decimal
from kahler_verify.evidence.numbers.arrays import Array, array
from kahler_verify.evidence.numbers.domains import domain_value, point_inside
from kahler_verify.evidence.numbers.points import Point
from kahler_verify.evidence.numbers.readings import (
    coordinate_of,
    derivative_order,
    fields_of,
    is_real_latent,
)
from kahler_verify.evidence.numbers.samples import Sample, draw
from kahler_verify.evidence.routes.autograd import TaylorFields, differentiate
from kahler_verify.running.kernel_set import KernelSet

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
    fields: TaylorFields
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
    drawn: list[tuple[Point, TaylorFields, Mapping[str, Tensor], Tensor, float]] = []
    for _ in range(100 * count):
        sample = draw_dyadic(kernel, rng)
        if derivation.domain is not None:
            sample = moved_inside(derivation, sample, rng, subject.d)
        fields = taylor_fields(sample.point, subject.d, is_real_latent(kernel))
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


def _is_well_conditioned(fields: TaylorFields) -> bool:
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


def taylor_fields(point: Point, d: int, real: bool = False) -> TaylorFields:
    """A point's fields as autograd takes them."""
    jets = {f: {o: to_torch(x) for o, x in t.items()} for f, t in point.jets.items()}
    weights = None if point.weights is None else to_torch(point.weights)
    numbers = {s: complex(x) for s, x in (*point.sizes.items(), *point.values.items())}
    return TaylorFields(d, numbers, jets, weights, point.coordinates, real)


def to_torch(values: Array) -> Tensor:
    """Numbers of any arithmetic rounded to complex128."""
    flat = [complex(x) for x in np.asarray(values).ravel()]
    return torch.tensor(flat, dtype=torch.complex128).reshape(values.shape)


def _frame(subject: Subject, fields: TaylorFields) -> tuple[Tensor, float]:
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


def case_error(case: Case, at: RandomPoint, truth: Mapping[str, Tensor]) -> float:
    """The largest error of a kernel's outputs at a point, in the g-frame."""
    outputs = case.kernel.outputs
    return max(
        frame_error(at.computed[n], t, at.scale, raised_axes(outputs[n])) for n, t in truth.items()
    )


def finding_at(points: Sequence[RandomPoint], errors: Sequence[float], **more: Any) -> Finding:
    """Errors at points of a case, against C·ε·cond(g)."""
    conditions = tuple(p.condition for p in points)
    return Finding(
        tuple(errors), tuple(map(modest_bound, conditions)), conditions, scales=True, **more
    )
