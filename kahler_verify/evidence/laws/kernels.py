"""Laws of single kernels and of divergences, tested on fields with random consistent derivatives.

Symmetries of derivatives, charts and changes of basis, sums and mixtures, batches and precision;
then what a divergence says of its metric, and where that metric must be closed.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from dataclasses import replace
from functools import partial
from itertools import pairwise
from typing import Any

import mpmath
import numpy as np
import torch
from sympy import Add, Expr, Mul, Symbol
from torch import Tensor

from kahler_verify.calculus.definition import map_letters
from kahler_verify.calculus.derivation import Derivation, Kernel
from kahler_verify.calculus.letters import Field, Jet, parameter
from kahler_verify.calculus.mixture import Centred, LogSumExp, Mean, Moment, Total
from kahler_verify.calculus.words import LogDet, Tr
from kahler_verify.errors import GenerationError, PropertyViolation
from kahler_verify.evidence.laws.law import (
    DoesNotApply,
    Property,
    Trial,
    agree,
    register,
    tensor_of,
)
from kahler_verify.evidence.laws.readings import (
    assumed_fields,
    axes_of,
    barred_indices,
    coordinate_of,
    is_divergence,
    is_divergence_metric,
    is_real,
    multiply_axes,
    output_dimensions,
    stages_of,
)
from kahler_verify.evidence.laws.unrolled_variants import evaluate_in_double
from kahler_verify.evidence.numbers.arithmetic import array, decimal
from kahler_verify.evidence.numbers.samples import Sample, draw, fields_of, is_real_latent
from kahler_verify.evidence.numbers.series import Point, Scope, evaluate
from kahler_verify.running.unrolling import argument_shapes, unroll
from kahler_verify.running.variants import text_of

LAWS: dict[str, Property] = {}
law = partial(register, LAWS)


# ------------------------------------------------------------------ laws of single kernels


@law(
    "a real function's mixed derivatives are conjugated when ∂ and ∂̄ change places",
    lambda der, k: any(
        is_real(der, base) and all(len(s.hol) == len(s.anti) for s in stages)
        for base, stages in stages_of(k).values()
    ),
)
def hermitian(trial: Trial) -> None:
    """conj(out) with every ∂ index and its ∂̄ partner exchanged is out."""
    results = trial.call(trial.draw())
    for name, (base, stages) in stages_of(trial.kernel).items():
        if not is_real(trial.derivation, base):
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
        max(len(s.hol), len(s.anti)) > 1 for _, stages in stages_of(k).values() for s in stages
    ),
)
def symmetric(trial: Trial) -> None:
    """The output is symmetric in the ∂ indices, and in the ∂̄ indices, of each stage."""
    results = trial.call(trial.draw())
    for name, (_, stages) in stages_of(trial.kernel).items():
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
    return all(barred_indices(out) is not None for out in k.outputs.values())


def _compare_frames(
    trial: Trial,
    tensors: Mapping[str, Tensor],
    moved: Mapping[str, Tensor],
    maps: Mapping[str, Tensor],
    what: str,
) -> None:
    before, after = trial.call(tensors), trial.call(moved)
    for name, output in trial.kernel.outputs.items():
        bars = barred_indices(output)
        assert bars is not None
        kinds = ["anti" if bars[i] else "hol" for i in output.indices]
        agree(after[name], multiply_axes(before[name], kinds, maps), f"{name} {what}")


@law(
    "an affine chart z = A z' + b moves every derivative index by Aᵀ or Aᴴ, and nothing else",
    _has_free_frame,
)
def affine_chart(trial: Trial) -> None:
    """Kernel(moved jets) = moved kernel(jets)."""
    tensors = trial.draw()
    frame = trial.invertible(trial.d, real=trial.has_real_latents)
    maps = {"hol": frame.mT, "anti": frame.mH}
    axes = axes_of(trial.kernel, assumed_fields(trial.kernel))
    moved = {name: multiply_axes(x, axes[name], maps) for name, x in tensors.items()}
    _compare_frames(trial, tensors, moved, maps, "in the new chart and moved to it")


@law(
    "z → Uz with the parameters (vectors c → Uc, matrices M → UMUᴴ) changes derivatives by U only",
    lambda der, k: coordinate_of(der) is not None and _all_barred(k),
)
def unitary_equivariant(trial: Trial) -> None:
    """Every dimension-free potential is one in zᴴz, zᴴMz, …, which know no coordinates."""
    tensors = trial.draw()
    turn = trial.unitary(trial.d, real=trial.has_real_latents)
    latent = str(trial.derivation.latent)
    axes = axes_of(trial.kernel, assumed_fields(trial.kernel))
    axes["z"] = [latent]
    turned = {}
    for name, x in tensors.items():
        if name.endswith("_factor") and axes[name][:1] == [latent]:  # of UPUᴴ, triangular again
            turned[name] = torch.linalg.cholesky(turn @ x @ x.mH @ turn.mH)
        else:
            turned[name] = multiply_axes(x, axes[name], {latent: turn, f"{latent}*": turn.conj()})
    maps = {"hol": turn.conj(), "anti": turn}
    _compare_frames(trial, tensors, turned, maps, "at Uz and turned by U")


@law(
    "a unitary change of the observed components (a permutation for a diagonal Σ) changes nothing, "
    "and what has an entry for each of them is permuted",
    lambda der, k: bool(output_dimensions(der, k)),
)
def output_basis_free(trial: Trial) -> None:
    """μ → Vμ, Σ → VΣVᴴ."""
    kernel, tensors = trial.kernel, trial.draw()
    axes = axes_of(kernel, assumed_fields(kernel))
    moved, turns = dict(tensors), {}
    for symbol in sorted(output_dimensions(trial.derivation, kernel), key=str):
        n = trial.size(symbol)
        turn = trial.unitary(n, real=trial.has_real_fields)
        by_entries = any(
            getattr(i, "size", None) == symbol
            for out in kernel.outputs.values()
            for i in out.definition.atoms(Symbol)
        )
        if by_entries or "diagonal" in kernel.layout.values():
            turn = turn.new_zeros(n, n)
            turn[range(n), trial.rng.sample(range(n), n)] = 1
        maps = {f"{symbol}": turn, f"{symbol}*": turn.conj(), f"{symbol}=": turn}
        turns[f"{symbol}"] = turn
        for name, x in moved.items():
            if name.endswith("_factor") and axes[name] == [symbol.name, f"{symbol.name}*"]:
                moved[name] = torch.linalg.cholesky(turn @ x @ x.mH @ turn.mH)
            else:
                moved[name] = multiply_axes(x, axes[name], maps)
    before, after = trial.call(tensors), trial.call(moved)
    for name, out in kernel.outputs.items():
        kinds = [str(getattr(i, "size", None)) for i in out.indices]
        expected = multiply_axes(before[name], kinds, turns)
        agree(after[name], expected, f"{name} before and after the change of basis")


def _is_additive(der: Derivation, k: Kernel) -> bool:
    """Whether a definition is linear in n, log det and traces, so that direct sums add."""
    if not is_divergence(der) or len(output_dimensions(der, k)) != 1:
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
    (symbol,) = output_dimensions(trial.derivation, kernel)
    axes = axes_of(kernel, assumed_fields(kernel))
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


def _has_component(_der: Derivation, kernel: Kernel) -> bool:
    return any("component" in f.traits for f in assumed_fields(kernel))


@law("the order of a mixture's components does not matter", _has_component)
def component_order_free(trial: Trial) -> None:
    """A permutation of k changes nothing."""
    tensors = trial.draw()
    count = trial.sizes["K"]
    order = trial.rng.sample(range(count), count)
    axes = axes_of(trial.kernel, assumed_fields(trial.kernel))
    moved = {n: x[order] if axes[n][:1] == ["K"] else x for n, x in tensors.items()}
    before, after = trial.call(tensors), trial.call(moved)
    for name in trial.kernel.outputs:
        agree(after[name], before[name], f"{name} in two orders of the components")


def _has_weights(_der: Derivation, kernel: Kernel) -> bool:
    """Whether components are averaged: totals over data points weigh none of them."""
    definitions = [out.definition for out in kernel.outputs.values()]
    averaged = any(d.has(LogSumExp, Mean, Moment, Centred) for d in definitions)
    return averaged and not any(d.has(Total) for d in definitions)


@law("a component split into two equal ones that share its weight changes nothing", _has_weights)
def component_split_free(trial: Trial) -> None:
    """w → (w₁/3, 2w₁/3, w₂, …) with the first component repeated."""
    tensors = trial.draw()
    axes = axes_of(trial.kernel, assumed_fields(trial.kernel))
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
    """Decided by the calculus: the shift cancels in the definition, and in no other vector."""
    if der.definition is None or der.coordinates or not _shifted_inputs(k):
        return False
    if not {f.name for f in _vectors(k)} <= {j.field.name for j in der.definition.atoms(Jet)}:
        return False  # a tangent vector is not moved
    return bool(map_letters(der.definition, _shift) == der.definition)


def _shifted_inputs(k: Kernel) -> dict[str, Symbol]:
    """Names of the vector fields that a shift moves, with their dimension."""
    return {f.name + ("0" if "frozen" in f.traits else ""): f.shape[0] for f in _vectors(k)}


def _vectors(k: Kernel) -> list[Field]:
    return [f for f in fields_of(k) if f.shape[1] == 1 and f.shape[0] != 1]


@law(
    "a common translation of all vectors of one space (z and centres, or μ and μ₀) changes nothing",
    _is_translation_free,
)
def translation_free(trial: Trial) -> None:
    """Where the definition sees differences of vectors only."""
    tensors = trial.draw()
    spaces = _shifted_inputs(trial.kernel)
    steps = {s: trial.numbers(trial.size(s)) for s in sorted(set(spaces.values()), key=str)}
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
    """The same rounded inputs in both, at a point at which single precision has something to say.

    The bound grows with the condition of factors, and with that of the kernel.
    """
    low, high = torch.complex64, torch.complex128
    if trial.is_real:
        low, high = torch.float32, torch.float64
    for _ in range(DRAWS):
        single = {n: x.to(low) for n, x in trial.draw().items()}
        results = trial.call(single)
        exact = trial.call({n: x.to(high) for n, x in single.items()})
        finite = all(bool(torch.isfinite(x).all()) for x in results.values())
        errors = _unavoidable_errors(trial, single, exact) if finite else dict.fromkeys(exact, 0.0)
        factors = [x for n, x in single.items() if n.endswith("_factor") and x.ndim > 1]
        condition = max((float(torch.linalg.cond(x)) for x in factors), default=1.0)
        rounding = max(300 * torch.finfo(torch.float32).eps * condition**2, 1e-3)
        if finite and all(error <= 0.1 for error in errors.values()):
            break  # else e^q, say, is out of range there, which is no question of precision
    for name, value in results.items():
        if value.dtype != low:
            raise PropertyViolation(f"{name} is {value.dtype} for {low} inputs")
        tolerance = min(max(rounding, errors[name]), 0.1)
        got = value.to(high)
        agree(got, exact[name], f"{name} in two precisions", tolerance=tolerance, floor=1.0)


# A kernel's steps round as if its inputs had been rounded about so often.
OPERATIONS = 32
DRAWS = 30


def _unavoidable_errors(
    trial: Trial, single: Mapping[str, Tensor], exact: Mapping[str, Tensor]
) -> dict[str, float]:
    """What single precision's rounding does to results, relative to the largest entry or one.

    How far exact results move where inputs do by a unit in its last place is the conditioning of
    the function.  Where the kernel's terms cancel it rounds more than that: as in double precision,
    where it is the second difference over a few of its units.  Neither owes anything to how single
    precision computes.
    """
    wide = {
        n: x.to(torch.float64 if trial.is_real else torch.complex128) for n, x in single.items()
    }
    coarse, fine = torch.finfo(torch.float32).eps, torch.finfo(torch.float64).eps
    errors = dict.fromkeys(exact, 0.0)
    for _ in range(4):
        turns = {}
        for name, x in wide.items():
            turn = trial.numbers(*x.shape)
            real = not x.is_complex() or bool((x.imag == 0).all())
            turns[name] = torch.sign(turn.real) if real else turn / turn.abs()
        moved, plus, minus = (
            trial.call({n: x * (1 + step * turns[n]) for n, x in wide.items()})
            for step in (coarse, 8 * fine, -8 * fine)
        )
        for name, value in exact.items():
            if value.numel():
                size = max(float(value.abs().max()), 1.0)
                condition = float((moved[name] - value).abs().max())
                noise = float(((plus[name] - value) + (minus[name] - value)).abs().max()) / 2
                here = max(condition, noise * coarse / fine) * OPERATIONS / size
                errors[name] = max(errors[name], here)
    return errors


def _has_variants(der: Derivation, k: Kernel) -> bool:
    """Those that metrics with ``compile=True`` unroll: kernels in complex coordinates."""
    if is_real_latent(k):
        return False
    of_potential = bool(der.coordinates) or coordinate_of(der) is not None
    return of_potential or not output_dimensions(der, k)


@law("unrolled at its dimensions, a kernel gives what it gives in general", _has_variants)
def unrolled(trial: Trial) -> None:
    """The text's real straight-line variant, with the heads that it takes, in float64."""
    text = text_of(trial.kernels.module)
    if text is None:
        raise DoesNotApply
    shapes = argument_shapes(text)
    names = {s for function in shapes.values() for shape in function.values() for s in shape}
    sizes = {n: trial.sizes.get(n, trial.sizes["n"]) for n in names if n.isidentifier()}
    try:
        variant = unroll(text, trial.kernel.name, sizes)
    except GenerationError:  # a constant, or without a rule: the general kernel runs
        return
    tensors = trial.draw()
    expected = trial.call(tensors)
    got = evaluate_in_double(variant, {n: x + 0j for n, x in tensors.items()})
    for (name, truth), value in zip(expected.items(), got, strict=True):
        agree(value, truth, f"{name} unrolled and in general")


# ------------------------------------------------------------------ laws of divergences


@law(
    "the divergence is ≥ 0, zero on the diagonal, and g(ε, ε̄) + Re k(ε, ε) to second order",
    is_divergence_metric,
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
    out = trial.call({n: tensor_of(x) for n, x in here.tensors.items()})
    u = tensor_of(array(direction, (trial.d,)))
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
    sizes = {s: trial.size(s) for s in definition.free_symbols | set(base.point.sizes)
             if s.name in trial.sizes}  # fmt: skip
    point = Point(decimal, sizes, jets)
    with mpmath.workdps(60):
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
    """∂_c of the Hessian of a Gaussian divergence in μ and Σ, of complex coordinates."""
    if is_real_latent(k):
        return False
    gaussian = {f.name for f in fields_of(k)} == {"mu", "Sigma"}
    staged = stages_of(k).values()
    return (
        is_divergence(der)
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
