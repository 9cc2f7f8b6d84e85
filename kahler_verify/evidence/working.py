"""Pieces of work of a ledger or a cross-check, done one after another or by several processes.

What comes out does not depend on how many processes there are: each piece draws its own numbers
from its own seeds, and results stand in the order of the pieces.
"""

from __future__ import annotations

import signal
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ProcessPoolExecutor, as_completed
from multiprocessing import get_context
from typing import TypeVar

from kahler_verify.processes import end_with_parent

Result = TypeVar("Result")
Work = Callable[[], Result]
MOST_PROCESSES = 8  # each takes half a gigabyte


def done(work: Sequence[Work[Result]], processes: int = 1) -> Iterator[tuple[int, Result | None]]:
    """The place of each piece with its result, as they come; with None where it only begins.

    In several processes pieces must be picklable.  An error of a piece is raised here, and what has
    not begun is given up.
    """
    if processes < 2 or len(work) < 2:
        for place, piece in enumerate(work):
            yield place, None
            yield place, piece()
        return
    # a fork would copy torch's threads; a new process imports what it needs
    context = get_context("spawn")
    count = min(processes, len(work))
    pool = ProcessPoolExecutor(count, mp_context=context, initializer=_alone)
    try:
        places = {pool.submit(piece): place for place, piece in enumerate(work)}
        for future in as_completed(places):
            yield places[future], future.result()
    finally:
        pool.shutdown(wait=True, cancel_futures=True)


def _alone() -> None:
    """One thread for each process, which ends with the one that asked for it, and at Ctrl-C."""
    signal.signal(signal.SIGINT, signal.SIG_DFL)
    end_with_parent()
    import torch

    torch.set_num_threads(1)
