"""The experiment on LAND: its densities, its report, and that the ledger can read it."""

import json
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import Tensor

from experiments import page
from experiments.land import __main__ as command
from experiments.land import densities
from experiments.land.declaration import ARMS, DATA, QUICK, Sizes
from kahler_verify.calculus.claims import Comparison
from kahler_verify.evidence.ledger.measurements import comparison

ROOT = Path(__file__).resolve().parents[2]


def test_parts_are_of_the_same_points() -> None:
    parts = densities.drawn("moons", 3, QUICK)
    assert [len(part) for part in parts] == [QUICK.train, QUICK.validation, QUICK.test]
    again = densities.drawn("moons", 3, QUICK)
    assert all(torch.equal(a, b) for a, b in zip(parts, again, strict=True))
    assert not torch.equal(parts[0], densities.drawn("moons", 4, QUICK)[0])


def test_reach_is_a_mean_distance_to_a_neighbour() -> None:
    """On a line of equal steps the eighth neighbour is four steps away, but for the ends."""
    line = torch.stack([torch.arange(2000.0), torch.zeros(2000)], -1).double()
    assert abs(densities.reach(line, 1.0) - 4) < 0.02
    assert densities.reach(line, 2.0) == 2 * densities.reach(line, 1.0)


def test_rivals_know_a_gaussian() -> None:
    """Held out, the density of N(0, I) is -log 2πe in the mean, and rivals come near it."""
    x, y = torch.randn(2, 1000, 2, generator=torch.Generator().manual_seed(0)).double()
    exact = -float(np.log(2 * np.pi) + y.square().sum(-1).mean() / 2)
    assert abs(densities.gaussian(x, [y], 1, QUICK)["scores"][0] - exact) < 0.01
    smooth = max(densities.kernels(x, [y], w)["scores"][0] for w in (0.1, 0.3, 0.5))
    assert exact - 0.1 < smooth < exact


def test_a_land_scores_by_lebesgue_measure() -> None:
    """In a metric that hardly bends it is the Gaussian, whose density is by Lebesgue's measure."""
    x, y, _ = densities.drawn("gaussian", 0, Sizes(40, 40, 1))
    found = densities.adaptive(x, [y], lambda: densities.local(x, 8.0), 1, QUICK)
    normal = densities.gaussian(x, [y], 1, QUICK)["scores"][0]
    assert "failure" not in found
    assert abs(found["scores"][0] - normal) < 0.2


@pytest.fixture
def report(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> dict:
    """Of values that were made up: LANDs are better by .1 and a little noise."""

    def made(folder: Path, name: str, seed: int, sizes: Sizes) -> dict:
        base, gain = -float(seed), 0.1 + 0.01 * (seed % 3)
        lands = {"1": {"unreached": 2}, "2": {"unreached": 0, "failure": "no law"}}
        return {
            "free": {"mixture": base, "land": base + gain, "either": base + gain, "kernel": base},
            "equal": {"mixture": [base, base], "land": [base + gain, base - gain]},
            "chosen": {"land": 1 + seed % 2, "mixture": 3, "kernel": 0.1},
            "lands": lands,
        }

    monkeypatch.setattr(command.densities, "compared", made)
    return command.EXPERIMENT.report(tmp_path, range(8), QUICK, lambda _: None)


def test_the_report_makes_the_page(report: dict, tmp_path: Path) -> None:
    path = tmp_path / "page.md"
    path.write_text((ROOT / "docs" / "land.md").read_text("utf-8"), "utf-8")
    page.rewrite(path, "land", command.EXPERIMENT.blocks(report))
    text = path.read_text("utf-8")
    assert "| mixture of LANDs, K by validation | -3.391 | +0.109 (+0.102 to +0.116) |" in text
    assert "| half a circle | 1: 4, 2: 4 | 3: 8 | 16 | 8 |" in text


def test_the_ledger_reads_the_report(report: dict) -> None:
    part = Comparison(
        results="land_l6.json",
        command="python -m experiments.land",
        cell="free",
        baseline="mixture",
        arms=(("land", "LAND"),),
        measures=tuple((name, f"a lower density of {words}") for name, (words, _) in DATA.items()),
    )
    items = comparison(part, json.loads(json.dumps(report)))
    assert sum("higher, +0.109" in item.outcome for item in items) == len(DATA)


def test_sets_are_kept_one_by_one(report: dict, tmp_path: Path) -> None:
    """An interrupted run goes on at the set where it was; both cells are of the same fits."""
    for name in DATA:
        assert len(list(tmp_path.glob(f"{name}-*.json"))) == 8
    assert len(list(tmp_path.glob("*.json"))) == 8 * (len(DATA) + len(ARMS))


def test_more_components_repeat_no_fit(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Who raises a bound computes what is new alone."""
    fitted: list[int] = []

    def fit(x: Tensor, others: list[Tensor], metric: object, k: int, sizes: Sizes) -> dict:
        fitted.append(k)
        return {"scores": [float(k)] * len(others), "unreached": 0}

    monkeypatch.setattr(densities, "adaptive", fit)
    words, _ = DATA["moons"]
    monkeypatch.setitem(DATA, "moons", (words, 2))
    densities.compared(tmp_path, "moons", 0, QUICK)
    monkeypatch.setitem(DATA, "moons", (words, 4))
    found = densities.compared(tmp_path, "moons", 0, QUICK)
    assert fitted == [1, 2, 3, 4]
    assert found["chosen"]["land"] == 4
    densities.compared(tmp_path, "moons", 1, QUICK)
    assert fitted[4:] == [1, 2, 3, 4]
