"""Ratios, roofline and growth as pictures."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import matplotlib

matplotlib.use("Agg")

from matplotlib import pyplot
from matplotlib.axes import Axes

INK, OURS, RIVAL, JAX, OTHER = "#333333", "#3f51b5", "#90a4ae", "#ef9a3c", "#d84315"


def draw(report: dict[str, Any], folder: Path) -> list[Path]:
    """Write ratios.png, roofline.png and growth.png."""
    folder.mkdir(parents=True, exist_ok=True)
    written = []
    for name, size, paint in (
        ("ratios", None, draw_ratios),
        ("roofline", (7.5, 4.8), draw_roofline),
        ("growth", (7.5, 4.8), draw_growth),
    ):
        cells = typical_cells(report)
        count = sum(len(rows) + 1.5 for rows in cells.values())
        figure, axes = pyplot.subplots(figsize=size or (8.5, 1.2 + 0.22 * count))
        paint(axes, report)
        figure.tight_layout()
        figure.savefig(folder / f"{name}.png", dpi=130)
        pyplot.close(figure)
        written.append(folder / f"{name}.png")
    return written


def label(row: dict[str, Any]) -> str:
    """The cell of a row, in words."""
    sizes = ", ".join(v if isinstance(v, str) else f"{k} = {v}" for k, v in row["sizes"].items())
    return f"{row['quantity']}: {sizes}, {row['dtype']}"


def typical_cells(report: dict[str, Any]) -> dict[str, list[dict[str, Any]]]:
    """The rows that were timed, of one cell for each quantity, family and Σ."""
    chosen: dict[tuple[str, ...], str] = {}
    rows: dict[str, list[dict[str, Any]]] = {}
    for row in report["results"]:
        if row["ratio"] is None:
            continue
        kind = (row["quantity"], *(v for v in row["sizes"].values() if isinstance(v, str)))
        name = label(row)
        rows.setdefault(name, []).append(row)
        # d = 8 and D = 784 are the middle of the grid, and float32 comes first in it
        middle = row["sizes"]["d"] == 8 and row["sizes"].get("D", 784) == 784
        if kind not in chosen or (middle and "d = 8" not in chosen[kind]):
            chosen[kind] = name
    return {name: rows[name] for name in chosen.values()}


def draw_ratios(axes: Axes, report: dict[str, Any]) -> None:
    """Bars: how many times as long as ours each rival takes, with quartiles."""
    position = 0.0
    ticks: list[float] = []
    names: list[str] = []
    for name, rows in typical_cells(report).items():
        axes.text(
            0.0, position, name, transform=axes.get_yaxis_transform(), fontsize=8, va="center"
        )
        position += 1
        for row in sorted(rows, key=lambda row: row["ratio"]):
            color = JAX if "JAX" in row["rival"] else RIVAL
            low, high = row["spread"]
            error = [[max(0.0, row["ratio"] - low)], [max(0.0, high - row["ratio"])]]
            axes.barh(position, row["ratio"] - 1, left=1, color=color, height=0.75)
            axes.errorbar(row["ratio"], position, xerr=error, color=INK, linewidth=1)
            outer = max(1.0, row["ratio"], high)
            axes.text(outer * 1.1, position, f"{row['ratio']:.2g}", fontsize=7, va="center")
            ticks.append(position)
            names.append(row["rival"])
            position += 1
        position += 0.5
    axes.axvline(1, color=OURS, linewidth=1.5)
    axes.set_xscale("log")
    axes.set_yticks(ticks, names, fontsize=7)
    axes.set_ylim(position, -1)
    axes.margins(x=0.15)
    axes.set_xlabel("time of the rival / time of ours (right of the line: ours is faster)")
    _plain(axes)


def draw_roofline(axes: Axes, report: dict[str, Any]) -> None:
    """Rates that ours reaches, against the measured peaks of complex products and memory."""
    for name, style in (("complex64", "-"), ("complex128", "--")):
        peak, memory = report["peaks"][name], report["peaks"]["memory"]
        intensities = [0.1, peak / memory, 1e4]
        roof = [min(peak, memory * i) for i in intensities]
        axes.plot(intensities, roof, style, color=INK, label=f"peak: {name} product, memory")
    marks = {"holomorphic": "o", "split": "s"}
    drawn = set()
    for row in report["floors"]:
        if not row["traffic"]:
            continue
        family, sigma = row["sizes"]["family"], row["sizes"]["sigma"]
        filled = OURS if row["dtype"] == "float32" else "white"
        name = f"ours: {family}, {sigma} Σ"
        axes.plot(
            row["operations"] / row["traffic"],
            row["operations"] / row["seconds"] / 1e9,
            marks[family],
            color={"diagonal": OURS, "scalar": JAX, "constant": OTHER}[sigma],
            markerfacecolor=None if filled == OURS else filled,
            label=None if name in drawn else name,
        )
        drawn.add(name)
    axes.set_xscale("log")
    axes.set_yscale("log")
    axes.set_xlabel("counted operations per byte that must move")
    axes.set_ylabel("counted operations, GFLOP/s")
    axes.legend(fontsize=7, frameon=False, loc="lower right")
    _plain(axes)


def draw_growth(axes: Axes, report: dict[str, Any]) -> None:
    """Times of ours against each size, relative to the smallest."""
    for row in report["growth"]:
        start = row["values"][0]
        axes.plot(
            [v / start for v in row["values"]],
            [s / row["seconds"][0] for s in row["seconds"]],
            "o-",
            label=f"{row['quantity']} in {row['in']}: exponent {row['exponent']:.2f}, "
            f"count {row['count_exponent']:.2f}",
        )
    axes.set_xscale("log", base=2)
    axes.set_yscale("log", base=2)
    axes.set_xlabel("size, relative to the smallest")
    axes.set_ylabel("time of ours, relative")
    axes.legend(fontsize=7, frameon=False)
    _plain(axes)


def _plain(axes: Axes) -> None:
    axes.spines[["top", "right"]].set_visible(False)
    axes.grid(alpha=0.25, axis="x")
