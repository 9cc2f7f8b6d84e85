"""What `pip install` gives a user: a wheel with kernels and derivations, quick to import."""

import os
import re
import subprocess
import sys
import tomllib
import zipfile
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[1]
VERSION = tomllib.loads((ROOT / "pyproject.toml").read_text("utf-8"))["project"]["version"]


def _run(*command: str | Path, cwd: Path, **environment: str) -> str:
    done = subprocess.run(
        command,
        cwd=cwd,
        env=os.environ | environment,
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout


@pytest.fixture(scope="module")
def wheel(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The wheel, built from this tree."""
    folder = tmp_path_factory.mktemp("wheel")
    _run(sys.executable, "-m", "hatchling", "build", "-t", "wheel", "-d", folder, cwd=ROOT)
    (built,) = folder.glob("*.whl")
    return built


@pytest.fixture(scope="module")
def installed(wheel: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder that the wheel is installed in, away from this repository."""
    folder = tmp_path_factory.mktemp("installed")
    pip = [sys.executable, "-m", "pip", "install", "--quiet", "--no-deps", "--no-index"]
    _run(*pip, "--target", folder, wheel, cwd=folder)
    return folder


def _in(installed: Path, *arguments: str) -> str:
    """Runs the installed package: PYTHONPATH comes before an editable installation."""
    return _run(sys.executable, *arguments, cwd=installed, PYTHONPATH=str(installed))


def _modules(folder: Path) -> set[str]:
    return {path.name for path in folder.glob("*.py")}


@pytest.mark.xdist_group("packaging")
def test_wheel_carries_derivations_kernels_and_measurements(wheel: Path) -> None:
    files = set(zipfile.ZipFile(wheel).namelist())
    folder = ROOT / "derivations"
    derivations = {str(path.relative_to(folder)) for path in folder.rglob("*.py")}
    kernels = _modules(ROOT / "kahler_verify" / "kernels")
    assert derivations, "the repository has no derivations"
    assert kernels, "the repository has no kernels"
    assert {f"kahler_verify/_derivations/{name}" for name in derivations} <= files
    assert {f"kahler_verify/kernels/{name}" for name in kernels} <= files
    results = {path.name for path in (ROOT / "benchmarks" / "results").glob("*.json")}
    assert results, "the repository has no measurements"
    assert {f"kahler_verify/_results/{name}" for name in results} <= files
    assert "kahler_verify/py.typed" in files


@pytest.mark.xdist_group("packaging")
def test_wheel_carries_nothing_else(wheel: Path) -> None:
    for name in zipfile.ZipFile(wheel).namelist():
        assert name.startswith(("kahler_verify/", f"kahler_verify-{VERSION}.dist-info/"))
        assert not re.search(r"__pycache__|\.pyc$|/tests/", name)


@pytest.mark.xdist_group("packaging")
def test_import_is_from_the_wheel_and_without_sympy(installed: Path) -> None:
    program = "import sys, kahler_verify; print(kahler_verify.__file__, 'sympy' in sys.modules)"
    path, sympy_loaded = _in(installed, "-c", program).split()
    assert Path(path).is_relative_to(installed)
    assert sympy_loaded == "False"


@pytest.mark.thorough
@pytest.mark.xdist_group("packaging")
def test_installed_derivations_can_be_derived(installed: Path) -> None:
    """`derive` without a name lists the shipped derivations; with one, it works on it."""
    listing = _in(installed, "-m", "kahler_verify", "derive")
    stems = {path.stem for path in (ROOT / "derivations").rglob("*.py") if path.name[0] != "_"}
    assert stems
    for stem in stems:
        assert stem in listing
    assert "fubini" in _in(installed, "-m", "kahler_verify", "derive", "fubini_study").lower()


@pytest.mark.thorough
@pytest.mark.xdist_group("packaging")
def test_installed_papers_import_what_they_judge(installed: Path) -> None:
    command = ("-m", "kahler_verify", "prove", "P1", "--no-cache")
    assert "holds under A" in _in(installed, *command)


@pytest.mark.xdist_group("packaging")
def test_help_names_every_command(installed: Path) -> None:
    text = _in(installed, "-m", "kahler_verify", "--help")
    for command in ("derive", "generate", "train", "verify"):
        assert command in text


def test_command_is_installed() -> None:
    command = Path(sys.executable).with_name("kahler-verify")
    assert "Usage" in _run(command, "--help", cwd=ROOT)


def test_versions_agree() -> None:
    citation = (ROOT / "CITATION.cff").read_text("utf-8")
    assert f"\nversion: {VERSION}\n" in citation
    assert VERSION in (ROOT / "CHANGELOG.md").read_text("utf-8")


def test_every_dependency_is_pinned() -> None:
    """constraints.txt names, exactly, what pyproject.toml asks for in ranges."""
    project = tomllib.loads((ROOT / "pyproject.toml").read_text("utf-8"))["project"]
    extras = project["optional-dependencies"]
    lines = (ROOT / "constraints.txt").read_text("utf-8").splitlines()
    pins = [line for line in lines if line and not line.startswith("#")]
    assert all(re.fullmatch(r"[\w.-]+==[\w.]+", pin) for pin in pins)
    pinned = {_normal(pin.split("==")[0]) for pin in pins}
    for requirement in project["dependencies"] + extras["test"] + extras["docs"]:
        name = re.match(r"[\w.-]+", requirement)
        assert name is not None
        if name[0] != project["name"]:  # its own extras, which are looked at below
            assert _normal(name[0]) in pinned, requirement
    for extra in ("arviz", "fields", "explore"):
        for requirement in extras[extra]:
            assert _normal(re.split(r"[<>=]", requirement)[0]) in pinned, requirement


def _normal(name: str) -> str:
    return re.sub(r"[-_.]+", "-", name).lower()
