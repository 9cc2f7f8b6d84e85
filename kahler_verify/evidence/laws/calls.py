"""Laws of how a kernel is called: in batches, under vmap, in single precision, unrolled."""

from __future__ import annotations

from collections.abc import Mapping
from functools import partial

import torch
from torch import Tensor

from kahler_verify.calculus.derivation import Derivation, Kernel
from kahler_verify.errors import GenerationError, PropertyViolation
from kahler_verify.evidence.laws.law import DoesNotApply, Law, Trial, agree, register
from kahler_verify.evidence.laws.readings import output_dimensions
from kahler_verify.evidence.laws.variants.unrolled import evaluate_in_double
from kahler_verify.evidence.numbers.readings import coordinate_of, is_real_latent
from kahler_verify.running.unrolling import argument_shapes, unroll
from kahler_verify.running.variants import text_of

LAWS: dict[str, Law] = {}
law = partial(register, LAWS)


def _every(_der: Derivation, _kernel: Kernel) -> bool:
    return True


def _whole(trial: Trial) -> tuple[list[dict[str, Tensor]], dict[str, Tensor]]:
    """Three points apart, and as one batch."""
    points = [trial.draw() for _ in range(3)]
    return points, {n: torch.stack([p[n] for p in points]) for n in points[0]}


def _agree_at_each(batch: Tensor, singles: Tensor, what: str) -> None:
    """Each point in its own units: beside e^20 at another, a wrong one would pass for rounding."""
    if batch.shape != singles.shape:
        agree(batch, singles, what)
    for got, expected in zip(batch, singles, strict=True):
        agree(got, expected, what)


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
        _agree_at_each(line[name], expected, f"{name} in a batch and alone")
        _agree_at_each(column[name].squeeze(1), expected, f"{name} in a batch [3, 1] and alone")
        if empty[name].numel():
            raise PropertyViolation(f"{name} of an empty batch has shape {list(empty[name].shape)}")


@law("torch.vmap over points gives what the points give one by one", _every)
def vmapped(trial: Trial) -> None:
    """Vmap adds the batch dimension that the kernel does not see."""
    points, whole = _whole(trial)
    mapped = torch.vmap(lambda tensors: trial.call(tensors))(whole)
    for name in trial.kernel.outputs:
        expected = torch.stack([trial.call(p)[name] for p in points])
        _agree_at_each(mapped[name], expected, f"{name} under vmap and alone")


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
