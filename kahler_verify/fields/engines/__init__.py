"""Who carries tasks out: a file for each engine, which has one method, ``run``."""

from __future__ import annotations

from kahler_verify.errors import InputError
from kahler_verify.fields.engines.array import Array
from kahler_verify.fields.engines.dask import Dask
from kahler_verify.fields.engines.processes import Processes
from kahler_verify.fields.work import Engine

NAMES = ("processes", "dask", "array")

__all__ = ["NAMES", "Array", "Dask", "Processes", "engine"]


def engine(
    name: str = "processes",
    *,
    workers: int | None = None,
    scheduler: str | None = None,
    task: str | None = None,
) -> Engine:
    """An engine by its name.

    Args:
        name: one of ``NAMES``.
        workers: how many processes; one for each core where it is not said.
        scheduler: the address of a dask scheduler; without one, processes here are its workers.
        task: I/N, the share of a job of an array, 0 ≤ I < N.

    Raises:
        InputError: there is no such engine, or an argument is another engine's.
    """
    if name not in NAMES:
        raise InputError(f"engine: expected one of {', '.join(NAMES)}, got {name!r}")
    if workers is not None and workers < 1:
        raise InputError(f"workers: expected at least 1, got {workers}")
    if scheduler is not None and name != "dask":
        raise InputError(f"scheduler: expected --engine dask with it, got {name!r}")
    if task is not None and name != "array":
        raise InputError(f"task: expected --engine array with it, got {name!r}")
    if name == "dask":
        if scheduler is not None and workers is not None:
            raise InputError(
                "workers: expected none with --scheduler, which has workers of its own"
            )
        return Dask(scheduler, workers)
    if name == "array":
        if workers not in (None, 1):
            raise InputError(
                f"workers: expected none with --engine array, whose jobs are one process each, "
                f"got {workers}"
            )
        return Array.parse(task)
    return Processes(workers)
