"""The register of independent routes to what a kernel computes.

A case is a kernel with random points; a route returns one error for each point.
"""

from __future__ import annotations

import math
import random
from collections.abc import Callable, Mapping
from dataclasses import dataclass

import numpy as np

from kahler_verify.calculus.definition import OnDiagonal
from kahler_verify.errors import EvidenceError
from kahler_verify.evidence.finding import Finding, frame_error, modest_bound, raised_axes
from kahler_verify.evidence.numbers.arithmetic import decimal, run_text
from kahler_verify.evidence.numbers.samples import draw, exact_ring
from kahler_verify.evidence.numbers.series import evaluate_output
from kahler_verify.evidence.routes.autograd import differentiate
from kahler_verify.evidence.routes.cases import SIZES, Case, case_error, finding_at, to_torch
from kahler_verify.evidence.routes.componentwise import componentwise
from kahler_verify.evidence.routes.gaussians import by_sampling, by_torch_kl, is_fisher, is_hessian
from kahler_verify.evidence.routes.known_answers import known_answer

DECIMAL_BOUND = 1e-40  # of what is compared at 50 digits on both sides


@dataclass(frozen=True)
class Route:
    """An independent way to a kernel's value, where it applies."""

    name: str
    title: str
    applies: Callable[[Case], bool]
    run: Callable[[Case], Finding]


def _by_autograd(case: Case) -> Finding:
    points = case.points[:1] if case.order > 3 else case.points[:2]
    errors, complaints = [], []
    for at in points:
        worst = 0.0
        for n, out in case.kernel.outputs.items():
            truths = [
                differentiate(out.definition, out.indices, at.fields, mode)
                for mode in ("reverse", "forward")
            ]
            worst = max(worst, *[case_error(case, at, {n: t}) for t in truths])
            apart = frame_error(truths[0], truths[1], at.scale, raised_axes(out))
            if not apart <= modest_bound(at.condition):
                complaints.append(f"{n}: autograd's two modes differ by {apart:.1e}")
        errors.append(worst)
    note = "reverse over reverse; forward over reverse"
    return finding_at(points, errors, note=note, complaints=tuple(complaints))


def _by_decimals(case: Case) -> Finding:
    points = case.points[:1] if case.order > 3 else case.points
    errors = []
    for at in points:
        truth = {
            n: to_torch(evaluate_output(o.definition, o.indices, at.point))
            for n, o in case.kernel.outputs.items()
        }
        errors.append(case_error(case, at, truth))
    return finding_at(points, errors, note=decimal.name)


def _exactly(case: Case) -> Finding:
    """The text itself in an exact field: equality, without a tolerance."""
    rng, ring = random.Random(case.seed), exact_ring(case.kernel)
    sample = draw(case.kernel, ring, rng, SIZES, case.subject.heads)
    truth = [
        evaluate_output(o.definition, o.indices, sample.point) for o in case.kernel.outputs.values()
    ]
    note = f"equality over {ring.name}"
    if case.vanishes:
        same = all(x == 0 for t in truth for x in np.asarray(t).ravel())
        return Finding((0.0 if same else math.inf,), (0.0,), unit="exact", note=note)
    function = run_text(case.subject.text, ring)[case.kernel.name]
    names = case.kernels.arguments(case.kernel.name)
    found = function(*[sample.tensors[n] for n in names])
    found = found if isinstance(found, tuple) else (found,)
    same = all(
        f.shape == t.shape
        and all(x == y for x, y in zip(np.asarray(f).ravel(), np.asarray(t).ravel(), strict=True))
        for f, t in zip(found, truth, strict=True)
    )
    return Finding((0.0 if same else math.inf,), (0.0,), unit="exact", note=note)


def _by_known_answers(case: Case) -> Finding:
    answer = known_answer(case.derivation, case.kernel.name)
    if answer is None:
        raise EvidenceError(f"{case.name} has no known answer")
    errors = []
    for value, truth in answer(case.kernels):
        size = max(1.0, truth.abs().max().item())
        error = (value - truth).abs().max().item() / size
        errors.append(math.inf if math.isnan(error) else error)
    bound = modest_bound(1.0)
    return Finding(tuple(errors), (bound,) * len(errors), unit="relative", note="closed forms")


def _by_components(case: Case) -> Finding:
    """Definitions written out over entries and differentiated by SymPy's own ``diff``."""
    subject = case.subject
    entries = 3 if case.order < 3 else 1  # written-out derivatives are slow
    error = componentwise(case.kernel, subject.text, subject.heads, case.seed, entries)
    note = f"SymPy's diff at n = K = 2, up to {entries} of an output's entries"
    return Finding((error,), (DECIMAL_BOUND,), unit="relative", note=note)


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
        Route("torch_kl", "Hessian of torch's Gaussian KL", is_hessian, by_torch_kl),
        Route("monte_carlo", "Fisher information of samples", is_fisher, by_sampling),
        Route(
            "known",
            "known answers",
            lambda case: known_answer(case.derivation, case.kernel.name) is not None,
            _by_known_answers,
        ),
    )
}
