"""Processes on this machine, each of which may be killed without harm to the others.

Each is an executor of its own, from the standard library.  An executor with many workers ends all
of them when one is killed, and cannot tell whose task it was; of one with a single worker it is
known, and only that task is done again.
"""

from __future__ import annotations

import signal
from collections.abc import Iterator
from concurrent.futures import FIRST_COMPLETED, Future, ProcessPoolExecutor, wait
from concurrent.futures.process import BrokenProcessPool
from multiprocessing import get_context

from kahler_verify.errors import InputError
from kahler_verify.fields.work import Engine, Job, Outcome, Waiting, perform, require_picklable
from kahler_verify.processes import cores, end_with_parent

LOOK = 0.5  # seconds after which a signal is noticed at the latest

_job: Job  # a worker's own


class Processes(Engine):
    """So many processes, one for each core where it is not said; each computes on one thread.

    They stay for the next job, and end with this object.
    """

    name = "processes"

    def __init__(self, workers: int | None = None):
        if workers is not None and workers < 1:
            raise InputError(f"workers: expected at least 1, got {workers}")
        self.workers = workers or cores()
        self._idle: list[_Worker] = []

    def run(self, job: Job, waiting: Waiting) -> Iterator[Outcome]:
        """See :class:`Engine`."""
        require_picklable(job)
        idle = [
            _worker(job, self._idle.pop() if self._idle else None)
            for _ in range(min(self.workers, len(waiting)))
        ]
        running: dict[Future[Outcome], tuple[_Worker, int, int]] = {}
        try:
            while waiting or running:
                while waiting and idle:
                    task, attempt = waiting.popleft()
                    worker = idle.pop()
                    running[worker.submit(_perform, task, attempt)] = (worker, task, attempt)
                outcomes = []
                for future in wait(running, LOOK, FIRST_COMPLETED).done:
                    worker, task, attempt = running.pop(future)
                    try:
                        outcomes.append(future.result())
                    except BrokenProcessPool:
                        worker.shutdown(wait=False)
                        if not worker.has_begun:
                            raise InputError(
                                "engine: a new process ended before it began; a script has to keep "
                                'what it does under `if __name__ == "__main__":`, as each process '
                                "of this engine imports it"
                            ) from None
                        worker = _worker(job)
                        outcomes.append(Outcome(task, attempt, died=True))
                    idle.append(worker)
                    if waiting:  # before anybody looks at what came
                        task, attempt = waiting.popleft()
                        worker = idle.pop()
                        running[worker.submit(_perform, task, attempt)] = (worker, task, attempt)
                yield from outcomes
        finally:
            for worker, _, _ in running.values():  # dropped
                for process in list(worker._processes.values()):
                    process.kill()
                worker.shutdown(wait=False, cancel_futures=True)
            self._idle += idle


class _Worker(ProcessPoolExecutor):
    """One process, which imports what it needs: a fork would copy torch's threads."""

    taken: Future[None]

    def __init__(self) -> None:
        super().__init__(1, mp_context=get_context("spawn"), initializer=_begin)

    def take(self, job: Job) -> None:
        """Give it the job."""
        self.taken = self.submit(_take, job)

    @property
    def has_begun(self) -> bool:
        """Whether it took the job; asked once it is dead."""
        return self.taken.exception() is None


def _worker(job: Job, worker: _Worker | None = None) -> _Worker:
    """A worker that has the job: this one, or a new one."""
    if worker is not None:
        try:
            worker.take(job)
        except BrokenProcessPool:  # it was killed meanwhile
            worker.shutdown(wait=False)
        else:
            return worker
    worker = _Worker()
    worker.take(job)
    return worker


def _begin() -> None:
    """Ctrl-C is the parent's to hear; whoever kills the parent ends its workers too."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    end_with_parent()


def _take(job: Job) -> None:
    global _job
    _job = job


def _perform(task: int, attempt: int) -> Outcome:
    return perform(_job, task, attempt)
