"""What generated text may contain: straight lines of the listed functions, each computed once."""

import ast
import re
from pathlib import Path

import pytest

from kahler_verify.codegen.registry import KERNELS, shipped
from kahler_verify.evidence.numbers.arithmetic import METHODS, NAMESPACE, TRANSCENDENTAL

FILES = sorted(p for p in KERNELS.glob("*.py") if p.name != "__init__.py" and p.stem in shipped())
FORBIDDEN = (ast.If, ast.For, ast.While, ast.Try, ast.IfExp, ast.With, ast.ListComp, ast.Lambda)


@pytest.fixture(params=FILES, ids=lambda p: p.stem)
def path(request: pytest.FixtureRequest) -> Path:
    return request.param


def _functions(tree: ast.Module) -> list[ast.FunctionDef]:
    return [x for x in tree.body if isinstance(x, ast.FunctionDef)]


def test_only_torch_is_imported(path: Path) -> None:
    tree = ast.parse(path.read_text())
    imports = [ast.unparse(x) for x in ast.walk(tree) if isinstance(x, ast.Import | ast.ImportFrom)]
    assert imports == ["from __future__ import annotations", "import torch"]


def test_the_vocabulary_is_closed(path: Path) -> None:
    for function in _functions(ast.parse(path.read_text())):
        heads = set(TRANSCENDENTAL) if function.name == "heads" else set()
        for call in [x for x in ast.walk(function) if isinstance(x, ast.Call)]:
            name = ast.unparse(call.func)
            if re.fullmatch(r"torch[\w.]*", name):
                assert name in {*NAMESPACE, *heads}, name
            else:
                assert isinstance(call.func, ast.Attribute), name
                assert call.func.attr in METHODS, name
        for attribute in [x for x in ast.walk(function) if isinstance(x, ast.Attribute)]:
            allowed = {*METHODS, "dtype", "device", "Tensor"}
            parts = [part for n in (*NAMESPACE, *heads) for part in n.split(".")[1:]]
            assert attribute.attr in {*allowed, *parts}


def test_kernels_are_straight_lines(path: Path) -> None:
    tree = ast.parse(path.read_text())
    assert not [x for x in ast.walk(tree) if isinstance(x, FORBIDDEN)]
    for function in _functions(tree):
        *body, last = function.body[1:]
        assert all(isinstance(line, ast.Assign) for line in body)
        assert isinstance(last, ast.Return)


def test_every_line_is_needed_and_computed_once(path: Path) -> None:
    for function in _functions(ast.parse(path.read_text())):
        lines = [x for x in function.body if isinstance(x, ast.Assign)]
        right = [ast.unparse(x.value) for x in lines]
        assert len(set(right)) == len(right), function.name
        names = [ast.unparse(x.targets[0]) for x in lines]
        assert len(set(names)) == len(names), function.name
        used = {x.id for x in ast.walk(function) if isinstance(x, ast.Name) and x.id != "torch"}
        assert set(names) <= used
        arguments = {x.arg for x in function.args.args}
        read = {
            x.id
            for x in ast.walk(function)
            if isinstance(x, ast.Name) and isinstance(x.ctx, ast.Load)
        }
        assert arguments <= read, function.name
        assert set(names) <= read, function.name


def test_the_header_says_where_it_comes_from(path: Path) -> None:
    text = path.read_text()
    doc = ast.get_docstring(ast.parse(text)) or ""
    assert f"from the derivation {path.stem}" in doc
    assert "o not edit" in doc
    assert re.search(r"Fingerprint: [0-9a-f]{16}", doc)
    assert re.search(r"SymPy: \d", doc)
    for function in _functions(ast.parse(text)):
        described = ast.get_docstring(function) or ""
        for argument in function.args.args:
            assert f"{argument.arg}: [..." in described, (function.name, argument.arg)


def test_all_lists_every_function(path: Path) -> None:
    tree = ast.parse(path.read_text())
    listed = next(
        ast.literal_eval(x.value)
        for x in tree.body
        if isinstance(x, ast.Assign) and ast.unparse(x.targets[0]) == "__all__"
    )
    assert sorted(f.name for f in _functions(tree)) == sorted(listed) == listed
