"""What a plane is coloured by: the quantities of a metric, or a field that was stored."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import numpy as np
from torch import Tensor

from kahler_verify.curves.energy import unchecked
from kahler_verify.errors import InputError
from kahler_verify.explorer.subject import Subject
from kahler_verify.geometry.quantities import BOTH, QUANTITIES, Quantity
from kahler_verify.plots.maps import COLOURS
from kahler_verify.spaces import COMPLEX

STEPS = 128  # of a colour map
FIELD = "field"


def layers_of(subject: Subject) -> dict[str, Quantity]:
    """Those that a subject has."""
    found = {
        name: each
        for name, each in QUANTITIES.items()
        if subject.known
        and (each.mapped and each.shown)
        and (each.latents == BOTH or subject.hermitian is not None)
    }
    if subject.field is not None:
        stored = QUANTITIES.get(subject.field.quantity)
        field = Quantity(FIELD, "Field", subject.field.at, unit=subject.field.quantity)
        found[FIELD] = field if stored is None else replace(field, scale=stored.scale)
    return found


def layer_named(subject: Subject, name: Any) -> Quantity:
    """One of them.

    Raises:
        InputError: the subject has no such layer.
    """
    known = layers_of(subject)
    if not isinstance(name, str) or name not in known:
        raise InputError(f"layer: expected one of {', '.join(known)}, got {name!r}")
    return known[name]


def values_at(subject: Subject, layer: Quantity, z: Tensor) -> Tensor:
    """A layer at points [B, d] in real coordinates, [B]; by its logarithm where colours are."""
    if layer.name == FIELD:
        values = layer.value(z)
    elif layer.latents == BOTH:
        values = layer.value(unchecked(subject.metric), z)
    else:
        values = layer.value(subject.hermitian, COMPLEX.from_real(z))
    return values.log10() if layer.scale == "log" else values


def legend(layer: Quantity) -> dict[str, str]:
    """Its title, the unit of the numbers that are shown, and the name of its colours."""
    unit = f"log₁₀ of {layer.unit}" if layer.scale == "log" else layer.unit
    return {"title": layer.title, "unit": unit, "colours": COLOURS[layer.scale]}


def colour_table(name: str) -> list[str]:
    """The colours of a map as ``#rrggbb``."""
    import matplotlib
    from matplotlib.colors import to_hex

    return [to_hex(rgb) for rgb in matplotlib.colormaps[name](np.linspace(0, 1, STEPS))]
