"""Processes that work for this one: how many there may be, and that none outlives it."""

from __future__ import annotations

import os
import threading
from multiprocessing import parent_process


def cores() -> int:
    """How many this process may use."""
    if hasattr(os, "sched_getaffinity"):
        return len(os.sched_getaffinity(0))
    return os.cpu_count() or 1


def end_with_parent() -> None:
    """End when the process that started this one does: one that waits for work would not notice."""
    threading.Thread(target=_end_when_it_does, daemon=True).start()


def _end_when_it_does() -> None:
    parent = parent_process()
    assert parent is not None
    parent.join()
    os._exit(1)
