"""What is decoded along a curve, side by side."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor

from kahler_verify.curves.curve import Curve
from kahler_verify.errors import InputError
from kahler_verify.plots.surface import axes_or_new

if TYPE_CHECKING:
    from matplotlib.axes import Axes

COUNT = 9
CHANNELS = (1, 3, 4)


def plot_frames(
    along: Curve | Tensor,
    decode: Callable[[Tensor], Tensor],
    *,
    axes: Axes | None = None,
    image: tuple[int, ...] | None = None,
    count: int = COUNT,
    gap: int = 1,
    **options: Any,
) -> Axes:
    """Draw images decoded at equal times of one curve, or at latents, from left to right.

    Args:
        along: a curve, or latents [n, d] or of any other shape behind n.
        decode: from latents to images [n, height, width], [n, channels, height, width] or, with
            ``image`` or for squares, to their pixels [n, height × width].
        axes: to draw on; new ones by default.
        image: height and width, or channels, height and width.
        count: of images along a curve.
        gap: pixels between images.
        options: of matplotlib's ``imshow``.

    Raises:
        InputError: a batch of curves, one that was not found, or no images.
    """
    if isinstance(along, Curve):
        _require_count(count)
        if along.nodes.ndim != 2:
            raise InputError(f"along: expected one curve, got {list(along.nodes.shape[:-2])}")
        z = along(torch.linspace(0, 1, count, dtype=torch.float64)).detach()
        if not bool(z.isfinite().all()):
            raise InputError("along: expected a curve that was found, got NaN")
    elif isinstance(along, Tensor) and along.ndim > 1:
        z = along.detach()
    else:
        raise InputError("along: expected a curve or latents [n, d]")
    with torch.no_grad():
        pictures = _pictures(decode(z), len(z), image)  # [n, height, width, channels]
    n, height, width, channels = pictures.shape
    row = torch.full((height, n * (width + gap) - gap, channels), torch.nan, dtype=torch.float64)
    for i, picture in enumerate(pictures):
        row[:, i * (width + gap) : i * (width + gap) + width] = picture
    axes = axes_or_new(axes, (n * width / height, 1.2))
    grey = channels == 1
    style: dict[str, Any] = {"cmap": "gray"} if grey else {}
    shown = row[..., 0] if grey else row.nan_to_num(1.0).clamp(0, 1)
    axes.imshow(shown.numpy(), interpolation="nearest", **(style | options))
    axes.set_axis_off()
    return axes


def _require_count(count: int) -> None:
    if not isinstance(count, int) or count < 2:
        raise InputError(f"count: expected at least 2, got {count!r}")


def _pictures(x: Tensor, n: int, image: tuple[int, ...] | None) -> Tensor:
    """[n, height, width, channels], of real numbers, on the CPU."""
    if not isinstance(x, Tensor) or x.ndim < 2 or len(x) != n:
        got = list(x.shape) if isinstance(x, Tensor) else type(x).__name__
        raise InputError(f"decode: expected images for {n} latents, got {got}")
    x = (x.real if x.is_complex() else x).detach().cpu()
    shape = tuple(x.shape[1:]) if image is None else tuple(image)
    if image is None and x.ndim == 2:
        side = math.isqrt(x.shape[1])
        shape = (side, side)
    if len(shape) not in (2, 3) or math.prod(shape) != x[0].numel():
        raise InputError(
            f"image: expected the size of what is decoded, {list(x.shape[1:])}, got {image}"
        )
    if len(shape) == 2:
        return x.reshape(n, *shape, 1).double()
    if shape[0] not in CHANNELS:
        raise InputError(f"image: expected 1, 3 or 4 channels in front, got {list(shape)}")
    return x.reshape(n, *shape).movedim(1, -1).double()
