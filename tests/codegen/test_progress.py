"""What long generation shows, and what a derivation file that fails says."""

import io
import time
from pathlib import Path

import pytest

from kahler_verify.codegen.progress import progress_line
from kahler_verify.codegen.registry import load_file
from kahler_verify.codegen.writing import generate_files
from kahler_verify.errors import DerivationError, GenerationError

FLAT = """
from kahler_verify.calculus import coordinates, dimension, potential
z = coordinates("z", dimension("d"))
plain = potential("plain", z.H * z)
"""


class Terminal(io.StringIO):
    """A stream that says it is a terminal."""

    def isatty(self) -> bool:
        return True


def test_the_line_appears_after_the_patience_and_is_wiped() -> None:
    out = Terminal()
    with progress_line(stream=out, patience=0.05) as step:
        step("p: deriving metric")
        time.sleep(0.3)
    shown = out.getvalue()
    assert "\rp: deriving metric, 0 s" in shown
    assert "\n" not in shown
    assert shown.endswith("\r")
    assert shown.rstrip("\r").rsplit("\r", 1)[-1].isspace()


def test_nothing_is_shown_before_or_where_nobody_looks() -> None:
    quick, piped = Terminal(), io.StringIO()
    with progress_line(stream=quick) as step:
        step("p: deriving metric")
    with progress_line(stream=piped, patience=0.01) as step:
        step("p: deriving metric")
        time.sleep(0.05)
    assert quick.getvalue() == piped.getvalue() == ""


def test_elsewhere_it_is_a_line_for_each_step_if_asked() -> None:
    piped = io.StringIO()
    with progress_line(shown=True, stream=piped, patience=0.01) as step:
        step("p: deriving metric")
        time.sleep(0.1)
    assert piped.getvalue() == "p: deriving metric, 0 s\n"


def test_an_error_inside_wipes_the_line_too() -> None:
    out = Terminal()

    def fail() -> None:
        with progress_line(stream=out, patience=0.01):
            time.sleep(0.1)
            raise ZeroDivisionError

    with pytest.raises(ZeroDivisionError):
        fail()
    assert "generating" in out.getvalue()
    assert out.getvalue().endswith("\r")


def test_generation_says_what_it_does(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path, steps = tmp_path / "user.py", []
    path.write_text(FLAT)

    class Recorder:
        def __enter__(self) -> object:
            return steps.append

        def __exit__(self, *_: object) -> None:
            pass

    monkeypatch.setattr("kahler_verify.codegen.writing.progress_line", lambda _: Recorder())
    generate_files([path], progress=True)
    assert steps[0] == "plain: deriving value"
    assert "plain: printing metric" in steps
    assert steps[-1] == "plain: formatting"


# ------------------------------------------------------------ errors of derivation files

FAULTS = [
    ("x = 1\ny = 1 / 0", "line 2: ZeroDivisionError: division by zero"),
    ("x = (1,\n", "line 1: SyntaxError"),
    ("x = 1\nif x:\nx = 2\n", "line 3: IndentationError"),
    (FLAT + "q = potential('q', (z - z).H * z)", "line 5: "),
    (FLAT + "c = z - 2 * z.H.H\nq = (z - c).H", "line 6: AttributeError: .*write adjoint"),
    (FLAT + "q = (z + 3 * z.H.H - z.at_base()).T", "line 5: AttributeError: .*no transpose"),
    (FLAT + "q = potential('q', 2.5 * z.H * z)", r"line 5: expected exact .*Rational\('2.5'\)"),
    ("raise ValueError('one\\ntwo')", "line 1: ValueError: one two$"),
    ("def f():\n    return {}['k']\n\nf()", "line 2: KeyError: 'k'"),
]


@pytest.mark.parametrize("relative", [False, True])
@pytest.mark.parametrize(("text", "message"), FAULTS)
def test_errors_name_the_file_and_the_line(
    text: str, message: str, relative: bool, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    path = Path("broken.py") if relative else tmp_path / "broken.py"
    path.write_text(text)
    with pytest.raises(DerivationError, match=message) as caught:
        load_file(path)
    assert str(caught.value).startswith(f"{path}, line ")
    assert "\n" not in str(caught.value)


def test_a_failure_below_names_the_line_of_the_file(tmp_path: Path) -> None:
    """The last line of the user's own, not of the library that it called."""
    path = tmp_path / "broken.py"
    path.write_text("import json\n\n\njson.loads('{')\n")
    with pytest.raises(DerivationError, match=r"broken\.py, line 4: JSONDecodeError"):
        load_file(path)


def test_a_failure_of_generation_names_the_derivation(tmp_path: Path) -> None:
    path = tmp_path / "user.py"
    path.write_text(FLAT + "from sympy import gamma\nq = potential('q', gamma(1 + z.H * z))\n")
    with pytest.raises(GenerationError, match=r"^q: the printer has no rule"):
        generate_files([path])
    assert not (tmp_path / "plain_kernels.py").exists()  # all are generated before one is written
