"""The command ``bench``: times."""

from __future__ import annotations

import sys
from importlib import import_module
from pathlib import Path
from typing import Annotated

import typer

from kahler_verify.cli.consoles import console
from kahler_verify.errors import InputError
from kahler_verify.files import require_writable


def bench(
    quick: Annotated[
        bool, typer.Option("--quick", help="One cell for each quantity, under 3 minutes.")
    ] = False,
    real: Annotated[
        bool, typer.Option("--real", help="Decoders of real latents instead, and single points.")
    ] = False,
    device: Annotated[str, typer.Option(help="cpu (one thread) or cuda.")] = "cpu",
    minutes: Annotated[
        float | None,
        typer.Option(help="After so many (35; 8 with --real), begin no further cell of the grid."),
    ] = None,
    json: Annotated[Path | None, typer.Option(help="Write the results as JSON.")] = None,
    plots: Annotated[Path | None, typer.Option(help="Folder for the plots.")] = None,
    page: Annotated[
        Path | None, typer.Option(help="A Markdown page whose marked numbers are rewritten.")
    ] = None,
) -> None:
    """Time the kernels against autograd, JAX and others, in a checkout of the repository."""
    for name, output in (("json", json), ("page", page)):
        require_writable(name, output)
    root = Path(__file__).resolve().parents[2]
    if not (root / "benchmarks" / "decoder_rivals.py").exists():
        raise InputError(
            "bench: expected the folder benchmarks/ beside the package, as in a checkout of the "
            "repository, but this installation has none; clone it and run `pip install -e .[bench]`"
        )
    if str(root) not in sys.path:
        sys.path.insert(0, str(root))
    run = import_module("benchmarks.command").bench
    run(
        quick=quick,
        real=real,
        device=device,
        minutes=minutes,
        json=json,
        plots=plots,
        page=page,
        console=console,
    )
