"""How large the errors are, one panel for each route."""

from __future__ import annotations

import math
from collections.abc import Sequence

import numpy as np
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure

from kahler_verify.evidence.finding import EPSILON, Finding
from kahler_verify.evidence.report.summary import ROUTE_NAMES
from kahler_verify.evidence.routes.gaussians import STANDARD_ERRORS

BLUE, ORANGE, GREY = "#0072b2", "#d55e00", "#6b7280"  # told apart by colour-blind readers too
HISTOGRAMS = ("autograd", "mpmath", "torch_kl", "known", "monte_carlo")


def error_histograms(rows: Sequence[Finding]) -> Figure:
    """Errors of all points, one panel for each route; zeros are drawn apart, on the left."""
    by_route: dict[str, list[float]] = {}
    for row in rows:
        if row.route in HISTOGRAMS and "float32" not in row.what:
            by_route.setdefault(row.route, []).extend(row.errors)
    routes = [route for route in HISTOGRAMS if by_route.get(route)]
    columns = 3
    lines = max(1, -(-len(routes) // columns))
    figure = empty_figure(9.6, 2.5 * lines)
    for n, route in enumerate(routes):
        axes = figure.add_subplot(lines, columns, n + 1)
        errors = np.array(by_route[route])
        if route == "monte_carlo":
            axes.hist(errors, bins=np.linspace(0, 6, 25).tolist(), color=BLUE)
            axes.axvline(STANDARD_ERRORS, color=ORANGE, linewidth=1.5)
            axes.set_xlabel("largest deviation (standard errors)")
        else:
            decades = np.arange(-18.5, -8.4, 0.5)
            finite = np.log10(np.clip(errors[(errors > 0) & np.isfinite(errors)], 3e-19, 3e-9))
            axes.hist(finite, bins=list(decades), color=BLUE)
            zeros = int((errors == 0).sum())
            axes.bar([-19.5], [zeros], width=0.8, color=GREY)
            axes.axvline(math.log10(EPSILON), color=ORANGE, linewidth=1.5)
            axes.set_xticks([-19.5, -18, -16, -14, -12, -10])
            ticks = ["0", *[rf"$10^{{{d}}}$" for d in (-18, -16, -14, -12, -10)]]
            axes.set_xticklabels(ticks)
            axes.set_xlabel("relative error" if route == "known" else "error in the g-frame")
        axes.set_title(f"{ROUTE_NAMES[route]}: {len(errors)} points", loc="left")
        axes.set_ylabel("points" if n % columns == 0 else "")
        axes.spines[["top", "right"]].set_visible(False)
    return figure


def empty_figure(width: float, height: float) -> Figure:
    """A figure of this size in inches, that needs no display."""
    figure = Figure(figsize=(width, height), dpi=110, layout="constrained")
    FigureCanvasAgg(figure)
    return figure
