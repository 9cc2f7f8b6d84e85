"""Inside evidence each folder imports only what stands before it: numbers, then what finds, …"""

import ast
from pathlib import Path

import pytest

import kahler_verify.evidence as evidence

HOME = Path(evidence.__file__).parent
ORDER = (
    ("recheck", "recheck_curves", "finding", "description"),
    ("numbers", "working"),
    ("routes", "laws", "proofs"),
    ("methods",),
    ("crosscheck", "ledger"),
    ("report", "mutants"),
    ("listing",),
)
RANK = {name: rank for rank, names in enumerate(ORDER) for name in names}


def test_everything_has_a_place() -> None:
    assert {p.stem for p in HOME.iterdir() if p.name[0] not in "_." and p.suffix != ".j2"} == {
        *RANK
    }


@pytest.mark.parametrize("name", RANK)
def test_it_imports_only_what_stands_before(name: str) -> None:
    folder = HOME / name
    for path in folder.rglob("*.py") if folder.is_dir() else [folder.with_suffix(".py")]:
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
            if isinstance(node, ast.ImportFrom) and node.module:
                _, _, inner = f"{node.module}.{node.names[0].name}".partition(evidence.__name__)
                other = inner.removeprefix(".").partition(".")[0]
                if inner and other != name:
                    assert RANK[other] < RANK[name], f"{path.name} imports {other}"
