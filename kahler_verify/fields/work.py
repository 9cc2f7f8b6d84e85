"""Work in numbered tasks, and the loop in which an engine carries them out.

A task owns one chunk of a store, writes it whole and last, and is never done again where the chunk
is there and its checksum holds: nothing else has to be remembered for work to go on where it was.
Nothing here imports torch, so that an engine's processes begin quickly.
"""

from __future__ import annotations

import pickle
import signal
import threading
import time
from abc import ABC, abstractmethod
from collections import deque
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass, field
from enum import Enum
from typing import Any, NamedTuple, Protocol

from kahler_verify.errors import FieldError, InputError
from kahler_verify.fields.log import Log

ATTEMPTS = 3  # of a task whose workers die
DEATHS = 3  # of workers one after another, and all of them once: nothing will be finished
READERS = 4  # threads that look at what is there

Waiting = deque[tuple[int, int]]  # tasks, and how many workers each has cost


class State(Enum):
    """Of a task's chunk: not there, whole, or removed because it was damaged."""

    ABSENT = 0
    WHOLE = 1
    DAMAGED = 2


class Done(NamedTuple):
    """What a task leaves besides its chunk.

    Attributes:
        notes: what is worth a line in the log, such as points where nothing is defined.
        value: of a task that only reads, what it found.
    """

    notes: Sequence[str] = ()
    value: Any = None


class Job(Protocol):
    """What is to be done.  A job is pickled for each worker."""

    @property
    def count(self) -> int:
        """How many tasks there are."""

    def amount(self, task: int) -> int:
        """How many points, or pairs, a task has."""

    def state(self, task: int) -> State:
        """Of a task's chunk; what is damaged is removed."""

    def run(self, task: int, attempt: int) -> Done:
        """Do a task, and write its chunk.

        Args:
            task: its number.
            attempt: how many workers have died of it.

        Raises:
            OSError: the store cannot be written, so that no other task could be done either.
        """


class Outcome(NamedTuple):
    """What became of a task.

    Attributes:
        task: its number.
        attempt: how many workers had died of it before.
        seconds: that it took.
        notes: see :class:`Done`.
        value: see :class:`Done`.
        kept: its chunk was there.
        error: why it could not be finished; empty where it was.
        fatal: no other task could be either.
        died: its worker did.
    """

    task: int
    attempt: int = 0
    seconds: float = 0.0
    notes: tuple[str, ...] = ()
    value: Any = None
    kept: bool = False
    error: str = ""
    fatal: bool = False
    died: bool = False


class Engine(ABC):
    """Who carries tasks out."""

    name: str
    workers: int = 1  # that may die at one time

    def share(self, tasks: Sequence[int]) -> list[int]:
        """Those of all tasks that are this engine's own."""
        return list(tasks)

    def require(self) -> None:  # noqa: B027 - most engines are always there
        """Make sure, before anything is written, that the engine is there.

        Raises:
            InputError: it is not.
        """

    @abstractmethod
    def run(self, job: Job, waiting: Waiting) -> Iterator[Outcome]:
        """Carry out what waits, and yield outcomes as they come.

        While an outcome is looked at, tasks may be put back into ``waiting``, or all be taken out.
        """


class Progress(NamedTuple):
    """How far the work is: in tasks, and in points or pairs."""

    tasks: int
    of: int
    amount: int
    total: int
    kept: int  # of the amount, that was there before


@dataclass
class Summary:
    """What came out of a run.

    Attributes:
        tasks: how many are this run's own.
        kept: those that were done before.
        done: those that were done now, in the order in which they came.
        failed: why each of the others could not be done.
        notes: what the log has of tasks that were done.
        values: what tasks found that only read.
        stopped: by Ctrl-C or SIGTERM, before all was done.
        seconds: of the whole run.
    """

    tasks: int
    kept: int
    done: list[int] = field(default_factory=list)
    failed: dict[int, str] = field(default_factory=dict)
    notes: list[str] = field(default_factory=list)
    values: dict[int, Any] = field(default_factory=dict)
    stopped: bool = False
    seconds: float = 0.0


def perform(job: Job, task: int, attempt: int) -> Outcome:
    """One task, wherever an engine has it done; every failure becomes an outcome."""
    start = time.perf_counter()
    try:
        if job.state(task) is State.WHOLE:  # by another on the same store, or one that died since
            return Outcome(task, attempt, kept=True)
        found = job.run(task, attempt)
    except (InputError, OSError) as error:
        if isinstance(error, OSError) and _is_there(job, task):  # another was done, and tidied up
            return Outcome(task, attempt, kept=True)
        return Outcome(task, attempt, error=_line(error), fatal=True)
    except Exception as error:  # noqa: BLE001 - it is reported, and others go on
        return Outcome(task, attempt, error=f"{type(error).__name__}: {_line(error)}")
    seconds = time.perf_counter() - start
    return Outcome(task, attempt, seconds, tuple(found.notes), found.value)


def _is_there(job: Job, task: int) -> bool:
    try:
        return job.state(task) is State.WHOLE
    except OSError:
        return False


def require_picklable(job: Job) -> None:
    """A job that goes to other processes.

    Raises:
        InputError: it cannot.
    """
    try:
        pickle.dumps(job)
    except (pickle.PicklingError, AttributeError, TypeError, RuntimeError) as error:
        raise InputError(
            f"engine: expected what other processes can be sent, but {_line(error)}; a metric of "
            "functions that no module has a name for needs the engine fields.Array()"
        ) from error


def _line(error: BaseException) -> str:
    return " ".join(str(error).split()) or type(error).__name__


def carry_out(
    job: Job,
    engine: Engine,
    log: Log,
    *,
    progress: Callable[[Progress], None] | None = None,
) -> Summary:
    """Have an engine do those of a job's tasks that are not done.

    The first Ctrl-C (or SIGTERM) lets the tasks finish that are in work, a second drops them.

    Raises:
        FieldError: tasks could not be finished; all others are, or are at least as they were.
    """
    start = time.perf_counter()
    own = engine.share(range(job.count))
    with ThreadPoolExecutor(READERS) as readers:
        states = dict(zip(own, readers.map(job.state, own), strict=True))
    waiting: Waiting = deque((task, 0) for task in own if states[task] is not State.WHOLE)
    amounts = {task: job.amount(task) for task in own}
    before = sum(amounts[task] for task in own if states[task] is State.WHOLE)
    summary = Summary(len(own), len(own) - len(waiting))
    reached = Progress(summary.kept, len(own), before, sum(amounts.values()), before)

    def tell(now: Progress) -> Progress:
        if progress is not None:
            progress(now)
        return now

    log.note("begin", engine=engine.name, tasks=len(own), kept=summary.kept)
    for task in (task for task in own if states[task] is State.DAMAGED):
        log.note("damaged", task=task)
        log.say(f"task {task}: its chunk was damaged; it is done again")
    tell(reached)
    if waiting:
        deaths = 0
        with _stoppable(waiting, summary, log):
            for outcome in engine.run(job, waiting):
                deaths = deaths + 1 if outcome.died else 0
                if _judged(outcome, waiting, summary, log):
                    reached = tell(
                        reached._replace(
                            tasks=reached.tasks + 1,
                            amount=reached.amount + amounts[outcome.task],
                        )
                    )
                if outcome.fatal or deaths >= DEATHS + engine.workers:
                    waiting.clear()
                    summary.failed[outcome.task] = outcome.error or (
                        f"{deaths} workers died one after another; they may be too large for the "
                        "memory, or not begin at all: a script that uses them needs the guard "
                        'if __name__ == "__main__"'
                    )
    summary.seconds = time.perf_counter() - start
    log.note(
        "end",
        done=len(summary.done),
        kept=summary.kept,
        failed=len(summary.failed),
        stopped=summary.stopped,
        seconds=round(summary.seconds, 3),
    )
    if summary.failed:
        task, why = next(iter(summary.failed.items()))
        raise FieldError(
            f"{len(summary.failed)} of {summary.tasks} tasks could not be finished, the first of "
            f"them {task}: {why}; {summary.kept + len(summary.done)} are done, and the same "
            f"command goes on from them{log}"
        )
    return summary


def _judged(outcome: Outcome, waiting: Waiting, summary: Summary, log: Log) -> bool:
    """Put an outcome on record; whether the task is done."""
    task = outcome.task
    if outcome.died and outcome.attempt + 1 < ATTEMPTS and not summary.stopped:
        waiting.append((task, outcome.attempt + 1))
        log.note("died", task=task, attempt=outcome.attempt)
        log.say(f"task {task}: its worker died; it is tried again")
        return False
    if outcome.died or outcome.error:
        why = outcome.error or f"its worker died, {outcome.attempt + 1} times"
        if not (outcome.died and summary.stopped):
            summary.failed[task] = why
        log.note("failed", task=task, error=why)
        return False
    if outcome.kept:
        summary.kept += 1
        log.note("kept", task=task)
    else:
        summary.done.append(task)
        summary.values[task] = outcome.value
        log.note("done", task=task, seconds=round(outcome.seconds, 4), notes=outcome.notes)
    for note in outcome.notes:
        summary.notes.append(f"task {task}: {note}")
        log.say(summary.notes[-1])
    return True


@contextmanager
def _stoppable(waiting: Waiting, summary: Summary, log: Log) -> Iterator[None]:
    """The first signal empties what waits, the second interrupts."""
    if threading.current_thread() is not threading.main_thread():
        yield
        return

    def stop(number: int, frame: object) -> None:  # noqa: ARG001
        if summary.stopped:
            raise KeyboardInterrupt
        summary.stopped = True
        waiting.clear()
        log.say("stopping: tasks in work are finished; once more to drop them")

    before = {number: signal.getsignal(number) for number in (signal.SIGINT, signal.SIGTERM)}
    for number in before:
        signal.signal(number, stop)
    try:
        yield
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)
