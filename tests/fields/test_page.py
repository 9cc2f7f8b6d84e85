"""The page on fields: its program runs, and its numbers are those that were measured."""

import json
import re
from pathlib import Path
from statistics import quantiles

import pytest

from tests.test_examples import run

ROOT = Path(__file__).resolve().parents[2]
PAGE = (ROOT / "docs" / "fields.md").read_text("utf-8")
MEASURED = json.loads((ROOT / "benchmarks" / "results" / "fields.json").read_text("utf-8"))


def test_numbers_are_the_measured_ones() -> None:
    overhead, two = MEASURED["overhead"], MEASURED["two_workers"]
    low, _, high = quantiles(overhead["ratios"], n=4)
    assert f"{overhead['median']:.3f} ({low:.3f} – {high:.3f})" in PAGE
    low, _, high = quantiles(two["ratios"], n=4)
    assert f"{two['median']:.2f} ({low:.2f} – {high:.2f})" in PAGE
    million, rate = MEASURED["million"], MEASURED["million"]["points_per_cpu_second"]
    assert f"| {round(rate, -2):_.0f} |".replace("_", " ") in PAGE
    first, last = million["peak_MiB"].values()
    assert f"{first:.0f} and {last:.0f} MiB" in PAGE
    hours = 1e10 / rate / 3600
    assert f"| {hours:.0f} | {60 * hours / 64:.0f} min |" in PAGE
    assert overhead["median"] <= 1.05
    assert two["median"] >= 0.95


@pytest.mark.thorough
def test_the_program_runs(tmp_path: Path) -> None:
    from tests.fields.test_cli_field import small_models

    small_models(tmp_path)
    (tmp_path / "demo").mkdir()
    (tmp_path / "complex.safetensors").rename(tmp_path / "demo" / "digits.safetensors")
    (block,) = re.findall(r"```python\n(from kahler_verify import fields.*?)```", PAGE, re.DOTALL)
    (tmp_path / "page.py").write_text(block.replace("10**6", "10**3").replace("(2)", "(1)"))
    assert run("page.py", cwd=tmp_path).startswith("(1000, 2) (1000,) {")
