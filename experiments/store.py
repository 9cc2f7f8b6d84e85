"""State on disk: a JSON file for each unit of work, complete or not there at all."""

from __future__ import annotations

import hashlib
import json
import os
import re
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

Json = dict[str, Any]


def write_json(path: Path, value: Json) -> None:
    """Write beside ``path`` and rename, so that no reader ever sees half of a file."""
    path.parent.mkdir(parents=True, exist_ok=True)
    text = json.dumps(value, indent=1, ensure_ascii=False, allow_nan=False)
    text = re.sub(r"\[\n[^\[\]{}\"]*\]", _on_one_line, text) + "\n"
    draft = path.with_name(f"{path.name}.{os.getpid()}.draft")
    try:
        with draft.open("w", encoding="utf-8") as file:
            file.write(text)
            file.flush()
            os.fsync(file.fileno())
        draft.replace(path)
    finally:
        draft.unlink(missing_ok=True)


def _on_one_line(numbers: re.Match[str]) -> str:
    return "[" + " ".join(numbers[0][1:-1].split()) + "]"


def remembered(folder: Path, name: str, depends_on: Json, compute: Callable[[], Json]) -> Json:
    """What ``compute`` gives, read from disk if it was computed before for the same input.

    The CPU time that it took joins the result as ``cpu_seconds``.

    Args:
        folder: where state is kept.
        name: of the unit of work.
        depends_on: everything that decides the result; another one is another unit of work.
        compute: called if there is no file; what it gives is returned as JSON would return it, so
            that a first and a second run give the same.
    """
    path = folder / f"{name}-{fingerprint(depends_on)}.json"
    if not path.exists():
        started = time.process_time()
        result = compute()
        write_json(path, {**result, "cpu_seconds": time.process_time() - started})
    return json.loads(path.read_text(encoding="utf-8"))


def fingerprint(value: Json) -> str:
    """Eight digits that differ where ``value`` differs."""
    return hashlib.sha256(json.dumps(value, sort_keys=True).encode()).hexdigest()[:8]
