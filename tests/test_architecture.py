"""The house: rooms import only those above them, nothing imports in a circle, files are short."""

import ast
from functools import cache
from pathlib import Path

import pytest

PACKAGE = Path(__file__).resolve().parents[1] / "kahler_verify"
# each room may import those before it; see docs/architecture.md
ROOMS = (
    ("moved", "errors", "kernels"),
    ("spaces", "files", "memory", "processes", "derivations", "bessel"),
    ("linear_algebra",),
    ("torch_state",),
    ("distributions", "calculus", "adapters"),
    ("codegen",),
    ("running",),
    ("rules", "likelihoods"),
    ("networks",),
    ("jets",),
    ("geometry",),
    ("curves",),
    ("plots",),
    ("statistics",),
    ("models", "guests"),
    ("fields",),
    ("explorer",),
    ("evidence",),
    ("cli",),
)
# Imports inside functions that look the other way, each for a reason: module to what it imports.
UPWARD = {
    # a metric's methods geodesic, exp, log, … are those of curves, which are written on any metric
    "kahler_verify.geometry.riemannian": (
        "kahler_verify.curves",
        # from_function makes an object of a subclass
        "kahler_verify.geometry.given",
        # operator() makes one of the metric that it is asked of
        "kahler_verify.geometry.operators",
    ),
    # a curve's method plot is that of plots, which draw any curve
    "kahler_verify.curves.curve": ("kahler_verify.plots",),
    # riemannian() makes the real form of the metric that it is asked of
    "kahler_verify.geometry.metric": ("kahler_verify.geometry.real_form",),
    # a jet answers torch by a table of rules, whose outcomes are jets
    "kahler_verify.jets.tensor": ("kahler_verify.jets.dispatch",),
}
LONGEST = 400  # lines of a file, unless its docstring begins by saying why it is long
RANK = {room: rank for rank, rooms in enumerate(ROOMS) for room in rooms}


def _name(path: Path) -> str:
    parts = path.relative_to(PACKAGE.parent).with_suffix("").parts
    return ".".join(parts[:-1] if parts[-1] == "__init__" else parts)


MODULES = {_name(path): path for path in PACKAGE.rglob("*.py")}


def _imports(name: str) -> dict[str, bool]:
    """The package's modules that a module imports, and whether as soon as it is imported."""
    tree = ast.parse(MODULES[name].read_text(encoding="utf-8"))
    first = {id(node) for node in tree.body}
    found: dict[str, bool] = {}
    for node in ast.walk(tree):
        names = []
        if isinstance(node, ast.Import):
            names = [alias.name for alias in node.names]
        elif isinstance(node, ast.ImportFrom) and node.module and not node.level:
            whole = [f"{node.module}.{alias.name}" for alias in node.names]
            names = [each if each in MODULES else node.module for each in whole]
        for each in names:
            if each in MODULES and each != name:
                found[each] = found.get(each, False) or id(node) in first
    return found


@cache
def _kept_imports() -> dict[str, dict[str, bool]]:
    """Those of all modules, without the exceptions."""
    return {
        name: {
            other: at_once
            for other, at_once in _imports(name).items()
            if at_once or not other.startswith(UPWARD.get(name, ("-",)))
        }
        for name in MODULES
    }


def _room(name: str) -> str:
    return name.split(".")[1] if "." in name else ""


def test_no_exception_outlives_its_reason() -> None:
    for name, others in UPWARD.items():
        found = [other for other, at_once in _imports(name).items() if not at_once]
        for other in others:
            assert any(each.startswith(other) for each in found), f"{name} no longer needs {other}"


def _says_why_it_is_long(path: Path) -> bool:
    documentation = ast.get_docstring(ast.parse(path.read_text(encoding="utf-8"))) or ""
    return "Long, because " in " ".join(documentation.splitlines()[:4])


def test_files_are_short() -> None:
    """But for generated kernels, which nobody edits."""
    long = {
        path.relative_to(PACKAGE).as_posix(): lines
        for name, path in MODULES.items()
        if _room(name) != "kernels"
        and (lines := len(path.read_text(encoding="utf-8").splitlines())) > LONGEST
        and not _says_why_it_is_long(path)
    }
    assert not long


def test_every_module_has_a_room() -> None:
    assert {_room(name) for name in MODULES} - {"", "__main__"} == set(RANK)


@pytest.mark.parametrize("room", RANK)
def test_a_room_imports_only_rooms_above_it(room: str) -> None:
    upward = [
        f"{name} imports {other}"
        for name, found in _kept_imports().items()
        if _room(name) == room
        for other in found
        if _room(other) and _room(other) != room and RANK[_room(other)] >= RANK[room]
    ]
    assert not upward


def test_no_circles() -> None:
    """Among imports of any kind, those inside functions too."""
    done: set[str] = set()
    path: list[str] = []
    circles: list[list[str]] = []

    def visit(name: str) -> None:
        if name in path:
            circles.append([*path[path.index(name) :], name])
            return
        if name in done:
            return
        path.append(name)
        for other in _kept_imports()[name]:
            if not other.endswith("__init__"):
                visit(other)
        path.pop()
        done.add(name)

    for name in MODULES:
        visit(name)
    assert not circles, "\n".join(" → ".join(c) for c in circles)
