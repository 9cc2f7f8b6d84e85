"""What commands that run on an engine are told of it."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated

import typer

from kahler_verify.cli.consoles import errors, say

if TYPE_CHECKING:
    from kahler_verify.fields.work import Summary

ENGINE_HELP = "processes, dask, or array, a share of the work in this process."
EngineName = Annotated[str, typer.Option("--engine", help=ENGINE_HELP)]
Workers = Annotated[
    int | None, typer.Option("--workers", help="Processes; by default one for each core.")
]
Scheduler = Annotated[
    str | None,
    typer.Option("--scheduler", help="Address of a dask scheduler, with --engine dask."),
]
Share = Annotated[
    str | None, typer.Option("--task", help="I/N, 0 ≤ I < N, with --engine array: one job's share.")
]
Memory = Annotated[int, typer.Option("--memory", help="MiB that a worker's metric may take.")]

STOPPED = 130  # 128 + SIGINT, as of a program that the signal ends


def end_if_stopped(summary: Summary) -> None:
    """Leave, and say how far the work came."""
    if summary.stopped and summary.kept + len(summary.done) < summary.tasks:
        say(
            f"stopped: {summary.kept + len(summary.done)} of {summary.tasks} tasks are done, and "
            "the same command goes on from them",
            to=errors,
        )
        raise typer.Exit(STOPPED)
