"""Fits of adaptive normal laws: known answers, gradients, charts, existence, and bad input."""

import math
from itertools import pairwise
from pathlib import Path

import numpy as np
import pytest
import torch
from sklearn.base import clone
from sklearn.exceptions import NotFittedError
from torch import Tensor, nn

from kahler_verify.errors import CurveError, InputError, PropertyViolation
from kahler_verify.geometry.data_metrics import LocalVarianceMetric
from kahler_verify.geometry.pulled_back import PulledBackMetric
from kahler_verify.statistics import AdaptiveNormal, AdaptiveNormalMixture, data_metric
from kahler_verify.statistics.adaptive import fit as module
from kahler_verify.statistics.adaptive.component import Settings, component, gradient
from tests.manifolds import draw
from tests.statistics.adaptive.metrics import DOUBLE, Flat, Halves, SpaceForm, sphere_exp

pytestmark = pytest.mark.xdist_group("adaptive_fits")  # one worker makes what the tests share

MEAN = torch.tensor([0.3, 0.2], dtype=DOUBLE)
EYE = torch.eye(2, dtype=DOUBLE)
SPHERE = SpaceForm(1)


SECOND_MOMENT_S3 = 0.28387946139624048  # of .36 I along each axis: a radial integral, by mpmath
ON_SPHERE = sphere_exp(MEAN, draw(40, 2) * torch.tensor([0.7, 0.25], dtype=DOUBLE))


@pytest.fixture(scope="module")
def sphere_fit() -> AdaptiveNormal:
    return AdaptiveNormal(SPHERE, rays=64).fit(ON_SPHERE)


def test_a_flat_metric_gives_the_gaussian() -> None:
    """Exactly: mean, covariance and likelihood, in a skew constant metric too."""
    x = draw(30, 2) @ torch.tensor([[1.0, 0.6], [0.0, 0.8]], dtype=DOUBLE) + MEAN
    exact = torch.distributions.MultivariateNormal(x.mean(0), x.T.cov(correction=0))
    for matrix in (EYE, torch.tensor([[2.0, 0.7], [0.7, 0.5]], dtype=DOUBLE)):
        fit = AdaptiveNormal(Flat(matrix), rays=32).fit(x)
        assert np.allclose(fit.means_[0], x.mean(0), atol=1e-6)
        assert np.allclose(fit.covariances_[0], exact.covariance_matrix, rtol=1e-5, atol=1e-6)
        assert math.isclose(fit.score(x), float(exact.log_prob(x).mean()), abs_tol=1e-9)
        assert math.isclose(fit.score(x), fit.log_likelihoods_[-1], abs_tol=1e-9)


@pytest.mark.thorough
def test_points_narrower_than_the_first_rays_can_carry() -> None:
    """No law on 8 rays spread evenly has their second moments: rays whitened by those do."""
    x = draw(30, 2) @ torch.tensor([[1.0, 0.8], [0.0, 0.02]], dtype=DOUBLE) + MEAN
    ones = torch.ones(30, dtype=DOUBLE)
    found = component(Flat(EYE), x, ones, x.mean(0), EYE, Settings(8))
    exact = x.T.cov(correction=0)
    assert torch.allclose(found.covariance, exact, rtol=1e-3, atol=1e-6)


def test_too_few_rays_are_named_at_once() -> None:
    """Four lines do not span five dimensions: said after a second fan, whatever its reach."""
    settings = Settings(8, tolerance=1e-4)
    x = draw(40, 5)
    with pytest.raises(InputError, match="rays: expected more than 8, as no law"):
        component(
            Flat(torch.eye(5, dtype=DOUBLE)),
            x,
            torch.ones(40, dtype=DOUBLE),
            x.mean(0),
            torch.eye(5, dtype=DOUBLE),
            settings,
        )
    assert settings.fans[0] <= 3
    with pytest.raises(InputError, match="rays: expected a whole number ≥ 10"):
        AdaptiveNormal(Flat(torch.eye(5, dtype=DOUBLE)), rays=8).fit(x)


@pytest.mark.thorough
def test_a_flat_metric_gives_the_gaussian_in_three_dimensions() -> None:
    """Exactly, with eight rays: their directions are balanced where the points are whitened."""
    root = torch.tensor([[1.0, 0.5, 0.2], [0.0, 0.6, -0.3], [0.0, 0.0, 0.05]], dtype=DOUBLE)
    odd = torch.tensor([[2.0, 0.7, -0.3], [0.7, 1.5, 0.4], [-0.3, 0.4, 0.8]], dtype=DOUBLE)
    x = draw(12, 3) @ root
    exact = torch.distributions.MultivariateNormal(x.mean(0), x.T.cov(correction=0))
    fit = AdaptiveNormal(Flat(odd), rays=8, precision=1e-3, tolerance=1e-7).fit(x)
    assert np.allclose(fit.means_[0], x.mean(0), atol=1e-6)
    assert np.allclose(fit.covariances_[0], exact.covariance_matrix, rtol=1e-5, atol=1e-8)
    assert math.isclose(fit.log_likelihoods_[-1], float(exact.log_prob(x).mean()), abs_tol=1e-9)


def test_a_law_of_the_three_dimensional_sphere() -> None:
    """Points on three axes, as far as .36 I has its mass: symmetry leaves that law about μ."""
    mean = torch.tensor([0.3, 0.2, 0.1], dtype=DOUBLE)
    axes = torch.linalg.qr(draw(3, 3))[0]
    far = math.sqrt(3 * SECOND_MOMENT_S3)
    x = sphere_exp(mean, far * torch.cat([axes, -axes]))
    fit = AdaptiveNormal(SpaceForm(1, 3), rays=16, precision=1e-6, tolerance=1e-8).fit(x)
    assert np.allclose(fit.means_[0], mean, atol=1e-4)
    own = fit.covariances_[0] * 4 / (1 + float(mean @ mean)) ** 2
    assert np.allclose(own, 0.36 * np.eye(3), atol=1e-4)
    value = -(far**2) / 0.72 - math.log(2.4250354987955680)
    volume = float(SpaceForm(1, 3).log_volume(x).mean())
    assert math.isclose(fit.log_likelihoods_[-1] - volume, value, abs_tol=1e-7)


def test_johnsons_law() -> None:
    """σ → ∞ makes the data metric a product of metrics on lines: flat, and it does not look it."""
    generator = np.random.default_rng(0)
    x = torch.from_numpy(
        generator.standard_normal((200, 2)) @ np.array([[1, 0.6], [0, 0.8]]) + [1, -2]
    )
    metric = LocalVarianceMetric(x, 1e6, 0.01)
    fit = AdaptiveNormal(metric, rays=24, precision=1e-7).fit(x)
    a = (x.var(0, correction=0) + 0.01 / 200).sqrt()
    u = torch.asinh((x - x.mean(0)) / a) / 200**0.5
    law = torch.distributions.MultivariateNormal(u.mean(0), u.T.cov(correction=0))
    own = fit.law_.log_prob_riemannian(x).mean()
    assert math.isclose(float(own), float(law.log_prob(u).mean()), abs_tol=1e-8)
    assert math.isclose(float(own), 3.13886089, abs_tol=1e-8)
    mean = x.mean(0) + a * torch.sinh(200**0.5 * u.mean(0))
    assert np.allclose(fit.means_[0], mean, atol=1e-4)


@pytest.mark.thorough
def test_the_fit_is_the_same_in_every_chart(sphere_fit: AdaptiveNormal) -> None:
    """Likelihoods by the volume agree to 1e-8 in a rotated chart, and the law is the same."""
    turn = 0.4
    q = 1 + (ON_SPHERE**2).sum(-1, keepdim=True)
    point = torch.cat([2 * ON_SPHERE, 2 - q], -1) / q
    c, s = math.cos(turn), math.sin(turn)
    point = point @ torch.tensor([[c, 0, s], [0, 1, 0], [-s, 0, c]], dtype=DOUBLE)
    other = point[:, :2] / (1 + point[:, 2:])
    fit = AdaptiveNormal(SPHERE, rays=64).fit(other)
    own = sphere_fit.law_.log_prob_riemannian(ON_SPHERE)
    # the likelihood is flat at its top: parameters are right to the root of its tolerance
    assert torch.allclose(own, fit.law_.log_prob_riemannian(other), atol=3e-4)
    assert math.isclose(
        float(own.mean()), float(fit.law_.log_prob_riemannian(other).mean()), abs_tol=1e-8
    )
    assert sphere_fit.fans_ <= 8


def test_likelihoods_rise_and_end_where_the_gradient_vanishes(sphere_fit: AdaptiveNormal) -> None:
    history = sphere_fit.log_likelihoods_
    assert all(b >= a for a, b in pairwise(history))
    assert sphere_fit.converged_
    at = component(
        SPHERE,
        ON_SPHERE,
        torch.ones(40, dtype=DOUBLE),
        torch.from_numpy(sphere_fit.means_[0]),
        0.3 * EYE,
        Settings(32),
    )
    assert gradient(at, torch.ones(40, dtype=DOUBLE))[0].norm() < 1e-4


def test_gradients_are_those_of_the_likelihood() -> None:
    """Of a data metric's profile likelihood with weights, against differences, to 1e-5."""
    x = draw(12, 2, seed=3)
    metric = LocalVarianceMetric(x, 0.8, 0.1)
    weights = draw(12, seed=4).abs()
    settings = Settings(rays=64, tolerance=1e-10)
    covariance = torch.tensor([[0.5, 0.1], [0.1, 0.4]], dtype=DOUBLE)
    at = component(metric, x, weights, 0.5 * MEAN, covariance, settings)
    slope = torch.linalg.solve(at.fan.frame.mT, gradient(at, weights)[0])
    direction, ends = torch.tensor([0.6, -0.8], dtype=DOUBLE), []
    for step in (3e-4, -3e-4):
        mean = 0.5 * MEAN + step * direction
        there = component(metric, x, weights, mean, at.covariance, settings)
        ends.append(float(there.value))
    difference = (ends[0] - ends[1]) / 6e-4
    bound = 1e-5 * (1 + float(slope.norm()))
    assert math.isclose(float(slope @ direction), difference, abs_tol=bound)


@pytest.mark.thorough
def test_no_law_beyond_the_uniform_one() -> None:
    """On the sphere E r² has to be less than (π² - 4)/2."""
    angle = 2 * math.pi * torch.arange(8, dtype=DOUBLE) / 8
    near, far = 0.02, 2.7
    v = torch.cat([r * torch.stack([angle.cos(), angle.sin()], -1) for r in (near, far, far)])
    with pytest.raises(
        InputError, match=r"no adaptive normal law exists.*2\.9348022.*\(π² - 4\)/2"
    ):
        component(
            SPHERE,
            sphere_exp(MEAN, v),
            torch.ones(len(v), dtype=DOUBLE),
            MEAN,
            EYE,
            Settings(64),
            reach=3.3,
        )


def test_scikit_learns_manner(sphere_fit: AdaptiveNormal) -> None:
    fresh = clone(sphere_fit)
    assert fresh.get_params()["rays"] == 64
    with pytest.raises(NotFittedError):
        fresh.score(ON_SPHERE)
    assert sphere_fit.predict(ON_SPHERE.numpy()).tolist() == [0] * 40
    kept = [v for v in vars(sphere_fit).values() if isinstance(v, np.ndarray | Tensor)]
    assert all(len(v) != len(ON_SPHERE) for v in kept)  # no data
    d = 2
    expected = -2 * 40 * sphere_fit.score(ON_SPHERE) + (d + 3) * math.log(40)
    assert math.isclose(sphere_fit.bic(ON_SPHERE), expected)
    drawn = sphere_fit.sample(5, seed=1)
    assert drawn.shape == (5, 2)
    assert np.array_equal(drawn, sphere_fit.sample(5, seed=1))


def test_interrupted_fits_resume(tmp_path: Path) -> None:
    class Stop(Exception):
        pass

    def stop(n: int, likelihood: float) -> None:
        if n == 1:
            raise Stop

    kept = tmp_path / "fit.npz"
    metric, x = Flat(EYE), draw(12, 2) @ torch.tensor([[1.0, 0.6], [0.0, 0.3]], dtype=DOUBLE)
    options = {"rays": 16, "precision": 1e-7}
    with pytest.raises(Stop):
        AdaptiveNormal(metric, progress=stop, kept=kept, **options).fit(x)
    steps: list[int] = []
    resumed = AdaptiveNormal(
        metric, progress=lambda n, _: steps.append(n), kept=kept, **options
    ).fit(x)
    assert steps[0] == 1  # the first iteration is not made again
    whole = AdaptiveNormal(metric, **options).fit(x)
    assert math.isclose(resumed.log_likelihoods_[-1], whole.log_likelihoods_[-1], abs_tol=1e-7)
    assert resumed.log_likelihoods_[0] == whole.log_likelihoods_[0]
    with pytest.raises(InputError, match="of other data"):
        AdaptiveNormal(metric, kept=kept, **options).fit(x + 0.1)
    kept.write_bytes(b"no archive")
    with pytest.raises(InputError, match="cannot read"):
        AdaptiveNormal(metric, kept=kept, **options).fit(x)


def test_a_falling_likelihood_is_an_error(monkeypatch: pytest.MonkeyPatch) -> None:
    """As a wrong gradient or wrong geodesics may make it."""
    real, calls = module.ExpectationMaximisation.expect, [0]

    def worse(self: module.ExpectationMaximisation) -> None:
        real(self)
        calls[0] += 1
        self.likelihood -= calls[0]

    monkeypatch.setattr(module.ExpectationMaximisation, "expect", worse)
    with pytest.raises(PropertyViolation, match="fell by"):
        AdaptiveNormal(Flat(EYE), rays=16).fit(draw(10, 2))


def test_two_components_on_flat_space() -> None:
    """The likelihood never falls, and ends where scikit-learn's does."""
    x = torch.cat([draw(20, 2) * 0.3 - 1, draw(20, 2, seed=1) * 0.3 + 1])
    fit = AdaptiveNormalMixture(Flat(EYE), 2, rays=32, precision=1e-7).fit(x)
    assert all(b >= a - 1e-9 for a, b in pairwise(fit.log_likelihoods_))
    from sklearn.mixture import GaussianMixture

    exact = GaussianMixture(2, random_state=0, reg_covar=0, tol=1e-9, max_iter=500).fit(x.numpy())
    assert math.isclose(fit.score(x), exact.score(x.numpy()), abs_tol=1e-5)
    label = fit.predict(x)
    assert len(set(label[:20])) == len(set(label[20:])) == 1
    assert label[0] != label[-1]
    assert np.allclose(fit.predict_proba(x).sum(-1), 1)


BAD = {
    "NaN": (SPHERE, 1, torch.tensor([[0.0, math.nan], [1, 1], [2, 0], [1, 0]]), "NaN.*first.*0"),
    "one point": (SPHERE, 1, torch.zeros(1, 2), "more points than dimensions"),
    "fewer points than dimensions": (SPHERE, 1, draw(2, 2), "more points than dimensions"),
    "one point, repeated": (SPHERE, 1, torch.ones(9, 2), "distinct points"),
    "too many components": (SPHERE, 5, draw(4, 2), "at most as many"),
    "no components": (SPHERE, 0, draw(4, 2), "whole number"),
    "no matrix": (SPHERE, 1, draw(4), r"\[N, d\]"),
    "words": (SPHERE, 1, np.array([["a", "b"]]), "real points"),
    "another dimension": (SPHERE, 1, draw(9, 3), "X"),
    "outside of the chart": (SpaceForm(-1), 1, 2 * draw(9, 2), "positive definite.*chart"),
    "on one line": (Flat(EYE), 1, draw(9, 1) * torch.tensor([1.0, 2.0]), "span the tangent"),
    "no metric": (nn.Identity(), 1, draw(9, 2), "RiemannianMetric"),
}


@pytest.mark.parametrize("case", BAD)
def test_bad_input(case: str) -> None:
    metric, components, x, message = BAD[case]
    with pytest.raises(InputError, match=message):
        AdaptiveNormalMixture(metric, components, rays=16).fit(x)


def test_a_metric_that_is_not_smooth() -> None:
    net = nn.Sequential(nn.Linear(2, 8), nn.ReLU(), nn.Linear(8, 4)).double().requires_grad_(False)
    with pytest.raises(InputError, match=r"smooth.*ReLU"):
        AdaptiveNormal(PulledBackMetric(net)).fit(draw(9, 2))


def test_points_that_no_geodesic_reaches() -> None:
    """Beyond a line that is infinitely far: named one by one, not dropped."""
    metric = Halves()
    x = torch.cat([draw(8, 2) * 0.1 + 1, draw(1, 2) * 0.1 - 1])
    with pytest.raises(CurveError, match=r"1 of 9 points, the first of them \[8\]") as caught:
        AdaptiveNormal(metric, rays=16, precision=1e-6).fit(x)
    assert caught.value.report.flatten()[:8].tolist() == [0] * 8
    assert int(caught.value.report.flatten()[8]) != 0


@pytest.mark.thorough
def test_a_step_does_not_lose_what_has_weight(tmp_path: Path) -> None:
    """Fans have gaps far out: points in them are searched for, or else no mean could move.

    And a fit that goes on from a file has them too.
    """
    random = np.random.default_rng(0)
    noise = 0.1 * random.standard_normal((200, 2))
    angle = np.pi * random.random(200)
    x = torch.from_numpy(np.stack([np.cos(angle), np.sin(angle)], 1) + noise)
    fit = AdaptiveNormalMixture(
        data_metric(x, 0.126),
        2,
        rays=48,
        precision=1e-4,
        exact=False,
        most_iterations=2,
        kept=tmp_path / "fit.npz",
    ).fit(x)
    # two first fans, and one step each: without the search the second took eight, and stood still
    assert fit.fans_ <= 6
    assert fit.log_likelihoods_[1] > fit.log_likelihoods_[0] + 0.05
    resumed = clone(fit).fit(x)
    # its precisions suit the shares that were kept: one half of a step more
    assert resumed.log_likelihoods_[-1] >= fit.log_likelihoods_[-1] - 1e-9
    assert resumed.log_likelihoods_[-1] < fit.log_likelihoods_[-1] + 0.01
    assert resumed.unreached_ == fit.unreached_
