"""Means, quantiles and integrals of a field, by an engine: each task reads a block.

What blocks give is put together in the order of the blocks, so that results do not depend on who
found them.  Quantiles are exact: the bits of floating-point numbers, read as integers, are in their
order, and four passes find those of an order statistic, sixteen at a time.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from kahler_verify.errors import FieldError, InputError
from kahler_verify.fields.engines import Array, Processes
from kahler_verify.fields.log import Log
from kahler_verify.fields.points import Box, Grid
from kahler_verify.fields.reading import Field, open_field
from kahler_verify.fields.stores import opened
from kahler_verify.fields.work import Done, Engine, Progress, State, carry_out

QUANTILES = (0.05, 0.25, 0.5, 0.75, 0.95)
DIGIT, PASSES = 16, 4  # bits of a pass over 64
LARGE = 10**7  # points from which on processes are worth their beginning


class Integral(NamedTuple):
    """An integral, or the mean in a law, with its error.

    Attributes:
        what: is integrated, and over what.
        value: of it.
        error: the standard error of independent draws; of a grid the difference to every second
            point, by Richardson's third; NaN where there is none.
    """

    what: str
    value: float
    error: float


@dataclass(frozen=True)
class Reduction:
    """What a field is, in few numbers; NaN and infinities are counted, and left out of the rest.

    Attributes:
        points: how many there are.
        missing: of these are NaN.
        infinite: of these are infinite.
        mean: of what is finite.
        deviation: of it.
        minimum: of it.
        maximum: of it.
        quantiles: of what is not NaN, between order statistics on a line, as NumPy has them.
        integral: see :class:`Integral`.
    """

    points: int
    missing: int
    infinite: int
    mean: float
    deviation: float
    minimum: float
    maximum: float
    quantiles: Mapping[float, float]
    integral: Integral | None

    @property
    def error(self) -> float:
        """The standard error of the mean, of points that are independent draws."""
        finite = self.points - self.missing - self.infinite
        return self.deviation / math.sqrt(finite) if finite else math.nan

    def to_json(self) -> dict[str, Any]:
        """Plain values for JSON; numbers that are not finite become None."""
        found = {name: getattr(self, name) for name in self.__dataclass_fields__}
        found["error"] = self.error
        found["quantiles"] = {str(q): _plain(v) for q, v in self.quantiles.items()}
        integral = self.integral
        found["integral"] = integral and {k: _plain(v) for k, v in integral._asdict().items()}
        return {k: _plain(v) for k, v in found.items()}


def _plain(value: Any) -> Any:
    return None if isinstance(value, float) and not math.isfinite(value) else value


# ------------------------------------------------------------- passes
@dataclass(frozen=True)
class _Pass:
    """One look at every block of a store: at the field, the block's number and its values."""

    path: Path
    look: Callable[[Field, int, np.ndarray], Any]

    def __getstate__(self) -> dict[str, Any]:
        return {"path": self.path, "look": self.look}

    @cached_property
    def field(self) -> Field:
        return open_field(self.path)

    @property
    def count(self) -> int:
        return self.field.plan.layout.count

    def amount(self, task: int) -> int:
        start, stop = self.field.plan.layout.rows(task)
        return stop - start

    def state(self, task: int) -> State:  # noqa: ARG002
        return State.ABSENT

    def run(self, task: int, attempt: int) -> Done:  # noqa: ARG002
        group = opened(self.path, "r")
        block = group[self.field.name][self.field.plan.layout.slices(task)]  # type: ignore[index]
        return Done(value=self.look(self.field, task, np.asarray(block, np.float64)))


class _Moments(NamedTuple):
    """Of finite values: number, mean, sum of squares about it, ends; and the others' numbers."""

    n: int
    mean: float
    squares: float
    low: float
    high: float
    missing: int
    infinite: int

    def __add__(self, other: _Moments) -> _Moments:  # type: ignore[override]
        n = self.n + other.n
        if not (self.n and other.n):
            first = self if self.n else other
            more = self.missing + other.missing, self.infinite + other.infinite
            return _Moments(*first[:5], *more)
        apart = other.mean - self.mean
        return _Moments(
            n,
            self.mean + apart * other.n / n,
            self.squares + other.squares + apart**2 * self.n * other.n / n,
            min(self.low, other.low),
            max(self.high, other.high),
            self.missing + other.missing,
            self.infinite + other.infinite,
        )


class _Exponentials(NamedTuple):
    """Sums of w e^f, e^{2f} and w₂ e^f over e^top, where w are a grid's weights, w₂ a coarser's."""

    top: float
    first: float
    second: float
    coarse: float

    def __add__(self, other: _Exponentials) -> _Exponentials:  # type: ignore[override]
        top = max(self.top, other.top)
        a, b = (math.exp(x.top - top) if x.top > -math.inf else 0.0 for x in (self, other))
        return _Exponentials(
            top,
            a * self.first + b * other.first,
            a * a * self.second + b * b * other.second,
            a * self.coarse + b * other.coarse,
        )


def _moments(field: Field, task: int, values: np.ndarray) -> tuple[_Moments, _Exponentials]:
    nan = np.isnan(values)
    finite = values[np.isfinite(values)]
    missing = int(nan.sum())
    n = finite.size
    mean = float(finite.mean()) if n else math.nan
    ends = (float(finite.min()), float(finite.max())) if n else (math.nan, math.nan)
    moments = _Moments(
        n,
        mean,
        float(((finite - mean) ** 2).sum()),
        *ends,
        missing,
        values.size - n - missing,
    )
    return moments, _exponentials(field, task, values)


def _exponentials(field: Field, task: int, values: np.ndarray) -> _Exponentials:
    """Of √det g by its logarithm, or of the values themselves."""
    weights, coarse = _weights(field, task)
    if field.name != "log_volume":
        f = np.where(np.isfinite(values), values, 0)
        return _Exponentials(0.0, float((weights * f).sum()), 0.0, float((coarse * f).sum()))
    f = np.where(np.isnan(values), -np.inf, values)
    top = float(f.max())
    if top == -math.inf:
        return _Exponentials(top, 0.0, 0.0, 0.0)
    e = np.exp(f - top)
    return _Exponentials(
        top, float((weights * e).sum()), float((e * e).sum()), float((coarse * e).sum())
    )


def _weights(field: Field, task: int) -> tuple[np.ndarray, np.ndarray]:
    """Of the trapezoidal rule in the steps along a grid, and of that on every second point."""
    points = field.plan.points
    if not isinstance(points, Grid):
        return np.ones(1), np.zeros(1)
    fine: Any = np.ones(())
    coarse: Any = np.ones(())
    scaled = zip(
        field.plan.layout.slices(task), points.counts, points.lows, points.highs, strict=True
    )
    for cut, count, low, high in scaled:
        step = (high - low) / max(1, count - 1)
        w = np.full(count, step)
        w[[0, -1]] = step / 2
        second = np.zeros(count)
        if count > 2 and count % 2:
            second[::2] = 2 * step
            second[[0, -1]] = step
        fine, coarse = np.multiply.outer(fine, w[cut]), np.multiply.outer(coarse, second[cut])
    return fine, coarse


# ------------------------------------------------------------- quantiles
class _Digits(NamedTuple):
    """Counts of the next digit among values whose keys begin like this."""

    shift: int
    prefixes: tuple[int, ...]

    def __call__(self, field: Field, task: int, values: np.ndarray) -> dict[int, Any]:  # noqa: ARG002
        keys = _keys(values[~np.isnan(values)])
        begun = keys >> np.uint64(self.shift + DIGIT) if self.shift < 48 else np.zeros_like(keys)
        digits = (keys >> np.uint64(self.shift)) & np.uint64(2**DIGIT - 1)
        found = {}
        for prefix in self.prefixes:
            own, counts = np.unique(digits[begun == np.uint64(prefix)], return_counts=True)
            found[prefix] = (own.astype(np.int64), counts)
        return found


def _keys(values: np.ndarray) -> np.ndarray:
    """Unsigned integers in the order of float64 numbers."""
    bits = np.ascontiguousarray(values, np.float64).reshape(-1).view(np.uint64)
    sign = np.uint64(2**63)
    return np.where(bits & sign, ~bits, bits | sign)


def _number(key: int) -> float:
    bits = key ^ (1 << 63) if key >> 63 else key ^ (2**64 - 1)
    return float(np.array([bits], np.uint64).view(np.float64)[0])


def _order_statistics(ranks: Sequence[int], each: Callable[[_Digits], list[Any]]) -> list[float]:
    """The values of those ranks, from 0, among all that are not NaN."""
    prefixes, left = [0] * len(ranks), list(ranks)
    for number in reversed(range(PASSES)):
        found = each(_Digits(DIGIT * number, tuple(sorted(set(prefixes)))))
        for place, prefix in enumerate(prefixes):
            counts = np.zeros(2**DIGIT, np.int64)
            for part in found:
                own, many = part[prefix]
                counts[own] += many
            upto = np.cumsum(counts)
            digit = int(np.searchsorted(upto, left[place], side="right"))
            left[place] -= int(upto[digit] - counts[digit])
            prefixes[place] = (prefix << DIGIT) | digit
    return [_number(key) for key in prefixes]


# ------------------------------------------------------------- the whole
def reduce_field(
    field: Field,
    *,
    quantiles: Sequence[float] = QUANTILES,
    engine: Engine | None = None,
    progress: Callable[[Progress], None] | None = None,
) -> Reduction:
    """Mean, deviation, ends, quantiles and integral of a field of numbers.

    √det g is integrated of ``log_volume``, and the quantity itself of others: over a grid by the
    trapezoidal rule in its steps, over a box by its draws; of the prior's draws and of codes it is
    the mean.

    Args:
        field: all of it done.
        quantiles: between 0 and 1.
        engine: who reads; a process for each core from ``LARGE`` points on, else this one.
        progress: told after each task of the first pass.

    Raises:
        InputError: the field is one of matrices or not finished, or a quantile is none.
        FieldError: a block could not be read.
    """
    if field.plan.of.matrix:
        raise InputError(f"store: expected a field of numbers, got matrices, {field.name}")
    done, count = field.done
    if done < count:
        raise InputError(
            f"store: expected a finished field, but {done} of {count} blocks are there"
        )
    for q in quantiles:
        if not 0 <= q <= 1:
            raise InputError(f"quantiles: expected numbers between 0 and 1, got {q}")
    who = engine or (Processes() if math.prod(field.shape) >= LARGE else Array())
    if len(who.share(range(count))) < count:
        raise InputError("engine: expected one that has all tasks, got a share of an array")

    def each(look: Any, tell: Callable[[Progress], None] | None = None) -> list[Any]:
        job = _Pass(field.path.absolute(), look)
        summary = carry_out(job, who, Log(None), progress=tell)
        if summary.stopped:
            raise FieldError("stopped before all blocks were read")
        return [summary.values[task] for task in range(count)]

    moments, sums = map(_total, zip(*each(_moments, progress), strict=True))
    known = moments.n + moments.infinite
    places = [q * (known - 1) for q in quantiles] if known else []
    ranks = [rank for h in places for rank in (math.floor(h), math.ceil(h))]
    found = iter(_order_statistics(ranks, each) if ranks else [])
    between = [_between(next(found), next(found), h % 1) for h in places]
    return Reduction(
        points=moments.n + moments.missing + moments.infinite,
        missing=moments.missing,
        infinite=moments.infinite,
        mean=moments.mean,
        deviation=math.sqrt(moments.squares / (moments.n - 1)) if moments.n > 1 else math.nan,
        minimum=moments.low,
        maximum=moments.high,
        quantiles=dict(zip(quantiles, between or [math.nan] * len(quantiles), strict=True)),
        integral=_integral(field, moments, sums),
    )


def _total(parts: Sequence[Any]) -> Any:
    total = parts[0]
    for part in parts[1:]:
        total = total + part
    return total


def _between(low: float, high: float, part: float) -> float:
    return low if low == high or part == 0 else low + part * (high - low)


def _integral(field: Field, moments: _Moments, sums: _Exponentials) -> Integral | None:
    points, name = field.plan.points, field.name
    what = "√det g" if name == "log_volume" else name
    scale = math.exp(sums.top) if sums.top < 709 else math.inf
    if isinstance(points, Grid):
        if min(points.counts) < 2:
            return None
        directions = np.asarray(points.directions)
        element = math.sqrt(np.linalg.det(directions @ directions.T))
        value = element * scale * sums.first
        doubled = all(count > 2 and count % 2 for count in points.counts)
        apart = abs(sums.first - sums.coarse) / 3 if doubled else math.nan
        return Integral(f"∫ {what} over the grid", value, element * scale * apart)
    n = moments.n + (moments.infinite if name == "log_volume" else 0)
    if n < 2:
        return None
    if name == "log_volume":
        mean = sums.first / n
        error = math.sqrt(max(0.0, sums.second / n - mean**2) / (n - 1))
        mean, error = scale * mean, scale * error
    else:
        mean, error = moments.mean, math.sqrt(moments.squares / (n - 1) / n)
    if isinstance(points, Box):
        size = math.prod(h - low for low, h in zip(points.lows, points.highs, strict=True))
        return Integral(f"∫ {what} over the box", size * mean, size * error)
    law = "the codes" if points.kind == "codes" else "the prior"
    return Integral(f"mean of {what} over {law}", mean, error)
