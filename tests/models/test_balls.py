"""Posteriors as balls: closed forms, quadratures, and bad input."""

import json
import math

import numpy as np
import pytest
import torch
from torch import Tensor

from kahler_verify.errors import InputError
from kahler_verify.models import (
    Balls,
    ComplexVAE,
    RealVAEConfig,
    VAEConfig,
    balls_of,
    coverage,
    diagnose_balls,
    noise_cost,
    overlaps,
    radius_law,
    uniformity,
)


def normal(*shape: int, seed: int = 0) -> Tensor:
    generator = torch.Generator().manual_seed(seed)
    return torch.randn(shape, generator=generator, dtype=torch.float64)


def test_the_radius_law() -> None:
    """Constants that `prove` encloses, for d = 2 and 64, and the limit."""
    assert math.isclose(radius_law(2).mean, 1.2533141373155003, rel_tol=1e-14)
    assert math.isclose(radius_law(2).deviation, 0.65513637756203356, rel_tol=1e-13)
    assert math.isclose(radius_law(64).mean, 7.9688122219986286, rel_tol=1e-13)
    assert math.isclose(radius_law(64).deviation, 0.70571366043550500, rel_tol=1e-11)
    assert math.isclose(radius_law(999).deviation, radius_law(1000).deviation, rel_tol=1e-6)
    assert 0 < math.sqrt(0.5) - radius_law(10**9).deviation < 1e-9


def test_balls_of_complex_latents_are_twice_as_many_real_ones() -> None:
    """So that E|z - m|² of the posterior and of the prior is as in the complex units, doubled."""
    model = ComplexVAE(VAEConfig(data_dim=5, latent_dim=3, hidden=(4,), seed=1))
    x = torch.randn(7, 5, dtype=torch.complex64, generator=torch.Generator().manual_seed(0))
    balls = balls_of(model, x)
    with torch.no_grad():
        mean, log_variance = model.encoder(x)
    assert balls.centres.shape == (7, 6)
    torch.testing.assert_close(
        balls.centres.square().sum(-1), 2 * mean.abs().square().sum(-1).double()
    )
    torch.testing.assert_close(balls.radii**2, 2 * log_variance.exp().sum(-1).double())


def test_overlaps_by_quadrature() -> None:
    """∫√(pq) on a fine grid of the plane, of the nearest of three balls."""
    balls = Balls(
        torch.tensor([[0.0, 0.0], [1.0, 0.5], [4.0, 0.0]]).double(),
        torch.tensor([[0.5, 1.0], [0.7, 0.3], [1.5, 0.4]]).double(),
    )
    side = torch.linspace(-9, 13, 1101, dtype=torch.float64)
    z = torch.cartesian_prod(side, side)
    laws = torch.distributions.Normal(balls.centres[:, None], balls.deviations[:, None])
    roots = (laws.log_prob(z).sum(-1) / 2).exp()
    table = roots @ roots.mT * (side[1] - side[0]) ** 2
    torch.testing.assert_close(
        overlaps(balls), table.fill_diagonal_(0).amax(-1), rtol=1e-6, atol=1e-9
    )


def test_overlaps_of_points_without_radius() -> None:
    centres = torch.tensor([[0.0, 0.0], [0.0, 0.0], [1.0, 0.0]]).double()
    assert overlaps(Balls(centres, 0 * centres)).tolist() == [1, 1, 0]


def test_coverage_of_one_ball() -> None:
    """P(|z| ≤ r √χ²_.95), for one ball of radius r about 0; and nothing of points."""
    centre = torch.zeros(1, 2, dtype=torch.float64)
    generator = torch.Generator().manual_seed(0)
    for radius in (0.2, 0.6, 1.0):
        exact = 1 - 0.05 ** (radius**2)  # χ²_.95 = -2 log .05 of two degrees
        found = coverage(Balls(centre, centre + radius), draws=20_000, generator=generator)
        assert abs(found - exact) < 4 * math.sqrt(exact * (1 - exact) / 20_000)
    assert coverage(Balls(centre, centre), generator=generator) == 0


def test_uniformity_knows_a_grid_from_chance() -> None:
    side = np.stack(np.meshgrid(*[np.linspace(-1, 1, 30)] * 2), -1).reshape(-1, 2)
    chance = np.random.default_rng(0).uniform(-1, 1, (4000, 2))
    assert uniformity(side).variation < 1e-9
    assert abs(uniformity(chance).variation - 0.5227) < 0.02
    random = np.random.default_rng(1).standard_normal((4000, 2))
    assert uniformity(random).sliced < 0.05 < uniformity(side).sliced
    assert uniformity(random).holes < uniformity(random[:200]).holes
    assert uniformity(np.random.default_rng(1).standard_normal((4000, 5))).sliced < 0.05


def test_noise_cost_is_exact_of_a_quadratic() -> None:
    """f = (z₁² + z₂, z₂²), loss of degree 4: E by hand has s⁴ terms besides the two of P1."""

    def f(z: Tensor) -> Tensor:
        return torch.stack([z[..., 0] ** 2 + z[..., 1], z[..., 1] ** 2], -1)

    m, s, x = (torch.tensor([row], dtype=torch.float64) for row in ((1, -0.5), (0.1, 0.05), (5, 1)))
    cost = noise_cost(f, Balls(m, s), x, draws=50_000, generator=torch.Generator().manual_seed(0))
    assert math.isclose(float(cost.metric), 0.01 * 4 + 0.0025 * (1 + 1))
    assert math.isclose(float(cost.residual), -2 * 0.01 * (5 - 0.5) - 2 * 0.0025 * (1 - 0.25))
    exact = float(cost.metric + cost.residual) + 3 * (0.1**4 + 0.05**4)
    assert abs(float(cost.measured) - exact) < 4 * float(cost.error) < 0.05 * abs(exact)


def test_a_diagnosis_of_balls() -> None:
    model = RealVAEConfig(data_dim=6, latent_dim=2, hidden=(4,)).build()
    x = normal(40, 6).float()
    model.standardise(x)
    found = diagnose_balls(model.double(), x.double())
    values = {q.name: q.values for q in found.quantities}
    assert (found.points, found.dimension) == (40, 2)
    assert set(values) >= {"ball radius", "ball overlap", "coverage", "unevenness", "noise, metric"}
    json.dumps(found.to_json(), allow_nan=False)
    assert 0 <= values["coverage"].item() <= 1


def test_bad_input() -> None:
    point = torch.zeros(1, 2, dtype=torch.float64)
    for call, words in (
        (lambda: radius_law(0), "dimension: expected a whole number"),
        (lambda: Balls(point, point[0]), "centres, deviations: expected"),
        (lambda: Balls(point, point - 1), "deviations ≥ 0"),
        (lambda: overlaps(Balls(point, point)), "balls: expected two or more"),
        (lambda: coverage(Balls(point, point), draws=0), "draws: expected"),
        (lambda: uniformity(np.zeros((5, 2))), "span the space"),
        (lambda: uniformity(np.zeros((2, 2))), "codes: expected finite"),
        (lambda: noise_cost(torch.sin, Balls(point, point), point[:0]), "x: expected"),
        (lambda: noise_cost(torch.sin, Balls(point, point), point, draws=1), "draws: expected"),
        (lambda: balls_of(torch.nn.Linear(2, 2), point), "model: expected an autoencoder"),  # type: ignore[arg-type]
    ):
        with pytest.raises(InputError, match=words):
            call()
