"""Where a field is evaluated: on grids and slices, in boxes, at the prior's draws, at codes.

All are in real coordinates: z of R^d, and (x_1 … x_d, y_1 … y_d) of z = x + iy in C^d.  Draws are
of SeedSequence((seed, chunk)), so that a chunk's points depend on nothing else.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from typing import Any, ClassVar

import numpy as np

from kahler_verify.errors import InputError
from kahler_verify.spaces import Space

MOST = 2**53  # points: their numbers are exact in float64 too


def coordinate_names(space: Space) -> list[str]:
    """z1 … zd, or x1 … xd, y1 … yd."""
    assert space.dimension is not None
    numbers = range(1, space.dimension + 1)
    letters = "xy" if space.complex else "z"
    return [f"{letter}{n}" for letter in letters for n in numbers]


@dataclass(frozen=True)
class Grid:
    """Points origin + Σ_k t_k direction_k of a grid of t.

    Attributes:
        counts: of points along each direction.
        lows: first t_k.
        highs: last t_k.
        origin: [d].
        directions: [k][d].
        names: of the directions: coordinates, where they are unit vectors.
    """

    kind: ClassVar[str] = "grid"
    counts: tuple[int, ...]
    lows: tuple[float, ...]
    highs: tuple[float, ...]
    origin: tuple[float, ...]
    directions: tuple[tuple[float, ...], ...]
    names: tuple[str, ...]

    @property
    def shape(self) -> tuple[int, ...]:
        """Of the array of points."""
        return self.counts

    @property
    def dims(self) -> tuple[str, ...]:
        """Names of the array's axes."""
        return self.names

    def axes(self) -> list[np.ndarray]:
        """t_k."""
        ends = zip(self.lows, self.highs, self.counts, strict=True)
        return [np.linspace(low, high, n) for low, high, n in ends]

    def rows(self, start: int, stop: int) -> np.ndarray:
        """The points of these numbers, [n, d]."""
        index = np.unravel_index(np.arange(start, stop), self.counts)
        t = np.stack([axis[i] for axis, i in zip(self.axes(), index, strict=True)], 1)
        return np.asarray(self.origin) + t @ np.asarray(self.directions)


@dataclass(frozen=True)
class _Draws:
    """So many independent points, a generator for each chunk."""

    count: int
    seed: int
    chunk: int

    @property
    def shape(self) -> tuple[int, ...]:
        """Of the array of points."""
        return (self.count,)

    @property
    def dims(self) -> tuple[str, ...]:
        """Names of the array's axes."""
        return ("point",)

    def rows(self, start: int, stop: int) -> np.ndarray:
        """The points of these numbers, [n, d]."""
        first, last = start // self.chunk, -(-stop // self.chunk)
        drawn = [self._chunk(k) for k in range(first, last)]
        found = np.concatenate(drawn) if len(drawn) != 1 else drawn[0]
        return found[start - first * self.chunk : stop - first * self.chunk]

    def _chunk(self, number: int) -> np.ndarray:
        size = min(self.chunk, self.count - number * self.chunk)
        random = np.random.default_rng(np.random.SeedSequence((self.seed, number)))
        return self._drawn(random, size)

    def _drawn(self, random: np.random.Generator, size: int) -> np.ndarray:
        raise NotImplementedError


@dataclass(frozen=True)
class Prior(_Draws):
    """Draws of N(0, I), or of CN(0, I), whose parts have the deviation 1/√2.

    Attributes:
        dimension: of the real coordinates.
        deviation: of each of them.
    """

    kind: ClassVar[str] = "prior"
    dimension: int = 1
    deviation: float = 1.0

    def _drawn(self, random: np.random.Generator, size: int) -> np.ndarray:
        return self.deviation * random.standard_normal((size, self.dimension))


@dataclass(frozen=True)
class Box(_Draws):
    """Uniform draws between ``lows`` and ``highs`` [d]."""

    kind: ClassVar[str] = "box"
    lows: tuple[float, ...] = ()
    highs: tuple[float, ...] = ()

    def _drawn(self, random: np.random.Generator, size: int) -> np.ndarray:
        return random.uniform(self.lows, self.highs, (size, len(self.lows)))


@dataclass(frozen=True)
class Codes:
    """A user's own points, which the store has a copy of.

    Attributes:
        count: how many.
        sha256: of their numbers.
        codes: [n, d] themselves, where they are at hand.
    """

    kind: ClassVar[str] = "codes"
    count: int
    sha256: str
    codes: Any = field(default=None, compare=False, repr=False)

    @property
    def shape(self) -> tuple[int, ...]:
        """Of the array of points."""
        return (self.count,)

    @property
    def dims(self) -> tuple[str, ...]:
        """Names of the array's axes."""
        return ("point",)

    def rows(self, start: int, stop: int) -> np.ndarray:
        """The points of these numbers, [n, d]."""
        return np.asarray(self.codes[start:stop])


Points = Grid | Prior | Box | Codes
_KINDS: Mapping[str, type] = {kind.kind: kind for kind in (Grid, Prior, Box, Codes)}


def to_json(points: Points) -> dict[str, Any]:
    """As a plan has it; a user's codes by their hash."""
    values = {name: value for name, value in vars(points).items() if name != "codes"}
    return {"kind": points.kind, **(asdict(points) if not isinstance(points, Codes) else values)}


def from_json(values: Mapping[str, Any]) -> Points:
    """The inverse of :func:`to_json`; codes have to be given to it."""
    kind = _KINDS[values["kind"]]
    given = {name: _tuples(value) for name, value in values.items() if name != "kind"}
    found: Points = kind(**given)
    return found


def _tuples(value: Any) -> Any:
    return tuple(map(_tuples, value)) if isinstance(value, list) else value


# ------------------------------------------------------------- what users say
def prior(space: Space, count: int, *, seed: int, chunk: int) -> Prior:
    """Draws of a space's standard normal law."""
    _require_count("points", count)
    _require_seed(seed)
    d = space.real_dimension
    assert d is not None
    return Prior(count, seed, chunk, d, math.sqrt(0.5) if space.complex else 1.0)


def box(
    space: Space, count: int, lows: list[float], highs: list[float], *, seed: int, chunk: int
) -> Box:
    """Uniform draws in a box; one pair of bounds is every coordinate's."""
    _require_count("points", count)
    _require_seed(seed)
    bounds = _bounds(lows, highs, space.real_dimension or 0)
    return Box(count, seed, chunk, *bounds)


def grid(
    space: Space,
    counts: list[int],
    lows: list[float],
    highs: list[float],
    *,
    origin: list[float] | None = None,
    along: list[str | list[float]] | None = None,
) -> Grid:
    """A grid of all coordinates, or a slice along some directions.

    Args:
        space: of the latents.
        counts: of points along each direction, one or more.
        lows: of the steps along each direction; one is every direction's.
        highs: as ``lows``.
        origin: of the slice, in real coordinates; 0 by default.
        along: directions, names of coordinates or vectors; all coordinates by default.

    Raises:
        InputError: these do not fit one another or the space.
    """
    names = coordinate_names(space)
    d = len(names)
    chosen: list[str | list[float]] = [*names] if along is None else along
    if len(counts) != len(chosen):
        what = (
            f"along {len(chosen)} directions" if along else f"of {d} coordinates ({named(names)})"
        )
        raise InputError(
            f"grid: expected {len(chosen)} counts of a grid {what}, such as "
            f"{'x'.join(['50'] * len(chosen))}, got {'x'.join(map(str, counts))}"
            + ("" if along else "; a slice names directions with --along")
        )
    for count in counts:
        if count < 1:
            raise InputError(f"grid: expected counts of at least 1, got {count}")
    _require_count("grid", math.prod(counts))
    vectors = [direction("along", each, names) for each in chosen]
    if np.linalg.matrix_rank(np.array(vectors)) < len(vectors):
        raise InputError("along: expected directions that are linearly independent")
    if origin is not None and len(origin) != d:
        raise InputError(
            f"origin: expected {d} real coordinates ({named(names)}), got {len(origin)}"
        )
    labels = [each if isinstance(each, str) else f"t{k + 1}" for k, each in enumerate(chosen)]
    return Grid(
        tuple(counts),
        *_bounds(lows, highs, len(chosen)),
        tuple(origin or [0.0] * d),
        tuple(map(tuple, vectors)),
        tuple(labels),
    )


def named(names: list[str]) -> str:
    """Coordinates' names, of many the first and the last."""
    return ", ".join(names if len(names) <= 8 else [names[0], names[1], "…", names[-1]])


def direction(name: str, said: str | list[float], names: list[str]) -> list[float]:
    """A vector in real coordinates: a coordinate's unit vector, or numbers."""
    if isinstance(said, str):
        if said not in names:
            raise InputError(
                f"{name}: expected one of {named(names)} or {len(names)} numbers, got {said!r}"
            )
        return [float(each == said) for each in names]
    if len(said) != len(names) or not any(said) or not all(map(math.isfinite, said)):
        raise InputError(
            f"{name}: expected {len(names)} numbers that are not all 0, got {list(said)}"
        )
    return [float(x) for x in said]


def codes(space: Space, values: np.ndarray) -> Codes:
    """Points [N, d] of a user's, complex ones in a complex space."""
    from hashlib import sha256

    if values.ndim != 2 or 0 in values.shape or values.dtype.kind not in "fciu":
        raise InputError(f"codes: expected numbers [N, d], got {values.dtype} {list(values.shape)}")
    if values.dtype.kind == "c" and not space.complex:
        raise InputError(f"codes: expected real points of {space}, got {values.dtype}")
    if values.dtype.kind == "c":
        values = np.concatenate([values.real, values.imag], 1)
    if values.shape[1] != space.real_dimension:
        own = f"{space.dimension} complex or {space.real_dimension} real" if space.complex else ""
        raise InputError(
            f"codes: expected points of {own or space.dimension} coordinates, got "
            f"{list(values.shape)}"
        )
    rows = np.ascontiguousarray(values, np.float64)
    return Codes(len(rows), sha256(rows.tobytes()).hexdigest(), rows)


def _bounds(
    lows: list[float], highs: list[float], d: int
) -> tuple[tuple[float, ...], tuple[float, ...]]:
    if len(lows) not in (1, d) or len(highs) != len(lows):
        raise InputError(f"box: expected one pair of bounds or {d}, got {len(lows)}")
    low, high = ((list(b) * d)[:d] if len(b) == 1 else list(b) for b in (lows, highs))
    for a, b in zip(low, high, strict=True):
        if not (math.isfinite(b - a) and a < b):
            raise InputError(
                "box: expected finite bounds LOW,HIGH with LOW < HIGH and a finite width, got "
                f"{a},{b}"
            )
    return tuple(map(float, low)), tuple(map(float, high))


def _require_count(name: str, count: int) -> None:
    if not 1 <= count <= MOST:
        raise InputError(f"{name}: expected from 1 to {MOST} points, got {count}")


def _require_seed(seed: int) -> None:
    if seed < 0:
        raise InputError(f"seed: expected 0 or more, got {seed}")
