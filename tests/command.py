"""The command run inside the tests' own process: a new one takes seconds to import torch."""

import io
import subprocess
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager, redirect_stderr, redirect_stdout
from unittest import mock

from kahler_verify.cli.command import app
from kahler_verify.cli.consoles import console, errors


@contextmanager
def _width(columns: int) -> Iterator[None]:
    before = console.width, errors.width
    console.width = errors.width = columns
    try:
        yield
    finally:
        console.width, errors.width = before


def run(*arguments: str, **environment: str) -> subprocess.CompletedProcess:
    """What ``kahler-verify …`` prints and how it ends, on a pipe that is 200 columns wide."""
    out, err = (io.TextIOWrapper(io.BytesIO(), encoding="utf-8") for _ in range(2))
    with ExitStack() as inside:
        inside.enter_context(mock.patch("sys.argv", ["kahler-verify", *arguments]))
        inside.enter_context(mock.patch.dict("os.environ", {"COLUMNS": "200"} | environment))
        inside.enter_context(_width(int(environment.get("COLUMNS", "200"))))
        inside.enter_context(redirect_stdout(out))
        inside.enter_context(redirect_stderr(err))
        try:
            app()
            code = 0
        except SystemExit as end:
            code = end.code if isinstance(end.code, int) else int(end.code is not None)
    texts = []
    for stream in (out, err):
        stream.flush()
        texts.append(stream.buffer.getvalue().decode())  # type: ignore[attr-defined]
    return subprocess.CompletedProcess(list(arguments), code, *texts)
