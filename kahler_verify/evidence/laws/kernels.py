"""Laws of single kernels, tested on fields with random consistent derivatives.

Symmetries of derivatives, charts and changes of basis, sums and mixtures.
"""

from __future__ import annotations

from collections.abc import Mapping
from functools import lru_cache, partial
from itertools import pairwise

import torch
from sympy import Add, Expr, Mul, Symbol
from torch import Tensor

from kahler_verify.calculus.definition import map_letters
from kahler_verify.calculus.derivation import Derivation, Kernel
from kahler_verify.calculus.letters import Field, Jet, parameter
from kahler_verify.calculus.mixture import Centred, LogSumExp, Mean, Moment, Total
from kahler_verify.calculus.words import LogDet, Tr
from kahler_verify.errors import PropertyViolation
from kahler_verify.evidence.laws.law import Law, Trial, agree, register
from kahler_verify.evidence.laws.readings import (
    assumed_fields,
    axes_of,
    barred_indices,
    is_divergence,
    is_real,
    multiply_axes,
    output_dimensions,
    stages_of,
)
from kahler_verify.evidence.numbers.readings import coordinate_of, fields_of

LAWS: dict[str, Law] = {}
law = partial(register, LAWS)


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
    return _is_unmoved(der.definition)


@lru_cache(maxsize=256)
def _is_unmoved(definition: Expr) -> bool:
    return bool(map_letters(definition, _shift) == definition)


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
