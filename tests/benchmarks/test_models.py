"""The table of people's decoders: each is right, and its page can be rewritten."""

from pathlib import Path

import pytest

from benchmarks.models import Case, cases, jacobians, row, table
from benchmarks.page import put
from kahler_verify.errors import InputError

CASES = {case.name: case for case in cases(quick=True)}


@pytest.mark.parametrize("name", CASES)
def test_each_model_is_right(name: str) -> None:
    case: Case = CASES[name]
    found = row(case)
    assert found.error < 1e-12
    assert found.top_error < 1e-3
    assert found.product > 0
    assert found.name in table([found])


def test_the_page_has_the_blocks_of_the_command(tmp_path: Path) -> None:
    page = Path(__file__).resolve().parents[2] / "docs" / "peoples-decoders.md"
    copy = tmp_path / "page.md"
    copy.write_text(page.read_text())
    put(copy, {"table": "| new |", "jacobians": "none", "large": "0"}, "models")
    assert "<!-- models table -->\n| new |\n<!-- end -->" in copy.read_text()
    with pytest.raises(InputError, match="expected one block"):
        put(copy, {"other": ""}, "models")
    for name in CASES:
        assert f"| {name} |" in page.read_text()


def test_jacobians_have_a_line_for_each_dimension() -> None:
    lines = jacobians(quick=True).splitlines()
    assert [line.split("|")[1].strip() for line in lines[2:]] == ["16", "32"]
