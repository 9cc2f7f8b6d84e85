"""Maps: a quantity of a metric over a plane."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from torch import Tensor

from kahler_verify.curves.energy import unchecked
from kahler_verify.errors import InputError
from kahler_verify.geometry.quantities import QUANTITIES, AnyMetric, Quantity, Scale
from kahler_verify.plots.plane import Plane
from kahler_verify.plots.surface import axes_or_new, named, require_plane

if TYPE_CHECKING:
    from matplotlib.axes import Axes

RESOLUTION = 81
UNDEFINED = "#b8bcc4"  # where there is no value
CUT = 0.02  # of the values on each side, that may go beyond the colours' range
# matplotlib's names: perceptually even, and told apart by colour-blind readers
COLOURS: Mapping[Scale, str] = {"linear": "viridis", "log": "cividis", "signed": "RdBu_r"}


def plot_field(
    metric: AnyMetric,
    quantity: str | Quantity | Callable[[Tensor], Tensor] = "log_volume",
    *,
    axes: Axes | None = None,
    plane: Plane | None = None,
    resolution: int = RESOLUTION,
    label: str | None = None,
    legend: bool = True,
    **options: Any,
) -> Axes:
    """Draw a quantity of a metric as a map, with its legend; grey where it is not defined.

    Args:
        metric: on real or complex latents.
        quantity: "log_volume", "det", "condition", "scalar_curvature", "kahler_defect", a
            :class:`Quantity`, or a function of points [n, d] with values [n].
        axes: to draw on; new ones by default.
        plane: of the latent space; not needed where that is a plane itself.
        resolution: points along the longer side.
        label: of the legend, in place of the quantity's own.
        legend: whether to draw the bar of colours.
        options: of matplotlib's ``pcolormesh``, such as ``cmap``.

    Raises:
        InputError: an unknown quantity, one that this metric does not have, or a plane of another
            latent space.
    """
    plane = require_plane(metric, plane)
    wanted = _mapped(quantity)
    z = plane.grid(resolution)
    quiet: Any = unchecked(metric)  # type: ignore[arg-type]  # of either kind; it is only copied
    with torch.no_grad():
        values = wanted.value(quiet, z.flatten(0, 1))
    if not isinstance(values, Tensor) or values.numel() != z[..., 0].numel():
        got = list(values.shape) if isinstance(values, Tensor) else type(values).__name__
        raise InputError(
            f"quantity: expected a value for each of {z[..., 0].numel()} points, got {got}"
        )
    return plot_values(
        values.reshape(z.shape[:-1]),
        plane,
        axes=axes,
        label=label or wanted.label,
        scale=wanted.scale,
        legend=legend,
        **options,
    )


def _mapped(quantity: Any) -> Quantity:
    """What a map is of, by its name, itself, or as a function of points."""
    known = {name: each for name, each in QUANTITIES.items() if each.mapped}
    if isinstance(quantity, Quantity):
        return quantity
    if isinstance(quantity, str) and quantity in known:
        return known[quantity]
    if isinstance(quantity, str) or not callable(quantity):
        raise InputError(
            f"quantity: expected {', '.join(known)}, or a function of points, got {quantity!r}"
        )
    name = getattr(quantity, "__name__", "value")
    return Quantity(name, name, lambda _, z: quantity(z))


def plot_values(
    values: Tensor,
    plane: Plane,
    *,
    axes: Axes | None = None,
    label: str = "",
    scale: Scale = "linear",
    legend: bool = True,
    **options: Any,
) -> Axes:
    """Draw values at the points of ``plane.grid`` as a map.

    Args:
        values: real [rows, columns]; not finite where undefined.
        plane: as the grid's.
        axes: to draw on; new ones by default.
        label: of the legend, with the unit.
        scale: linear, log (for positive values) or signed (white is 0).
        legend: whether to draw the bar of colours.
        options: of matplotlib's ``pcolormesh``.
    """
    if not isinstance(values, Tensor) or values.ndim != 2 or values.is_complex():
        raise InputError("values: expected a real tensor [rows, columns]")
    if scale not in COLOURS:
        raise InputError(f"scale: expected {', '.join(COLOURS)}, got {scale!r}")
    array = np.ma.masked_invalid(values.detach().cpu().double().numpy())
    if scale == "log":
        array = np.ma.masked_less_equal(array, 0)
    if array.count() == 0:
        raise InputError(f"values: {label or 'the quantity'} is defined nowhere in this plane")
    axes = axes_or_new(axes)
    style: dict[str, Any] = {"cmap": COLOURS[scale], "rasterized": True, "shading": "gouraud"}
    if array.count() < array.size:
        style["shading"] = "nearest"  # which can leave points out
    style["norm"] = norm_of(array.compressed(), scale)
    if {"vmin", "vmax"} & options.keys():
        del style["norm"]
    left, right, bottom, top = plane.extent
    s = np.linspace(left, right, array.shape[1])
    t = np.linspace(bottom, top, array.shape[0])
    mesh = axes.pcolormesh(s, t, array, **(style | options))
    axes.set_facecolor(UNDEFINED)
    if legend:
        ends = extension(array.compressed(), *mesh.get_clim())
        bar = axes.figure.colorbar(mesh, ax=axes, label=label, extend=ends, shrink=0.86)
        if scale == "log":
            plain_ticks(bar.ax.yaxis)
    return named(axes, plane)


def norm_of(values: np.ndarray, scale: Scale) -> Any:
    """How matplotlib takes values to colours."""
    from matplotlib.colors import LogNorm, Normalize

    return (LogNorm if scale == "log" else Normalize)(*colour_range(values, scale))


def plain_ticks(axis: Any) -> None:
    """On a logarithmic axis 1, 2, 5, 10 and so on, which are told apart within a decade too."""
    from matplotlib.ticker import FuncFormatter, LogLocator, NullLocator

    axis.set_major_locator(LogLocator(subs=(1, 2, 5)))
    axis.set_major_formatter(FuncFormatter(lambda x, _: f"{x:g}"))
    axis.set_minor_locator(NullLocator())


def colour_range(values: np.ndarray, scale: Scale) -> tuple[float, float]:
    """Where colours begin and end: without the outermost values, and centred where signed."""
    known = values[np.isfinite(values) & ((values > 0) | (scale != "log"))]
    if not len(known):
        return {"linear": (0.0, 1.0), "log": (1.0, 10.0), "signed": (-1.0, 1.0)}[scale]
    if scale == "signed":
        bound = float(np.quantile(np.abs(known), 1 - CUT)) or 1.0
        return -bound, bound
    low, high = (float(x) for x in np.quantile(known, (CUT, 1 - CUT)))
    return low, high if high > low else low + (abs(low) * 1e-6 or 1e-9)


def extension(values: np.ndarray, low: Any, high: Any) -> str:
    """On which sides of a legend values go beyond its ends."""
    below, above = bool((values < low).any()), bool((values > high).any())
    return {(0, 0): "neither", (1, 0): "min", (0, 1): "max", (1, 1): "both"}[below, above]
