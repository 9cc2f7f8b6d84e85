"""Chains beside NUTS: the page has the command's block, and a row fills it."""

from pathlib import Path

import pytest

from benchmarks.chains import HEAD, row
from benchmarks.page import put
from kahler_verify.geometry import PotentialMetric
from kahler_verify.statistics import VolumeTarget


def test_the_page_has_the_table(tmp_path: Path) -> None:
    page = Path(__file__).resolve().parents[2] / "docs" / "statistics.md"
    copy = tmp_path / "page.md"
    copy.write_text(page.read_text("utf-8"), "utf-8")
    assert f"<!-- chains table -->\n{HEAD}\n| C^4, k-space | -1 |" in page.read_text("utf-8")
    put(copy, {"table": "| new |"}, "chains")
    assert "<!-- chains table -->\n| new |\n<!-- end -->" in copy.read_text("utf-8")


@pytest.mark.thorough
def test_a_row_has_a_cell_for_each_column() -> None:
    found = row("flat", VolumeTarget(PotentialMetric("flat"), 1, gamma=0.0), 1)
    assert found.count("|") == HEAD.splitlines()[1].count("|")
    assert float(found.split("|")[5]) > 1  # as many effective samples a second as NUTS has
