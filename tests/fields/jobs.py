"""A job that needs no torch: its processes begin quickly, and say what they do."""

import os
import time
from collections import Counter
from pathlib import Path
from typing import NamedTuple

import numpy as np

from kahler_verify.fields.layout import laid_out
from kahler_verify.fields.stores import Variable, opened, require_store, state_of, write_block
from kahler_verify.fields.work import Done, State

CHUNK = 1000


class Squares(NamedTuple):
    """Squares of numbers, into a store; each task notes its process when it begins and ends."""

    path: Path
    points: int = 12 * CHUNK
    seconds: float = 0.0
    fatal: int = -1  # this task ends its process
    raises: int = -1

    @property
    def variable(self) -> Variable:
        layout = laid_out((self.points,), CHUNK, 8)
        return Variable("square", layout, ("point",), "float64", compressed=False)

    def create(self) -> "Squares":
        require_store(self.path, {"points": self.points}, [self.variable], {}, {})
        return self

    @property
    def count(self) -> int:
        return self.variable.layout.count

    def amount(self, task: int) -> int:
        return CHUNK

    def state(self, task: int) -> State:
        return state_of(self.path, opened(self.path), [self.variable], task)

    def run(self, task: int, attempt: int) -> Done:
        self._note("began", task)
        if task == self.fatal:
            os._exit(1)
        if task == self.raises:
            raise ValueError("of this task's own")
        time.sleep(self.seconds)
        start, stop = self.variable.layout.rows(task)
        values = np.arange(start, stop, dtype=float) ** 2
        write_block(self.path, opened(self.path), self.variable, task, values)
        self._note("ended", task)
        return Done()

    def _note(self, what: str, task: int) -> None:
        folder = self.path.with_name("notes")
        folder.mkdir(exist_ok=True)
        (folder / f"{what}-{task}-{os.getpid()}-{time.time_ns()}").touch()

    # ------------------------------------------------------------- what tests ask
    def notes(self, what: str) -> list[tuple[int, int]]:
        """Tasks and processes, in the order of time."""
        folder = self.path.with_name("notes")
        found = [name.name.split("-")[1:] for name in folder.glob(f"{what}-*")]
        return [(int(t), int(p)) for t, p, _ in sorted(found, key=lambda parts: int(parts[2]))]

    def times(self, what: str) -> Counter:
        """How often each task did."""
        return Counter(task for task, _ in self.notes(what))

    def is_right(self) -> bool:
        values = opened(self.path, "r")["square"][...]
        return bool(np.array_equal(values, np.arange(self.points, dtype=float) ** 2))
