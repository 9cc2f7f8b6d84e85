"""The experiment on generators: its measures, its report, and that the ledger can read it."""

import math
from pathlib import Path

import numpy as np
import torch

from experiments.generators import declaration, measures, pictures
from experiments.generators.ablation import trained
from experiments.generators.declaration import QUICK
from kahler_verify.geometry import PulledBackMetric
from kahler_verify.models import load_data
from tests.manifolds import SPHERE, draw, lift

ROOT = Path(__file__).resolve().parents[2]


def test_f_of_the_best_matching() -> None:
    truth = np.repeat([3, 4, 7], 4)
    assert measures.f_score(truth, np.repeat([2, 0, 1], 4)) == 1
    one_wrong = np.repeat([2, 0, 1], 4)
    one_wrong[0] = 0
    assert math.isclose(measures.f_score(truth, one_wrong), (6 / 7 + 8 / 9 + 1) / 3)


def test_flatness_of_a_plane_and_of_a_sphere() -> None:
    codes = torch.randn(40, 2, dtype=torch.float64, generator=torch.Generator().manual_seed(0)) / 4
    flat = measures.flatness(
        PulledBackMetric(lambda z: z @ torch.eye(2, 5).to(z)), codes, QUICK.pairs, 0
    )
    assert abs(flat["excess"]) < 1e-12
    assert abs(flat["curvature"]) < 1e-12

    def gnomonic(z: torch.Tensor) -> torch.Tensor:
        x = torch.cat([z, torch.ones_like(z[..., :1])], -1)
        return x / x.norm(dim=-1, keepdim=True)

    # straight lines are its geodesics, and yet its curvature is 1: the range of it is 0
    round_one = measures.flatness(PulledBackMetric(gnomonic), codes, QUICK.pairs, 0)
    assert abs(round_one["largest_excess"]) < 1e-9
    assert round_one["not_found"] == 0


def test_straight_lines_on_the_sphere_are_too_long_by_a_known_part() -> None:
    """In stereographic coordinates |dx| = 2|dz|/(1 + |z|²); the angle is the geodesic's length."""
    codes = draw(40, 2)
    found = measures.flatness(SPHERE, codes, QUICK.pairs, 0)
    order = torch.randperm(40, generator=torch.Generator().manual_seed(0))
    a, b = codes[order[: 2 * QUICK.pairs]].chunk(2)
    times = torch.linspace(0, 1, 20_001, dtype=codes.dtype)[:, None, None]
    rate = 2 * (b - a).norm(dim=-1) / (1 + ((1 - times) * a + times * b).square().sum(-1))
    angle = torch.acos((lift(a) * lift(b)).sum(-1))
    excess = torch.trapezoid(rate, dx=1 / 20_000, dim=0) / angle - 1
    assert excess.median() > 0.01
    assert math.isclose(found["excess"], excess.median(), rel_tol=1e-6)
    assert math.isclose(found["largest_excess"], excess.max(), rel_tol=1e-6)
    assert abs(found["curvature"]) < 1e-9  # the same everywhere: no range


def test_regions_of_a_flat_metric_are_euclidean() -> None:
    metric = PulledBackMetric(lambda z: z @ torch.eye(2, 5).to(z))
    grid, centres = draw(4, 3, 2), draw(3, 2)
    expected = torch.cdist(grid.flatten(0, 1), centres).argmin(-1).reshape(4, 3)
    assert torch.equal(pictures.nearest(metric, grid, centres), expected.double())


def test_the_ablation_trains_what_it_says() -> None:
    data = load_data("digits-images", 0)
    with_kl, without = (trained(data, 0, QUICK, noise=True, kl=kl) for kl in (True, False))
    x = data.test.x
    with torch.no_grad():
        near, far = (model.draw_latents(x)[1].mean() for model in (with_kl, without))
    assert near < far
    level = with_kl.decoder.constant_log_variance
    assert level is not None
    deviation = with_kl.decoder.scale * (level / 2).exp()
    assert torch.allclose(deviation**2, torch.full_like(level, declaration.VARIANCE), rtol=1e-5)
