"""Pictures of curves: their coordinates, and what is decoded along them."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, Any, Protocol

import torch
from torch import Tensor

from kahler_verify.errors import InputError

if TYPE_CHECKING:
    from matplotlib.axes import Axes

TIMES = 201


class _Curve(Protocol):
    nodes: Tensor

    def __call__(self, t: Tensor) -> Tensor: ...


def plot(curve: _Curve, axes: Axes | None = None, **options: Any) -> Axes:
    """Curves in the plane of their first two coordinates, or a single one against time.

    Args:
        curve: any; those that were not found are left out.
        axes: to draw on; new ones by default.
        options: of matplotlib's ``plot``.
    """
    if axes is None:
        from matplotlib.figure import Figure

        axes = Figure(figsize=(4, 4), layout="constrained").subplots()
    times = torch.linspace(0, 1, TIMES, dtype=torch.float64)
    d = curve.nodes.shape[-1]
    for path in curve(times).detach().cpu().reshape(-1, TIMES, d):
        if bool(path.isfinite().all()):
            x, y = (path[:, 0], path[:, 1]) if d > 1 else (times, path[:, 0])
            line = axes.plot(x, y, **options)[0]
            axes.plot(x[[0, -1]], y[[0, -1]], "o", color=line.get_color(), markersize=4)
    axes.set_xlabel("z₁" if d > 1 else "t")
    axes.set_ylabel("z₂" if d > 1 else "z₁")
    return axes


def strip(
    curve: _Curve,
    decode: Callable[[Tensor], Tensor],
    image: tuple[int, int],
    *,
    count: int = 9,
) -> Tensor:
    """Images decoded at equal times, side by side, [..., height, count × width].

    Args:
        curve: any.
        decode: from latents [B, d] to images [B, height × width] or [B, height, width].
        image: height and width.
        count: of images.

    Raises:
        InputError: count is not at least 2, or what is decoded are no images of that size.
    """
    if not isinstance(count, int) or count < 2:
        raise InputError(f"count: expected at least 2, got {count!r}")
    z = curve(torch.linspace(0, 1, count, dtype=torch.float64)).detach()
    with torch.no_grad():
        x = decode(z.reshape(-1, z.shape[-1]))
    if x.shape[:1] != (z[..., 0].numel(),) or x[0].numel() != image[0] * image[1]:
        raise InputError(
            f"image: expected the size of what is decoded, {list(x.shape[1:])}, got {image}"
        )
    return x.reshape(*z.shape[:-1], *image).movedim(-3, -2).flatten(-2)
