"""Adaptive laws as torch distributions: densities, the jump at the cut, draws, and refusals."""

import math

import pytest
import torch
from torch import Tensor

from kahler_verify.errors import CurveError, InputError
from kahler_verify.geometry.data_metrics import LocalVarianceMetric
from kahler_verify.statistics import AdaptiveLaw
from kahler_verify.statistics.adaptive import logs as module
from kahler_verify.statistics.adaptive.logs import logs
from kahler_verify.statistics.adaptive.rays import trace
from tests.manifolds import draw
from tests.statistics.adaptive.metrics import DOUBLE, Flat, Halves, Mercator, SpaceForm, sphere_exp

EYE = torch.eye(2, dtype=DOUBLE)
MEAN = torch.tensor([[0.3, 0.2]], dtype=DOUBLE)
SLANTED = torch.tensor([[[1.0, 0.5], [0.5, 1.0]]], dtype=DOUBLE)
TURN = (2 * math.pi, 0.0)


def sphere_law(variance: float, **options: object) -> AdaptiveLaw:
    """With the covariance ``variance`` in orthonormal coordinates."""
    size = 2 / (1 + float((MEAN**2).sum()))
    return AdaptiveLaw(SpaceForm(1), MEAN, variance / size**2 * EYE[None], **options)


def test_flat_mixtures_are_gaussian_ones() -> None:
    means = torch.tensor([[0.0, 0.0], [2.0, 1.0]], dtype=DOUBLE)
    covariances = torch.cat([SLANTED, 0.3 * EYE[None]])
    weights = torch.tensor([0.3, 0.7], dtype=DOUBLE)
    metric = Flat(torch.tensor([[2.0, 0.7], [0.7, 0.5]], dtype=DOUBLE))
    law = AdaptiveLaw(metric, means, covariances, weights, rays=32)
    normal = torch.distributions.MultivariateNormal(means, covariances)
    mixed = torch.distributions.MixtureSameFamily(torch.distributions.Categorical(weights), normal)
    x = 3 * draw(4, 5, 2)
    assert torch.allclose(law.log_prob(x), mixed.log_prob(x), atol=1e-8)
    volume = metric.log_volume(x)
    assert torch.allclose(law.log_prob_riemannian(x), mixed.log_prob(x) - volume, atol=1e-8)


def test_density_of_the_sphere_in_two_charts() -> None:
    """exp(-r²/2s)/C by the volume, and what the chart's measure makes of it."""
    law = sphere_law(0.36, rays=32)
    assert math.isclose(float(law.log_normalisers.exp()), 2.0090902504983394907, rel_tol=1e-9)
    v = draw(20, 2) * 0.6
    x = sphere_exp(MEAN[0], v)
    exact = -(v**2).sum(-1) / 0.72 - math.log(2.0090902504983394907)
    assert torch.allclose(law.log_prob_riemannian(x), exact, atol=1e-8)
    assert torch.allclose(law.log_prob(x), exact + 2 * torch.log(2 / (1 + (x * x).sum(-1))))
    q = 1 + (x * x).sum(-1)
    longitude, latitude = torch.atan2(x[:, 1], x[:, 0]), torch.asin((2 - q) / q)
    at = (MEAN * MEAN).sum()
    mean = torch.stack([torch.atan2(MEAN[0, 1], MEAN[0, 0]), torch.asin((1 - at) / (1 + at))])
    covariance = torch.diag(torch.stack([0.36 / mean[1].cos() ** 2, 0 * at + 0.36]))
    other = AdaptiveLaw(Mercator(), mean[None], covariance[None], rays=32)
    points = torch.stack([longitude, latitude], -1)
    near = (longitude - mean[0]).abs() < 2.5  # this chart has a seam
    assert int(near.sum()) > 15
    assert torch.allclose(other.log_prob_riemannian(points[near]), exact[near], atol=1e-6)


def test_five_dimensions_of_a_sphere() -> None:
    """Rays are spread by the law's own second moments: by Γ⁻¹ alone 48 miss C by 3e-2."""
    mean = torch.full((1, 5), 0.1, dtype=DOUBLE)
    white = torch.diag(torch.linspace(0.05, 0.6, 5, dtype=DOUBLE))
    covariance = white * ((1 + float((mean**2).sum())) / 2) ** 2
    for seed in (0, 2):
        options = {"rays": 48, "tolerance": 1e-5, "seed": seed}
        law = AdaptiveLaw(SpaceForm(1, 5), mean, covariance[None], **options)
        # C by 2¹⁹ directions, whose radial integrals are those of sin⁴
        assert math.isclose(float(law.log_normalisers.exp()), 1.172617, rel_tol=2e-3)


def test_the_jump_at_the_cylinders_cut() -> None:
    law = AdaptiveLaw(Flat(EYE), 0 * MEAN, SLANTED, periods=TURN)
    assert math.isclose(float(law.log_normalisers.exp()), 5.4322548225939, rel_tol=1e-8)
    sides = torch.tensor([[-math.pi + 1e-8, 1.0], [math.pi - 1e-8, 1.0]], dtype=DOUBLE)
    before, after = law.log_prob(sides)
    assert math.isclose(float((after - before).exp()), 65.942965200064, rel_tol=1e-6)
    report = law.cut()
    assert float(report.cut) > 0.5
    # the ray at height z jumps by 2 Γ₁₂ π z; the longest rays are those of the fan's reach
    assert float(report.jump) > math.log(65.9)
    assert math.isclose(float(report.edge), math.exp(-(math.pi**2) / 2), rel_tol=1e-2)
    assert float(sphere_law(0.01, rays=16).cut().edge) == 0


def test_draws_have_the_laws_moments() -> None:
    law = sphere_law(0.36, rays=32, tolerance=1e-7)
    drawn = law.sample((600,), generator=torch.Generator().manual_seed(0))
    r = logs(law.fans[0], drawn, tolerance=1e-6).v.norm(dim=-1)
    for values, exact in ((r**2, 0.63570868263909793), (r.cos(), 0.71358633697850469)):
        assert abs(float(values.mean()) - exact) < 3 * float(values.std()) / 600**0.5
    assert law.sample().shape == (2,)
    assert law.sample((0, 3)).shape == (0, 3, 2)


def test_draws_of_an_anisotropic_law_that_the_cut_ends() -> None:
    """On a thin cylinder nearly all of one direction is cut off."""
    law = AdaptiveLaw(Flat(EYE), 0 * MEAN, SLANTED, periods=(2.0, 0.0), rays=32, tolerance=1e-6)
    drawn = law.sample((600,), generator=torch.Generator().manual_seed(0))
    assert float(drawn[:, 0].abs().max()) < 1 + 1e-3  # the cut, interpolated between 32 rays
    grid = torch.linspace(-1, 1, 2001, dtype=DOUBLE)
    weights = (-(grid**2) / 2).exp()  # the marginal law is the normal one, cut off
    variance = float((weights * grid**2).sum() / weights.sum())
    own = drawn[:, 0] ** 2
    assert abs(float(own.mean()) - variance) < 3 * float(own.std()) / 600**0.5
    slope = float((drawn[:, 0] * drawn[:, 1]).mean() / own.mean())
    assert abs(slope - 0.5) < 0.2


def test_reparametrised_draws_are_refused() -> None:
    law = AdaptiveLaw(Flat(EYE), MEAN, SLANTED)
    assert not law.has_rsample
    with pytest.raises(NotImplementedError, match="rejection"):
        law.rsample((3,))


def test_unreached_points_are_named_or_nan() -> None:
    x = torch.tensor([[1.1, 0.0], [-1.0, 0.0]], dtype=DOUBLE)
    one = torch.tensor([[1.0, 0.0]], dtype=DOUBLE)
    options = {"rays": 16, "tolerance": 1e-6}
    law = AdaptiveLaw(Halves(), one, 0.1 * EYE[None], **options)
    with pytest.raises(CurveError, match=r"1 of 2 points, the first of them \[1\]"):
        law.log_prob(x)
    law = AdaptiveLaw(Halves(), one, 0.1 * EYE[None], raise_on_failure=False, **options)
    assert law.log_prob(x).isnan().tolist() == [False, True]


def test_points_very_far_away(monkeypatch: pytest.MonkeyPatch) -> None:
    """Rays go on to them: no search, few evaluations, and a geodesic that ends at each."""

    def none(*_: object, **__: object) -> None:
        raise AssertionError("searched")

    monkeypatch.setattr(module, "connect", none)
    metric = LocalVarianceMetric(draw(12, 2, seed=3), 0.8, 0.1)
    law = AdaptiveLaw(metric, MEAN, 0.1 * EYE[None], rays=16, tolerance=1e-6)
    angle = torch.arange(4, dtype=DOUBLE) * math.pi / 2 + 0.1
    x = 1e3 * torch.stack([angle.cos(), angle.sin()], -1)
    found = logs(law.fans[0], x)
    assert bool(found.found.all())
    assert found.evaluations < 3000 * len(x)
    # far from data the metric is I/ρ; near them it is less, and the way a part of the whole
    ratio = found.v.norm(dim=-1) / 1e3 * 0.1**0.5
    assert bool(((ratio > 0.97) & (ratio < 1.001)).all())
    times = torch.tensor([0.0, 1e-3, 1.0], dtype=DOUBLE)
    fan = law.fans[0]
    end = trace(metric, fan.mean, fan.frame, found.v, times, stop=False).state.point[:, -1]
    assert torch.allclose(end, x, atol=0.05)
    density = law.log_prob(x)
    assert bool((density < -1e6).all())
    assert bool(density.isfinite().all())


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ((MEAN[0], SLANTED), "means"),
        ((MEAN.float(), SLANTED), "float64"),
        ((MEAN, SLANTED[0]), "covariances"),
        ((MEAN, -SLANTED), "positive definite"),
        ((MEAN, SLANTED, torch.tensor([-1.0])), "weights"),
    ],
)
def test_bad_parameters(arguments: tuple[Tensor, ...], message: str) -> None:
    with pytest.raises(InputError, match=message):
        AdaptiveLaw(Flat(EYE), *arguments)


def test_bad_points() -> None:
    law = AdaptiveLaw(Flat(EYE), MEAN, SLANTED, rays=16)
    for x in (torch.zeros(3), torch.zeros(2), torch.tensor([math.nan, 0.0], dtype=DOUBLE)):
        with pytest.raises(InputError, match="value"):
            law.log_prob(x)
