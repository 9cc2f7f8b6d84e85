"""Is autograd right about a decoder, in which mode, and is the decoder one that has a geometry?

Values are all that is believed. Derivatives of order n are compared with differences of those of
order n - 1, and those of order 1 with differences of values, so that each is certified by the one
below. A few seeded directions stand for all of the latent space, through the very code that
differentiates in all directions: what it costs does not depend on the latent dimension, and grows
with the number of outputs as a few evaluations do. The step of the differences is halved until they
settle, whatever the scale of the function, and their own disagreement and rounding are the
tolerance: a derivative that vanishes is compared with what differences of zero look like.
"""

from __future__ import annotations

import warnings
from typing import NamedTuple

import torch
from torch import Tensor, nn

from kahler_verify.errors import InputError
from kahler_verify.jets.comparison import Contradiction, compare
from kahler_verify.jets.differentiation import MODES, Mode
from kahler_verify.jets.directions import (
    DIRECTIONS,
    FIELDS,
    Unsupported,
    Work,
    seeded_normal,
    size_of,
    tensors_of,
)
from kahler_verify.jets.gaussian_outputs import (
    DecoderFunction,
    LikelihoodStructure,
    at_point,
    evaluate,
    points_of,
)
from kahler_verify.jets.severed import severed_by
from kahler_verify.jets.smoothness import require_smooth, require_smooth_operations
from kahler_verify.jets.written_out import WrittenOut
from kahler_verify.torch_state import alone, outside_autocast

HIGHEST_ORDER = 3
MEMORY_BUDGET = 512 * 2**20
MOST_POINTS = 4  # of those that are given


class Examination(NamedTuple):
    """What a check found.

    Attributes:
        structure: the kind of Gaussian that the decoder returns.
        mode: of differentiation that is right to the order that was asked for.
        reason: why it is not forward mode; else empty.
    """

    structure: LikelihoodStructure
    mode: Mode
    reason: str


def check_decoder(
    decoder: DecoderFunction,
    z: Tensor,
    *,
    order: int = 2,
    mode: Mode | None = None,
    memory_budget: int = MEMORY_BUDGET,
) -> LikelihoodStructure:
    """Make sure that ``decoder`` can be differentiated near z, and that autograd does it right.

    It checks, at a few of the points and at a generic one beside them, that

    - values and derivatives are finite, and the likelihood's scale is one;
    - the decoder is deterministic and acts on each point alone (a batch, single points and vmap
      give the same);
    - some mode of autograd agrees with differences to the order asked for, and first derivatives in
      forward and in reverse mode with one another;
    - with ``order`` ≥ 2, the function is C²: nothing with kinks or jumps stands in autograd's
      graph, and none is found along lines across the latent region.

    A warning says so where forward mode will not do.

    Args:
        decoder: see :func:`decoder_jets`.
        z: complex points [..., d].
        order: of the highest derivatives needed: the metric needs 1, its connection 2, its
            curvature 3.
        mode: check this one; None looks for one that is right, forward mode first.
        memory_budget: bytes.

    Raises:
        InputError: one of these fails; the message says which, by how much, and the likely cause.
    """
    found = examine(decoder, z, order=order, mode=mode, memory_budget=memory_budget)
    if found.reason and mode is None:
        warnings.warn(found.reason, UserWarning, stacklevel=2)
    return found.structure


@outside_autocast()
@alone()
def examine(
    decoder: DecoderFunction,
    z: Tensor,
    *,
    order: int,
    mode: Mode | None = None,
    memory_budget: int = MEMORY_BUDGET,
) -> Examination:
    """As :func:`check_decoder`, without its warning."""
    if order not in range(1, HIGHEST_ORDER + 1):
        raise InputError(f"order: expected 1, 2 or 3, got {order!r}")
    if mode is not None and mode not in MODES:
        raise InputError(f"mode: expected one of {MODES} or None, got {mode!r}")
    points = points_of(z)
    if len(points) == 0:
        raise InputError("expected at least one point to check the decoder at, but got none")
    with torch.inference_mode(False):
        points = points.detach().clone()
        _check_mode(decoder)
        _check_factor(decoder, points)
        rows = torch.cat([points, _beside(decoder, points[:1])])
        structure = _check_batching(decoder, rows)
        if order > 1:
            require_smooth_operations(decoder, points)
        few = torch.cat([points[:MOST_POINTS], rows[-1:]])
        work = Work(decoder, few, DIRECTIONS[order], memory_budget)
        chosen, reason = _choose(work, order, mode)
        if order > 1:
            require_smooth(decoder, few, chosen, work.chunk(2))
    return Examination(structure, chosen, reason)


def _beside(decoder: DecoderFunction, point: Tensor) -> Tensor:
    """A generic point beside [1, d]: symmetric ones have derivatives that vanish by chance."""
    step = 0.1 * size_of(point)[:, None] * seeded_normal(point, *point.shape, seed=1)
    with torch.no_grad():
        for _ in range(16):
            far = evaluate(decoder, torch.cat([point + step, point + 4 * step]))
            if all(bool(torch.isfinite(field).all()) for field in (far.mu, far.factor)):
                return point + step
            step = step / 8
    return point


def _check_mode(decoder: DecoderFunction) -> None:
    if not isinstance(decoder, nn.Module):
        return
    for name, module in decoder.named_modules():
        random = isinstance(module, nn.modules.dropout._DropoutNd)
        mixing = isinstance(module, nn.modules.batchnorm._BatchNorm)
        if module.training and (random or mixing):
            why = "is random" if random else "mixes the points of a batch"
            raise InputError(
                f"the decoder's layer {name!r} ({module}) {why} while training; call .eval()"
            )


def _check_batching(decoder: DecoderFunction, rows: Tensor) -> LikelihoodStructure:
    tolerance = 1e4 * torch.finfo(rows.real.dtype).eps
    with torch.no_grad():
        batched = evaluate(decoder, rows)
        again = evaluate(decoder, rows)
        turned = evaluate(decoder, rows.flip(0))
        single = [at_point(decoder, row) for row in rows]
        try:
            mapped = torch.vmap(lambda row: tensors_of(at_point(decoder, row)))(rows)
        except RuntimeError as error:
            raise InputError(f"the decoder does not work under torch.vmap: {error}") from error
    for index, name in enumerate(FIELDS):
        whole = tensors_of(batched)[index]
        if not bool(torch.isfinite(whole).all()):
            raise InputError(f"the decoder's {name} is not finite at the points z it is checked at")
        size = max(float(whole.abs().max()), torch.finfo(whole.dtype).tiny)
        alone = "the points of a batch influence one another"
        for other, what in (
            (tensors_of(again)[index], "a second call: it is random"),
            (
                torch.stack([tensors_of(fields)[index] for fields in single]),
                f"calls with single points: {alone}",
            ),
            (tensors_of(turned)[index].flip(0), f"the batch in another order: {alone}"),
            (mapped[index], "torch.vmap over single points"),
        ):
            gap = float((whole - other).abs().max()) / size
            if not gap <= tolerance:
                raise InputError(
                    f"the decoder's {name} in a batch differs by {gap:.1e} (relative) from {what}"
                )
    return batched.structure


def _check_factor(decoder: DecoderFunction, points: Tensor) -> None:
    """The likelihood's scale is one: torch's own checks are off, as they read values."""
    with torch.no_grad():
        structure, _, factor = evaluate(decoder, points)
    name = {"full": "scale_tril", "diagonal": "scale", "scalar": "scale"}[structure.covariance]
    diagonal = factor
    if structure.covariance == "full":
        diagonal = factor.diagonal(dim1=-2, dim2=-1)
        above = float(factor.triu(1).abs().max())
        if above > 0:
            raise InputError(
                f"expected the decoder's {name} at z to be lower triangular, but an entry above "
                f"its diagonal is {above:.3g}"
            )
    if not bool((diagonal.real > 0).all()):
        raise InputError(
            f"expected the decoder's {name} at z to be positive"
            f"{' on its diagonal' if structure.covariance == 'full' else ''}, but got a minimum of "
            f"{float(diagonal.real.min()):.3g}"
        )


def _choose(work: Work, order: int, mode: Mode | None) -> tuple[Mode, str]:
    """The first mode that differences confirm, and why it is not forward mode."""
    refused: dict[Mode, InputError] = {}
    for each in MODES if mode is None else [mode]:
        if mode is None and not _is_worth_a_try(work, order, each, refused):
            continue
        try:
            with torch.no_grad():  # of weights; the directions' are functional
                compare(work, order, each)
        except Contradiction as error:
            if each == "forward" and error.order == 1:
                raise
            refused[each] = error
        except Unsupported as error:
            refused[each] = error
        else:
            return each, _explained(each, order, refused)
    wrong = [error for error in refused.values() if isinstance(error, Contradiction)]
    first = wrong[0] if wrong else next(iter(refused.values()))
    cause = severed_by(work.decoder, work.points[-1:])
    if cause:
        raise InputError(f"the decoder cannot be differentiated: {cause}") from first
    raise first


def _is_worth_a_try(work: Work, order: int, mode: Mode, refused: dict[Mode, InputError]) -> bool:
    """Does it differ from those that were refused, and may it help?"""
    if mode == "forward, written out":
        with WrittenOut() as seen, torch.no_grad():
            evaluate(work.decoder, work.points)
        return bool(seen.replaced)
    if mode == "forward over reverse":
        return order > 1
    if mode == "reverse by output":
        error = refused.get("reverse")
        return isinstance(error, Contradiction) and error.order == 1
    return True


def _explained(mode: Mode, order: int, refused: dict[Mode, InputError]) -> str:
    if not refused:
        return ""
    why = str(next(iter(refused.values()))).split(". Write ")[0].split(". Known ")[0]
    return (
        f"derivatives of this decoder up to order {order} are taken in the mode {mode!r}, which "
        f"differences confirm, since in plain forward mode {why}"
    )
