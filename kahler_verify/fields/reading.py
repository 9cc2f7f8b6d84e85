"""Reading a field back."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np

from kahler_verify.errors import InputError
from kahler_verify.fields.plan import Plan
from kahler_verify.fields.points import Codes
from kahler_verify.fields.stores import chunk_file, marked, opened


@dataclass(frozen=True)
class Field:
    """A field in a store; arrays are read when they are asked for.

    Attributes:
        path: of the store.
        plan: all that its numbers depend on.
        attributes: of store and field, for readers: title, model, conventions, long_name, units.
    """

    path: Path
    plan: Plan
    attributes: dict[str, Any]

    @property
    def name(self) -> str:
        """The quantity's."""
        return self.plan.quantity

    @property
    def shape(self) -> tuple[int, ...]:
        """Of the points: a grid's, or (N,)."""
        return self.plan.points.shape

    @property
    def dims(self) -> tuple[str, ...]:
        """Names of those axes."""
        return self.plan.points.dims

    @property
    def done(self) -> tuple[int, int]:
        """How many blocks are there, and of how many."""
        count = self.plan.layout.count
        there = (chunk_file(self.path, self.plan.value, task).is_file() for task in range(count))
        return sum(there), count

    @cached_property
    def values(self) -> np.ndarray:
        """The field, [*shape], or [*shape, d, d] of matrices; NaN where it is not done."""
        return np.asarray(opened(self.path, "r")[self.name][...])  # type: ignore[index]

    @cached_property
    def points(self) -> np.ndarray:
        """Where its values are, [N, d], complex at complex latents, in the order of the values."""
        return self.rows(0, int(np.prod(self.shape)))

    def rows(self, start: int, stop: int) -> np.ndarray:
        """Some of the points."""
        points = self.plan.points
        if isinstance(points, Codes):
            points = Codes(points.count, points.sha256, opened(self.path, "r")["z"])
        x = points.rows(start, stop)
        if not self.plan.space.complex:
            return x
        d = x.shape[1] // 2
        return x[:, :d] + 1j * x[:, d:]


def open_field(path: str | Path) -> Field:
    """A field that is in a store, whole or in part.

    Raises:
        InputError: there is none.
    """
    path = Path(path)
    plan = Plan.from_json(marked(path)["plan"])
    try:
        group = opened(path, "r")
        own = group[plan.quantity]
    except (OSError, KeyError, ValueError) as error:
        raise InputError(f"store: expected a field at {path}, but {error}") from error
    attributes = {k: v for k, v in group.attrs.items() if k != "kahler_verify"}
    return Field(path, plan, attributes | dict(own.attrs))
