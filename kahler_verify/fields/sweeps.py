"""A function or a command over seeds and parameters, on an engine: a row for each of them.

A row is a file of its own, written whole and last, named by its seed and parameters: a sweep that
is made larger keeps the rows that it has.
"""

from __future__ import annotations

import csv
import hashlib
import inspect
import io
import json
import math
import shlex
import shutil
import subprocess
import sys
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from importlib import import_module
from itertools import product
from operator import attrgetter
from pathlib import Path
from typing import Any

import kahler_verify
from kahler_verify.errors import FieldError, InputError
from kahler_verify.fields.engines import Processes
from kahler_verify.fields.log import Log
from kahler_verify.fields.work import Done, Engine, Progress, State, Summary, carry_out
from kahler_verify.files import write_text
from kahler_verify.processes import one_thread

Cell = Mapping[str, Any]  # a seed with parameters
PLAN, ROWS = "plan.json", "rows"
SHOWN = 400  # characters of what a command that fails said last


@dataclass(frozen=True)
class SweepJob:
    """A task for each seed and combination of parameters.

    Attributes:
        path: of a folder.
        what: called with a cell, and the folder that is its own; gives numbers and words by name.
        cells: of the sweep.
    """

    path: Path
    what: Callable[[Cell, Path], Mapping[str, Any]]
    cells: tuple[Cell, ...]

    @property
    def count(self) -> int:
        """How many tasks there are."""
        return len(self.cells)

    def amount(self, task: int) -> int:  # noqa: ARG002
        """One row."""
        return 1

    def place(self, task: int) -> Path:
        """Of a row."""
        return self.path / ROWS / f"{_name(self.cells[task])}.json"

    def state(self, task: int) -> State:
        """Of a row."""
        place = self.place(task)
        if not place.is_file():
            return State.ABSENT
        try:
            read_row(place)
        except (ValueError, KeyError, TypeError):
            place.unlink()
            return State.DAMAGED
        return State.WHOLE

    @one_thread()
    def run(self, task: int, attempt: int) -> Done:  # noqa: ARG002
        """Compute a row, and write it."""
        if not (self.path / PLAN).is_file():
            raise FileNotFoundError(2, "the folder of the sweep has vanished", str(self.path))
        cell = self.cells[task]
        found = _flat(self.what(cell, self.path / "cells" / _name(cell)))
        for name in found.keys() & cell.keys():
            if found[name] != cell[name]:
                raise ValueError(
                    f"the result {name!r} is {found[name]!r}, but the row's own {name} is "
                    f"{cell[name]!r}"
                )
        found = {**cell, **found}
        text = json.dumps(found, allow_nan=False)
        written = {"row": found, "sha256": hashlib.sha256(text.encode()).hexdigest()}
        write_text(self.place(task), json.dumps(written, allow_nan=False))
        return Done()


def _name(cell: Cell) -> str:
    digest = hashlib.sha256(json.dumps(cell, sort_keys=True).encode()).hexdigest()[:12]
    return f"seed-{cell['seed']}-{digest}"


def read_row(place: Path) -> dict[str, Any]:
    """A row that is whole.

    Raises:
        ValueError: it is not.
    """
    content = json.loads(place.read_text(encoding="utf-8"))
    row: dict[str, Any] = content["row"]
    if hashlib.sha256(json.dumps(row).encode()).hexdigest() != content["sha256"]:
        raise ValueError(f"{place}: its checksum does not hold")
    return row


def _flat(found: Any, name: str = "") -> dict[str, Any]:
    """Values of nested dictionaries by their names with dots; what JSON lacks is None."""
    if isinstance(found, Mapping):
        parts = [
            _flat(value, f"{name}.{key}" if name else str(key)) for key, value in found.items()
        ]
        return {key: value for part in parts for key, value in part.items()}
    if not name:
        raise TypeError(f"expected a dictionary of results, got {type(found).__name__}")
    try:
        if hasattr(found, "item"):  # a number of NumPy or torch
            found = found.item()
        if isinstance(found, float) and not math.isfinite(found):
            found = None
        json.dumps(found, allow_nan=False)
    except (TypeError, ValueError, RuntimeError) as error:
        raise TypeError(f"the result {name} is nothing that JSON has: {error}") from error
    return {name: found}


# ------------------------------------------------------------- what is done in a cell
def of_function(text: str, cell: Cell) -> Callable[[Cell, Path], Mapping[str, Any]]:
    """A function ``package.file:name`` of ``seed`` and the parameters, that gives a dictionary.

    Raises:
        InputError: there is none, or it takes other arguments than a cell's.
    """
    try:
        inspect.signature(_function(text)).bind(**cell)
    except TypeError as error:
        raise InputError(
            f"set: expected the parameters of {text}, besides seed, but {error}"
        ) from error
    return partial(_call, text)


def _call(text: str, cell: Cell, folder: Path) -> Mapping[str, Any]:  # noqa: ARG001
    found: Mapping[str, Any] = _function(text)(**cell)
    return found


def _function(text: str) -> Callable[..., Any]:
    path, colon, name = text.partition(":")
    here = str(Path.cwd())
    if here not in sys.path:  # as ``python -m`` has it
        sys.path.insert(0, here)
    try:
        found = attrgetter(name)(import_module(path)) if colon and path and name else None
    except (ImportError, AttributeError) as error:
        raise InputError(f"function: cannot import {text}: {error}") from error
    if not callable(found):
        raise InputError(f"function: expected package.file:function, got {text!r}")
    return found


def of_command(words: Sequence[str]) -> Callable[[Cell, Path], Mapping[str, Any]]:
    """A command, with ``{seed}``, ``{folder}`` and parameters in braces.

    A row has its results where its last line is a dictionary of JSON.
    """
    return partial(_command, tuple(words))


def _command(words: tuple[str, ...], cell: Cell, folder: Path) -> Mapping[str, Any]:
    folder.mkdir(parents=True, exist_ok=True)
    filled = _filled(words, {**cell, "folder": folder})
    done = subprocess.run(
        filled, stdin=subprocess.DEVNULL, capture_output=True, text=True, check=False
    )
    (folder / "output.txt").write_text(done.stdout + done.stderr, encoding="utf-8")
    if done.returncode:
        said = " ".join((done.stderr or done.stdout).split())[-SHOWN:] or "it said nothing"
        raise FieldError(f"{shlex.join(filled)} ended with {done.returncode}: {said}")
    last = done.stdout.strip().rpartition("\n")[2]
    try:
        found = json.loads(last)
    except ValueError:
        found = None
    return found if isinstance(found, dict) else {}


def _filled(words: Sequence[str], values: Mapping[str, Any]) -> list[str]:
    try:
        return [word.format(**values) for word in words]
    except (KeyError, IndexError, ValueError) as error:
        names = ", ".join(f"{{{name}}}" for name in values)
        raise InputError(
            f"command: expected {names} in braces, and other braces doubled, but {error}"
        ) from error


# ------------------------------------------------------------- the whole
def cells_of(seeds: Sequence[int], parameters: Mapping[str, Sequence[Any]]) -> tuple[Cell, ...]:
    """Every seed with every combination of parameters.

    Raises:
        InputError: two rows would be the same, or a value is none that a row can have.
    """
    if "seed" in parameters or "folder" in parameters:
        raise InputError("set: expected parameters other than seed and folder")
    for name, values in {"seeds": seeds, **{f"set: {k}": v for k, v in parameters.items()}}.items():
        said = [json.dumps(value) for value in values]
        twice = next((text for text in said if said.count(text) > 1), None)
        if twice is not None:
            raise InputError(f"{name}: expected each value once, got {twice} twice")
        if not all(math.isfinite(value) for value in values if isinstance(value, float)):
            raise InputError(f"{name}: expected finite numbers, got {', '.join(said)}")
    combined = product(*parameters.values())
    named = [dict(zip(parameters, values, strict=True)) for values in combined]
    return tuple({"seed": seed, **each} for each in named for seed in seeds)


def sweep(
    what: str | Sequence[str],
    seeds: Sequence[int],
    out: str | Path,
    parameters: Mapping[str, Sequence[Any]] | None = None,
    *,
    engine: Engine | None = None,
    progress: Callable[[Progress], None] | None = None,
    say: Callable[[str], None] | None = None,
) -> Summary:
    """Have rows computed that are not there yet; all are in ``out/rows.csv`` and ``rows.json``.

    Args:
        what: a function ``package.file:name`` of ``seed`` and the parameters, or the words of a
            command with these in braces.
        seeds: of rows.
        out: a folder; a new one, or one of this function or command.
        parameters: values by name, each with each.
        engine: who does it; a process for each core where it is not said.
        progress: told after each task.
        say: told what a user should know at once.

    Raises:
        InputError: there is no such function, or something else at ``out``.
        FieldError: some rows could not be computed.
    """
    path = Path(out).absolute()
    cells = cells_of(seeds, parameters or {})
    if not cells:
        raise InputError("seeds: expected at least one, got none")
    if isinstance(what, str):
        job = SweepJob(path, of_function(what, cells[0]), cells)
    else:
        if not what:
            raise InputError("command: expected a command or --function, got none")
        program = _filled(what, {**cells[0], "folder": path})[0]
        if shutil.which(program) is None:
            raise InputError(f"command: expected a program to run, but there is no {program!r}")
        job = SweepJob(path, of_command(what), cells)
    engine = engine or Processes()
    engine.require()
    _require_folder(path, what)
    try:
        return carry_out(job, engine, Log(path, say), progress=progress)
    finally:
        _write_table(job)


def _require_folder(path: Path, what: str | Sequence[str]) -> None:
    plan = {
        "what": what if isinstance(what, str) else list(what),
        "version": kahler_verify.__version__,
    }
    place = path / PLAN
    if place.is_file():
        try:
            found = json.loads(place.read_text(encoding="utf-8"))
        except ValueError:
            found = None
        if found != plan:
            raise InputError(
                f"out: {path} holds another sweep, {found and found.get('what')}; give another "
                "folder, or remove it"
            )
        return
    if path.exists() and (not path.is_dir() or any(path.iterdir())):
        raise InputError(f"out: expected a new folder or a sweep begun before, got {path}")
    try:
        write_text(place, json.dumps(plan))
    except OSError as error:
        raise InputError(f"out: cannot write {path}: {error.strerror or error}") from error


def _write_table(job: SweepJob) -> None:
    """All rows that are there, in the order of the cells."""
    places = [job.place(task) for task in range(job.count)]
    rows = [read_row(place) for place in places if place.is_file()]
    if not rows or not (job.path / PLAN).is_file():
        return
    names = list(dict.fromkeys(name for row in rows for name in row))
    table = io.StringIO()
    writer = csv.DictWriter(table, names, lineterminator="\n")
    writer.writeheader()
    writer.writerows(rows)
    write_text(job.path / "rows.csv", table.getvalue())
    write_text(job.path / "rows.json", json.dumps(rows, indent=1, allow_nan=False))
