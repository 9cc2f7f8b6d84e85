"""How far long work is: a bar on a terminal, lines where there is none."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager

from rich.console import Console
from rich.progress import (
    BarColumn,
    MofNCompleteColumn,
    Progress,
    TextColumn,
    TimeRemainingColumn,
)

from kahler_verify.cli.consoles import say
from kahler_verify.fields.work import Progress as Reached

EVERY = 10.0  # seconds between lines


class _Rate:
    """Points a second since the first chunk was done: what came before was workers' beginning."""

    def __init__(self) -> None:
        self.first: tuple[float, int] | None = None

    def __call__(self, now: Reached) -> tuple[float, float] | None:
        """The rate, and the seconds that are left; None where it is not known."""
        moment = time.monotonic()
        if self.first is None and now.amount > now.kept:
            self.first = moment, now.amount
        if self.first is None or now.amount == self.first[1]:
            return None
        rate = (now.amount - self.first[1]) / max(moment - self.first[0], 1e-9)
        return rate, (now.total - now.amount) / rate


@contextmanager
def work_bar(
    console: Console, what: str, tasks: str = "chunks"
) -> Iterator[Callable[[Reached], None]]:
    """What a run is to tell of its progress.

    Args:
        console: that it is told to.
        what: points, pairs or whatever is counted.
        tasks: what holds several of them; the same word where each is a task.
    """
    rate = _Rate()
    if not console.is_terminal or console.is_dumb_terminal:
        yield _lines(console, what, tasks, rate)
        return
    columns = (
        BarColumn(),
        MofNCompleteColumn(),
        TextColumn(f"{tasks}, {{task.fields[speed]}}"),
        TimeRemainingColumn(),
    )
    with Progress(*columns, console=console, transient=True) as bar:
        task = bar.add_task(what, total=None, speed=f"{what} …")

        def move(now: Reached) -> None:
            found = rate(now)
            speed = f"{what} …" if found is None else f"{found[0]:.3g} {what}/s"
            bar.update(task, completed=now.tasks, total=now.of, speed=speed)

        yield move


def _lines(console: Console, what: str, tasks: str, rate: _Rate) -> Callable[[Reached], None]:
    last = [float("-inf")]

    def tell(now: Reached) -> None:
        found = rate(now)
        if time.monotonic() - last[0] < EVERY and now.tasks < now.of:
            return
        last[0] = time.monotonic()
        ending = "" if found is None else f", {found[0]:.3g} {what}/s, {_time(found[1])} left"
        counted = f"{now.amount} of {now.total} {what}"
        if tasks != what:
            counted = f"{now.tasks} of {now.of} {tasks}, {counted}"
        say(f"{counted}{ending}", to=console)

    return tell


def _time(seconds: float) -> str:
    minutes, rest = divmod(round(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours}:{minutes:02}:{rest:02}"
