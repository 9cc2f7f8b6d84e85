"""A layer's values over a window of a plane, and the metric there."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from typing import Any

import numpy as np
import torch
from torch import Tensor

from kahler_verify.curves.energy import unchecked
from kahler_verify.explorer.layers import values_at
from kahler_verify.explorer.reading import Plane
from kahler_verify.explorer.subject import Subject
from kahler_verify.explorer.work import interruptible
from kahler_verify.geometry.quantities import Quantity, Scale
from kahler_verify.plots.maps import colour_range

COARSE, FINE, FINEST = 21, 81, 161  # points along each side
METRIC = 21  # of the metric's own grid
POINTS = 512  # at once


def watched(subject: Subject, check: Callable[[], None]) -> Subject:
    """The same, whose metric can be interrupted."""
    return replace(subject, metric=interruptible(subject.metric, check))


def over(
    subject: Subject,
    layer: Quantity,
    plane: Plane,
    window: tuple[float, float, float, float],
    size: int,
    check: Callable[[], None],
) -> dict[str, Any]:
    """Values [size²] on a grid, rows from the bottom up, and g on one of its own."""
    with torch.no_grad():
        pieces = []
        for piece in plane.at(grid(window, size)).split(POINTS):
            check()
            pieces.append(values_at(subject, layer, piece))
        values = torch.cat(pieces)
        places = plane.at(grid(window, METRIC))
        g = torch.full((len(places), 2, 2), torch.nan)
        if subject.known:
            g = plane.pulled_back(unchecked(subject.metric).metric_matrix(places))
    values = torch.where(values.isfinite(), values, torch.nan)
    shown: Scale = "signed" if layer.scale == "signed" else "linear"  # of logarithms too
    return {
        "window": list(window),
        "size": size,
        "values": rounded(values),
        "range": list(colour_range(values.numpy(), shown)),
        "metric": rounded(torch.stack([g[:, 0, 0], g[:, 0, 1], g[:, 1, 1]], -1).flatten()),
        "metric_size": METRIC,
        "undefined": int(values.isnan().sum()),
    }


def grid(window: tuple[float, float, float, float], size: int) -> Tensor:
    """Places [size², 2]; the first coordinate runs fastest."""
    left, right, bottom, top = window
    x = torch.linspace(left, right, size, dtype=torch.float64)
    y = torch.linspace(bottom, top, size, dtype=torch.float64)
    rows, columns = torch.meshgrid(y, x, indexing="ij")
    return torch.stack([columns, rows], -1).reshape(-1, 2)


def rounded(values: Tensor) -> list[float]:
    """Five digits, which a picture does not need more of."""
    return [float(f"{x:.5g}") for x in np.asarray(values, dtype=float)]
