"""The quantities that a plane is coloured by, with their units and colours."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch import Tensor

from kahler_verify.curves.energy import unchecked
from kahler_verify.errors import InputError
from kahler_verify.explorer.subject import Subject
from kahler_verify.plots.quantities import condition, kahler_defect
from kahler_verify.spaces import COMPLEX

COLOURS = 128  # of a colour map
CUT = 0.02  # of the values on each side, that may go beyond the colours' range


@dataclass(frozen=True)
class Layer:
    """A quantity over a latent plane.

    Attributes:
        title: in words.
        unit: of the legend.
        colours: matplotlib's name; perceptually even, and told apart by colour-blind readers.
        signed: whether colours are centred on 0.
        values: at points [B, d] of a subject, [B]; NaN where it is not defined.
    """

    title: str
    unit: str
    colours: str
    signed: bool
    values: Callable[[Subject, Tensor], Tensor]


def _volume(subject: Subject, z: Tensor) -> Tensor:
    return unchecked(subject.metric).log_volume(z)


def _condition(subject: Subject, z: Tensor) -> Tensor:
    return condition(unchecked(subject.metric), z).clamp_min(1).log10()


def _curvature(subject: Subject, z: Tensor) -> Tensor:
    return unchecked(subject.metric).scalar_curvature(z)


def _defect(subject: Subject, z: Tensor) -> Tensor:
    hermitian = subject.hermitian
    assert hermitian is not None
    return kahler_defect(hermitian, COMPLEX.from_real(z))


def _field(subject: Subject, z: Tensor) -> Tensor:
    """The field's value at the nearest of its points, NaN farther away than they are apart."""
    from scipy.spatial import cKDTree

    assert subject.points is not None
    assert subject.values is not None
    places = subject.points.numpy()
    tree = cKDTree(places)
    apart = float(np.median(tree.query(places, min(2, len(places)))[0][:, -1]))
    gap, row = tree.query(z.numpy())
    near = torch.from_numpy(gap) <= 2 * apart + 1e-12
    return torch.where(near, subject.values[torch.from_numpy(row)].double(), torch.nan)


LAYERS = {
    "volume": Layer("Log volume density", "log √det g, nats", "cividis", False, _volume),
    "condition": Layer(
        "Condition of the metric", "log₁₀ of largest/least eigenvalue", "viridis", False, _condition
    ),
    "curvature": Layer("Scalar curvature", "Levi-Civita, 1/length²", "RdBu_r", True, _curvature),
    "defect": Layer("Kähler defect", "|∂g − ∂g|_g, 0 where Kähler", "viridis", False, _defect),
    "field": Layer("Field", "", "viridis", False, _field),
}


def layers_of(subject: Subject) -> dict[str, Layer]:
    """Those that a subject has."""
    if not subject.known:
        return {"field": LAYERS["field"]}
    found = dict(LAYERS)
    if subject.hermitian is None:
        del found["defect"]
    if subject.values is None:
        del found["field"]
    return found


def layer_named(subject: Subject, name: Any) -> Layer:
    """One of them.

    Raises:
        InputError: the subject has no such layer.
    """
    known = layers_of(subject)
    if not isinstance(name, str) or name not in known:
        raise InputError(f"layer: expected one of {', '.join(known)}, got {name!r}")
    return known[name]


def colour_range(values: np.ndarray, signed: bool) -> tuple[float, float]:
    """Where colours begin and end: without the outermost hundredths, and centred if signed."""
    finite = values[np.isfinite(values)]
    if not len(finite):
        return (-1.0, 1.0) if signed else (0.0, 1.0)
    low, high = (float(x) for x in np.quantile(finite, (CUT, 1 - CUT)))
    if signed:
        high = max(abs(low), abs(high)) or 1.0
        return -high, high
    return low, high if high > low else low + (abs(low) * 1e-6 or 1e-9)


def colour_table(name: str) -> list[str]:
    """The colours of a map as ``#rrggbb``."""
    import matplotlib
    from matplotlib.colors import to_hex

    return [to_hex(rgb) for rgb in matplotlib.colormaps[name](np.linspace(0, 1, COLOURS))]
