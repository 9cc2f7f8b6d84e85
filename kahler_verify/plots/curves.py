"""Curves, over a plane or against time."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor

from kahler_verify.curves.curve import Curve
from kahler_verify.errors import InputError
from kahler_verify.plots.plane import Plane, coordinate
from kahler_verify.plots.surface import axes_or_new

if TYPE_CHECKING:
    from matplotlib.axes import Axes

TIMES = 201


def plot_geodesics(
    curve: Curve,
    *,
    axes: Axes | None = None,
    plane: Plane | None = None,
    label: str | None = None,
    lengths: bool = False,
    ends: bool = True,
    **options: Any,
) -> Axes:
    """Draw the shadows of curves, or a curve in one dimension against time.

    Args:
        curve: any, one or a batch; those that were not found (NaN) are left out.
        axes: to draw on; new ones by default.
        plane: whose shadows are drawn; the first two coordinates by default.
        label: for the legend, named once for a batch.
        lengths: whether the label says how long the (first) curve is.
        ends: whether to mark the end points.
        options: of matplotlib's ``plot``.

    Raises:
        InputError: no curve, or a plane of another latent space.
    """
    if not isinstance(curve, Curve):
        raise InputError(f"curve: expected a Curve, got {type(curve).__name__}")
    times = torch.linspace(0, 1, TIMES, dtype=torch.float64)
    paths = _shadows(curve, times, plane)
    length = curve.length.detach().reshape(-1).cpu()
    axes = axes_or_new(axes)
    for n, path in enumerate(paths):
        if bool(path.isfinite().all()):
            name = f"{label}, length {float(length[n]):.4g}" if label and lengths else label
            line = axes.plot(*path.mT, label=name, **options)[0]
            label = None
            if ends:
                own = {"color": line.get_color(), "zorder": line.get_zorder() + 0.1}
                axes.plot(*path[[0, -1]].mT, "o", markersize=4, **own)
    if plane is None:
        d = curve.nodes.shape[-1]
        axes.set_xlabel(coordinate(0) if d > 1 else "t")
        axes.set_ylabel(coordinate(1) if d > 1 else coordinate(0))
    else:
        axes.set_xlabel(plane.names[0])
        axes.set_ylabel(plane.names[1])
    return axes


def _shadows(curve: Curve, times: Tensor, plane: Plane | None) -> Tensor:
    """[curves, TIMES, 2]."""
    z = curve(times).detach().cpu()
    z = z.reshape(-1, len(times), z.shape[-1])
    if plane is not None:
        return plane.shadow(z)
    if z.shape[-1] == 1:
        return torch.cat([times.to(z).expand(len(z), -1)[..., None], z], -1)
    return z[..., :2]
