"""Bounds written to a file, which a program that shares nothing with the engine checks again."""

import copy
import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from kahler_verify.curves.proved.certificate import certificate
from kahler_verify.errors import InputError
from kahler_verify.evidence import recheck_curves
from kahler_verify.geometry.pulled_back import PulledBackMetric

DOUBLE = torch.float64


def decoder(activation: nn.Module) -> nn.Sequential:
    layers = [nn.Linear(2, 8), activation, nn.Linear(8, 8, bias=False), activation, nn.Linear(8, 6)]
    for n, layer in enumerate(layers[::2]):
        generator = torch.Generator().manual_seed(n)
        nn.init.normal_(layer.weight, 0, layer.in_features**-0.5, generator=generator)
        if layer.bias is not None:
            nn.init.normal_(layer.bias, 0, 0.3, generator=generator)
    return nn.Sequential(nn.Sequential(*layers), nn.Identity()).double().requires_grad_(False)


A = torch.tensor([0.3, -0.5], dtype=DOUBLE)
B = torch.tensor([-0.4, 0.6], dtype=DOUBLE)


def items(activation: nn.Module, cells: int = 0) -> tuple[list[dict[str, Any]], Tensor]:
    path = PulledBackMetric(decoder(activation)).geodesic(A, B)
    return certificate(path, halvings=3, cells=cells)["items"], path.length


@pytest.mark.parametrize("activation", [nn.Tanh(), nn.Sigmoid(), nn.Softplus()])
def test_a_program_of_its_own_confirms_it(activation: nn.Module, tmp_path: Path) -> None:
    found, length = items(activation, cells=40)
    bounds = [float.fromhex(item["bound"]) for item in found]
    assert length < bounds[0] < length * (1 + 1e-3)
    assert bounds[1] < length
    assert 0.9 * length < bounds[2] < length
    file, program = tmp_path / "bounds.json", tmp_path / "alone.py"
    file.write_text(json.dumps({"format": 1, "items": found}))
    program.write_bytes(Path(recheck_curves.__file__).read_bytes())
    done = subprocess.run(
        [sys.executable, "-I", str(program), str(file)], capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stdout + done.stderr
    assert [line.split()[:2] for line in done.stdout.splitlines()] == [
        ["ok", "upper:"],
        ["ok", "chord:"],
        ["ok", "potential:"],
    ]


def nudged(text: str, factor: float) -> str:
    return (float.fromhex(text) * factor).hex()


def shorter(item: dict[str, Any]) -> None:
    item["bound"] = nudged(item["bound"], 0.99 if item["kind"] == "upper" else 1.2)


def steeper(item: dict[str, Any]) -> None:
    item["potential"] = [[nudged(x, 1.1) for x in row] for row in item["potential"]]


def steep_somewhere(item: dict[str, Any]) -> None:
    row = item["potential"][20]
    row[20] = (float.fromhex(row[20]) + 0.1).hex()  # more than a cell's width of slope


def apart(item: dict[str, Any]) -> None:
    item["elements"][2][0][0] = nudged(item["elements"][2][0][0], 1.0001)


def elsewhere(item: dict[str, Any]) -> None:
    item["b"] = [nudged(x, 1.001) for x in item["b"]]


def other_weights(item: dict[str, Any]) -> None:
    rows = item["layers"][0]["weight"]
    rows[:] = [[nudged(x, 1.1 if item["kind"] == "upper" else 0.8) for x in row] for row in rows]


def other_function(item: dict[str, Any]) -> None:
    item["layers"][1]["function"] = "sigmoid"


CHANGES = [
    (0, shorter),
    (1, shorter),
    (2, shorter),
    (2, steeper),
    (2, steep_somewhere),
    (0, apart),
    (0, elsewhere),
    (0, other_weights),
    (1, other_weights),
    (2, other_weights),
    (1, other_function),
]


@pytest.fixture(scope="module")
def known() -> list[dict[str, Any]]:
    return items(nn.Tanh(), cells=40)[0]


@pytest.mark.sampled(5)
@pytest.mark.parametrize(("which", "change"), CHANGES)
def test_what_is_changed_fails(
    which: int, change: Any, known: list[dict[str, Any]], tmp_path: Path
) -> None:
    item = copy.deepcopy(known[which])
    file = tmp_path / "bounds.json"
    for right in (True, False):
        file.write_text(json.dumps({"format": 1, "items": [item]}))
        assert (recheck_curves.main([str(file)]) == 0) is right
        change(item)


def test_no_item_is_no_proof(tmp_path: Path) -> None:
    file = tmp_path / "empty.json"
    file.write_text('{"format": 1, "items": []}')
    assert recheck_curves.main([str(file)]) == 1
    file.write_text('{"format": 1, "items": [{"kind": "rumour"}]}')
    assert recheck_curves.main([str(file)]) == 1


def test_the_rechecker_is_short_and_alone() -> None:
    text = Path(recheck_curves.__file__).read_text(encoding="utf-8")
    assert len(text.splitlines()) <= 300
    assert "kahler_verify" not in text
    assert "torch." not in text


def test_bad_input() -> None:
    metric = PulledBackMetric(decoder(nn.Tanh()))
    with pytest.raises(InputError, match="curve: expected a single one"):
        certificate(metric.geodesic(A[None], B[None]))
    with pytest.raises(InputError, match="curve: expected one of a PulledBackMetric"):
        certificate(PulledBackMetric(lambda z: z).geodesic(A, B))
