"""Sweeps: a row for each seed and parameter, computed once, of functions and of commands."""

import csv
import json
import re
import sys
from functools import partial
from pathlib import Path

import pytest
import torch

from kahler_verify.errors import FieldError
from kahler_verify.fields import Array, sweep
from tests.command import run

PROGRAM = """
def square(seed, power=2, fail=-1):
    with open("calls.txt", "a") as file:
        file.write(f"{seed}-{power} ")
    if seed == fail:
        raise ValueError("no such seed")
    return {"value": float(seed) ** power, "more": {"sign": "+", "nothing": float("nan")}}
"""


@pytest.fixture
def here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    (tmp_path / "swept_program.py").write_text(PROGRAM)
    monkeypatch.chdir(tmp_path)
    monkeypatch.syspath_prepend(str(tmp_path))
    return tmp_path


def calls(here: Path) -> list[str]:
    return (here / "calls.txt").read_text().split()


def test_rows_of_a_function(here: Path) -> None:
    what = ("sweep", "--function", "swept_program:square", "--set", "power=1,3", "--out", "out")
    done = run(*what, "--seeds", "3", "--workers", "1")
    assert done.returncode == 0, done.stderr
    assert "rows.csv: 6 rows, 0 of which were there" in done.stdout
    with (here / "out" / "rows.csv").open() as file:
        rows = list(csv.DictReader(file))
    assert list(rows[0]) == ["seed", "power", "value", "more.sign", "more.nothing"]
    assert [(r["seed"], r["power"], r["value"]) for r in rows[3:]] == [
        ("0", "3", "0.0"),
        ("1", "3", "1.0"),
        ("2", "3", "8.0"),
    ]
    assert json.loads((here / "out" / "rows.json").read_text())[5]["more.nothing"] is None
    place = next(p for p in (here / "out" / "rows").iterdir() if p.name.startswith("seed-2"))
    place.write_text(place.read_text().replace("8.0", "9.0").replace("2.0", "3.0"))
    more = run(*what, "--seeds", "4", "--engine", "array", "--task", "0/1")
    assert "8 rows, 5 of which were there" in more.stdout
    assert "chunk was damaged" in more.stderr
    assert len(calls(here)) == 9  # one that was damaged, and those of a new seed
    assert len(set(calls(here))) == 8


def test_a_row_is_computed_on_one_thread(here: Path, request: pytest.FixtureRequest) -> None:
    request.addfinalizer(partial(torch.set_num_threads, torch.get_num_threads()))
    torch.set_num_threads(2)
    (here / "threads.py").write_text(
        "def own(seed):\n    import torch\n    return {'threads': torch.get_num_threads()}\n"
    )
    for who in (["--engine", "array", "--task", "0/1"], ["--workers", "1"]):
        out = "-".join(who)
        done = run("sweep", "--function", "threads:own", "--seeds", "2", "--out", out, *who)
        assert done.returncode == 0, done.stderr
        assert [row["threads"] for row in json.loads((here / out / "rows.json").read_text())] == [
            1,
            1,
        ]


def test_a_row_that_fails_does_not_stop_the_others(here: Path) -> None:
    what = ("sweep", "--function", "swept_program:square", "--set", "fail=1", "--out", "out")
    done = run(*what, "--seeds", "3", "--engine", "array", "--task", "0/1")
    assert done.returncode == 2
    assert (
        "1 of 3 tasks could not be finished, the first of them 1: ValueError: no such"
        in done.stderr
    )
    assert len(json.loads((here / "out" / "rows.json").read_text())) == 2


@pytest.mark.parametrize(
    ("result", "message"),
    [
        ("None", "expected a dictionary of results, got NoneType"),
        ("{'a': {'b': 1j}}", "the result a.b is nothing that JSON has"),
        ("{'a': np.zeros(2)}", "the result a is nothing that JSON has"),
        ("{'seed': 7}", "the result 'seed' is 7, but the row's own seed is 0"),
    ],
)
def test_results_that_make_no_row(here: Path, result: str, message: str) -> None:
    name = f"made_{len(result)}"
    (here / f"{name}.py").write_text(f"import numpy as np\ndef f(seed):\n    return {result}\n")
    with pytest.raises(FieldError, match=re.escape(message)):
        sweep(f"{name}:f", [0], "out", engine=Array())
    assert not (here / "out" / "rows.csv").exists()


def test_rows_of_a_command(here: Path) -> None:
    program = "import json, sys; print('hello'); print(json.dumps({'twice': 2 * int(sys.argv[1])}))"
    sweep(
        [sys.executable, "-c", program.replace("{", "{{").replace("}", "}}"), "{seed}"],
        [4, 7],
        "out",
        engine=Array(),
    )
    rows = json.loads((here / "out" / "rows.json").read_text())
    assert rows == [{"seed": 4, "twice": 8}, {"seed": 7, "twice": 14}]
    (output,) = (here / "out" / "cells").glob("seed-4-*/output.txt")
    assert output.read_text().startswith("hello")
    done = run(
        "sweep", "--seeds", "1", "--engine", "array", "--task", "0/1", "--out", "bad", "--", "false"
    )
    assert "false ended with 1: it said nothing" in done.stderr


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ((), "command: expected a command after -- or --function, got none"),
        (("--function", "nothing:here"), "function: cannot import nothing:here"),
        (("--function", "swept_program"), "function: expected package.file:function"),
        (("--function", "swept_program:square", "--seeds", "0"), "seeds: expected a number"),
        (("--function", "swept_program:square", "--set", "power"), "set: expected NAME=VALUE"),
        (("--function", "swept_program:square", "--set", "seed=1"), "set: expected parameters"),
        (("--function", "swept_program:square", "--seeds", "²"), "seeds: expected a number"),
        (("--function", "swept_program:square", "--seeds", "3,5,3"), "got 3 twice"),
        (("--function", "swept_program:square", "--set", "power=2,2"), "set: power: expected each"),
        (("--function", "swept_program:square", "--set", "power=nan"), "expected finite numbers"),
        (("--function", "swept_program:square", "--set", "x=1"), "set: expected the parameters of"),
        (
            ("--function", "swept_program:square", "--set", "power=1", "--set", "power=2"),
            "set: expected all values of power at once",
        ),
        (("--", "echo", "{what}"), "command: expected {seed}, {folder} in braces"),
        (("--", "no-such-program", "{seed}"), "command: expected a program to run, but there is"),
    ],
)
def test_bad_input_writes_nothing(here: Path, arguments: tuple[str, ...], message: str) -> None:
    done = run("sweep", "--out", "out", *arguments)
    assert done.returncode == 2
    assert message in done.stderr
    assert not (here / "out").exists()


def test_what_is_another_sweep_is_refused(here: Path) -> None:
    sweep("swept_program:square", [0], "out", engine=Array())
    done = run("sweep", "--out", "out", "--", "true")
    assert "holds another sweep, swept_program:square" in done.stderr
    (here / "mine").mkdir()
    (here / "mine" / "text").touch()
    done = run("sweep", "--out", "mine", "--", "true")
    assert "out: expected a new folder or a sweep begun before" in done.stderr
