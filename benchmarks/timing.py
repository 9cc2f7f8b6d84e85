"""Interleaved timing: ours, rival, ours, rival, …, in one process.

On a CPU the clock is the process's CPU time: with one thread that is the wall clock of a machine
left alone, and what others run beside it falls out.  On a GPU it is the wall clock.
"""

from __future__ import annotations

import gc
import math
import signal
import statistics
import threading
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from types import FrameType
from typing import Any

import torch

Run = Callable[[], Any]
SHORTEST_SAMPLE = 1e-2  # seconds; quicker calls are repeated, past the caches left by the other


@dataclass
class Pairs:
    """Seconds per call of ours and of a rival, sample i of one right beside that of the other."""

    ours: list[float] = field(default_factory=list)
    rival: list[float] = field(default_factory=list)

    @property
    def ratio(self) -> float:
        """The rival's median over ours: above 1 where ours is faster."""
        return statistics.median(self.rival) / statistics.median(self.ours)

    @property
    def spread(self) -> tuple[float, float]:
        """Quartiles of the ratio over the pairs."""
        return quartiles([r / o for o, r in zip(self.ours, self.rival, strict=True)])


def quartiles(values: list[float]) -> tuple[float, float]:
    """The first and the third quartile; of a single value, that value twice."""
    if len(values) < 2:
        return values[0], values[0]
    first, _, third = statistics.quantiles(values, n=4, method="inclusive")
    return first, third


class TimeLimitError(Exception):
    """A call ran past its time limit."""


@contextmanager
def time_limit(seconds: float) -> Iterator[None]:
    """Raise :class:`TimeLimitError` in the block after so long, between two steps of Python.

    Without effect off the main thread, where signals cannot be had.
    """
    if threading.current_thread() is not threading.main_thread() or not math.isfinite(seconds):
        yield
        return

    def stop(_signum: int, _frame: FrameType | None) -> None:
        raise TimeLimitError(f"over the time limit of {seconds:.0f} s")

    before = signal.signal(signal.SIGALRM, stop)
    # again every few seconds: an exception raised within a callback of a library may get lost
    signal.setitimer(signal.ITIMER_REAL, seconds, 5.0)
    try:
        yield
    finally:
        signal.setitimer(signal.ITIMER_REAL, 0)
        signal.signal(signal.SIGALRM, before)


def wait(device: torch.device) -> None:
    """Let a GPU finish what it was given."""
    if device.type == "cuda":
        torch.cuda.synchronize(device)


def sample(run: Run, repeats: int, device: torch.device) -> float:
    """Seconds per call, over ``repeats`` calls."""
    clock = time.process_time if device.type == "cpu" else time.perf_counter
    wait(device)
    start = clock()
    for _ in range(repeats):
        run()
    wait(device)
    return (clock() - start) / repeats


def warm_up(run: Run, device: torch.device) -> tuple[int, float]:
    """Call it; how often to repeat it within a sample, and its seconds.

    A quick first call may have had something to set up, so it is not the one that counts.
    """
    once = sample(run, 1, device)
    if once < 0.2:
        once = sample(run, 1, device)
    return max(1, min(1000, math.ceil(SHORTEST_SAMPLE / max(once, 1e-7)))), once


def interleave(
    ours: Run,
    rivals: Mapping[str, Run],
    *,
    seconds: float,
    rounds: tuple[int, int] = (3, 40),
    device: torch.device | str = "cpu",
) -> dict[str, Pairs]:
    """Time ours against each rival in turn, round after round.

    A round times (ours, rival) for every rival; the next round starts one rival later, so that slow
    drifts of the machine fall on all of them.  Rounds go on for ``seconds``, but number at least
    ``rounds[0]`` and at most ``rounds[1]``.
    """
    device = torch.device(device)
    own_repeats, _ = warm_up(ours, device)
    repeats = {name: warm_up(run, device)[0] for name, run in rivals.items()}
    pairs = {name: Pairs() for name in rivals}
    names = list(rivals)
    collecting = gc.isenabled()
    gc.collect()
    gc.disable()
    start, done = time.perf_counter(), 0
    try:
        while done < rounds[0] or (
            done < rounds[1] and time.perf_counter() - start < seconds * (1 - 0.5 / (done + 1))
        ):
            shift = done % max(1, len(names))
            for name in names[shift:] + names[:shift]:
                pairs[name].ours.append(sample(ours, own_repeats, device))
                pairs[name].rival.append(sample(rivals[name], repeats[name], device))
            done += 1
    finally:
        if collecting:
            gc.enable()
    return pairs
