"""A share of the tasks in this very process: a job of an array on one store, or all by itself."""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence

from kahler_verify.errors import InputError
from kahler_verify.fields.work import Engine, Job, Outcome, Waiting, perform


class Array(Engine):
    """Every ``of``-th task from ``task`` on, one after another; no job knows of the others.

    Shares are of all tasks, not of those that are left: they stay what they are when a job of the
    array is run again.
    """

    name = "array"

    def __init__(self, task: int = 0, of: int = 1):
        if not 0 <= task < of:
            raise InputError(f"task: expected I/N with 0 ≤ I < N, got {task}/{of}")
        self.task, self.of = task, of
        self.name = f"array {task}/{of}"

    @classmethod
    def parse(cls, text: str | None) -> Array:
        """From ``3/16``, counted from 0."""
        if text is None:
            raise InputError("task: expected --task I/N with --engine array, got none")
        found = re.fullmatch(r"(\d{1,9})/(\d{1,9})", text)
        if found is None:
            raise InputError(f"task: expected I/N with 0 ≤ I < N, got {text!r}")
        return cls(int(found[1]), int(found[2]))

    def share(self, tasks: Sequence[int]) -> list[int]:
        """Those of all tasks that are this job's own."""
        return list(tasks)[self.task :: self.of]

    def run(self, job: Job, waiting: Waiting) -> Iterator[Outcome]:
        """See :class:`Engine`."""
        while waiting:
            yield perform(job, *waiting.popleft())
