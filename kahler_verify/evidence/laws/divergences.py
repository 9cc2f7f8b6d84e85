"""Laws of divergences: what one says of its metric, and where that metric must be closed."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from dataclasses import replace
from functools import partial
from typing import Any

import mpmath
import numpy as np
import torch
from torch import Tensor

from kahler_verify.calculus.derivation import Derivation, Kernel
from kahler_verify.calculus.letters import Field, Jet
from kahler_verify.errors import PropertyViolation
from kahler_verify.evidence.laws.law import Law, Trial, agree, register, tensor_of
from kahler_verify.evidence.laws.readings import is_divergence, is_divergence_metric, stages_of
from kahler_verify.evidence.numbers.arithmetic import decimal
from kahler_verify.evidence.numbers.arrays import array
from kahler_verify.evidence.numbers.points import Point, Scope
from kahler_verify.evidence.numbers.readings import fields_of, is_real_latent
from kahler_verify.evidence.numbers.samples import Sample, draw
from kahler_verify.evidence.numbers.series import evaluate

LAWS: dict[str, Law] = {}
law = partial(register, LAWS)


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
    step = mpmath.mpf(10) ** -15  # third derivatives are below it, and rounding is 1e-48
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
