"""A quick picture of a field."""

from __future__ import annotations

from io import BytesIO
from typing import Any

import numpy as np

from kahler_verify.errors import InputError
from kahler_verify.fields.points import Grid, coordinate_names
from kahler_verify.fields.reading import Field

MOST = 20_000  # points of a cloud
ENDS = (1, 99)  # percent of the values between which colours change
MISSING = "0.6"  # where a field is NaN


def picture(field: Field) -> bytes:
    """A PNG: a map or curve of a grid, a cloud of draws and codes; and how values are distributed.

    A grid of more than two directions is cut in the middle of the others.

    Raises:
        InputError: the field is one of matrices, or nowhere finite.
    """
    if field.plan.of.matrix:
        raise InputError(f"plot: expected a field of numbers, got matrices, {field.name}")
    from matplotlib.figure import Figure

    drawn = _cut(field) if isinstance(field.plan.points, Grid) else _cloud(field)
    values = drawn["values"]
    finite = values[np.isfinite(values)]
    if not finite.size:
        raise InputError("plot: expected values that are finite, but none is")
    figure = Figure(figsize=(8.4, 3.6), layout="constrained")
    place, histogram = figure.subplots(1, 2, width_ratios=[3, 2])
    label = f"{field.name}" + ("" if field.attributes["units"] == "1" else " / nat")
    low, high = np.percentile(finite, ENDS)
    colours = {"cmap": "viridis", "vmin": low, "vmax": high}
    outside = _extension(finite, low, high)
    place.set_facecolor(MISSING)
    if "y" not in drawn:
        place.plot(drawn["x"], values, **drawn["style"])
        place.set_facecolor("none")
        place.set(xlabel=drawn["names"][0], ylabel=label)
    elif values.ndim == 2:
        x, y = drawn["x"], drawn["y"]
        shown = place.pcolormesh(x, y, values.T, shading="nearest", rasterized=True, **colours)
    else:
        size = float(np.clip(3e4 / len(values), 1, 16))
        shown = place.scatter(
            drawn["x"], drawn["y"], c=values, s=size, linewidths=0, plotnonfinite=False, **colours
        )
        place.set_facecolor("none")
    if "y" in drawn:
        figure.colorbar(shown, ax=place, label=label, extend=outside)
        place.set(xlabel=drawn["names"][0], ylabel=drawn["names"][1], aspect="equal")
    place.set_title(drawn["title"], fontsize=9)
    histogram.hist(finite, bins=min(100, 10 + finite.size // 20), color="tab:gray")
    lost = values.size - finite.size
    done, count = field.done
    histogram.set(xlabel=label, ylabel="points", yticks=[])
    histogram.set_title(
        f"{finite.size} points"
        + (f", {lost} not finite" if lost else "")
        + (f"\n{done} of {count} chunks are done" if done < count else ""),
        fontsize=9,
    )
    out = BytesIO()
    figure.savefig(out, format="png", dpi=120)
    return out.getvalue()


def _extension(values: np.ndarray, low: float, high: float) -> str:
    below, above = bool((values < low).any()), bool((values > high).any())
    return {(0, 0): "neither", (1, 0): "min", (0, 1): "max", (1, 1): "both"}[below, above]


def _cut(field: Field) -> dict[str, Any]:
    """The first two directions of a grid along which there is more than a point."""
    points = field.plan.points
    assert isinstance(points, Grid)
    long = [k for k, n in enumerate(points.counts) if n > 1] or [0]
    shown = long[:2]
    axes = points.axes()
    where = tuple(slice(None) if k in shown else n // 2 for k, n in enumerate(points.counts))
    others = [
        f"{points.names[k]} = {axes[k][n // 2]:.3g}"
        for k, n in enumerate(points.counts)
        if k not in shown
    ]
    found: dict[str, Any] = {
        "values": field.values[where],
        "x": axes[shown[0]],
        "names": [points.names[k] for k in shown],
        "title": ", ".join([str(field.attributes["model"]), *others]),
        "style": {"marker": "."} if len(axes[shown[0]]) < 40 else {},
    }
    return found | ({"y": axes[shown[1]]} if len(shown) > 1 else {})


def _cloud(field: Field) -> dict[str, Any]:
    """Points by two real coordinates, of the first complex one; some of them where many."""
    count = field.shape[0]
    every = -(-count // MOST)
    z = field.points[::every]
    names = coordinate_names(field.plan.space)
    second = 1
    if np.iscomplexobj(z):  # the plane of the first
        second, z = z.shape[1], np.concatenate([z.real, z.imag], 1)
    some = f" (one in {every})" if every > 1 else ""
    found: dict[str, Any] = {
        "values": field.values[::every],
        "x": z[:, 0],
        "names": [names[0], names[second] if len(names) > 1 else ""],
        "title": f"{field.attributes['model']}, {field.plan.points.kind}{some}",
        "style": {"marker": ".", "linestyle": "none"},
    }
    return found | ({"y": z[:, second]} if z.shape[1] > 1 else {})
