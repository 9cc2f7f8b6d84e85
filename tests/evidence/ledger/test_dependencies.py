"""Verdicts are found again when a file that the derivation loads has changed, and only then."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

import kahler_verify.evidence.ledger.proving as ledger
from kahler_verify.codegen.registry import is_installed, load_file, own_modules
from kahler_verify.evidence.ledger.dependencies import watched
from kahler_verify.evidence.ledger.proving import prove

HOLDS, REFUTED = "scale = 1\n", "scale = 2\n"
# How a derivation file comes by its helper, and where the helper is: in the folder of the file.
WAYS = {
    "beside": ("helper.py", "from helper import scale"),
    "in a package": ("parts/constants/numbers.py", "from parts.constants.numbers import scale"),
    "on the path": (
        "elsewhere/far.py",
        "sys.path.insert(0, str(HERE / 'elsewhere'))\nfrom far import scale",
    ),
    "lazily": (
        "helper.py",
        "def get():\n    from helper import scale\n    return scale\nscale = get()",
    ),
    "through another": ("second.py", "from first import scale"),
    "by its name": (
        "helper.py",
        "import importlib\nscale = importlib.import_module('helper').scale",
    ),
    "by its file": (
        "helper.py",
        "import importlib.util as u\n"  # noqa: ISC004
        "spec = u.spec_from_file_location('x', HERE / 'helper.py')\n"
        "m = u.module_from_spec(spec)\nspec.loader.exec_module(m)\nscale = m.scale",
    ),
    "executed": ("helper.txt", "exec((HERE / 'helper.txt').read_text())"),
    "from data": ("helper.txt", "scale = int((HERE / 'helper.txt').read_text().split()[-1])"),
}
BY_TEXT = ("by its name", "by its file", "executed")  # modules of tests could be meant: no cache
FILE = """
import sys
from pathlib import Path
HERE = Path(__file__).parent
sys.path.insert(0, str(HERE))
{way}
from sympy import log
from kahler_verify.calculus import *
a, b, c = index('a b c')
z = coordinates('z', dimension('d'))
K = z.H * z + (scale - 1) * log(1 + z.H * z)
part = Vanishing(Partial(K, a, c, Bar(b)), (a, c, b), 'third derivatives')
claim = Claim('E1', 'flat', 'me', parts=(part,))
same = Derivation('same', 'same', (), dimension('d'), claims=(claim,))
"""


@pytest.fixture
def kept(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Path:
    monkeypatch.setenv("KAHLER_VERIFY_CACHE", str(tmp_path / "cache"))
    monkeypatch.setattr(sys, "path", list(sys.path))
    return tmp_path / "cache"


@pytest.fixture
def judged(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """Ids of the claims that were judged, and not taken from the cache."""
    done: list[str] = []
    judge = ledger.judge

    def noted(claim, *rest):  # type: ignore[no-untyped-def]
        done.append(claim.id)
        return judge(claim, *rest)

    monkeypatch.setattr(ledger, "judge", noted)
    return done


def _written(folder: Path, way: str) -> tuple[Path, Path]:
    """A derivation file and the helper that it depends on."""
    place, code = WAYS[way]
    helper = folder / place
    helper.parent.mkdir(parents=True, exist_ok=True)
    (folder / "first.py").write_text("from second import scale\n")
    path = folder / "mine.py"
    path.write_text(FILE.format(way=code))
    return path, helper


@pytest.mark.parametrize("way", WAYS)
def test_a_helper_that_changes(way: str, tmp_path: Path, kept: Path, judged: list[str]) -> None:
    path, helper = _written(tmp_path, way)
    found = []
    for text in (HOLDS, HOLDS, REFUTED, REFUTED, HOLDS):
        helper.write_text(text)
        found.append(prove([str(path)]).claims[0].verdict)
    assert found == ["holds", "holds", "refuted", "refuted", "holds"]
    assert len(judged) == (5 if way in BY_TEXT else 2)  # once for each text: the cache is used


def test_a_helper_that_was_loaded_before(tmp_path: Path, kept: Path, judged: list[str]) -> None:
    """What is in memory may be older than its file: nothing is kept."""
    path, helper = _written(tmp_path, "beside")
    helper.write_text(HOLDS)
    sys.path.insert(0, str(tmp_path))
    import helper as loaded

    try:
        assert loaded.scale == 1
        assert "helper" in own_modules(list(sys.modules))
        for _ in range(2):
            prove([str(path)])
        assert judged == ["E1", "E1"]
    finally:
        del sys.modules["helper"]


def test_what_is_first_read_while_judging_is_not_kept(
    tmp_path: Path, kept: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path, helper = _written(tmp_path, "beside")
    helper.write_text(HOLDS)
    late = tmp_path / "late.py"
    late.write_text("pass\n")
    judge = ledger.judge
    done = []

    def reading(claim, *rest):  # type: ignore[no-untyped-def]
        done.append(late.read_text())
        return judge(claim, *rest)

    monkeypatch.setattr(ledger, "judge", reading)
    for _ in range(2):
        prove([str(path)])
    assert len(done) == 2


@pytest.mark.thorough
def test_another_process_sees_the_change(tmp_path: Path, kept: Path) -> None:
    path, helper = _written(tmp_path, "beside")
    command = [sys.executable, "-m", "kahler_verify", "prove", str(path)]
    codes = []
    for text in (HOLDS, REFUTED):
        helper.write_text(text)
        run = subprocess.run(
            command, capture_output=True, text=True, check=False, cwd=tmp_path, env=os.environ
        )
        codes.append(("refuted" in run.stdout, "holds" in run.stdout))
    assert codes == [(False, True), (True, False)]


def test_modules_of_a_derivation_are_loaded_as_they_then_stand(tmp_path: Path, kept: Path) -> None:
    path, helper = _written(tmp_path, "beside")
    found = []
    for text in (HOLDS, REFUTED):
        helper.write_text(text)
        found.append(load_file(path)[0].claims[0].parts[0].expr)
    assert found[0] != found[1]
    assert "helper" not in sys.modules


def test_installed_files_are_told_from_a_users(tmp_path: Path) -> None:
    import json

    import sympy

    import kahler_verify

    assert all(is_installed(m.__file__) for m in (json, sympy, kahler_verify, pytest))
    assert not is_installed(str(tmp_path / "helper.py"))
    own = tmp_path / "data.txt"
    own.write_text("1")
    with watched() as reads:
        own.read_text()
        (tmp_path / "written").write_text("2")
    own.with_name("later").write_text("3")
    own.with_name("later").read_text()
    assert reads.files == {own.resolve()}
