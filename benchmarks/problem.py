"""One cell of the benchmark: ours and its rivals on the same numbers, and what they are worth."""

from __future__ import annotations

import statistics
import time
from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass
from typing import Any

import torch
from torch import Tensor

from benchmarks.timing import (
    Run,
    TimeLimitError,
    interleave,
    quartiles,
    sample,
    time_limit,
    warm_up,
)

TOLERANCE = {torch.float64: 1e-9, torch.float32: 2e-3}
# What a rival may die of: torch.compile and functorch raise all of these for code they do not take.
FAILURES = (RuntimeError, TypeError, ValueError, AssertionError, AttributeError, KeyError)


@dataclass(frozen=True)
class Rival:
    """A way to the same numbers.

    Attributes:
        build: makes the call that is timed; compiles, moves weights and so on.
        compiled: whether ``build`` takes long, so that the check in small is left to the others.
    """

    build: Callable[[], Run]
    compiled: bool = False


@dataclass(frozen=True)
class Problem:
    """Ours and the rivals at given sizes, in one dtype, with data that depend on the sizes alone.

    Attributes:
        points: the batch size, by which seconds and operations are divided in reports.
        ours: the package's own call, which users would write.
        rivals: by name.
        operations: real operations of the floor: complex products at 8 each.
        traffic: bytes that must move: weights, points and the answer, once.
    """

    points: int
    ours: Run
    rivals: Mapping[str, Rival]
    operations: float
    traffic: float = 0.0


@dataclass(frozen=True)
class Cell:
    """A quantity at given sizes: ``make(sizes, dtype, device)`` sets it up.

    ``small`` replaces some sizes where formulas are checked in float64, once for each quantity;
    ``compiled`` is False where rivals that need torch.compile would take too long.
    """

    quantity: str
    make: Callable[[Mapping[str, Any], torch.dtype, torch.device], Problem]
    sizes: Mapping[str, Any]
    dtype: torch.dtype
    small: Mapping[str, Any]
    compiled: bool = True


@dataclass
class Result:
    """A rival's row; ``ratio`` is the rival's median over ours, and None if it was not timed."""

    quantity: str
    rival: str
    sizes: dict[str, Any]
    dtype: str
    ratio: float | None = None
    ours_seconds: float | None = None
    rival_seconds: float | None = None
    spread: list[float] | None = None
    agrees: bool | None = None
    error: str | None = None


@dataclass
class Floor:
    """How near ours comes to the least time that its operations take at the measured peak."""

    quantity: str
    sizes: dict[str, Any]
    dtype: str
    seconds: float
    spread: list[float]
    operations: float
    traffic: float
    fraction: float | None = None


def flatten(result: Any) -> Tensor:
    """What a run returns (tensors, arrays, lists of them) as one complex128 vector on the CPU."""
    if isinstance(result, list | tuple):
        return torch.cat([flatten(part) for part in result])
    if not isinstance(result, Tensor):
        import numpy

        result = torch.from_numpy(numpy.array(result))
    return result.detach().resolve_conj().to("cpu", torch.complex128).flatten()


def deviation(result: Any, reference: Tensor) -> float:
    """The largest difference from the reference, over the reference's largest entry; inf if NaN."""
    values = flatten(result)
    if values.shape != reference.shape:
        return float("inf")
    gap = float((values - reference).abs().max() / reference.abs().max())
    return gap if gap == gap else float("inf")


class Bench:
    """Runs cells; remembers which formulas were found wrong in small."""

    def __init__(
        self, device: torch.device | str = "cpu", *, seconds: float = 6.0, limit: float = 60.0
    ):
        self.device = torch.device(device)
        self.seconds, self.limit = seconds, limit
        self._wrong: dict[str, dict[str, str]] = {}

    def run(self, cell: Cell) -> tuple[list[Result], Floor]:
        """Check every rival of a cell, then time those that are right against ours."""
        torch._dynamo.reset()
        started = time.monotonic()
        problem = cell.make(cell.sizes, cell.dtype, self.device)
        dtype = str(cell.dtype).removeprefix("torch.")
        rows = {
            name: Result(cell.quantity, name, dict(cell.sizes), dtype)
            for name in problem.rivals
            if cell.compiled or "torch.compile" not in name
        }
        in_small = self._check_in_small(cell)
        reference = flatten(cell.make(cell.sizes, torch.float64, self.device).ours())
        own = deviation(problem.ours(), reference)
        runs: dict[str, Run] = {}
        # Hessians last: they are the slowest, and may use up what time the cell has
        for name in sorted(rows, key=lambda name: "Hessian" in name):
            row = rows[name]
            row.error = in_small.get(name)
            row.agrees = row.error is None
            if row.error is not None:
                continue
            if time.monotonic() - started > 3 * self.limit:
                row.agrees, row.error = None, "not run: the time for this cell was up"
                continue
            try:
                with time_limit(self.limit):
                    run = problem.rivals[name].build()
                    gap = deviation(run(), reference)
                    _, once = warm_up(run, self.device)
            except (TimeLimitError, *FAILURES) as error:
                late = "TimeLimitError" in f"{type(error).__name__} {error}"  # compilers wrap it
                row.agrees = None if late else False
                row.error = (
                    f"over the time limit of {self.limit:.0f} s"
                    if late
                    else f"does not run: {_first_line(error)}"
                )
                continue
            if gap > max(TOLERANCE[cell.dtype], 10 * own):
                row.agrees, row.error = False, f"wrong by {gap:.1e} relative, ours by {own:.1e}"
                continue
            if once > self.limit / 6:
                row.agrees, row.error = True, f"right, but one call takes {once:.0f} s: not timed"
                row.rival_seconds = once
                continue
            runs[name] = run
        if own > TOLERANCE[cell.dtype]:
            for row in rows.values():
                row.error = f"ours is off by {own:.1e} from its float64 self; rival: {row.error}"
        pairs = interleave(problem.ours, runs, seconds=self.seconds, device=self.device)
        for name, pair in pairs.items():
            row = rows[name]
            row.ratio, row.spread = pair.ratio, list(pair.spread)
            row.ours_seconds = statistics.median(pair.ours)
            row.rival_seconds = statistics.median(pair.rival)
        samples = [s for pair in pairs.values() for s in pair.ours] or self._alone(problem.ours)
        floor = Floor(
            cell.quantity,
            dict(cell.sizes),
            dtype,
            statistics.median(samples),
            list(quartiles(samples)),
            problem.operations,
            problem.traffic,
        )
        return list(rows.values()), floor

    def _alone(self, run: Run) -> list[float]:
        repeats, _ = warm_up(run, self.device)
        return [sample(run, repeats, self.device) for _ in range(5)]

    def _check_in_small(self, cell: Cell) -> dict[str, str]:
        """Errors, by rival, of the formulas in float64 at small sizes."""
        kept = {k: v for k, v in cell.sizes.items() if isinstance(v, str)}
        key = f"{cell.quantity} {kept}"
        if key not in self._wrong:
            problem = cell.make({**cell.sizes, **cell.small}, torch.float64, self.device)
            reference = flatten(problem.ours())
            wrong = {}
            for name, rival in problem.rivals.items():
                if rival.compiled:
                    continue
                try:
                    gap = deviation(rival.build()(), reference)
                except FAILURES as error:
                    wrong[name] = f"does not run: {_first_line(error)}"
                    continue
                if gap > TOLERANCE[torch.float64]:
                    wrong[name] = f"wrong by {gap:.1e} relative in float64"
            self._wrong[key] = wrong
        return self._wrong[key]


def _first_line(error: BaseException) -> str:
    lines = str(error).strip().splitlines() or [""]
    return f"{type(error).__name__}: {lines[0][:160]}"


def as_json(row: Result | Floor) -> dict[str, Any]:
    """Plain values."""
    return asdict(row)
