"""One line on standard error for generation that takes longer than two seconds."""

from __future__ import annotations

import sys
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import TextIO

PATIENCE = 2.0  # seconds before the line appears
Step = Callable[[str], None]


def silent(_step: str) -> None:
    """No progress is shown."""


@contextmanager
def progress_line(
    shown: bool | None = None, stream: TextIO | None = None, patience: float = PATIENCE
) -> Iterator[Step]:
    """What is being done and since when, rewritten in place and wiped at the end.

    Args:
        shown: by default, where the stream is a terminal.  Elsewhere the line is not rewritten:
            it is written anew when what is being done has changed.
        stream: standard error by default.
        patience: seconds before it appears.
    """
    out = stream if stream is not None else sys.stderr
    terminal = out is not None and out.isatty()
    if out is None or not (terminal if shown is None else shown):
        yield silent
        return
    state = {"step": "generating", "written": ""}
    over, start = threading.Event(), time.monotonic()

    def show() -> None:
        wait = patience
        while not over.wait(wait):
            wait = 0.5
            text = f"{state['step']}, {time.monotonic() - start:.0f} s"[:79]
            if terminal:
                out.write(f"\r{text:<{len(state['written'])}}")
                state["written"] = text
            elif state["written"] != state["step"]:
                out.write(f"{text}\n")
                state["written"] = state["step"]
            out.flush()

    def step(text: str) -> None:
        state["step"] = text

    thread = threading.Thread(target=show, daemon=True)
    thread.start()
    try:
        yield step
    finally:
        over.set()
        thread.join()
        if terminal and state["written"]:
            out.write("\r" + " " * len(state["written"]) + "\r")
            out.flush()
