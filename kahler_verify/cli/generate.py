"""The command ``generate``: kernels from derivations."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from kahler_verify.cli.consoles import say


def generate(
    paths: Annotated[
        list[Path] | None, typer.Argument(help="Derivation files; without them, the shipped ones.")
    ] = None,
    out: Annotated[Path | None, typer.Option(help="Folder for the kernels.")] = None,
    check: Annotated[
        bool, typer.Option("--check", help="Write nothing; fail, with a diff, where files differ.")
    ] = False,
    progress: Annotated[
        bool, typer.Option("--progress", help="Say what is derived even where no terminal is.")
    ] = False,
) -> None:
    """Generate kernels: of the shipped derivations in place, of a user's file beside it.

    A derivation file is Python code and is executed: name only files that you trust.
    """
    from kahler_verify.codegen.writing import generate_files

    report = generate_files(paths or [], out, check=check, progress=progress or None)
    for line in report.lines:
        say(line)
    if report.failed:
        raise typer.Exit(1)
