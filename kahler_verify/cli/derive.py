"""The command ``derive``: what a derivation file says, and what follows."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from kahler_verify.cli.consoles import console, say


def derive(
    name: Annotated[
        str | None, typer.Argument(help="A shipped derivation or a file; without it, the list.")
    ] = None,
    latex: Annotated[bool, typer.Option(help="Print LaTeX.")] = False,
) -> None:
    """Show a definition and what the calculus derives from it."""
    from kahler_verify.codegen.registry import load_file, shipped, shipped_file, shipped_files

    if name is None:
        for path in shipped_files():
            console.print(path.stem, style="bold", markup=False)
            for derivation in load_file(path):
                say(f"  {derivation.name}: {derivation.title}")
        return
    from kahler_verify.codegen.listing import describe

    known = shipped()
    subject = shipped_file(name)  # the list names files too
    if name in known:
        chosen = [known[name]]
    elif subject is not None or Path(name).suffix == ".py":
        chosen = load_file(subject or name)
    else:
        raise typer.BadParameter(f"expected a file or one of {', '.join(known)}, got {name!r}")
    for derivation in chosen:
        for line in describe(derivation, latex=latex):
            say(line)
