"""Processes that work for this one: how many, on one thread each, and that none outlives it."""

from __future__ import annotations

import os
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from multiprocessing import parent_process


def cores() -> int:
    """How many this process may use."""
    if hasattr(os, "sched_getaffinity"):
        return len(os.sched_getaffinity(0))
    return os.cpu_count() or 1


@contextmanager
def one_thread() -> Iterator[None]:
    """Torch computes on one thread: sums do not depend on how many cores there are.

    Threads of torch that wait for more work keep a core busy, which another process might use.
    """
    import torch  # what only starts processes does without it

    before = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        yield
    finally:
        torch.set_num_threads(before)


def end_with_parent() -> None:
    """End when the process that started this one does: one that waits for work would not notice."""
    threading.Thread(target=_end_when_it_does, daemon=True).start()


def _end_when_it_does() -> None:
    parent = parent_process()
    assert parent is not None
    parent.join()
    os._exit(1)
