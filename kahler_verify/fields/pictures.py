"""A quick picture of a field."""

from __future__ import annotations

from io import BytesIO
from typing import TYPE_CHECKING, Any

import numpy as np
import torch

from kahler_verify.errors import InputError
from kahler_verify.fields.points import Grid, coordinate_names
from kahler_verify.fields.reading import Field
from kahler_verify.plots.maps import COLOURS, extension, norm_of, plain_ticks, plot_values
from kahler_verify.plots.plane import Plane

if TYPE_CHECKING:
    from matplotlib.axes import Axes

MOST = 20_000  # points of a cloud
FEW = 40  # points of a curve, that are marked


def picture(field: Field) -> bytes:
    """A PNG: a map or curve of a grid, a cloud of draws and codes; and how values are distributed.

    A grid of more than two directions is cut in the middle of the others.

    Raises:
        InputError: the field is one of matrices, or nowhere finite.
    """
    if field.plan.of.matrix:
        raise InputError(f"plot: expected a field of numbers, got matrices, {field.name}")
    from matplotlib.figure import Figure

    figure = Figure(figsize=(9.6, 3.9), layout="constrained")
    place, histogram = figure.subplots(1, 2, width_ratios=[3, 2])
    drawn = _cut(field, place) if isinstance(field.plan.points, Grid) else _cloud(field, place)
    _distribution(field, drawn, histogram)
    out = BytesIO()
    figure.savefig(out, format="png", dpi=120)
    return out.getvalue()


def _finite(values: np.ndarray) -> np.ndarray:
    finite = values[np.isfinite(values)]
    if not finite.size:
        raise InputError("plot: expected values that are finite, but none is")
    return finite


def _cut(field: Field, place: Axes) -> np.ndarray:
    """The first two directions of a grid along which there is more than a point; its values."""
    points, of = field.plan.points, field.plan.of
    assert isinstance(points, Grid)
    long = [k for k, n in enumerate(points.counts) if n > 1] or [0]
    shown, held = long[:2], [k for k in range(len(points.counts)) if k not in long[:2]]
    axes = points.axes()
    middle = {k: points.counts[k] // 2 for k in held}
    values = field.values[tuple(middle.get(k, slice(None)) for k in range(len(axes)))]
    _finite(values)
    if len(shown) == 2:
        start = np.array(points.origin)
        for k in held:
            start = start + axes[k][middle[k]] * np.array(points.directions[k])
        rows = [start, *(np.array(points.directions[k]) for k in shown)]
        origin, first, second = (field.plan.space.from_real(torch.from_numpy(x)) for x in rows)
        left, right, bottom, top = (float(end) for k in shown for end in axes[k][[0, -1]])
        names = (points.names[shown[0]], points.names[shown[1]])
        plane = Plane(origin, first, second, (left, right, bottom, top), names)
        plot_values(torch.from_numpy(values).T, plane, axes=place, label=of.label, scale=of.scale)
    else:
        _curve(field, place, axes[shown[0]], values, points.names[shown[0]])
    others = [f"{points.names[k]} = {axes[k][middle[k]]:.3g}" for k in held]
    place.set_title(", ".join([str(field.attributes["model"]), *others]), fontsize=9)
    return values


def _cloud(field: Field, place: Axes) -> np.ndarray:
    """Points by two real coordinates, of the first complex one; some of them where many."""
    of, count = field.plan.of, field.shape[0]
    every = -(-count // MOST)
    z, values = field.points[::every], field.values[::every]
    names = coordinate_names(field.plan.space)
    second = 1
    if np.iscomplexobj(z):  # the plane of the first
        second, z = z.shape[1], np.concatenate([z.real, z.imag], 1)
    finite = _finite(values)
    if z.shape[1] == 1:
        _curve(field, place, z[:, 0], values, names[0], linestyle="none")
    else:
        norm = norm_of(finite, of.scale)
        size = float(np.clip(3e4 / len(values), 1, 16))
        style: dict[str, Any] = {"cmap": COLOURS[of.scale], "norm": norm, "linewidths": 0}
        shown = place.scatter(z[:, 0], z[:, second], c=values, s=size, **style)
        ends = extension(finite, norm.vmin, norm.vmax)
        bar = place.figure.colorbar(shown, ax=place, label=of.label, extend=ends, shrink=0.86)
        if of.scale == "log":
            plain_ticks(bar.ax.yaxis)
        place.set(xlabel=names[0], ylabel=names[second], aspect="equal")
    some = f" (one in {every})" if every > 1 else ""
    place.set_title(f"{field.attributes['model']}, {field.plan.points.kind}{some}", fontsize=9)
    return values


def _curve(
    field: Field, place: Axes, x: np.ndarray, values: np.ndarray, name: str, **style: Any
) -> None:
    """Values over one coordinate."""
    dots: dict[str, Any] = {"marker": "."} if len(x) < FEW or style else {}
    place.plot(x, np.where(np.isfinite(values), values, np.nan), **dots, **style)
    place.set(xlabel=name, ylabel=field.plan.of.label)
    if field.plan.of.scale == "log":
        place.set_yscale("log")
        plain_ticks(place.yaxis)


def _distribution(field: Field, values: np.ndarray, histogram: Axes) -> None:
    """How many points have which values, and of how many there is none."""
    of, finite = field.plan.of, _finite(values)
    known = finite[finite > 0] if of.scale == "log" else finite
    bins: Any = min(100, 10 + finite.size // 20)
    if of.scale == "log":
        bins = np.geomspace(known.min(), known.max() * (1 + 1e-9), bins + 1)
        histogram.set_xscale("log")
        plain_ticks(histogram.xaxis)
    histogram.hist(known, bins=bins, color="tab:gray")
    lost = values.size - finite.size
    done, count = field.done
    histogram.set(xlabel=of.title, ylabel="points", yticks=[])
    histogram.set_title(
        f"{finite.size} points"
        + (f", {lost} not finite" if lost else "")
        + (f"\n{done} of {count} chunks are done" if done < count else ""),
        fontsize=9,
    )
