"""Text of modules: formatted, without its header, compared."""

from __future__ import annotations

import ast
import difflib
import subprocess
import sys

from kahler_verify.errors import GenerationError


def formatted(text: str) -> str:
    """The text as ruff formats it."""
    command = ["ruff", "format", "--isolated", "--line-length", "100", "--target-version", "py311"]
    run = subprocess.run(
        [sys.executable, "-m", *command, "-"],
        input=text,
        capture_output=True,
        encoding="utf-8",
        check=False,
    )
    if run.returncode:
        reason = " ".join(run.stderr.split())
        raise GenerationError(f"ruff could not format generated code: {reason}")
    return run.stdout


def body_of(text: str) -> str:
    """The text of a generated module without its header."""
    first = ast.parse(text).body[0]
    return "".join(text.splitlines(keepends=True)[first.end_lineno or 0 :])


def difference(old: str, new: str, name: str) -> str:
    """A unified diff of two module texts, "" when bodies agree."""
    if body_of(old) == body_of(new):
        return ""
    lines = difflib.unified_diff(
        body_of(old).splitlines(),
        body_of(new).splitlines(),
        f"{name} (on disk)",
        f"{name} (derived)",
        lineterm="",
    )
    return "\n".join(lines)
