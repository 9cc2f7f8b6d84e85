"""The experiment as pictures: samples, differences, maps of the volume."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import matplotlib

matplotlib.use("Agg")

import numpy as np
import torch
from matplotlib import pyplot
from matplotlib.axes import Axes
from matplotlib.patches import Circle
from matplotlib.ticker import MaxNLocator

from experiments.kahler_vae.declaration import ARMS, HEADLINE, MEASURES
from experiments.kahler_vae.statistics import direction, find, mean_of
from experiments.store import Json
from kahler_verify.plots import Plane, plot_codes, plot_values

INK = "#333333"
KINDS = {"geometry": "#3f51b5", "control": "#607d8b", "baseline": "#d84315"}
COLUMNS = 24


def draw_samples(rows: dict[str, np.ndarray], path: Path) -> None:
    """The first samples [n, 8, 8] of each row, unselected, side by side."""
    figure, axes = pyplot.subplots(len(rows), 1, figsize=(9, 0.42 * len(rows) + 0.3))
    for axis, (name, images) in zip(axes, rows.items(), strict=True):
        tiles = np.pad(1 - images[:COLUMNS], ((0, 0), (1, 1), (1, 1)), constant_values=1.0)
        axis.imshow(np.hstack(list(tiles)), cmap="gray", vmin=0, vmax=1, interpolation="nearest")
        axis.set_xticks([])
        axis.set_yticks([4.5], [name], fontsize=9)
        axis.tick_params(length=0)
        axis.spines[:].set_visible(False)
    figure.tight_layout(h_pad=0.15)
    _save(figure, path)


def draw_forest(cell: Json, path: Path) -> None:
    """Paired differences to vanilla with their intervals, in the claim's three measures."""
    names = [name for name in ARMS if name != "vanilla"]
    figure, axes = pyplot.subplots(1, len(HEADLINE), figsize=(10, 4.6), sharey=True)
    for axis, measure in zip(axes, HEADLINE, strict=True):
        for place, name in enumerate(names):
            row = find(cell, name, measure)
            clear = direction(row) != "no clear change"
            color = KINDS[ARMS[name].kind]
            if row["low"] is not None:  # two seeds or more
                axis.plot([row["low"], row["high"]], [place, place], color=color, linewidth=2)
            axis.plot(
                row["difference"],
                place,
                "o",
                color=color,
                markerfacecolor=color if clear else "white",
                markersize=6,
            )
        axis.axvline(0, color=INK, linewidth=1)
        vanilla = mean_of(cell["values"]["vanilla"][measure])
        real = mean_of(cell["scale"]["real"][measure])
        axis.set_title(
            f"{MEASURES[measure][0]}\nvanilla {vanilla:.3f}, real digits {real:.3f}", fontsize=10
        )
        axis.set_xlabel("difference to vanilla", fontsize=9)
        axis.xaxis.set_major_locator(MaxNLocator(4))
        axis.tick_params(labelsize=8)
        axis.spines[["top", "right"]].set_visible(False)
        axis.grid(alpha=0.25, axis="x")
    axes[0].set_yticks(range(len(names)), [ARMS[name].label for name in names], fontsize=9)
    axes[0].set_ylim(len(names) - 0.4, -0.6)
    handles = [
        pyplot.Line2D([], [], color=color, marker="o", label=kind) for kind, color in KINDS.items()
    ]
    handles.append(
        pyplot.Line2D(
            [], [], color=INK, marker="o", markerfacecolor="white", label="no clear change"
        )
    )
    figure.legend(handles=handles, fontsize=9, frameon=False, loc="lower center", ncols=4)
    figure.tight_layout(rect=(0, 0.05, 1, 1))
    _save(figure, path)


def draw_maps(planes: dict[str, dict[str, Any]], radius: float, path: Path) -> None:
    """Log volumes over a 2-plane of latent space, with the codes' shadows and the ball."""
    figure, axes = pyplot.subplots(
        1, len(planes), figsize=(10.5, 4.2), sharey=True, layout="constrained"
    )
    inside = [plane["log_volume"][_within(plane["side"], radius)] for plane in planes.values()]
    low, high = np.quantile(np.concatenate(inside), [0.0, 1.0])
    image = None
    for axis, (name, plane) in zip(axes, planes.items(), strict=True):
        image = _draw_map(axis, plane, radius, (low, high))
        axis.set_title(name, fontsize=10)
    figure.colorbar(image, ax=axes, label="log volume density", extend="both", shrink=0.85)
    _save(figure, path)


def _draw_map(axis: Axes, plane: dict[str, Any], radius: float, limits: tuple[float, float]) -> Any:
    extent = float(plane["side"][-1])
    names = ("first direction", "second direction")
    space = replace(Plane.coordinates(2, extent=extent), names=names)
    values = torch.from_numpy(plane["log_volume"])
    low, high = limits
    plot_values(values, space, axes=axis, vmin=low, vmax=high, legend=False)
    style = {"s": 3, "alpha": 0.5, "linewidths": 0}
    plot_codes(torch.as_tensor(plane["codes"]), axes=axis, plane=space, **style)
    axis.add_patch(Circle((0, 0), radius, fill=False, color="#ff7043", linewidth=1.5))
    axis.tick_params(labelsize=8)
    axis.label_outer()
    return axis.collections[0]


def _within(side: np.ndarray, radius: float) -> np.ndarray:
    return side[:, None] ** 2 + side[None, :] ** 2 < radius**2


def _save(figure: Any, path: Path) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    figure.savefig(path, dpi=130)
    pyplot.close(figure)
