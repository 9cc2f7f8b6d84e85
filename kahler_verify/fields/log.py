"""What was done, as lines of JSON in a file for each run, and as text for whoever looks on."""

from __future__ import annotations

import json
import os
import socket
import time
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from typing import Any

FOLDER = "log"


class Log:
    """A run's own file in the store's folder ``log``: runs at one time do not share one.

    Args:
        store: the folder that is written into; None of a run that only reads.
        say: told what a user should know at once.
    """

    def __init__(self, store: Path | None, say: Callable[[str], None] | None = None):
        name = f"{time.strftime('%Y%m%dT%H%M%S')}-{socket.gethostname()}-{os.getpid()}.jsonl"
        self.place = None if store is None else store / FOLDER / name
        self._say = say

    def __str__(self) -> str:
        return "" if self.place is None else f" (log: {self.place})"

    def say(self, text: str) -> None:
        """Tell the user."""
        if self._say is not None:
            self._say(text)

    def note(self, event: str, **facts: Any) -> None:
        """Add a line; a full or read-only disk is the tasks' own to report."""
        if self.place is None:
            return
        line = json.dumps({"time": round(time.time(), 3), "event": event, **facts})
        with suppress(OSError):
            self.place.parent.mkdir(exist_ok=True)  # not the store, if that has vanished
            with self.place.open("a", encoding="utf-8") as file:
                file.write(line + "\n")


def logged(store: Path) -> list[dict[str, Any]]:
    """All lines of all runs, in the order of time; a line that was cut off is left out."""
    found = []
    for path in sorted((store / FOLDER).glob("*.jsonl")):
        for line in path.read_text(encoding="utf-8").splitlines():
            with suppress(ValueError):
                found.append(json.loads(line))
    return sorted(found, key=lambda line: line["time"])
