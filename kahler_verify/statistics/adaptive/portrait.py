"""A law in the plane, drawn: data, contours of its density, and geodesic ellipses."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from torch import Tensor

from kahler_verify.errors import InputError
from kahler_verify.statistics.adaptive.law import AdaptiveLaw

if TYPE_CHECKING:
    from matplotlib.axes import Axes

GRID = 120  # points along each axis
MARGIN = 0.25  # of the data's extent
LEVELS = (0.5, 0.9, 0.99)  # masses that contours hold
SIZES = (1.0, 2.0)  # standard deviations of the ellipses
CORNERS = 361


def ellipses(law: AdaptiveLaw, size: float) -> list[Tensor]:
    """exp_μ of vᵀΓv = size² for each component, [CORNERS, 2]; NaN beyond the cut."""
    found = []
    for fan, precision in zip(law.fans, law.precisions, strict=True):
        assert fan.patches is not None
        index = torch.linspace(0, len(fan.ends), CORNERS, dtype=torch.float64)
        u = fan.direction(index)
        radius = size / ((u @ precision) * u).sum(-1).sqrt()
        x = fan.patches.at(radius, index)[0]
        ends = torch.minimum(
            *[
                fan.ends[side.remainder(len(fan.ends))]
                for side in (index.floor().long(), index.floor().long() + 1)
            ]
        )
        found.append(torch.where((radius <= ends)[:, None], x, torch.nan))
    return found


def portrait(
    law: AdaptiveLaw, axes: Axes, x: Tensor | None = None, *, label: str | None = None
) -> Axes:
    """Draw contours of the density by the chart's measure, geodesic ellipses, and points.

    Args:
        law: in two dimensions.
        axes: to draw into.
        x: points [N, 2].
        label: a title.

    Raises:
        InputError: the law is not in the plane.
    """
    if law.event_shape[0] != 2:
        raise InputError(f"law: expected one in the plane to draw, got d = {law.event_shape[0]}")
    seen = torch.cat([law.means, *([x] if x is not None else []), *ellipses(law, SIZES[0])])
    seen = seen[seen.isfinite().all(-1)]
    low, high = seen.amin(0), seen.amax(0)
    margin = MARGIN * (high - low).max()
    sides = [
        torch.linspace(float(low[i] - margin), float(high[i] + margin), GRID, dtype=torch.float64)
        for i in (0, 1)
    ]
    grid = torch.cartesian_prod(*sides)
    quick = law.quick()
    density = quick.log_prob(grid).exp().nan_to_num(0).reshape(GRID, GRID).numpy()
    levels = _levels(density)
    options: dict[str, Any] = {"cmap": "Blues", "extend": "max"}
    axes.contourf(*[s.numpy() for s in sides], density.T, levels, **options)
    if x is not None:
        axes.scatter(x[:, 0].numpy(), x[:, 1].numpy(), s=6, color="black", alpha=0.5, linewidths=0)
    for size in SIZES:
        for curve in ellipses(law, size):
            axes.plot(*curve.mT.numpy(), color="tab:red", linewidth=1.2 / size)
    first, second = law.means.mT.numpy()
    axes.scatter(first, second, marker="+", s=60, color="tab:red")
    axes.set_aspect("equal")
    axes.set_xlim(float(sides[0][0]), float(sides[0][-1]))
    axes.set_ylim(float(sides[1][0]), float(sides[1][-1]))
    if label is not None:
        axes.set_title(label, fontsize=10)
    return axes


def _levels(density: np.ndarray) -> list[float]:
    """Densities above which the grid has the masses ``LEVELS``, and half way between."""
    order = np.sort(density.ravel())[::-1]
    mass = np.cumsum(order) / max(order.sum(), math.ulp(0.0))
    found = [float(order[np.searchsorted(mass, level)]) for level in LEVELS]
    found += [float(order[np.searchsorted(mass, level)]) for level in (0.05, 0.25, 0.75)]
    return sorted(set(found))
