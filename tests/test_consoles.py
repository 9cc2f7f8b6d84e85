"""The command on terminals, pipes, encodings and locales that it does not choose."""

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

from tests.command import run

pytestmark = pytest.mark.xdist_group("consoles")  # one worker makes what the tests share


def _run(*arguments: str, **environment: str) -> subprocess.CompletedProcess[bytes]:
    return subprocess.run(
        [sys.executable, "-m", "kahler_verify", *arguments],
        capture_output=True,
        stdin=subprocess.DEVNULL,
        env=os.environ | environment,
        check=False,
    )


@pytest.mark.parametrize(
    "environment",
    [
        pytest.param({"PYTHONIOENCODING": "ascii"}, marks=pytest.mark.thorough),
        pytest.param({"PYTHONIOENCODING": "cp1252"}, marks=pytest.mark.thorough),
        pytest.param(
            {"PYTHONIOENCODING": "ascii:strict", "NO_COLOR": "1"}, marks=pytest.mark.thorough
        ),
        {"LC_ALL": "C", "PYTHONCOERCECLOCALE": "0", "PYTHONUTF8": "0", "COLUMNS": "12"},
        pytest.param({"COLUMNS": "12", "TERM": "dumb"}, marks=pytest.mark.thorough),
    ],
    ids=["ascii", "cp1252", "strict", "C and narrow", "dumb"],
)
def test_no_encoding_or_width_ends_a_command(environment: dict[str, str]) -> None:
    done = _run("derive", "gaussian_kl", **environment)
    assert done.returncode == 0, done.stderr
    assert b"Sigma" in done.stdout
    assert done.stderr == b""


@pytest.fixture(scope="module")
def cache(tmp_path_factory: pytest.TempPathFactory) -> dict[str, str]:
    """One cache of verdicts for all, as each process takes seconds to find one."""
    return {"KAHLER_VERIFY_CACHE": str(tmp_path_factory.mktemp("verdicts"))}


@pytest.mark.parametrize("encoding", ["ascii", pytest.param("cp1252", marks=pytest.mark.thorough)])
def test_tables_and_errors_in_any_encoding(
    encoding: str, cache: dict[str, str], tmp_path: Path
) -> None:
    cache = cache | {"PYTHONIOENCODING": encoding}
    done = _run("prove", "O9", **cache)
    assert done.returncode == 0, done.stderr
    assert b"refuted" in done.stdout
    path = tmp_path / "∂.py"
    path.write_text("x = 1\n", encoding="utf-8")
    done = _run("generate", str(path), **cache)
    assert done.returncode == 2
    assert done.stderr.count(b"\n") == 1
    assert b"\\u2202.py" in done.stderr


def test_a_reader_that_leaves_is_no_error() -> None:
    command = f"{sys.executable} -m kahler_verify derive gaussian_kl | head -n 1"
    done = subprocess.run(["bash", "-c", command], capture_output=True, check=False)
    assert done.stdout.count(b"\n") == 1
    assert done.stderr == b""


def test_errors_in_a_pipe_are_one_line_however_long(tmp_path: Path) -> None:
    path = tmp_path / ("deep/" * 30) / "missing.safetensors"
    done = _run("geodesic", str(path), "0,0", "1,1", COLUMNS="40")
    assert done.returncode == 2
    assert done.stderr.startswith(b"error: ")
    assert done.stderr.count(b"\n") == 1


def test_outputs_are_checked_before_the_work(tmp_path: Path) -> None:
    for arguments in (
        ("prove", "O9", "--json", str(tmp_path)),
        ("mutate", "--json", str(tmp_path)),
        ("verify", "--html", str(tmp_path)),
        ("train", "--out", str(tmp_path)),
        ("train", "--out", "-", "--epochs", "1"),
        ("sample", "model.safetensors", "--out", str(tmp_path)),
        ("diagnose", "model.safetensors", "--json", str(tmp_path)),
    ):
        done = run(*arguments)
        assert done.returncode == 2, arguments
        assert done.stderr.startswith(("error: out:", "error: json:", "error: html:")), done


@pytest.mark.parametrize("target", ["-", pytest.param("/dev/stdout", marks=pytest.mark.thorough)])
def test_json_to_standard_output_is_json_alone(target: str, cache: dict[str, str]) -> None:
    done = _run("prove", "O9", "--json", target, **cache)
    assert done.returncode == 0, done.stderr
    assert json.loads(done.stdout)["claims"][0]["id"] == "O9"
    assert b"refuted" in done.stderr
    assert Path("/dev/stdout").is_symlink()


@pytest.mark.thorough
def test_standard_output_that_is_a_file_keeps_both(cache: dict[str, str], tmp_path: Path) -> None:
    with (tmp_path / "log").open("wb") as log:
        done = subprocess.run(
            [sys.executable, "-m", "kahler_verify", "prove", "O9", "--json", "/dev/stdout"],
            stdout=log,
            stderr=subprocess.PIPE,
            env=os.environ | cache,
            check=False,
        )
    assert done.returncode == 0, done.stderr
    assert json.loads((tmp_path / "log").read_bytes())["passed"] is True


def test_names_with_markup_are_printed_as_they_are(tmp_path: Path) -> None:
    out = tmp_path / "[bold]model[/nothing].safetensors"
    small = ("--epochs", "1", "--hidden", "4", "--latent-dim", "1", "--warmup", "0")
    done = run("train", "--out", str(out), *small)
    assert done.returncode == 0, done.stderr
    assert out.is_file()
    assert "[bold]model[/nothing].safetensors: held-out ELBO" in done.stdout
    assert "None" not in done.stdout + done.stderr
    wrong = run("sample", str(out), "--out", str(tmp_path / "s.npz"), "--count", "10" + "0" * 11)
    assert wrong.returncode == 2
    assert wrong.stderr.count("\n") == 1
    assert "expected at most" in wrong.stderr


def test_a_cache_that_cannot_be_written_is_no_reason_to_fail(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    blocked = tmp_path / "file"
    blocked.write_text("in the way")
    monkeypatch.setenv("KAHLER_VERIFY_CACHE", str(blocked / "cache"))
    done = run("prove", "O9")
    assert done.returncode == 0, done.stderr
    assert "refuted" in done.stdout
    assert "verdicts are not kept" in done.stderr
