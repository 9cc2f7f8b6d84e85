"""Properties that every derivation inherits, a user's own too: one registry.

A property says to which kernels of a derivation it applies, and decides it from the derivation
itself: from the indices of its definitions, the traits and shapes of its fields, and what they
depend on.  Its check draws a random trial and raises :class:`PropertyViolation`, with the numbers,
when it fails.

Kernels are tested on fields with consistent random derivatives.  Where a derivation makes a metric
that :mod:`kahler_verify.geometry` can hold, the metric's geometry is tested too.
"""

from __future__ import annotations

import cmath
import math
import random
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field, replace
from itertools import pairwise, product
from typing import Any

import mpmath
import numpy as np
import torch
from sympy import Add, Expr, Mul, Symbol
from torch import Tensor
from torch.func import jacrev

from kahler_verify.calculus.definition import Contract, Entry, OnDiagonal, Partial, map_letters
from kahler_verify.calculus.derivation import Derivation, Kernel, Output
from kahler_verify.calculus.letters import Field, Jet, parameter
from kahler_verify.calculus.mixture import LogSumExp
from kahler_verify.calculus.words import LogDet, Tr, adjoint
from kahler_verify.distributions import ComplexNormal
from kahler_verify.errors import EvidenceError, PropertyViolation
from kahler_verify.evidence.arithmetic import Arithmetic, array, decimal
from kahler_verify.evidence.samples import Sample, draw, fields_of
from kahler_verify.evidence.series import Point, Scope, evaluate
from kahler_verify.geometry.fisher import FisherMetric
from kahler_verify.geometry.kernel_set import KernelSet
from kahler_verify.geometry.metric import HermitianMetric
from kahler_verify.geometry.potential import MixtureMetric, PotentialMetric

__all__ = ["PROPERTIES", "Property", "Trial", "applicable", "check", "check_all"]

TOLERANCE = 1e-7  # relative; a wrong formula is off by far more, rounding by far less

double = Arithmetic(
    "double",
    complex,
    lambda rng: complex(rng.gauss(0, 1), rng.gauss(0, 1)),
    lambda rng: complex(rng.uniform(0.5, 2)),
    lambda name, x: getattr(cmath, name)(x),
)


@dataclass
class Trial:
    """One random check: what is tested, the random source, and the sizes d, n and K."""

    derivation: Derivation
    kernel: Kernel
    kernels: KernelSet
    rng: random.Random
    sizes: Mapping[str, int]
    geometry: KernelSet = field(default_factory=lambda: KernelSet("hermitian_geometry"))

    def __post_init__(self) -> None:
        if self.derivation.coordinates:
            self.sizes = {**self.sizes, "d": len(self.derivation.coordinates)}

    @property
    def d(self) -> int:
        """The dimension of the latent space."""
        return self.sizes["d"]

    def numbers(self, *shape: int) -> Tensor:
        """Complex normal numbers, E|x|² = 2."""
        flat = [double.draw(self.rng) for _ in range(math.prod(shape))]
        return torch.tensor(flat, dtype=torch.complex128).reshape(shape)

    def unitary(self, n: int) -> Tensor:
        """A random unitary matrix."""
        return torch.linalg.qr(self.numbers(n, n))[0]

    def invertible(self, n: int) -> Tensor:
        """A random matrix of modest condition."""
        return self.unitary(n) @ (torch.eye(n) + 0.3 * self.numbers(n, n) / (2 * n))

    def draw(self, **sizes: int) -> dict[str, Tensor]:
        """The kernel's inputs at one random point of the domain."""
        sample = draw(self.kernel, double, self.rng, {**self.sizes, **sizes})
        tensors = {name: _tensor(values) for name, values in sample.tensors.items()}
        if _coordinate(self.derivation) is not None or self.derivation.coordinates:
            tensors["z"] = self.point(sample)
        return tensors

    def point(self, sample: Sample, reach: float | None = None) -> Tensor:
        """A point z [d] of the domain; ``reach`` in (0, 1) asks for that part of its radius."""
        towards = self.numbers(self.d)
        towards = towards / (towards * towards.conj()).real.sum().sqrt()
        inside = lambda t: _domain_value(self.derivation, sample, t * towards) > 0  # noqa: E731
        if reach is None:
            size = self.rng.uniform(0.3, 1.5)
            tries = [size * 2.0**n for n in (0, -1, 1, -2, 2, -3, 3, -4, 4, -6, 6)]
            found = next((t for t in tries if inside(t) and inside(1.1 * t)), None)
            if found is None:
                raise EvidenceError(f"{self.derivation.name}: no point of the domain was found")
            return found * towards
        low, high = 0.0, 1e8
        if inside(high):
            raise EvidenceError(f"{self.derivation.name}: its domain has no boundary to reach for")
        for _ in range(200):
            middle = (low + high) / 2
            low, high = (middle, high) if inside(middle) else (low, middle)
        return reach * low * towards

    def call(self, tensors: Mapping[str, Tensor], batch: tuple[int, ...] = ()) -> dict[str, Tensor]:
        """The results by name, each [*batch, d, …] (a constant kernel leaves batches out)."""
        out = self.kernels.call(self.kernel.name, tensors)
        results = out if isinstance(out, tuple) else (out,)
        return {
            name: value.expand((*batch, *[self.d] * len(output.indices)))
            for (name, output), value in zip(self.kernel.outputs.items(), results, strict=True)
        }


def _tensor(values: Any) -> Tensor:
    """An object array of numbers as complex128."""
    flat = [complex(x) for x in np.asarray(values, dtype=object).ravel()]
    return torch.tensor(flat, dtype=torch.complex128).reshape(np.shape(values))


def _domain_value(derivation: Derivation, sample: Sample, z: Tensor) -> float:
    """The derivation's ``domain`` at z: positive inside, infinite where there is none."""
    if derivation.domain is None:
        return math.inf
    values = z.tolist()
    if derivation.coordinates:
        at = dict(zip(derivation.coordinates, values, strict=True))
        return complex(derivation.domain.subs(at).doit()).real
    coordinate = _coordinate(derivation)
    assert coordinate is not None
    jets = {**sample.point.jets, coordinate: {(0, 0): array(values, (len(values), 1))}}
    point = Point(double, sample.point.sizes, jets)
    return float(evaluate(derivation.domain, point, Scope({})).base[0, 0].real)


# ------------------------------------------------------------------ the registry

Check = Callable[[Trial], None]


class DoesNotApply(Exception):
    """A law about positive metrics met a derivation that has none and claims none."""


@dataclass(frozen=True)
class Property:
    """A law: one sentence, the kernels of a derivation that it speaks of, and its check."""

    name: str
    statement: str
    applies: Callable[[Derivation, Kernel], bool]
    check: Check


PROPERTIES: dict[str, Property] = {}


def law(statement: str, applies: Callable[[Derivation, Kernel], bool]) -> Callable[[Check], Check]:
    """Register a check under its own name."""

    def register(check: Check) -> Check:
        PROPERTIES[check.__name__] = Property(check.__name__, statement, applies, check)
        return check

    return register


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


def agree(
    got: Tensor, expected: Tensor, what: str, *, tolerance: float = TOLERANCE, floor: float = 1e-3
) -> None:
    """Compare two results relative to the largest entry."""
    got, expected = torch.as_tensor(got), torch.as_tensor(expected)
    if got.shape != expected.shape:
        raise PropertyViolation(f"{what}: shapes {list(got.shape)} and {list(expected.shape)}")
    if not got.numel():
        return
    scale = max(float(expected.abs().max()), floor)
    error = float((got - expected).abs().max())
    if not error <= tolerance * scale:
        raise PropertyViolation(
            f"{what} differ by {error:.3g}, where the largest entry is {scale:.3g} "
            f"(allowed: {tolerance:.1g} of it)"
        )


# ------------------------------------------------------------------ reading a derivation


def _fields(kernel: Kernel) -> list[Field]:
    """Fields of a kernel, with the traits that its assumptions add."""
    extra: dict[str, tuple[str, ...]] = {}
    for letter, trait in kernel.assumptions:
        extra[letter.field.name] = (*extra.get(letter.field.name, ()), trait)
    return [f.with_traits(*extra.get(f.name, ())) for f in fields_of(kernel)]


def _coordinate(derivation: Derivation) -> Field | None:
    """The coordinate z of a potential in any dimension."""
    letters = derivation.definition.atoms(Jet) if derivation.definition is not None else ()
    return next((j.field for j in letters if "coordinate" in j.field.traits), None)


def _has_component(_der: Derivation, kernel: Kernel) -> bool:
    return any("component" in f.traits for f in _fields(kernel))


def _is_divergence(derivation: Derivation) -> bool:
    """Whether the definition compares z with a base point z₀."""
    definition = derivation.definition
    if definition is None or derivation.coordinates:
        return False
    return any("frozen" in j.field.traits for j in definition.atoms(Jet))


def _output_dimensions(derivation: Derivation, kernel: Kernel) -> set[Symbol]:
    """Symbolic dimensions of fields other than the latent one (the n of n outputs)."""
    if derivation.coordinates:
        return set()
    sizes = {s for f in fields_of(kernel) for size in f.shape for s in size.free_symbols}
    return sizes - {derivation.latent}


@dataclass(frozen=True)
class Stage:
    """Indices that derivatives took of the same function, before the next restriction to z₀ = z."""

    hol: tuple[Symbol, ...]
    anti: tuple[Symbol, ...]


def _stages(output: Output) -> tuple[Expr, list[Stage]] | None:
    """What an output differentiates, and in which stages; None for other kinds of outputs."""
    expr, stages = output.definition, []
    hol: tuple[Symbol, ...] = ()
    anti: tuple[Symbol, ...] = ()
    while isinstance(expr, Partial | OnDiagonal):
        if isinstance(expr, OnDiagonal):
            stages.append(Stage(hol, anti))
            hol, anti = (), ()
        else:
            hol, anti = (*hol, *expr.hol), (*anti, *expr.anti)
        expr = expr.args[0]
    stages.append(Stage(hol, anti))
    if expr.has(Entry, Contract):
        return None
    taken = {i for s in stages for i in (*s.hol, *s.anti)}
    return (expr, stages) if taken == set(output.indices) else None


def _staged(kernel: Kernel) -> dict[str, tuple[Expr, list[Stage]]]:
    found = {name: _stages(out) for name, out in kernel.outputs.items()}
    return {name: stages for name, stages in found.items() if stages is not None}


def _is_real(derivation: Derivation, expr: Expr) -> bool:
    """Whether a definition is real by the calculus (potentials are by their meaning)."""
    if derivation.coordinates or (expr == derivation.definition and _coordinate(derivation)):
        return True
    return bool(adjoint(expr) == expr)


def _barred(output: Output) -> dict[Symbol, bool] | None:
    """For each index of an output whether it is antiholomorphic; None where entries are taken."""
    if output.definition.has(Entry):
        return None
    bars: dict[Symbol, bool] = {}
    for node in output.definition.atoms(Partial):
        bars |= dict.fromkeys(node.hol, False) | dict.fromkeys(node.anti, True)
    return bars if set(bars) >= set(output.indices) else None


def _axes(kernel: Kernel, fields: list[Field]) -> dict[str, list[str]]:
    """The kind of every axis of every input: K, hol, anti, or a dimension with its side.

    A dimension's name alone marks rows, with ``*`` columns, with ``=`` both (diagonal layout).
    """
    axes: dict[str, list[str]] = {}
    for f in fields:
        lead = ["K"] if "component" in f.traits else []
        rows, cols = f.shape
        layout = kernel.layout.get(f.name, "full") if 1 not in f.shape else "full"
        own = {
            "full": [str(s) + mark for s, mark in ((rows, ""), (cols, "*")) if s != 1],
            "diagonal": [f"{rows}="],
            "scalar": [],
        }[layout]
        name = f.name + ("0" if "frozen" in f.traits else "")
        axes[f"{name}_factor"] = own
        for hol, anti in product(range(5), range(5)):
            marks = "d" * hol + "b" * anti
            axes[f"{name}_{marks}" if marks else name] = [
                *lead, *["hol"] * hol, *["anti"] * anti, *own
            ]  # fmt: skip
    axes["w"] = ["K"]
    return axes


def _moved(x: Tensor, kinds: list[str], maps: Mapping[str, Tensor]) -> Tensor:
    """Multiply every axis whose kind has a matrix: x'[…, i, …] = Σ_j M[i, j] x[…, j, …]."""
    for axis, kind in enumerate(kinds):
        if kind in maps:
            x = torch.tensordot(maps[kind], x, dims=([1], [axis])).movedim(0, axis)
    return x


# ------------------------------------------------------------------ laws of single kernels


@law(
    "a real function's mixed derivatives are conjugated when ∂ and ∂̄ change places",
    lambda der, k: any(
        _is_real(der, base) and all(len(s.hol) == len(s.anti) for s in stages)
        for base, stages in _staged(k).values()
    ),
)
def hermitian(trial: Trial) -> None:
    """conj(out) with every ∂ index and its ∂̄ partner exchanged is out."""
    results = trial.call(trial.draw())
    for name, (base, stages) in _staged(trial.kernel).items():
        if not _is_real(trial.derivation, base):
            continue
        if any(len(s.hol) != len(s.anti) for s in stages):
            continue
        indices = trial.kernel.outputs[name].indices
        partner = {i: j for s in stages for i, j in zip(s.hol, s.anti, strict=True)}
        partner |= {j: i for i, j in partner.items()}
        order = [indices.index(partner[i]) for i in indices]
        agree(results[name].permute(order).conj(), results[name], f"{name} and its adjoint")


@law(
    "derivatives commute: exchanging two ∂, or two ∂̄, of the same function changes nothing "
    "(closedness of a potential's metric: ∂_c g_{ab̄} = ∂_a g_{cb̄})",
    lambda _, k: any(
        max(len(s.hol), len(s.anti)) > 1 for _, stages in _staged(k).values() for s in stages
    ),
)
def symmetric(trial: Trial) -> None:
    """The output is symmetric in the ∂ indices, and in the ∂̄ indices, of each stage."""
    results = trial.call(trial.draw())
    for name, (_, stages) in _staged(trial.kernel).items():
        indices = trial.kernel.outputs[name].indices
        for group in (g for s in stages for g in (s.hol, s.anti) if len(g) > 1):
            for i, j in pairwise(group):
                swapped = results[name].transpose(indices.index(i), indices.index(j))
                agree(swapped, results[name], f"{name} and {name} with {i} and {j} exchanged")


@law(
    "[[g, k], [k̄, ḡ]] is positive semidefinite, and so is g",
    lambda _, k: {"g", "k"} <= set(k.outputs),
)
def augmented_positive(trial: Trial) -> None:
    """The least eigenvalue is not below zero by more than rounding."""
    out = trial.call(trial.draw())
    g, k = out["g"], out["k"]
    both = torch.cat([torch.cat([g, k], -1), torch.cat([k.conj(), g.conj()], -1)], -2)
    for what, matrix in (("the augmented matrix", both), ("g", g)):
        values = torch.linalg.eigvalsh(matrix)
        if not values[0] >= -1e-10 * values[-1]:
            raise PropertyViolation(
                f"{what} has the eigenvalue {values[0]:.3g}, its largest is {values[-1]:.3g}"
            )


def _has_free_frame(der: Derivation, k: Kernel) -> bool:
    own = {s for f in fields_of(k) for s in f.shape}
    return not der.coordinates and der.latent not in own and _all_barred(k)


def _all_barred(k: Kernel) -> bool:
    return all(_barred(out) is not None for out in k.outputs.values())


def _compare_frames(
    trial: Trial,
    tensors: Mapping[str, Tensor],
    moved: Mapping[str, Tensor],
    maps: Mapping[str, Tensor],
    what: str,
) -> None:
    before, after = trial.call(tensors), trial.call(moved)
    for name, output in trial.kernel.outputs.items():
        bars = _barred(output)
        assert bars is not None
        kinds = ["anti" if bars[i] else "hol" for i in output.indices]
        agree(after[name], _moved(before[name], kinds, maps), f"{name} {what}")


@law(
    "an affine chart z = A z' + b moves every derivative index by Aᵀ or Aᴴ, and nothing else",
    _has_free_frame,
)
def affine_chart(trial: Trial) -> None:
    """Kernel(moved jets) = moved kernel(jets)."""
    tensors = trial.draw()
    frame = trial.invertible(trial.d)
    maps = {"hol": frame.mT, "anti": frame.mH}
    axes = _axes(trial.kernel, _fields(trial.kernel))
    moved = {name: _moved(x, axes[name], maps) for name, x in tensors.items()}
    _compare_frames(trial, tensors, moved, maps, "in the new chart and moved to it")


@law(
    "z → Uz with the parameters (vectors c → Uc, matrices M → UMUᴴ) changes derivatives by U only",
    lambda der, k: _coordinate(der) is not None and _all_barred(k),
)
def unitary_equivariant(trial: Trial) -> None:
    """Every dimension-free potential is one in zᴴz, zᴴMz, …, which know no coordinates."""
    tensors = trial.draw()
    turn = trial.unitary(trial.d)
    latent = str(trial.derivation.latent)
    axes = _axes(trial.kernel, _fields(trial.kernel))
    axes["z"] = [latent]
    turned = {
        name: _moved(x, axes[name], {latent: turn, f"{latent}*": turn.conj()})
        for name, x in tensors.items()
    }
    maps = {"hol": turn.conj(), "anti": turn}
    _compare_frames(trial, tensors, turned, maps, "at Uz and turned by U")


@law(
    "a unitary change of the observed components (a permutation for a diagonal Σ) changes nothing",
    lambda der, k: bool(_output_dimensions(der, k)),
)
def output_basis_free(trial: Trial) -> None:
    """μ → Vμ, Σ → VΣVᴴ."""
    kernel, tensors = trial.kernel, trial.draw()
    axes = _axes(kernel, _fields(kernel))
    moved = dict(tensors)
    for symbol in sorted(_output_dimensions(trial.derivation, kernel), key=str):
        n = trial.sizes[symbol.name]
        turn = trial.unitary(n)
        if "diagonal" in kernel.layout.values():
            turn = turn.new_zeros(n, n)
            turn[range(n), trial.rng.sample(range(n), n)] = 1
        maps = {f"{symbol}": turn, f"{symbol}*": turn.conj(), f"{symbol}=": turn}
        for name, x in moved.items():
            if name.endswith("_factor") and len(axes[name]) == 2:
                moved[name] = torch.linalg.cholesky(turn @ x @ x.mH @ turn.mH)
            else:
                moved[name] = _moved(x, axes[name], maps)
    before, after = trial.call(tensors), trial.call(moved)
    for name in kernel.outputs:
        agree(after[name], before[name], f"{name} before and after the change of basis")


def _is_additive(der: Derivation, k: Kernel) -> bool:
    """Whether a definition is linear in n, log det and traces, so that direct sums add."""
    if not _is_divergence(der) or len(_output_dimensions(der, k)) != 1:
        return False
    for term in Add.make_args(der.definition):
        varying = [f for f in Mul.make_args(term) if not f.is_number]
        if len(varying) != 1 or not isinstance(varying[0], Symbol | LogDet | Tr):
            return False
    return True


@law("over independent outputs the divergence, and all that derives from it, adds", _is_additive)
def additive(trial: Trial) -> None:
    """out(μ₁ ⊕ μ₂, Σ₁ ⊕ Σ₂) = out(μ₁, Σ₁) + out(μ₂, Σ₂)."""
    kernel = trial.kernel
    (symbol,) = _output_dimensions(trial.derivation, kernel)
    axes = _axes(kernel, _fields(kernel))
    first = trial.draw()
    second = trial.draw(**{symbol.name: 1 + trial.rng.randrange(3)})
    joint = {}
    for name, x in first.items():
        kinds = axes[name]
        own = [i for i, kind in enumerate(kinds) if kind.rstrip("*=") == symbol.name]
        if not own:  # a scalar Σ has to be the same in both
            second[name] = x
            joint[name] = x
            continue
        shape = [s + t if i in own else s for i, (s, t) in
                 enumerate(zip(x.shape, second[name].shape, strict=True))]  # fmt: skip
        joint[name] = x.new_zeros(shape)
        upper = tuple(slice(0, x.shape[i]) if i in own else slice(None) for i in range(x.ndim))
        lower = tuple(slice(x.shape[i], None) if i in own else slice(None) for i in range(x.ndim))
        joint[name][upper], joint[name][lower] = x, second[name]
    whole, one, two = trial.call(joint), trial.call(first), trial.call(second)
    for name in kernel.outputs:
        agree(whole[name], one[name] + two[name], f"{name} of both outputs and the sum")


@law("the order of a mixture's components does not matter", _has_component)
def component_order_free(trial: Trial) -> None:
    """A permutation of k changes nothing."""
    tensors = trial.draw()
    count = trial.sizes["K"]
    order = trial.rng.sample(range(count), count)
    axes = _axes(trial.kernel, _fields(trial.kernel))
    moved = {n: x[order] if axes[n][:1] == ["K"] else x for n, x in tensors.items()}
    before, after = trial.call(tensors), trial.call(moved)
    for name in trial.kernel.outputs:
        agree(after[name], before[name], f"{name} in two orders of the components")


@law("a component split into two equal ones that share its weight changes nothing", _has_component)
def component_split_free(trial: Trial) -> None:
    """w → (w₁/3, 2w₁/3, w₂, …) with the first component repeated."""
    tensors = trial.draw()
    axes = _axes(trial.kernel, _fields(trial.kernel))
    split = {n: torch.cat([x[:1], x]) if axes[n][:1] == ["K"] else x for n, x in tensors.items()}
    split["w"] = torch.cat([tensors["w"][:1] / 3, tensors["w"][:1] * 2 / 3, tensors["w"][1:]])
    before, after = trial.call(tensors), trial.call(split)
    for name in trial.kernel.outputs:
        agree(after[name], before[name], f"{name} with a component split in two")


def _shift(letter: Jet) -> Expr:
    """A vector field's letter plus one constant vector for all fields of its dimension."""
    rows, cols = letter.field.shape
    if cols != 1 or rows == 1 or letter.hol or letter.anti:
        return letter
    step = parameter(f"shift_{rows}", rows)
    return letter + (step.H if letter.dagger else step)


def _is_translation_free(der: Derivation, k: Kernel) -> bool:
    """Decided by the calculus: the shift cancels in the definition."""
    if der.definition is None or der.coordinates or not _shifted_inputs(k):
        return False
    return bool(map_letters(der.definition, _shift) == der.definition)


def _shifted_inputs(k: Kernel) -> dict[str, Symbol]:
    """Names of the vector fields that a shift moves, with their dimension."""
    return {
        f.name + ("0" if "frozen" in f.traits else ""): f.shape[0]
        for f in fields_of(k)
        if f.shape[1] == 1 and f.shape[0] != 1
    }


@law(
    "a common translation of all vectors of one space (z and centres, or μ and μ₀) changes nothing",
    _is_translation_free,
)
def translation_free(trial: Trial) -> None:
    """Where the definition sees differences of vectors only."""
    tensors = trial.draw()
    spaces = _shifted_inputs(trial.kernel)
    steps = {s: trial.numbers(trial.sizes[s.name]) for s in sorted(set(spaces.values()), key=str)}
    moved = {n: x + steps[spaces[n]] if n in spaces else x for n, x in tensors.items()}
    before, after = trial.call(tensors), trial.call(moved)
    for name in trial.kernel.outputs:
        agree(after[name], before[name], f"{name} before and after a translation")


def _every(_der: Derivation, _kernel: Kernel) -> bool:
    return True


def _whole(trial: Trial) -> tuple[list[dict[str, Tensor]], dict[str, Tensor]]:
    """Three points apart, and as one batch."""
    points = [trial.draw() for _ in range(3)]
    return points, {n: torch.stack([p[n] for p in points]) for n in points[0]}


@law("a batch gives what its points give one by one, an empty one an empty result", _every)
def batched(trial: Trial) -> None:
    """Leading dimensions [3], [3, 1] and [0]."""
    points, whole = _whole(trial)
    singles = [trial.call(p) for p in points]
    line = trial.call(whole, (3,))
    column = trial.call({n: x.unsqueeze(1) for n, x in whole.items()}, (3, 1))
    empty = trial.call({n: x[:0] for n, x in whole.items()}, (0,))
    for name in trial.kernel.outputs:
        expected = torch.stack([s[name] for s in singles])
        agree(line[name], expected, f"{name} in a batch and alone")
        agree(column[name].squeeze(1), expected, f"{name} in a batch [3, 1] and alone")
        if empty[name].numel():
            raise PropertyViolation(f"{name} of an empty batch has shape {list(empty[name].shape)}")


@law("torch.vmap over points gives what the points give one by one", _every)
def vmapped(trial: Trial) -> None:
    """Vmap adds the batch dimension that the kernel does not see."""
    points, whole = _whole(trial)
    mapped = torch.vmap(lambda tensors: trial.call(tensors))(whole)
    for name in trial.kernel.outputs:
        expected = torch.stack([trial.call(p)[name] for p in points])
        agree(mapped[name], expected, f"{name} under vmap and alone")


@law("complex64 inputs give complex64 results that agree with complex128's", _every)
def precise_in_single(trial: Trial) -> None:
    """The same rounded inputs in both; the bound grows with the condition of factors."""
    single = {n: x.to(torch.complex64) for n, x in trial.draw().items()}
    exact = trial.call({n: x.to(torch.complex128) for n, x in single.items()})
    factors = [x for n, x in single.items() if n.endswith("_factor") and x.ndim > 1]
    condition = max((float(torch.linalg.cond(x)) for x in factors), default=1.0)
    rounding = 300 * torch.finfo(torch.float32).eps * condition**2
    for name, value in trial.call(single).items():
        if value.dtype != torch.complex64:
            raise PropertyViolation(f"{name} is {value.dtype} for complex64 inputs")
        tolerance = min(max(rounding, 1e-3), 0.1)
        got = value.to(torch.complex128)
        agree(got, exact[name], f"{name} in two precisions", tolerance=tolerance, floor=1.0)


# ------------------------------------------------------------------ laws of divergences


def _is_divergence_metric(der: Derivation, k: Kernel) -> bool:
    return _is_divergence(der) and {"g", "k"} <= set(k.outputs)


@law(
    "the divergence is ≥ 0, zero on the diagonal, and g(ε, ε̄) + Re k(ε, ε) to second order",
    _is_divergence_metric,
)
def expands_divergence(trial: Trial) -> None:
    """The definition by mpmath at 50 digits, along fields with the drawn derivatives."""
    here, there = (_running(draw(trial.kernel, decimal, trial.rng, trial.sizes)) for _ in range(2))
    at_rest = _divergence(trial, here, {f: t[0, 0] for f, t in here.point.jets.items()})
    if abs(at_rest) > 1e-40:
        raise PropertyViolation(f"the divergence from a point to itself is {float(at_rest):.3g}")
    apart = _divergence(trial, here, {f: t[0, 0] for f, t in there.point.jets.items()})
    if not apart >= 0:
        raise PropertyViolation(f"the divergence between two points is {float(apart):.3g}")
    step = mpmath.mpf(10) ** -10
    direction = [decimal.draw(trial.rng) for _ in range(trial.d)]
    moved = {
        f: _taylor(table, [step * x for x in direction]) for f, table in here.point.jets.items()
    }
    second = float(_divergence(trial, here, moved) / step**2)
    out = trial.call({n: _tensor(x) for n, x in here.tensors.items()})
    u = _tensor(array(direction, (trial.d,)))
    quadratic = torch.einsum("ab,a,b->", out["g"], u, u.conj()).real
    quadratic = quadratic + torch.einsum("ab,a,b->", out["k"], u, u).real
    agree(quadratic, torch.tensor(second, dtype=torch.float64), "the metric and the divergence")


def _running(sample: Sample) -> Sample:
    """The sample without the fields at the base point, which are those at z here."""
    jets = {f: table for f, table in sample.point.jets.items() if "frozen" not in f.traits}
    return replace(sample, point=replace(sample.point, jets=jets))


def _divergence(trial: Trial, base: Sample, running: Mapping[Field, Any]) -> Any:
    """The definition with running fields, and base fields at the sample's point."""
    definition = trial.derivation.definition
    assert definition is not None
    jets = {f: {(0, 0): array(np.asarray(value))} for f, value in running.items()}
    jets |= {f.with_traits("frozen"): {(0, 0): t[0, 0]} for f, t in base.point.jets.items()}
    jets = {j.field: jets[j.field] for j in definition.atoms(Jet)}
    sizes = {s: trial.sizes[s.name] for s in definition.free_symbols | set(base.point.sizes)
             if s.name in trial.sizes}  # fmt: skip
    point = Point(decimal, sizes, jets)
    with mpmath.workdps(60):
        for head in definition.atoms(LogDet):
            matrix = evaluate(head.args[0], point, Scope({})).base
            point.heads[head] = mpmath.log(mpmath.det(mpmath.matrix(np.asarray(matrix).tolist())))
        return evaluate(definition, point, Scope({})).base[0, 0].real


def _taylor(table: Mapping[tuple[int, int], Any], step: list[Any]) -> Any:
    """Σ of the jets along a step: ∂^h ∂̄^a f(ε, …, ε̄, …) / (h! a!)."""
    total: Any = 0
    for (hol, anti), jet in table.items():
        value = np.asarray(jet)
        for direction in [step] * hol + [[x.conjugate() for x in step]] * anti:
            value = sum(x * value[i] for i, x in enumerate(direction))
        total = total + value / (math.factorial(hol) * math.factorial(anti))
    return total


def _is_metric_derivative(der: Derivation, k: Kernel) -> bool:
    """∂_c of the Hessian of a Gaussian divergence in μ and Σ."""
    gaussian = {f.name for f in fields_of(k)} == {"mu", "Sigma"}
    staged = _staged(k).values()
    return (
        _is_divergence(der)
        and gaussian
        and all(
            len(stages) == 2 and len(stages[0].hol) == 1 and not stages[0].anti
            for _, stages in staged
        )
        and bool(staged)
    )


@law(
    "where natural or mean parameters are pluriharmonic, the metric is Kähler: holomorphic μ with "
    "constant Σ, and μ = 0 with ∂∂̄Σ = 0",
    _is_metric_derivative,
)
def closed_when_pluriharmonic(trial: Trial) -> None:
    """∂_c g_{ab̄} is symmetric in a and c in the sub-cases, whose jets are drawn to be so."""
    tensors = trial.draw()

    def keep(name: str, which: Callable[[str, str], bool]) -> Tensor:
        letter, _, marks = name.partition("_")
        stays = marks in ("", "factor") or which(letter, marks)
        return tensors[name] if stays else torch.zeros_like(tensors[name])

    cases = {
        "holomorphic μ, constant Σ": lambda letter, marks: letter == "mu" and "b" not in marks,
        "μ = 0, pluriharmonic Σ": lambda letter, marks: (
            letter == "Sigma" and not ("b" in marks and "d" in marks)
        ),
    }
    for case, which in cases.items():
        for g_d in trial.call({name: keep(name, which) for name in tensors}).values():
            agree(g_d.transpose(0, 1), g_d, f"∂_c g_ab and ∂_a g_cb ({case})", floor=1e-2)


# ------------------------------------------------------------------ laws of metrics


def _kind(der: Derivation, k: Kernel) -> str:
    """Which of the geometry's classes holds this kernel's metric: "" for none."""
    names = {kernel.name for kernel in der.kernels}
    if k.name == "metric" and {"value", "metric_d", "metric_db"} <= names:
        return "potential" if der.coordinates or _coordinate(der) else ""
    components = [f for f in _fields(k) if "component" in f.traits]
    if k.name == "metric" and len(components) == 1 and "quadratic" in components[0].traits:
        return "mixture" if {"metric_d", "metric_db"} <= names else ""
    gaussian = _is_divergence_metric(der, k) and {f.name for f in fields_of(k)} == {"mu", "Sigma"}
    return "fisher" if gaussian and k.name.startswith("fisher_metric_") else ""


def _makes_metric(der: Derivation, k: Kernel) -> bool:
    return bool(_kind(der, k))


def _makes_potential(der: Derivation, k: Kernel) -> bool:
    return _kind(der, k) in ("potential", "mixture")


def _metric(trial: Trial) -> tuple[HermitianMetric, Tensor]:
    """A random metric of the derivation, and a point."""
    kind = _kind(trial.derivation, trial.kernel)
    maker = {"potential": _potential_metric, "mixture": _mixture_metric, "fisher": _fisher_metric}
    metric, z = maker[kind](trial)
    metric._geometry = trial.geometry
    return metric, z


def _potential_metric(trial: Trial) -> tuple[HermitianMetric, Tensor]:
    tensors = trial.draw()
    z = tensors["z"]
    parameters = {n: tensors[n] for n in trial.kernels.parameters}
    for f in _fields(trial.kernel):  # a definite metric needs definite matrices
        if "hermitian" in f.traits and f.name in parameters and f.shape[1] != 1:
            root = parameters[f.name]
            parameters[f.name] = root @ root.mH + 0.3 * torch.eye(len(root))
    metric = PotentialMetric(trial.kernels.module, **parameters)  # type: ignore[arg-type]
    return metric, z


def _mixture_metric(trial: Trial) -> tuple[HermitianMetric, Tensor]:
    count, d = trial.sizes["K"], trial.d
    definition = trial.derivation.definition
    assert definition is not None
    (head,) = definition.atoms(LogSumExp)
    far = head.args[0].as_coeff_Mul()[0] > 0
    weights = torch.tensor([trial.rng.uniform(0.5, 2) for _ in range(count)], dtype=torch.float64)
    roots = trial.numbers(count, d, d) / (2 * d) ** 0.5
    metric = MixtureMetric(
        weights / weights.sum(),
        trial.numbers(count, d) * (0.5 if far else 0.1),  # near centres keep a density's metric PSH
        roots @ roots.mH + 0.3 * torch.eye(d),
        kind="potential" if far else "density",
    )
    metric._mixture = trial.kernels
    return metric, trial.numbers(d) * (0.5 if far else 0.1)


def _fisher_metric(trial: Trial) -> tuple[HermitianMetric, Tensor]:
    metric = FisherMetric(_decoder(trial), check=False)
    metric._fisher = trial.kernels
    return metric, trial.numbers(trial.d) * 0.3


def _decoder(trial: Trial) -> Callable[[Tensor], ComplexNormal]:
    """A smooth decoder, not holomorphic, with Σ(z) of the kernel's layout; more outputs than d."""
    d, n = trial.d, trial.d + 1
    a, b, scales = (trial.numbers(n, d) for _ in range(3))
    bend = 0.2 * trial.numbers(n, d, d)
    lower = 0.2 * trial.numbers(n, n, d)
    layout = trial.kernel.layout["Sigma"]

    def decoder(z: Tensor) -> ComplexNormal:
        mean = z @ a.mT + 0.5 * (z.conj() @ b.mT)
        mean = mean + torch.einsum("nab,...a,...b->...n", bend, z, z)
        mean = mean + torch.einsum("nab,...a,...b->...n", bend, z, z.conj())
        waves = z @ scales.mT
        deviation = (0.3 * waves.real + 0.1 * (waves * waves.conj()).real).exp()
        if layout == "scalar":
            return ComplexNormal(mean, scale=deviation[..., 0], validate_args=False)
        if layout == "diagonal":
            return ComplexNormal(mean, scale_diag=deviation, validate_args=False)
        below = torch.tril(torch.einsum("mnd,...d->...mn", lower, z), -1)
        factor = below + torch.diag_embed(deviation).to(z.dtype)
        return ComplexNormal(mean, scale_tril=factor, validate_args=False)

    return decoder


@law(
    "g is positive definite on the domain, as claimed",
    lambda der, k: der.positive and _makes_metric(der, k),
)
def positive(trial: Trial) -> None:
    """The least eigenvalue is positive."""
    metric, z = _metric(trial)
    values = torch.linalg.eigvalsh(metric.metric_matrix(z))
    if not values[0] > 0:
        raise PropertyViolation(
            f"g has the eigenvalue {values[0]:.3g}, its largest {values[-1]:.3g}"
        )


@law("the metric of a potential is closed: its defect vanishes", _makes_potential)
def kaehler(trial: Trial) -> None:
    """∂_c g_{ab̄} - ∂_a g_{cb̄} = 0 as the metric reports it."""
    metric, z = _metric(trial)
    defect, scale = metric.kahler_defect(z), metric._metric_d(z)
    floor = max(float(scale.abs().max()), 1e-3)
    agree(defect, torch.zeros_like(defect), "the defect and zero", floor=floor)


class _Held(HermitianMetric):
    """A metric's derivatives at one point, computed once."""

    def __init__(self, g: Tensor, g_d: Tensor, g_db: Tensor, geometry: KernelSet):
        super().__init__()
        self.g, self.g_d, self.g_db, self._geometry = g, g_d, g_db, geometry

    @property
    def size(self) -> float:
        """The largest entry of all: what rounding errors are measured by."""
        return max(float(x.abs().max()) for x in (self.g, self.g_d, self.g_db))

    def _parts(self, z: Tensor) -> tuple[Tensor, None]:  # noqa: ARG002
        return self.g, None

    def _metric_d(self, z: Tensor) -> Tensor:  # noqa: ARG002
        return self.g_d

    def _metric_db(self, z: Tensor) -> Tensor:  # noqa: ARG002
        return self.g_db


def _curved(trial: Trial) -> tuple[HermitianMetric, Tensor, _Held]:
    """A metric, a point and its derivatives there; drawn again where g is not positive."""
    for _ in range(20):
        metric, z = _metric(trial)
        g = metric._parts(z)[0]
        values = torch.linalg.eigvalsh(g)
        if values[0] > 1e-3 * values[-1]:
            return metric, z, _Held(g, metric._metric_d(z), metric._metric_db(z), trial.geometry)
    if not trial.derivation.positive:
        raise DoesNotApply(f"{trial.derivation.name}: its metric is positive at no point drawn")
    raise EvidenceError(f"{trial.derivation.name}: no point with a positive metric was found")


@law(
    "R is Hermitian in its pairs, symmetric in a and c where g is Kähler; Ricci, scalar and "
    "sectional curvature are its traces, and ∂ log det g is the connection's",
    _makes_metric,
)
def curvature_consistent(trial: Trial) -> None:
    """Every geometric quantity, from the full tensor by contraction with g⁻¹."""
    _, z, metric = _curved(trial)
    g, size = metric.g, metric.size
    r, ricci = metric.curvature_tensor(z), metric.ricci_tensor(z)
    inverse = torch.linalg.inv(g)
    agree(r.permute(1, 0, 3, 2).conj(), r, "R_abce and conj R_baec", floor=size)
    agree(torch.einsum("fa,afce->ce", inverse, r), ricci, "tr g⁻¹R and Ricci", floor=size)
    scalar = torch.einsum("ec,ce->", inverse, ricci).real
    agree(scalar, metric.scalar_curvature(z), "tr g⁻¹Ric and the scalar curvature", floor=size)
    v = trial.numbers(trial.d)
    along = torch.einsum("abce,a,b,c,e->", r, v, v.conj(), v, v.conj()).real
    length = torch.einsum("ab,a,b->", g, v, v.conj()).real
    sectional = metric.holomorphic_sectional_curvature(z, v)
    agree(along / length**2, sectional, "R(v, v̄, v, v̄) and the sectional curvature", floor=size)
    gamma = metric.christoffels(z)
    agree(torch.einsum("cae,eb->cab", gamma, g), metric.g_d, "Γ_c G and ∂_c G", floor=size)
    tensors = {"g_d": metric.g_d, "g_factor": torch.linalg.cholesky(g)}
    gradient = trial.geometry.call("log_det_gradient", tensors)
    agree(torch.einsum("caa->c", gamma), gradient, "tr Γ and ∂ log det g", floor=size)
    if _makes_potential(trial.derivation, trial.kernel):
        agree(r.transpose(0, 2), r, "R_abce and R_cbae", floor=size)


@dataclass(frozen=True)
class Chart:
    """The holomorphic chart z = f(w) = z₀ + A(w - w₀) + ½B(w - w₀, w - w₀)."""

    origin: Tensor
    image: Tensor
    slope: Tensor  # A[p, a] = ∂_a f_p
    bend: Tensor  # B[p, a, c] = ∂_a ∂_c f_p

    def __call__(self, w: Tensor) -> Tensor:
        """f(w) for w [..., d]."""
        u = w - self.origin
        return (
            self.image
            + u @ self.slope.mT
            + torch.einsum("pac,...a,...c->...p", self.bend, u, u) / 2
        )

    def pull(self, tensor: Tensor, kinds: str) -> Tensor:
        """A tensor at z₀ in the chart's frame; ``kinds`` has "h" or "a" for each index."""
        names = ["hol" if kind == "h" else "anti" for kind in kinds]
        return _moved(tensor, names, {"hol": self.slope.mT, "anti": self.slope.mH})


def _chart(trial: Trial, z: Tensor) -> Chart:
    d = trial.d
    raw = trial.numbers(d, d, d)
    return Chart(trial.numbers(d), z, trial.invertible(d), 0.3 * (raw + raw.mT))


def _pulled_back(metric: _Held, chart: Chart) -> _Held:
    """The metric in the chart's coordinates w: its derivatives by the chain rule."""
    a, b, g = chart.slope, chart.bend, metric.g
    g_b = metric.g_d.transpose(1, 2).conj()  # ∂_ē g_{pq̄} = conj(∂_e g_{qp̄})
    g_d = chart.pull(metric.g_d, "hha") + torch.einsum("pca,qb,pq->cab", b, a.conj(), g)
    g_db = (
        chart.pull(metric.g_db, "haha")
        + torch.einsum("rc,pa,qeb,rpq->ceab", a, a, b.conj(), metric.g_d)
        + torch.einsum("pca,qb,se,spq->ceab", b, a.conj(), a.conj(), g_b)
        + torch.einsum("pca,qeb,pq->ceab", b, b.conj(), g)
    )
    return _Held(chart.pull(g, "ha"), g_d, g_db, metric._geometry)


@law(
    "in a holomorphic chart log det g gains log |det J|², R and Ricci are tensors, scalar and "
    "sectional curvature are invariant",
    _makes_metric,
)
def curvature_chart_free(trial: Trial) -> None:
    """The metric's derivatives pulled back by hand, then the geometry's kernels."""
    _, z, metric = _curved(trial)
    chart = _chart(trial, z)
    other, w = _pulled_back(metric, chart), chart.origin
    size = max(metric.size, other.size)
    gain = 2 * torch.linalg.slogdet(chart.slope)[1]
    agree(other.log_det_hermitian(w), metric.log_det_hermitian(z) + gain, "log det g and its gain")
    r, ricci = metric.curvature_tensor(z), metric.ricci_tensor(z)
    agree(other.curvature_tensor(w), chart.pull(r, "haha"), "R in two charts", floor=size)
    agree(other.ricci_tensor(w), chart.pull(ricci, "ha"), "Ricci in two charts", floor=size)
    scalar = metric.scalar_curvature(z)
    agree(other.scalar_curvature(w), scalar, "scalar curvature in two charts", floor=size)
    v = trial.numbers(trial.d)
    there = other.holomorphic_sectional_curvature(w, v)
    here = metric.holomorphic_sectional_curvature(z, chart.slope @ v)
    agree(there, here, "sectional curvature in two charts", floor=size)


def _mixed_hessian(function: Callable[[Tensor], Tensor], w: Tensor) -> Tensor:
    """∂_a∂_b̄ of a real function at w [d], by reverse over reverse in real coordinates."""

    def real(u: Tensor) -> Tensor:
        x, y = u.chunk(2)
        return function(torch.complex(x, y))

    h = jacrev(jacrev(real))(torch.cat([w.real, w.imag]))
    d = len(w)
    xx, xy, yx, yy = h[:d, :d], h[:d, d:], h[d:, :d], h[d:, d:]
    return torch.complex(xx + yy, xy - yx) / 4


@law(
    "the metric of the composition with a holomorphic chart is the metric's pullback, and its "
    "Ricci tensor is -∂∂̄ log det of it",
    _makes_metric,
)
def metric_chart_free(trial: Trial) -> None:
    """The function itself is composed: potentials by autograd, decoders as they are."""
    metric, z, held = _curved(trial)
    chart = _chart(trial, z)
    w = chart.origin
    if isinstance(metric, FisherMetric):
        decoder = metric.decoder
        other = FisherMetric(lambda w: decoder(chart(w)), check=False)
        other._fisher = metric._fisher
        there, k_there = other._parts(w)
        k = metric._parts(z)[1]
        assert k is not None
        assert k_there is not None
        agree(k_there, chart.pull(k, "hh"), "k in two charts")
        agree(other._metric_d(w), _pulled_back(held, chart).g_d, "∂g in two charts")
    else:
        assert isinstance(metric, PotentialMetric | MixtureMetric)
        value = metric.value
        there = _mixed_hessian(lambda w: value(chart(w)), w)
        bent = _mixed_hessian(lambda w: metric.log_det_hermitian(chart(w)), w)
        pulled = chart.pull(held.ricci_tensor(z), "ha")
        agree(pulled, -bent, "Ricci and -∂∂̄ log det g", floor=held.size)
    agree(there, chart.pull(held.g, "ha"), "g in two charts")


@law(
    "the known constant holomorphic sectional curvature c, and with it R = c/2 (gg + gg), "
    "Ric = c/2 (d+1) g and scal = c/2 d(d+1)",
    lambda der, k: "holomorphic_sectional_curvature" in der.known and _kind(der, k) == "potential",
)
def curvature_as_known(trial: Trial) -> None:
    """From the middle of the domain to its edge (1 - |z|² down to 1e-6), or to |z|² = 100."""
    metric, _ = _metric(trial)
    sample = draw(trial.kernel, double, trial.rng, trial.sizes)
    if trial.derivation.domain is None:
        z = trial.point(sample)
        z = z / torch.linalg.vector_norm(z) * 10 ** trial.rng.uniform(-2, 1)
    else:
        z = trial.point(sample, reach=(1 - 10 ** trial.rng.uniform(-6, -0.3)) ** 0.5)
    edge = max(float(1 + (z * z.conj()).real.sum()), 1 / _domain_value(trial.derivation, sample, z))
    known = trial.derivation.known["holomorphic_sectional_curvature"]
    known_curvature(metric, z, known, trial.numbers(trial.d), edge)


def known_curvature(
    metric: HermitianMetric, z: Tensor, c: float, v: Tensor, edge: float
) -> dict[str, float]:
    """Compare all curvatures at z [d] with those of constant holomorphic sectional curvature c.

    Tensors are taken in the g-normalised frame (each index divided by √g_aa); with κ the larger of
    cond(g) and ``edge`` (1 + |z|², or how near the edge of the domain is), errors must stay below
    100 ε κ.  The scalar curvature, which contracts with g⁻¹, and d = 1, where g is the difference
    of two nearly equal terms, lose κ once more: 100 ε κ².  Returns the errors in these units.
    """
    g, d = metric.metric_matrix(z), z.shape[-1]
    norm = g.diagonal().real.sqrt()
    kappa = max(float(torch.linalg.cond(g)), edge)
    unit = torch.finfo(norm.dtype).eps * (kappa if d > 1 else kappa**2)
    pairs = torch.einsum("ab,ce->abce", g, g) + torch.einsum("ae,cb->abce", g, g)
    sizes = torch.einsum("a,b,c,e->abce", norm, norm, norm, norm)
    half = c / 2
    scalar = metric.scalar_curvature(z) - half * d * (d + 1)
    errors = {
        "R": (metric.curvature_tensor(z) - half * pairs) / sizes,
        "Ric": (metric.ricci_tensor(z) - half * (d + 1) * g) / (d + 1) / torch.outer(norm, norm),
        "scal": scalar / (d * (d + 1)) / (kappa if d > 1 else 1),
        "HSC": metric.holomorphic_sectional_curvature(z, v) - c,
    }
    worst = {name: float(e.abs().max()) / unit for name, e in errors.items()}
    for name, error in worst.items():
        if not error <= 100:
            raise PropertyViolation(
                f"{name} is off by {error:.3g} times the rounding unit {unit:.1e} (allowed: 100)"
            )
    return worst
