"""Samplers at real latents, against laws that are known, by the code that complex latents run.

The unit sphere from its pole: g = 4/(1 + |z|²)² I on R^d, √det g ∝ (1 + s)^{-d} with s = |z|², so
that t = s/(1 + s) ~ Beta(d/2, (γ - ½) d), which is uniform for d = 2, γ = 1.
"""

import math
import warnings
from pathlib import Path

import numpy as np
import pytest
import torch
from scipy import stats
from torch import Tensor, nn
from torch.distributions import Poisson

from kahler_verify import FisherMetric, PulledBackMetric, RiemannianMetric
from kahler_verify.errors import InputError
from kahler_verify.geometry import PotentialMetric
from kahler_verify.geometry.fisher_rao import FisherRaoMetric
from kahler_verify.models import RealVAE, RealVAEConfig, save_checkpoint
from kahler_verify.statistics import (
    Draws,
    ImproperTargetWarning,
    VolumeTarget,
    importance_resample,
    run_chains,
)
from kahler_verify.statistics.chains import state_at
from tests.command import run

THOROUGH = pytest.mark.thorough


def _conformal(factor) -> RiemannianMetric:
    """g = factor(|z|²) I."""

    def function(z: Tensor) -> Tensor:
        eye = torch.eye(z.shape[-1], dtype=z.dtype)
        return factor((z * z).sum(-1))[..., None, None] * eye

    return RiemannianMetric.from_function(function)


SPHERE = _conformal(lambda s: 4 / (1 + s).square())
FLAT = _conformal(torch.ones_like)


def _square(draws: Draws) -> Tensor:
    assert draws.z.dtype == torch.float64
    return (draws.z * draws.z).sum(-1)


def _p_value(values: Tensor, law, effective: float = math.inf) -> float:
    """Of a Kolmogorov-Smirnov test, thinned to the effective sample size."""
    step = max(1, math.ceil(len(values) / effective))
    return float(stats.kstest(values[::step].numpy(), law.cdf).pvalue)


@pytest.mark.parametrize(
    ("d", "gamma"), [pytest.param(*x, marks=THOROUGH) for x in [(2, 1.0), (1, 2.0), (3, 1.5)]]
)
def test_chains_have_the_law_of_the_sphere(d: int, gamma: float) -> None:
    target = VolumeTarget(SPHERE, d, gamma, prior=False)
    draws = run_chains(target, 150, chains=2, warmup=80, seed=1)
    s, effective = _square(draws), draws.effective_sample_size
    assert draws.z.shape == (300, d)
    assert _p_value(s / (1 + s), stats.beta(d / 2, (gamma - 0.5) * d), effective) > 1e-3
    assert draws.r_hat is not None
    assert draws.r_hat < 1.1


@pytest.mark.parametrize("d", [3, *(pytest.param(d, marks=THOROUGH) for d in (1, 2))])
def test_both_samplers_are_uniform_in_a_ball(d: int) -> None:
    """(|z|/R)^d is uniform: the Jacobian of the chains' way to the ball, and of the proposals'."""
    target = VolumeTarget(FLAT, d, prior=False, radius=2.0)
    proposed = importance_resample(target, 1000, proposals=4000)
    walked = run_chains(target, 80, chains=2, warmup=50, seed=2)
    for draws, effective in ((proposed, math.inf), (walked, walked.effective_sample_size)):
        share = (_square(draws).sqrt() / 2) ** d
        assert _p_value(share, stats.uniform, effective) > 1e-3
        assert float(share.max()) < 1


def test_importance_on_a_cap_of_the_sphere() -> None:
    """|z| < 1 is the half sphere, on which t is uniform up to ½."""
    target = VolumeTarget(SPHERE, 2, prior=False, radius=1.0)
    s = _square(importance_resample(target, 1000, proposals=40_000))
    assert _p_value(2 * s / (1 + s), stats.uniform) > 1e-3


def test_the_prior_is_the_standard_normal_law() -> None:
    """|z|² ~ χ²(d), and 2|z|² where g = e^{|z|²/2} and γ = -1 in d = 2 double the exponent."""
    target = VolumeTarget(FLAT, 3, gamma=0)
    assert _p_value(_square(importance_resample(target, 2000, seed=3)), stats.chi2(3)) > 1e-3
    narrow = VolumeTarget(_conformal(lambda s: (s / 2).exp()), 2, gamma=-1.0)
    draws = importance_resample(narrow, 1000, proposals=40_000, seed=1)
    assert _p_value(2 * _square(draws), stats.chi2(2)) > 1e-3
    at = torch.tensor([0.3, -0.4], dtype=torch.float64)
    assert math.isclose(float(narrow.log_density(at)), -0.25, rel_tol=1e-12)


def test_improper_targets_are_warned_about() -> None:
    """On the sphere the mass in |z| < r grows like r^{d - 2γd}: γ = ½ is the border."""
    for metric, gamma in ((FLAT, 1.0), (SPHERE, 0.4), (SPHERE, -1.0)):
        with pytest.warns(ImproperTargetWarning, match="radius"):
            assert VolumeTarget(metric, 2, gamma, prior=False).warn_if_improper()
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        assert not VolumeTarget(SPHERE, 2, 0.6, prior=False).warn_if_improper()
        assert not VolumeTarget(FLAT, 2).warn_if_improper()
        assert not VolumeTarget(FLAT, 2, prior=False, radius=3).warn_if_improper()


def test_saturated_outputs_far_out_are_not_taken_for_growth() -> None:
    """g underflows to 0 far out: of the law e^{-|z|}, whose volume falls slower than the prior."""
    metric = _conformal(lambda s: (-2 * (1 + s).sqrt()).exp())
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        assert not VolumeTarget(metric, 1, gamma=-1.0).warn_if_improper()
    with pytest.warns(ImproperTargetWarning):
        assert VolumeTarget(metric, 1, gamma=-1.0, prior=False).warn_if_improper()


def _single() -> nn.Module:
    torch.manual_seed(0)
    return nn.Sequential(nn.Linear(2, 6), nn.Tanh(), nn.Linear(6, 5))


@pytest.mark.parametrize("metric", [FisherRaoMetric, PulledBackMetric])
def test_single_precision(metric) -> None:
    target = VolumeTarget(metric(_single()), 2, 0.5)
    walked = run_chains(target, 10, chains=2, warmup=10).z
    for z in (importance_resample(target, 20).z, walked):
        assert z.dtype == torch.float32
        assert bool(z.isfinite().all())


def test_chains_meet_places_without_volume_as_walls() -> None:
    """√g = 1 for |z| < 3 and 0 beyond: the prior, cut off, and no error on the way."""
    metric = _conformal(lambda s: torch.where(s < 9, torch.ones_like(s), 0 * s))
    draws = run_chains(VolumeTarget(metric, 1), 30, chains=2, warmup=20)
    assert float(_square(draws).max()) < 9


def test_seeds_decide() -> None:
    target = VolumeTarget(SPHERE, 2)
    first, second = (importance_resample(target, 10, seed=4).z for _ in range(2))
    assert torch.equal(first, second)
    assert not torch.equal(first, importance_resample(target, 10, seed=5).z)


@pytest.mark.parametrize(
    ("metric", "arguments", "message"),
    [
        (SPHERE, {"volume": "log_det_hermitian"}, r"volume: expected 'log_volume' on R\^2"),
        (SPHERE, {"dimension": 0}, "dimension"),
        (FisherRaoMetric(_single(), 3), {}, r"dimension: expected that of a metric on R\^3"),
        (_single(), {}, "metric: expected a Metric, got Sequential"),
    ],
)
def test_bad_targets(metric, arguments: dict, message: str) -> None:
    with pytest.raises(InputError, match=message):
        VolumeTarget(metric, **({"dimension": 2} | arguments))


def test_latents_of_the_other_kind_are_refused() -> None:
    real, both = torch.zeros(3, 2), torch.zeros(3, 2) + 0j
    with pytest.raises(InputError, match="latents here are real"):
        VolumeTarget(SPHERE, 2).log_density(both)
    with pytest.raises(InputError, match="latents here are complex"):
        VolumeTarget(PotentialMetric("flat"), 2).log_density(real)
    assert VolumeTarget(FisherMetric(_single()).on_real_latents, 2).space.real_dimension == 2


@pytest.mark.parametrize("wall", [2.0, 0.5])  # behind which few starts are, and most
def test_nuts_never_enters_what_the_metric_refuses(wall: float) -> None:
    def law(z: Tensor) -> Poisson:  # of negative rates there
        rates = (wall**2 - z.square().sum(-1, keepdim=True)) * z.exp()
        return Poisson(rates, validate_args=False)

    target = VolumeTarget(FisherRaoMetric(law), 2, gamma=0.5, radius=3.0)
    with pytest.raises(InputError, match="decoder: expected"):
        state_at(target, torch.full((1, 2), 4.0, dtype=torch.float64))
    draws = run_chains(target, 40, chains=2, warmup=20)
    assert draws.z.norm(dim=-1).max() < wall
    assert draws.statistics["lp"].isfinite().all()


def test_nuts_never_enters_volumes_of_zero_to_a_negative_power() -> None:
    """Their density is infinite, and unchecked metrics do not refuse them."""

    def mean(z: Tensor) -> Tensor:
        return z * (1 - z.square().sum(-1, keepdim=True)).clamp_min(0)

    target = VolumeTarget(FisherRaoMetric(mean, validate_args=False), 2, gamma=-0.5, radius=3.0)
    outside = torch.full((1, 2), 4.0, dtype=torch.float64)
    assert state_at(target, outside).value.item() == torch.inf
    draws = run_chains(target, 40, chains=2, warmup=20)
    assert draws.z.norm(dim=-1).max() < 1


@pytest.mark.parametrize("likelihood", ["gaussian", "bernoulli", "poisson", "categorical"])
def test_the_command_samples_a_real_checkpoint(likelihood: str, tmp_path: Path) -> None:
    classes = 3 if likelihood == "categorical" else 0
    config = RealVAEConfig(data_dim=7, hidden=(5,), likelihood=likelihood, categories=classes)
    model, out = RealVAE(config), tmp_path / "samples.npz"
    save_checkpoint(tmp_path / "vae.safetensors", model)
    done = run("sample", str(tmp_path / "vae.safetensors"), "--out", str(out), "--count", "12")
    assert done.returncode == 0, done.stderr
    assert "12 samples, effective sample size" in done.stdout
    written = np.load(out)
    assert (written["z"].dtype, written["z"].shape) == (np.float64, (12, 2))
    mean = model.double().decoder.mean(torch.from_numpy(written["z"]))
    np.testing.assert_allclose(written["mean"], mean.detach().numpy(), rtol=1e-12)


def test_the_command_refuses_a_volume_of_complex_latents(tmp_path: Path) -> None:
    save_checkpoint(tmp_path / "vae.safetensors", RealVAE(RealVAEConfig(hidden=(3,))))
    done = run(
        *("sample", str(tmp_path / "vae.safetensors"), "--out", str(tmp_path / "x.npz")),
        *("--volume", "log_det_hermitian"),
    )
    assert done.returncode == 2
    assert done.stderr.count("\n") == 1
    assert "volume: expected 'log_volume'" in done.stderr
    assert not (tmp_path / "x.npz").exists()
