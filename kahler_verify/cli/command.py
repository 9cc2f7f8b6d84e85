"""The command itself: its subcommands, and how errors and broken pipes end it."""

from __future__ import annotations

import os
import sys

import typer

from kahler_verify.cli import (
    analogy,
    bench,
    derive,
    diagnose,
    distances,
    explore,
    field,
    fit_land,
    generate,
    geodesic,
    mutate,
    prove,
    sample,
    sweep,
    train,
    verify,
)
from kahler_verify.cli.consoles import errors, tolerate_encodings
from kahler_verify.errors import KahlerVerifyError

BROKEN_PIPE = 141  # 128 + SIGPIPE, as of a program that the signal ends

commands = typer.Typer(
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
    help="Derive, generate, prove and use kernels for the complex geometry of decoders.",
)
for module in (
    derive,
    generate,
    train,
    verify,
    diagnose,
    geodesic,
    analogy,
    distances,
    explore,
    field,
    fit_land,
    sample,
    sweep,
    prove,
    bench,
    mutate,
):
    name = module.__name__.rpartition(".")[2]
    command = getattr(module, name)
    if isinstance(command, typer.Typer):  # with commands of its own
        commands.add_typer(command, name=name)
    else:
        commands.command()(command)


def app() -> None:
    """Run the command; errors of this package are one line, not a traceback."""
    tolerate_encodings()
    try:
        commands(standalone_mode=True)
    except BrokenPipeError:
        _close_quietly()
        sys.exit(BROKEN_PIPE)
    except (KahlerVerifyError, OSError) as error:  # an OSError names the file and what failed
        text = str(error)
        if not sys.stderr.isatty():  # a line of a log
            text = " ".join(text.split())
        errors.print(
            f"error: {text}", style="bold red", markup=False, highlight=False, soft_wrap=True
        )
        sys.exit(2)
    finally:
        try:
            sys.stdout.flush()
        except BrokenPipeError:
            _close_quietly()
            sys.exit(BROKEN_PIPE)


def _close_quietly() -> None:
    """What is still buffered goes nowhere: Python would complain at its end."""
    nowhere = os.open(os.devnull, os.O_WRONLY)
    for stream in (sys.stdout, sys.stderr):
        try:
            stream.flush()
        except BrokenPipeError:
            os.dup2(nowhere, stream.fileno())
