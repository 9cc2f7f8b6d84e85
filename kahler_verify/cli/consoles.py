"""What the commands print to, on any terminal, pipe, encoding and locale."""

from __future__ import annotations

import io
import sys
from pathlib import Path

from rich.console import Console

from kahler_verify.files import is_standard_output

console = Console()
errors = Console(stderr=True)


def tolerate_encodings() -> None:
    r"""Let characters that the encoding lacks be written as escapes: ∂ as ``\u2202``."""
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, io.TextIOWrapper):
            stream.reconfigure(errors="backslashreplace")


def say(text: str, *, to: Console = console) -> None:
    """One line of plain text: no markup, no colours for numbers, no line breaks of rich's own."""
    to.print(text, markup=False, highlight=False, soft_wrap=True)


def beside(*outputs: Path | None) -> Console:
    """Where tables go: to standard error, where one of the outputs takes standard output."""
    return errors if any(is_standard_output(output) for output in outputs) else console
