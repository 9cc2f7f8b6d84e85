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

import math
import warnings
from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn

from kahler_verify.errors import InputError
from kahler_verify.jets.differentiation import (
    MODES,
    Mode,
    differentiate,
    nested,
    refusal,
)
from kahler_verify.jets.gaussian_outputs import (
    DecoderFunction,
    Fields,
    LikelihoodStructure,
    at_point,
    evaluate,
    points_of,
)
from kahler_verify.jets.severed import severed_by
from kahler_verify.jets.smoothness import require_smooth, require_smooth_operations
from kahler_verify.jets.written_out import WrittenOut
from kahler_verify.torch_state import alone, outside_autocast

__all__ = ["Examination", "check_decoder", "examine"]

FIELDS = ("mu", "Sigma")
DIRECTIONS = {1: 3, 2: 2, 3: 2}  # by the order of derivatives
HIGHEST_ORDER = 3
MEMORY_BUDGET = 512 * 2**20
# Numbers held at a time for each derivative of each output, as measured with nested forward mode.
WORKSPACE = 16
MOST_POINTS = 4  # of those that are given
LARGEST_STEP = 1 / 8  # of differences, for points of size 1
STEPS = 44  # halvings at most
PATIENCE = 8  # halvings for the last digits; values may be steps whose treads are short


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


class _Unsupported(InputError):
    """Torch has no rule for what a mode needs."""


class _Contradiction(InputError):
    """Derivatives that differences refute."""

    def __init__(self, message: str, order: int) -> None:
        super().__init__(message)
        self.order = order


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
        work = _Work(decoder, few, DIRECTIONS[order], memory_budget)
        chosen, reason = _choose(work, order, mode)
        if order > 1:
            require_smooth(decoder, few, chosen, work.chunk(2))
    return Examination(structure, chosen, reason)


# Points and values


def seeded_normal(like: Tensor, *shape: int, seed: int = 0) -> Tensor:
    """Standard complex normal numbers, the same on every device and in every precision."""
    generator = torch.Generator("cpu").manual_seed(seed)
    pairs = torch.randn(*shape, 2, dtype=torch.float64, device="cpu", generator=generator)
    return torch.view_as_complex(pairs / math.sqrt(2)).to(like)


def _size(points: Tensor) -> Tensor:
    """The root mean square of each point's coordinates, at least 1."""
    return points.abs().square().mean(-1).sqrt().clamp(min=1)


def _beside(decoder: DecoderFunction, point: Tensor) -> Tensor:
    """A generic point beside [1, d]: symmetric ones have derivatives that vanish by chance."""
    step = 0.1 * _size(point)[:, None] * seeded_normal(point, *point.shape, seed=1)
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
            mapped = torch.vmap(lambda row: _tensors(at_point(decoder, row)))(rows)
        except RuntimeError as error:
            raise InputError(f"the decoder does not work under torch.vmap: {error}") from error
    for index, name in enumerate(FIELDS):
        whole = _tensors(batched)[index]
        if not bool(torch.isfinite(whole).all()):
            raise InputError(f"the decoder's {name} is not finite at the points z it is checked at")
        size = max(float(whole.abs().max()), torch.finfo(whole.dtype).tiny)
        alone = "the points of a batch influence one another"
        for other, what in (
            (_tensors(again)[index], "a second call: it is random"),
            (
                torch.stack([_tensors(fields)[index] for fields in single]),
                f"calls with single points: {alone}",
            ),
            (_tensors(turned)[index].flip(0), f"the batch in another order: {alone}"),
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


def _tensors(fields: Fields) -> tuple[Tensor, ...]:
    """The mean and the covariance's factor, in real coordinates."""
    return tuple(
        torch.view_as_real(field.resolve_conj()) if field.is_complex() else field
        for field in (fields.mu, fields.factor)
    )


# Derivatives along a few directions


class _Work:
    """A decoder's derivatives along a few directions at points [P, d], in chunks that fit."""

    def __init__(
        self, decoder: DecoderFunction, points: Tensor, directions: int, memory_budget: int
    ) -> None:
        self.decoder, self.points, self.memory_budget = decoder, points, memory_budget
        d = points.shape[-1]
        lines = seeded_normal(points, min(directions, 2 * d), d)
        self.directions = lines / torch.linalg.vector_norm(lines, dim=-1, keepdim=True)
        with torch.no_grad():
            fields = _tensors(evaluate(decoder, points[:1]))
        self.bytes = WORKSPACE * sum(field.numel() * field.element_size() for field in fields)

    def chunk(self, order: int) -> int:
        """How many points to differentiate at once; one alone would not show faults of batches."""
        return max(2, self.memory_budget // (self.bytes * len(self.directions) ** order))

    def derivatives(self, points: Tensor, order: int, mode: Mode) -> Sequence[tuple[Tensor, ...]]:
        """Of mean and factor at points [N, d], of orders 0 … ``order``, [N, *field, r, …, r]."""
        if order == 0:
            pieces = [
                _tensors(evaluate(self.decoder, some)) for some in points.split(self.chunk(0))
            ]
            return [tuple(torch.cat(parts) for parts in zip(*pieces, strict=True))]

        def at(z: Tensor) -> tuple[tuple[Tensor, ...], ...]:
            def value(s: Tensor) -> tuple[tuple[Tensor, ...], Tensor]:
                step = torch.complex(s @ self.directions.real, s @ self.directions.imag)
                return _tensors(at_point(self.decoder, z + step)), s

            zero = torch.zeros(len(self.directions), dtype=z.real.dtype, device=z.device)
            return nested(value, order, mode)(zero)[0]

        size = self.chunk(order)
        found = _differentiated(lambda: torch.vmap(at, chunk_size=size)(points), order)
        return [tuple(level) for level in found]

    def gradients(self, weights: tuple[Tensor, ...]) -> Tensor:
        """Of the weighted sum of mean and factor along the directions [P, r], in reverse mode."""

        def at(z: Tensor) -> Tensor:
            def total(s: Tensor) -> Tensor:
                step = torch.complex(s @ self.directions.real, s @ self.directions.imag)
                fields = _tensors(at_point(self.decoder, z + step))
                sums = [(w * f).sum() for w, f in zip(weights, fields, strict=True)]
                return sums[0] + sums[1]

            zero = torch.zeros(len(self.directions), dtype=z.real.dtype, device=z.device)
            return torch.func.jacrev(total)(zero)

        found: Tensor = _differentiated(lambda: torch.vmap(at)(self.points), 1)
        return found


def _differentiated(compute: Callable[[], Any], order: int) -> Any:
    try:
        return differentiate(compute)
    except (NotImplementedError, RuntimeError) as error:
        raise _Unsupported(str(refusal(error, order))) from error


def _choose(work: _Work, order: int, mode: Mode | None) -> tuple[Mode, str]:
    """The first mode that differences confirm, and why it is not forward mode."""
    refused: dict[Mode, InputError] = {}
    for each in MODES if mode is None else [mode]:
        if mode is None and not _is_worth_a_try(work, order, each, refused):
            continue
        try:
            with torch.no_grad():  # of weights; the directions' are functional
                _compare(work, order, each)
        except _Contradiction as error:
            if each == "forward" and error.order == 1:
                raise
            refused[each] = error
        except _Unsupported as error:
            refused[each] = error
        else:
            return each, _explained(each, order, refused)
    wrong = [error for error in refused.values() if isinstance(error, _Contradiction)]
    first = wrong[0] if wrong else next(iter(refused.values()))
    cause = severed_by(work.decoder, work.points[-1:])
    if cause:
        raise InputError(f"the decoder cannot be differentiated: {cause}") from first
    raise first


def _is_worth_a_try(work: _Work, order: int, mode: Mode, refused: dict[Mode, InputError]) -> bool:
    """Does it differ from those that were refused, and may it help?"""
    if mode == "forward, written out":
        with WrittenOut() as seen, torch.no_grad():
            evaluate(work.decoder, work.points)
        return bool(seen.replaced)
    if mode == "forward over reverse":
        return order > 1
    if mode == "reverse by output":
        error = refused.get("reverse")
        return isinstance(error, _Contradiction) and error.order == 1
    return True


def _explained(mode: Mode, order: int, refused: dict[Mode, InputError]) -> str:
    if not refused:
        return ""
    why = str(next(iter(refused.values()))).split(". Write ")[0].split(". Known ")[0]
    return (
        f"derivatives of this decoder up to order {order} are taken in the mode {mode!r}, which "
        f"differences confirm, since in plain forward mode {why}"
    )


def _compare(work: _Work, order: int, mode: Mode) -> None:
    levels = work.derivatives(work.points, order, mode)
    for n in range(1, order + 1):
        ours = levels[n] if n == 1 else tuple(field.mean(-1, keepdim=True) for field in levels[n])
        for index, difference in enumerate(_differences(work, ours, n, mode)):
            _compare_level(work, ours[index], difference, index, n, mode)
    if mode == "forward":
        _compare_with_reverse(work, levels[1])


def _compare_level(
    work: _Work, ours: Tensor, difference: _Difference, index: int, order: int, mode: Mode
) -> None:
    field = FIELDS[index]
    finite = torch.isfinite(ours.flatten(1)).all(-1)
    if not bool(finite.all()):
        raise _Contradiction(
            f"the derivatives of order {order} of the decoder's {field} by {mode} mode are not "
            f"finite at point {int(torch.nonzero(~finite)[0, 0])}. {_causes(work, order)}",
            order,
        )
    gap, size, tolerance = _gap(ours, difference)
    wrong = ~(gap <= tolerance) & ~difference.confirmed
    if bool(wrong.any()):
        point = int(torch.nonzero(wrong)[0, 0])
        raise _Contradiction(
            f"autograd contradicts itself on this decoder: the derivatives of order {order} of its "
            f"{field} by {mode} mode and by central differences differ by {float(gap[point]):.1e}, "
            f"where they reach {float(size[point]):.1e}, at z = {_shown(work.points[point])}. "
            f"{_causes(work, order)}",
            order,
        )
    vague = (difference.error > 0.05 * size) & (size > difference.noise)
    if bool(vague.any()):
        point = int(torch.nonzero(vague)[0, 0])
        raise _Contradiction(
            f"differences of order {order} of the decoder's {field} do not settle at z = "
            f"{_shown(work.points[point])}, whatever their step, so that its derivatives cannot be "
            "confirmed: is it smooth there, and is its precision enough for what it computes?",
            order,
        )


def _gap(ours: Tensor, difference: _Difference) -> tuple[Tensor, Tensor, Tensor]:
    """How far they are apart, how large they are, and how far they may be apart, [P] each."""
    flat, truth = ours.flatten(1), difference.value.flatten(1)
    size = torch.maximum(flat.abs(), truth.abs()).amax(-1)
    tolerance = 20 * torch.finfo(ours.dtype).eps ** 0.5 * size
    gap = (flat - truth).abs().amax(-1)
    return gap, size, tolerance + 8 * difference.error + difference.noise


def _compare_with_reverse(work: _Work, first: tuple[Tensor, ...]) -> None:
    """First derivatives in forward mode against reverse mode's, of one weighted sum of outputs."""
    weights = tuple(
        seeded_normal(work.points, *field.shape[1:-1], seed=2 + n).real.to(field)
        for n, field in enumerate(first)
    )
    try:
        reverse = work.gradients(weights)
    except _Unsupported:
        cause = severed_by(work.decoder, work.points[-1:])
        if cause:
            raise _Contradiction(f"the decoder cannot be differentiated: {cause}", 1) from None
        return  # no second opinion, but that of differences
    terms = [
        (w[..., None] * field).reshape(len(field), -1, field.shape[-1])
        for w, field in zip(weights, first, strict=True)
    ]
    forward = sum((term.sum(1) for term in terms), torch.zeros_like(reverse))
    size = sum((term.abs().sum(1) for term in terms), torch.zeros_like(reverse)).amax(-1)
    gap = (forward - reverse).abs().amax(-1)
    wrong = ~(gap <= 1e4 * torch.finfo(reverse.dtype).eps * size)
    if bool(wrong.any()):
        point = int(torch.nonzero(wrong)[0, 0])
        raise _Contradiction(
            "autograd contradicts itself on this decoder: first derivatives by forward mode and by "
            f"reverse mode differ by {float(gap[point]):.1e}, where they reach "
            f"{float(size[point]):.1e}. {_causes(work, 1)}",
            1,
        )


def _causes(work: _Work, order: int) -> str:
    cause = severed_by(work.decoder, work.points[-1:])
    if cause:
        return f"The cause: {cause}"
    layers = "" if order == 1 else "layer_norm in forward mode (write it out), "
    return (
        "Known causes: .detach() or torch.no_grad inside it, linalg.solve, det, slogdet and "
        f"cholesky_inverse (use cholesky and solve_triangular), {layers}abs(z)**2 (use "
        "z*z.conj()), a kink at this very point, or a custom backward"
    )


def _shown(z: Tensor) -> str:
    head = ", ".join(f"{value:.3g}" for value in z[:3].tolist())
    return f"[{head}{', …' if len(z) > 3 else ''}]"


# Differences


class _Difference(NamedTuple):
    """A derivative by differences.

    Attributes:
        value: [P, *field, r, …, r].
        error: how far it settled, [P].
        noise: rounding, [P].
        confirmed: whether shorter steps agree with autograd well, [P]: beside a kink longer ones
            can settle on what is not the derivative.
    """

    value: Tensor
    error: Tensor
    noise: Tensor
    confirmed: Tensor


def _differences(
    work: _Work, ours: tuple[Tensor, ...], order: int, mode: Mode
) -> list[_Difference]:
    """Of the derivatives of order n - 1 along the directions, extrapolated (Romberg's table).

    Values along each of them, derivatives along their mean: these are many already.
    For each point and field from the step at which they settle best: from a step like the points'
    own size, halved until rounding or the spacing of the numbers has the better of it.
    """
    points, precision = work.points, torch.finfo(work.points.real.dtype).eps
    largest = LARGEST_STEP * _size(points)
    smallest = 64 * precision * points.abs().amax(-1)
    table: list[list[Tensor]] = [[], []]
    best: list[_Difference | None] = [None, None]
    unsettled = 0  # halvings since all were clear, and went on in vain
    for halving in range(STEPS):
        step = largest / 2**halving
        if bool((step < smallest).all()):
            break
        settled = clear = True
        for index, (quotient, size) in enumerate(_quotients(work, step, order - 1, mode)):
            rows = table[index] = [*table[index][-2:], quotient]
            if len(rows) < 3:
                settled = clear = False
                continue
            second, third = (4 * rows[1] - rows[0]) / 3, (4 * rows[2] - rows[1]) / 3
            value = (16 * third - second) / 15
            error = _largest(value - third)
            found = _Difference(value, error, 32 * precision * size / step, error < 0)
            gap, largest_entry, tolerance = _gap(ours[index], found)
            sharp = 8 * found.error + found.noise <= 0.05 * largest_entry
            kept = _better(best[index], found._replace(confirmed=sharp & (gap <= tolerance)))
            best[index] = kept
            scale = _largest(kept.value)
            reach = torch.maximum(1e-1 * precision**0.5 * scale, kept.noise)
            settled &= bool((kept.error <= reach).all())
            clear &= bool((kept.error <= torch.maximum(1e-2 * scale, kept.noise)).all())
        unsettled = unsettled + 1 if clear else 0
        if settled or (order > 1 and unsettled > PATIENCE):
            break
    return [each for each in best if each is not None]


def _largest(x: Tensor) -> Tensor:
    """The largest entry [P]; infinite where one is not finite."""
    return x.flatten(1).abs().amax(-1).nan_to_num(nan=math.inf)


def _better(old: _Difference | None, new: _Difference) -> _Difference:
    """Point by point the one that is more certain; the new one has the shorter steps."""
    if old is None:
        return new._replace(confirmed=new.confirmed & False)
    better = new.error + new.noise < old.error + old.noise
    spread = better.reshape(-1, *[1] * (new.value.ndim - 1))
    return _Difference(
        torch.where(spread, new.value, old.value),
        torch.where(better, new.error, old.error),
        torch.where(better, new.noise, old.noise),
        ~better & (old.confirmed | new.confirmed),
    )


def _quotients(work: _Work, step: Tensor, order: int, mode: Mode) -> list[tuple[Tensor, Tensor]]:
    """Central differences [P, *field, …, r] of derivatives of an order, and what they are of.

    The size [P] is that of the derivatives of all orders up to this one.
    """
    points = work.points
    directions = work.directions if order == 0 else work.directions.mean(0, keepdim=True)
    shifts = step[:, None, None] * directions
    moved = torch.stack([points[:, None] + shifts, points[:, None] - shifts], 1)  # [P, 2, r, d]
    levels = work.derivatives(moved.flatten(0, 2), order, mode)
    out = []
    for index, field in enumerate(levels[order]):
        plus, minus = field.unflatten(0, moved.shape[:3]).unbind(1)
        width = (2 * step).reshape(-1, *[1] * (plus.ndim - 1))
        quotient = ((plus - minus) / width).movedim(1, -1)
        # derivatives inherit the rounding of what they were made from
        sizes = [_largest(level[index].unflatten(0, (len(points), -1))) for level in levels]
        out.append((quotient, torch.stack(sizes).amax(0)))
    return out
