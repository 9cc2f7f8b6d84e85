"""The function ``heads`` of a generated module, against the values that kernels are to be given.

Kernels take transcendental values as inputs, and equal their definition when these are right.
Users have them from ``heads``.  Its text is run at random points: over balls of 50 digits, which
have to meet evidence's own reading of each head, and in a batch by torch in float64.
"""

from __future__ import annotations

import inspect
import math
import random
from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Any

import flint
import numpy as np
import torch
from sympy import Expr

from kahler_verify.calculus.derivation import Derivation, Kernel, Output
from kahler_verify.calculus.mixture import LogSumExp
from kahler_verify.calculus.words import LogDet
from kahler_verify.errors import EvidenceError, KahlerVerifyError
from kahler_verify.evidence.finding import Finding
from kahler_verify.evidence.numbers.arithmetic import ball, run_text
from kahler_verify.evidence.numbers.arrays import Array, array
from kahler_verify.evidence.numbers.functions import Functions
from kahler_verify.evidence.numbers.points import Point
from kahler_verify.evidence.numbers.samples import Sample
from kahler_verify.evidence.numbers.series import head_values
from kahler_verify.evidence.routes.cases import (
    draw_dyadic,
    executed,
    has_real_tensors,
    moved_inside,
    to_torch,
)

BITS = 170  # of balls: 50 digits
WIDEST = 1e-30  # radius of a ball, relative to its value or to 1
FLOAT64 = 1e-10  # error of torch's value, relative to it or to 1
ATTEMPTS = 100  # to draw a point where all heads are defined
FAILURES = (
    KahlerVerifyError,
    ArithmeticError,
    AttributeError,
    LookupError,
    NameError,
    RuntimeError,
    TypeError,
    ValueError,
)


@dataclass(frozen=True)
class _Place:
    """A point in numbers that float64 holds: as tensors, and each head's value as balls."""

    sample: Sample
    truth: Mapping[str, Array]


def compare_heads(
    derivation: Derivation,
    text: str,
    heads: Mapping[Expr, str],
    *,
    points: int = 3,
    seed: int = 0,
) -> Finding | None:
    """A module's ``heads`` at random points, or None where it has none to compute.

    ``trials`` of the finding counts the numbers compared over balls, ``errors`` are torch's.

    Args:
        derivation: what the module was generated from.
        text: of the module.
        heads: the expression of each transcendental input of its kernels, as in ``Module.heads``.
        points: how many.
        seed: of the points.

    Raises:
        EvidenceError: no point was found at which all heads are defined.
    """

    def found(errors: tuple[float, ...], complaints: tuple[str, ...], values: int = 0) -> Finding:
        return Finding(
            errors,
            (FLOAT64,) * len(errors),
            unit="relative",
            note="balls of 50 digits",
            complaints=complaints,
            trials=values,
            what=f"{derivation.name}.heads",
        )

    has_function = "\ndef heads(" in text
    # log det and log-sum-exp are computed where their factor or weights are, in geometry
    own = {e: n for e, n in heads.items() if not isinstance(e, LogDet | LogSumExp)}
    if not has_function:
        missing = tuple(f"{n}: there is no function that computes it" for n in own.values())
        return found((), missing) if missing else None
    with flint.ctx.workprec(BITS):
        places = _places(derivation, heads, points, seed)
        try:
            values, complaints = _over_balls(text, places, set(own.values()))
        except FAILURES as error:
            values, complaints = 0, [f"over balls: {_said(error)}"]
    try:
        errors = _by_torch(derivation, text, places)
    except (*FAILURES, SyntaxError) as error:
        errors, complaints = (), [*complaints, f"in torch: {_said(error)}"]
    if not values and not complaints:
        complaints = ["no value was compared over balls"]
    return found(errors, tuple(complaints), values)


def _said(error: Exception) -> str:
    return f"{type(error).__name__}: {' '.join(str(error).split())}"


# ------------------------------------------------------------------ points


def _kernel(derivation: Derivation, heads: Mapping[Expr, str]) -> Kernel:
    """What has the fields of all kernels and of all heads, to draw them at one point."""
    outputs = {f"{k.name} {n}": o for k in derivation.kernels for n, o in k.outputs.items()}
    outputs |= {name: Output(e) for e, name in heads.items()}
    return Kernel("heads", outputs, coordinates=derivation.coordinates)


def _places(
    derivation: Derivation, heads: Mapping[Expr, str], points: int, seed: int
) -> list[_Place]:
    kernel = _kernel(derivation, heads)
    rng = random.Random(f"{seed} heads of {derivation.name}")
    d = len(derivation.coordinates) or 2
    found: list[_Place] = []
    for _ in range(ATTEMPTS):
        sample = draw_dyadic(kernel, rng)
        if derivation.domain is not None:
            sample = moved_inside(derivation, sample, rng, d)
        truth = {n: head_values(e, _over_ball(sample.point)) for e, n in heads.items()
                 if not isinstance(e, LogSumExp)}  # fmt: skip
        if all(_is_narrow(x) for values in truth.values() for x in np.asarray(values).ravel()):
            found.append(_Place(sample, truth))
        if len(found) == points:
            return found
    raise EvidenceError(f"{derivation.name}: no point was found at which all heads are defined")


def _lifted(values: Array) -> Array:
    """Numbers that float64 holds as balls of radius zero."""
    return array([flint.acb(complex(x)) for x in np.asarray(values).ravel()], values.shape)


def _over_ball(point: Point) -> Point:
    jets = {f: {o: _lifted(x) for o, x in table.items()} for f, table in point.jets.items()}
    values = {s: flint.acb(complex(x)) for s, x in point.values.items()}
    weights = None if point.weights is None else _lifted(point.weights)
    functions = Functions(ball)
    return replace(point, ring=ball, jets=jets, values=values, weights=weights, functions=functions)


def _size(x: Any) -> float:
    return max(1.0, float(abs(complex(x))))


def _is_narrow(x: Any) -> bool:
    x = flint.acb(x)
    return bool(x.is_finite()) and float(x.rad()) <= WIDEST * _size(x)


# ------------------------------------------------------------------ the text


def _over_balls(text: str, places: list[_Place], needed: set[str]) -> tuple[int, list[str]]:
    """How many values were compared, and what is wrong with which head."""
    function = run_text(text, ball)["heads"]
    names = list(inspect.signature(function).parameters)
    compared, complaints = 0, {}
    for place in places:
        found = function(*[_lifted(place.sample.tensors[n]) for n in names])
        for name in sorted(needed - set(found)):
            complaints[name] = f"{name}: it is not computed"
        for name in sorted(set(found) & set(place.truth)):
            value, truth = np.asarray(found[name]), np.asarray(place.truth[name])
            if value.shape != truth.shape:
                complaints[name] = f"{name}: expected shape {truth.shape}, got {value.shape}"
                continue
            for x, y in zip(map(flint.acb, value.ravel()), truth.ravel(), strict=True):
                compared += 1
                if not (_is_narrow(x) and x.overlaps(flint.acb(y))):
                    complaints[name] = f"{name}: expected {complex(y):.6g}, got {complex(x):.6g}"
    return compared, list(complaints.values())


def _by_torch(derivation: Derivation, text: str, places: list[_Place]) -> tuple[float, ...]:
    """The largest error at each point, of all points in one batch."""
    function = executed(derivation.name, text).heads
    names = list(inspect.signature(function).parameters)
    batch = {n: torch.stack([to_torch(p.sample.tensors[n]) for p in places]) for n in names}
    real = {n: x.real if not bool(x.imag.any()) else x for n, x in batch.items()}
    try:  # real numbers are real tensors, as some functions want them
        found = function(**real)
    except RuntimeError:  # a product of tensors of two dtypes
        if has_real_tensors(_kernel(derivation, {})):
            raise
        found = function(**batch)
    errors = [0.0] * len(places)
    for name in set(found) & set(places[0].truth):
        for i, place in enumerate(places):
            truth = to_torch(place.truth[name])
            value = found[name].to(torch.complex128).expand(len(places), *truth.shape)[i]
            gap = ((value - truth).abs() / truth.abs().clamp(min=1)).max().item()
            errors[i] = max(errors[i], math.inf if math.isnan(gap) else gap)
    return tuple(errors)


__all__ = ["FLOAT64", "compare_heads"]
