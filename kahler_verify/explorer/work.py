"""Work that the latest request wins: never more than one running and one waiting of a kind."""

from __future__ import annotations

import copy
from collections.abc import Callable
from threading import Condition, Event, Thread
from typing import Any

from kahler_verify.geometry.riemannian import RiemannianMetric

WATCHED = ("jet", "metric_matrix", "embed", "geodesic_acceleration")


class Cancelled(Exception):
    """Nobody waits for this work any more."""


class Job:
    """One piece of work, and the news of it.

    Attributes:
        news: what was told of its progress, in order.
        outcome: what it returned, or the exception that ended it; None as long as it runs.
    """

    def __init__(self, function: Callable[[Job], Any]):
        self._function = function
        self._stopped = Event()
        self._changed = Condition()
        self.news: list[Any] = []
        self.outcome: Any = None
        self.done = False

    def cancel(self) -> None:
        """Ask it to end; it does at its next evaluation of the metric."""
        self._stopped.set()
        self._announce()

    @property
    def cancelled(self) -> bool:
        """Whether it was asked to end."""
        return self._stopped.is_set()

    def check(self) -> None:
        """Raise :class:`Cancelled` if it is to end."""
        if self._stopped.is_set():
            raise Cancelled

    def tell(self, news: Any) -> None:
        """Say how far it is; and end if it is to."""
        self.check()
        self.news.append(news)
        self._announce()

    def run(self) -> None:
        """Do it, here and now."""
        try:
            self.check()
            self.outcome = self._function(self)
        except BaseException as error:  # noqa: BLE001 - whoever waits for it gets it
            self.outcome = error
        self.done = True
        self._announce()

    def wait(self, seen: int, seconds: float) -> bool:
        """Whether there is something after the first ``seen`` news, within some time."""
        with self._changed:
            return self._changed.wait_for(
                lambda: self.done or self.cancelled or len(self.news) > seen, seconds
            )

    def _announce(self) -> None:
        with self._changed:
            self._changed.notify_all()


class Desk:
    """One running and one waiting piece of work of each kind; a newer one puts the others aside."""

    def __init__(self) -> None:
        self._changed = Condition()
        self._running: dict[str, Job] = {}
        self._waiting: dict[str, Job] = {}
        self.started = 0  # pieces of work, of all kinds

    def submit(self, kind: str, function: Callable[[Job], Any], *, patient: bool = False) -> Job:
        """Have something done in a thread of its kind.

        Args:
            kind: of work; what waits of the same kind is cancelled.
            function: is given its :class:`Job`, to ask whether to end.
            patient: let what runs end by itself first, instead of cancelling it.
        """
        job = Job(function)
        with self._changed:
            if kind in self._waiting:
                self._waiting[kind].cancel()
            self._waiting[kind] = job
            if kind in self._running:
                if not patient:
                    self._running[kind].cancel()
            else:
                self._running[kind] = job
                Thread(target=self._serve, args=(kind,), daemon=True, name=kind).start()
        return job

    def cancel(self, kind: str | None = None) -> None:
        """Cancel what there is of a kind, or of all."""
        with self._changed:
            for jobs in (self._waiting, self._running):
                for own, job in jobs.items():
                    if kind in (None, own):
                        job.cancel()

    def _serve(self, kind: str) -> None:
        while True:
            with self._changed:
                job = self._waiting.pop(kind, None)
                if job is None:
                    del self._running[kind]
                    return
                self._running[kind] = job
                self.started += 1
            job.run()


def interruptible(metric: RiemannianMetric, check: Callable[[], None]) -> RiemannianMetric:
    """A copy of a metric that calls ``check`` before each evaluation, and so do copies of it."""
    kind = type(metric)
    methods = {
        name: _checked(getattr(kind, name), check) for name in WATCHED if hasattr(kind, name)
    }
    watched = copy.copy(metric)
    watched.__class__ = type(kind.__name__, (kind,), methods)
    return watched


def _checked(method: Callable[..., Any], check: Callable[[], None]) -> Callable[..., Any]:
    def call(self: RiemannianMetric, *arguments: Any, **named: Any) -> Any:
        check()
        return method(self, *arguments, **named)

    return call
