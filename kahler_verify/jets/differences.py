"""Derivatives by differences of those below, and how sure they are.

The step is halved until they settle, whatever the scale of the function; how far they settled, and
rounding, are the tolerance.
"""

from __future__ import annotations

import math
from typing import NamedTuple

import torch
from torch import Tensor

from kahler_verify.jets.differentiation import Mode
from kahler_verify.jets.directions import Work, size_of

LARGEST_STEP = 1 / 8  # of differences, for points of size 1
STEPS = 44  # halvings at most
PATIENCE = 8  # halvings for the last digits; values may be steps whose treads are short


def gap_of(ours: Tensor, difference: Difference) -> tuple[Tensor, Tensor, Tensor]:
    """How far they are apart, how large they are, and how far they may be apart, [P] each."""
    flat, truth = ours.flatten(1), difference.value.flatten(1)
    size = torch.maximum(flat.abs(), truth.abs()).amax(-1)
    tolerance = 20 * torch.finfo(ours.dtype).eps ** 0.5 * size
    gap = (flat - truth).abs().amax(-1)
    return gap, size, tolerance + 8 * difference.error + difference.noise


class Difference(NamedTuple):
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


def differences(work: Work, ours: tuple[Tensor, ...], order: int, mode: Mode) -> list[Difference]:
    """Of the derivatives of order n - 1 along the directions, extrapolated (Romberg's table).

    Values along each of them, derivatives along their mean: these are many already.
    For each point and field from the step at which they settle best: from a step like the points'
    own size, halved until rounding or the spacing of the numbers has the better of it.
    """
    points, precision = work.points, torch.finfo(work.points.real.dtype).eps
    largest = LARGEST_STEP * size_of(points)
    smallest = 64 * precision * points.abs().amax(-1)
    table: list[list[Tensor]] = [[], []]
    best: list[Difference | None] = [None, None]
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
            found = Difference(value, error, 32 * precision * size / step, error < 0)
            gap, largest_entry, tolerance = gap_of(ours[index], found)
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


def _better(old: Difference | None, new: Difference) -> Difference:
    """Point by point the one that is more certain; the new one has the shorter steps."""
    if old is None:
        return new._replace(confirmed=new.confirmed & False)
    better = new.error + new.noise < old.error + old.noise
    spread = better.reshape(-1, *[1] * (new.value.ndim - 1))
    return Difference(
        torch.where(spread, new.value, old.value),
        torch.where(better, new.error, old.error),
        torch.where(better, new.noise, old.noise),
        ~better & (old.confirmed | new.confirmed),
    )


def _quotients(work: Work, step: Tensor, order: int, mode: Mode) -> list[tuple[Tensor, Tensor]]:
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
