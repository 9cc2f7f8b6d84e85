"""The table of people's decoders: each is right, and its page can be rewritten."""

import importlib.util
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import nn

from benchmarks.jax_networks import array, translated
from benchmarks.models import Case, cases, conv28, jacobians, row, table
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
    jax = importlib.util.find_spec("jax") is not None
    for line in lines[2:]:
        cells = [cell.strip() for cell in line.split("|")[2:-1]]
        assert len(cells) == 6
        assert all(float(cell) > 0 for cell in cells[: 6 if jax else 4])
        assert cells[4:] == ["–", "–"] or jax


def test_the_network_is_the_same_under_jax() -> None:
    pytest.importorskip("jax", reason="JAX is not installed")
    net, z = conv28(16), torch.randn(3, 16)
    found = np.array(translated(net)(array(z)))
    np.testing.assert_allclose(found, net(z).detach().numpy(), rtol=1e-4, atol=1e-5)
    with pytest.raises(InputError, match="known here, got ReLU"):
        translated(nn.Sequential(nn.ReLU()))
