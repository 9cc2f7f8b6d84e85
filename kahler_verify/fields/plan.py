"""What a field is of: all that its numbers depend on, as JSON in its store."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import numpy as np
import torch
from torch import Tensor

import kahler_verify
from kahler_verify.errors import InputError
from kahler_verify.fields import points as where
from kahler_verify.fields.layout import Layout, chunk_for, laid_out
from kahler_verify.fields.points import Codes, Grid, Points
from kahler_verify.fields.sources import DTYPES, MEMORY, Source
from kahler_verify.fields.stores import Variable
from kahler_verify.geometry.base import Metric
from kahler_verify.geometry.quantities import Quantity, quantity
from kahler_verify.spaces import Space

FORMAT = 1  # of plans
COORDINATES = 10**7  # points up to which a store has those that are drawn


def versions() -> dict[str, str]:
    """Of what numbers depend on."""
    return {
        "kahler_verify": kahler_verify.__version__,
        "torch": str(torch.__version__),
        "numpy": np.__version__,
    }


@dataclass(frozen=True)
class Plan:
    """All that a field's numbers depend on.

    Attributes:
        model: what the source says of itself.
        space: of the latents.
        quantity: its name.
        plane: vectors that it is told, in real coordinates.
        points: where it is evaluated.
        dtype: float64 or float32.
        chunk: points in a chunk.
        made_by: versions.
    """

    model: Mapping[str, Any]
    space: Space
    quantity: str
    plane: list[list[float]]
    points: Points
    dtype: str
    chunk: int
    made_by: Mapping[str, str]

    def to_json(self) -> dict[str, Any]:
        """As the store has it."""
        return {
            "format": FORMAT,
            "kind": "field",
            "model": dict(self.model),
            "latents": {"complex": self.space.complex, "dimension": self.space.dimension},
            "quantity": self.quantity,
            "plane": self.plane,
            "points": where.to_json(self.points),
            "dtype": self.dtype,
            "chunk": self.chunk,
            "versions": dict(self.made_by),
        }

    @classmethod
    def from_json(cls, values: Mapping[str, Any]) -> Plan:
        """Of a store.

        Raises:
            InputError: it is another version's, or of something else.
        """
        if values.get("kind") != "field" or values.get("format") != FORMAT:
            raise InputError(
                f"store: expected a field of format {FORMAT}, but it is one of "
                f"{values.get('kind')} of format {values.get('format')}"
            )
        latents = values["latents"]
        return cls(
            model=values["model"],
            space=Space(latents["complex"], latents["dimension"]),
            quantity=values["quantity"],
            plane=values["plane"],
            points=where.from_json(values["points"]),
            dtype=values["dtype"],
            chunk=values["chunk"],
            made_by=values["versions"],
        )

    @cached_property
    def of(self) -> Quantity:
        """The quantity."""
        return quantity(self.quantity)

    @cached_property
    def layout(self) -> Layout:
        """How the field is cut."""
        return laid_out(self.points.shape, self.chunk, value_bytes(self.of, self.space, self.dtype))

    @property
    def value(self) -> Variable:
        """The field's own array."""
        names = _matrix_dims(self.space) if self.of.matrix else ()
        kind = self.dtype
        if self.of.matrix and self.space.complex:
            kind = {"float64": "complex128", "float32": "complex64"}[kind]
        d = self.space.dimension or 0
        return Variable(
            self.quantity,
            self.layout,
            (*self.points.dims, *names),
            kind,
            (d, d) if self.of.matrix else (),
            {
                "long_name": self.of.meaning,
                "units": self.of.units,
                **self._coordinates,
                **({"plane": self.plane} if self.plane else {}),
            },
        )

    @property
    def _coordinates(self) -> dict[str, str]:
        """What readers take for the field's coordinates besides those of its axes."""
        if isinstance(self.points, Grid):
            return {"coordinates": "origin"}
        return {"coordinates": "z"} if isinstance(self.points, Codes) or self.place else {}

    @property
    def place(self) -> Variable | None:
        """The points' coordinates, where tasks write them: of draws that are not too many."""
        if isinstance(self.points, Grid | Codes) or self.points.count > COORDINATES:
            return None
        d = self.space.real_dimension or 0
        return Variable(
            "z",
            self.layout,
            ("point", "coordinate"),
            "float64",
            (d,),
            self.about_points,
            compressed=False,
        )

    @property
    def about_points(self) -> dict[str, Any]:
        """Attributes of arrays of points."""
        names = ", ".join(where.coordinate_names(self.space))
        return {"long_name": f"latents in real coordinates ({names})", "units": "1"}

    @property
    def variables(self) -> list[Variable]:
        """What a task writes, the field's own last."""
        place = self.place
        return [*([place] if place else []), self.value]


def _matrix_dims(space: Space) -> tuple[str, str]:
    return ("a", "b_bar") if space.complex else ("a", "b")


def value_bytes(wanted: Quantity, space: Space, dtype: str) -> int:
    """Of a point's value."""
    size = 4 if dtype == "float32" else 8
    if not wanted.matrix:
        return size
    d = space.dimension or 1
    return size * d * d * (2 if space.complex else 1)


def plan_for(
    source: Source,
    name: str,
    place: Callable[[int], Points],
    *,
    plane: Sequence[Sequence[float]] = (),
    dtype: str = "float64",
    chunk: int | None = None,
    memory: int = MEMORY,
) -> Plan:
    """The plan of a field, if there is such a field.

    Args:
        source: of the metric.
        name: of the quantity.
        place: the points, told how many a chunk has.
        plane: vectors in real coordinates, for a quantity that is told some.
        dtype: in which it is evaluated.
        chunk: points in a chunk.
        memory: bytes of a worker's metric.

    Raises:
        InputError: there is none; or it cannot be evaluated at any of its first, middle and last
            points.
    """
    if dtype not in DTYPES:
        raise InputError(f"dtype: expected one of {', '.join(DTYPES)}, got {dtype!r}")
    if chunk is not None and chunk < 1:
        raise InputError(f"chunk: expected at least 1 point, got {chunk}")
    wanted = quantity(name)
    wanted.require(source.space, plane)
    size = value_bytes(wanted, source.space, dtype)
    d = source.space.real_dimension or 1
    chunk = chunk or chunk_for(math.prod(place(1).shape), max(size, 8 * d))
    metric = source.metric(dtype, memory)
    plan = Plan(
        source.to_json(metric, dtype),
        source.space,
        name,
        [[float(x) for x in each] for each in plane],
        place(chunk),
        dtype,
        chunk,
        versions(),
    )
    _try(plan, metric)
    return plan


def _try(plan: Plan, metric: Metric) -> None:
    """Evaluate a few points one by one: all of them fail where the quantity itself is at fault."""
    count = math.prod(plan.points.shape)
    kind = getattr(torch, plan.dtype)
    vectors: list[Tensor] = [torch.tensor(each, dtype=kind) for each in plan.plane]
    first: Exception | None = None
    for number in sorted({0, count // 2, count - 1}):
        x = torch.from_numpy(plan.points.rows(number, number + 1)).to(kind)
        try:
            with torch.no_grad():
                plan.of.value(metric, plan.space.from_real(x), *vectors)
        except InputError as error:
            first = first or error
        else:
            return
    assert first is not None
    raise InputError(
        f"quantity: {plan.quantity} has no value at any point tried: {first}"
    ) from first
