"""The metric's unit balls, as ellipses."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor

from kahler_verify.errors import InputError
from kahler_verify.geometry.quantities import AnyMetric, real_matrix
from kahler_verify.plots.plane import Plane
from kahler_verify.plots.surface import axes_or_new, named, require_plane

if TYPE_CHECKING:
    from matplotlib.axes import Axes

CORNERS = 96


def plot_indicatrices(
    metric: AnyMetric,
    points: Tensor | int = 9,
    *,
    axes: Axes | None = None,
    plane: Plane | None = None,
    radius: float = 1.0,
    label: str | None = "|v| = {radius:g} under g",
    **options: Any,
) -> Axes:
    """Draw {z + v: g(v, v) = radius²} for v in the plane: small where the decoder is sensitive.

    Args:
        metric: on real or complex latents.
        points: z [n, d], or how many along the plane's longer side.
        axes: to draw on; new ones by default.
        plane: of the latent space; not needed where that is a plane itself.
        radius: of the balls, in the metric's unit of length.
        label: for the legend, where ``{radius}`` is filled in; or None.
        options: of matplotlib's ``PolyCollection``.

    Raises:
        InputError: radius is not positive, or g is not positive definite at a point.
    """
    plane = require_plane(metric, plane)
    if not (isinstance(radius, (int, float)) and radius > 0 and math.isfinite(radius)):
        raise InputError(f"radius: expected a positive number, got {radius!r}")
    if isinstance(points, int):
        inner = plane.grid(points + 2)[1:-1, 1:-1]  # none on the rim
        points = inner.flatten(0, 1)
    if not isinstance(points, Tensor) or points.ndim != 2:
        raise InputError("points: expected a tensor [n, d], or a number of points")
    with torch.no_grad():
        h = plane.restricted(real_matrix(metric, points)).double().cpu()
    factor, info = torch.linalg.cholesky_ex(h)
    if bool((info > 0).any()):
        raise InputError(
            f"points: the metric is not positive definite at {int((info > 0).sum())} of "
            f"{len(points)} points"
        )
    angle = torch.linspace(0, 2 * math.pi, CORNERS + 1, dtype=torch.float64)[:-1]
    circle = radius * torch.stack([angle.cos(), angle.sin()], -1)
    # h = L Lᵀ, and v = L⁻ᵀ u has h(v, v) = |u|²
    v = torch.linalg.solve_triangular(factor.mT, circle.mT.expand(len(h), 2, -1), upper=True).mT
    corners = plane.shadow(points).double().cpu()[:, None] + v
    from matplotlib.collections import PolyCollection

    axes = axes_or_new(axes)
    style: dict[str, Any] = {"facecolors": "none", "edgecolors": "#222222", "linewidths": 0.8}
    if label is not None:
        style["label"] = label.format(radius=radius)
    axes.add_collection(PolyCollection(list(corners.numpy()), **(style | options)))
    return named(axes, plane)
