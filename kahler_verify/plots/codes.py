"""Codes of data, by class."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor

from kahler_verify.errors import InputError
from kahler_verify.plots.plane import Plane
from kahler_verify.plots.surface import axes_or_new, named

if TYPE_CHECKING:
    from matplotlib.axes import Axes

# Paul Tol's "muted", told apart in all common kinds of colour blindness, and black.
CLASSES = (
    "#332288",
    "#cc6677",
    "#117733",
    "#ddcc77",
    "#88ccee",
    "#882255",
    "#44aa99",
    "#999933",
    "#aa4499",
    "#222222",
)
MARKERS = "osD^vP<>Xp"  # beside the colours, and in their place beyond ten classes


def plot_codes(
    codes: Tensor,
    labels: Tensor | Sequence[Any] | None = None,
    *,
    axes: Axes | None = None,
    plane: Plane | None = None,
    names: bool = False,
    legend: bool = True,
    **options: Any,
) -> Axes:
    """Draw codes as points, a colour and a marker for each class.

    Args:
        codes: [N, d], real or complex.
        labels: class of each; None draws all alike.
        axes: to draw on; new ones by default.
        plane: whose shadows are drawn; by default that in which the codes vary most.
        names: draw the name of each class, of letters and digits, in place of a marker.
        legend: whether to name the classes.
        options: of matplotlib's ``scatter``.

    Raises:
        InputError: codes are no [N, d], labels are not as many, or names have other signs.
    """
    if not isinstance(codes, Tensor) or codes.ndim != 2 or not len(codes):
        raise InputError("codes: expected a tensor [N, d] with N ≥ 1")
    plane = Plane.of(codes) if plane is None else plane
    shadow = plane.shadow(codes).cpu()
    axes = axes_or_new(axes)
    style: dict[str, Any] = {"s": 14, "linewidths": 0.5, "edgecolors": "white"} | options
    if labels is None:
        style = {"c": "white", "edgecolors": "#222222"} | {"s": 10, "linewidths": 0.5} | options
        axes.scatter(shadow[:, 0], shadow[:, 1], **style)
        return named(axes, plane)
    given = labels.tolist() if isinstance(labels, Tensor) else list(labels)
    if len(given) != len(codes):
        raise InputError(f"labels: expected {len(codes)}, one for each code, got {len(given)}")
    for n, name in enumerate(sorted(set(given))):
        of_class = shadow[torch.tensor([each == name for each in given])]
        if names and not str(name).isalnum():
            raise InputError(f"labels: expected letters and digits to be drawn, got {name!r}")
        marker = f"${name}$" if names else MARKERS[(n + n // 10) % 10]
        look = {"color": CLASSES[n % len(CLASSES)], "marker": marker}
        axes.scatter(of_class[:, 0], of_class[:, 1], label=str(name), **(look | style))
    if legend:
        axes.legend(fontsize=8, framealpha=0.85, markerscale=1.3)
    return named(axes, plane)
