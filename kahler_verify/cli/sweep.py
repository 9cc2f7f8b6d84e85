"""The command ``sweep``: a function or a command over seeds and parameters."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any

import typer

from kahler_verify.cli.consoles import errors, say
from kahler_verify.cli.engine_options import EngineName, Scheduler, Share, Workers, end_if_stopped
from kahler_verify.cli.progress import work_bar
from kahler_verify.errors import InputError


def sweep(
    out: Annotated[Path, typer.Option(help="A folder, for rows.csv: new, or begun before.")],
    command: Annotated[
        list[str] | None,
        typer.Argument(help="After --: a command with {seed}, {folder} and parameters in braces."),
    ] = None,
    function: Annotated[
        str | None,
        typer.Option(help="Instead: package.file:function of seed and parameters; gives a dict."),
    ] = None,
    seeds: Annotated[str, typer.Option(help="8, for 0 … 7, or 3,5,8.")] = "8",
    set_: Annotated[
        list[str] | None,
        typer.Option("--set", help="NAME=VALUE,VALUE of a parameter; repeat it for more."),
    ] = None,
    engine: EngineName = "processes",
    workers: Workers = None,
    scheduler: Scheduler = None,
    task: Share = None,
) -> None:
    """Run a function or a command for every seed and parameter; run again, it goes on."""
    from kahler_verify.fields import sweep as run
    from kahler_verify.fields.engines import engine as engine_of

    if (function is None) == (not command):
        got = "both" if function else "none"
        raise InputError(f"command: expected a command after -- or --function, got {got}")
    chosen = engine_of(engine, workers=workers, scheduler=scheduler, task=task)
    with work_bar(errors, "rows", "rows") as progress:
        summary = run(
            function or command or [],
            _seeds(seeds),
            out,
            _parameters(set_ or []),
            engine=chosen,
            progress=progress,
            say=lambda text: say(text, to=errors),
        )
    end_if_stopped(summary)
    say(
        f"{out / 'rows.csv'}: {summary.kept + len(summary.done)} rows, {summary.kept} of which "
        f"were there, in {summary.seconds:.1f} s"
    )


def _seeds(text: str) -> list[int]:
    parts = text.split(",")
    if not all(part.strip().isdecimal() for part in parts) or text.strip() == "0":
        raise InputError(f"seeds: expected a number of seeds such as 8, or 3,5,8, got {text!r}")
    return list(range(int(text))) if len(parts) == 1 else [int(part) for part in parts]


def _parameters(texts: list[str]) -> dict[str, list[Any]]:
    found: dict[str, list[Any]] = {}
    for text in texts:
        name, values = _parameter(text)
        if name in found:
            raise InputError(f"set: expected all values of {name} at once, got {name} twice")
        found[name] = values
    return found


def _parameter(text: str) -> tuple[str, list[Any]]:
    name, sign, values = text.partition("=")
    if not (sign and name.isidentifier() and values):
        raise InputError(f"set: expected NAME=VALUE,VALUE, got {text!r}")
    return name, [_value(value) for value in values.split(",")]


def _value(text: str) -> Any:
    """A number, true or false, or a word."""
    for kind in (int, float):
        try:
            return kind(text)
        except ValueError:
            continue
    return {"true": True, "false": False}.get(text.lower(), text)
