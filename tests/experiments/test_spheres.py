"""The experiments on spheres and on the paper's shortcut: their measures and pages."""

import math
from pathlib import Path

import pytest
import torch

from experiments.rgdgm import declaration as shortcut
from experiments.rgdgm import measures
from experiments.spheres.declaration import QUICK, RADII
from experiments.spheres.measures import limit
from kahler_verify.models import QuantisedVAEConfig, RealVAEConfig

ROOT = Path(__file__).resolve().parents[2]


@pytest.fixture(scope="module")
def found() -> dict:
    """Of an untrained VQ-VAE, whose codes are apart."""
    x = torch.rand(40, 6, generator=torch.Generator().manual_seed(0))
    model = QuantisedVAEConfig(data_dim=6, codes=5, hidden=(8,)).build()
    model.standardise(x)
    return limit(model.double().eval(), x.double(), QUICK)


def test_balls_come_to_the_vq_vae(found: dict) -> None:
    rows = [found[f"r{k}"] for k in range(len(RADII))]
    assert all(row["inside"] for row in rows)
    assert all(math.isclose(r["mixture"], r["divergence"] + r["reconstruction"]) for r in rows)
    assert abs(rows[-1]["divergence"]) < 1e-6 < rows[0]["divergence"] < math.log(5)
    assert abs(rows[-1]["reconstruction"]) < abs(rows[0]["reconstruction"])
    # halving a small radius adds d log 2 to the KL to N(0, I), less what the radius itself was
    assert abs(rows[-1]["fixed"] - rows[-2]["fixed"] - 2 * math.log(2)) < 0.1


def test_the_inverse_never_climbs() -> None:
    """⟨J⁺y, Jᵀy⟩ > 0 at every node, whatever the decoder."""
    model = RealVAEConfig(data_dim=9, hidden=(8,)).build().double().requires_grad_(False)
    a, b = torch.randn(2, 6, 2, generator=torch.Generator().manual_seed(0)).double()
    directions = measures.directions(model, a, b, shortcut.QUICK)
    assert directions["inverse"]["climbing"] == 0
    assert directions["inverse"]["angle"] < 90
    assert 0 < directions["encoder"]["angle"] < 180  # of weights that nobody trained
