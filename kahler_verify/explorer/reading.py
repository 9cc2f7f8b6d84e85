"""What a page sends, read and checked; and answers as JSON has them."""

from __future__ import annotations

import math
from typing import Any, NamedTuple

import torch
from torch import Tensor

from kahler_verify.errors import InputError


class Plane(NamedTuple):
    """A plane in the latent space: z = origin + x e_1 + y e_2.

    Attributes:
        origin: [d].
        axes: e_1 and e_2, [2, d].
    """

    origin: Tensor
    axes: Tensor

    def at(self, places: Tensor) -> Tensor:
        """z [N, d] at places (x, y) [N, 2]."""
        return self.origin + places @ self.axes

    def pulled_back(self, g: Tensor) -> Tensor:
        """A metric [N, d, d] on the plane, [N, 2, 2]."""
        return self.axes @ g @ self.axes.mT


def number(name: str, value: Any, low: float, high: float) -> float:
    """A number within limits."""
    known = isinstance(value, int | float) and not isinstance(value, bool)
    if not known or not low <= value <= high:
        raise InputError(f"{name}: expected a number from {low:g} to {high:g}, got {value!r}")
    return float(value)


def whole(name: str, value: Any, low: int, high: int) -> int:
    """A whole number within limits."""
    if not isinstance(value, int) or isinstance(value, bool) or not low <= value <= high:
        raise InputError(f"{name}: expected a whole number from {low} to {high}, got {value!r}")
    return value


def vector(name: str, value: Any, size: int) -> Tensor:
    """Finite numbers [size]."""
    if not isinstance(value, list) or len(value) != size:
        raise InputError(f"{name}: expected {size} coordinates, got {_short(value)}")
    for each in value:
        if not isinstance(each, int | float) or isinstance(each, bool) or not math.isfinite(each):
            raise InputError(f"{name}: expected finite numbers, got {_short(each)}")
    return torch.tensor(value, dtype=torch.float64)


def plane(value: Any, size: int) -> Plane:
    """A plane, whose axes are independent."""
    if not isinstance(value, dict) or not isinstance(value.get("axes"), list):
        raise InputError(f"plane: expected an origin and two axes, got {_short(value)}")
    if len(value["axes"]) != 2:
        raise InputError(f"plane: expected two axes, got {len(value['axes'])}")
    origin = vector("plane", value.get("origin"), size)
    axes = torch.stack([vector("plane", axis, size) for axis in value["axes"]])
    if float(torch.linalg.det(axes @ axes.mT)) <= 1e-12 * float(axes.square().sum() ** 2):
        raise InputError("plane: expected two axes of different directions")
    return Plane(origin, axes)


def window(value: Any) -> tuple[float, float, float, float]:
    """Left, right, bottom and top in a plane."""
    left, right, bottom, top = vector("window", value, 4).tolist()
    if not (left < right and bottom < top and max(map(abs, (left, right, bottom, top))) < 1e6):
        raise InputError(f"window: expected left < right and bottom < top, got {value}")
    return left, right, bottom, top


def plain(value: Any) -> Any:
    """Tensors as lists, and null for what is not finite, which JSON does not have."""
    if isinstance(value, Tensor):
        value = value.tolist()
    if isinstance(value, dict):
        return {name: plain(each) for name, each in value.items()}
    if isinstance(value, list | tuple):
        return [plain(each) for each in value]
    if isinstance(value, float) and not math.isfinite(value):
        return None
    return value


def _short(value: Any) -> str:
    text = repr(value)
    return text if len(text) <= 60 else f"{text[:57]}..."
