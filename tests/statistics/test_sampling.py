"""Samplers against laws that are known: Fubini-Study, and the ball truncated or with γ < 0.

On Fubini-Study √det g_ℝ ∝ (1 + s)^{-(d+1)}, s = |z|², so that t = s/(1 + s) ~ Beta(d, γ(d + 1) -
d).  On the ball √det g_ℝ ∝ (1 - s)^{-(d+1)}: γ = -1 gives s ~ Beta(d, d + 2).
"""

import math
import warnings
from typing import Literal

import pytest
import torch
from scipy import stats

from kahler_verify.distributions import ComplexNormal
from kahler_verify.errors import InputError
from kahler_verify.geometry import (
    FisherMetric,
    HermitianJet,
    HermitianMetric,
    MixtureMetric,
    PotentialMetric,
)
from kahler_verify.models.vae import VAEConfig
from kahler_verify.networks.decoder import Decoder
from kahler_verify.statistics import (
    ImproperTargetWarning,
    VolumeTarget,
    importance_resample,
    run_chains,
)


def _square(z: torch.Tensor) -> torch.Tensor:
    return (z * z.conj()).real.sum(-1)


def _fit(values: torch.Tensor, law: stats.rv_continuous, effective: float) -> float:
    """p-value of a Kolmogorov-Smirnov test, thinned to the effective sample size."""
    step = max(1, math.ceil(len(values) / effective))
    return float(stats.kstest(values[::step].numpy(), law.cdf).pvalue)


@pytest.mark.parametrize(
    ("d", "gamma", "length"),
    [
        (1, 1.0, 80),
        *(pytest.param(*x, 400, marks=pytest.mark.thorough) for x in ((1, 1.0), (2, 2.0))),
    ],
)
def test_chains_have_the_law_of_fubini_study(d: int, gamma: float, length: int) -> None:
    """For d = 2, γ = 1 has tails so heavy that short chains mix badly, and R-hat says so."""
    target = VolumeTarget(PotentialMetric("fubini_study"), d, gamma, prior=False)
    draws = run_chains(target, length, chains=3, warmup=length // 2, seed=1)
    s = _square(draws.z)
    law = stats.beta(d, gamma * (d + 1) - d)
    assert _fit(s / (1 + s), law, draws.effective_sample_size) > 1e-3
    assert draws.r_hat is not None
    assert draws.r_hat < 1 + 20 / length  # its own error falls as 1/length
    assert 0.5 < (draws.acceptance or 0) <= 1


@pytest.mark.thorough
def test_heavy_tails_keep_the_law_and_show_in_the_diagnostics() -> None:
    """γ = 1 in d = 2: chains mix badly in |z|, and the effective sample size says how badly."""
    target = VolumeTarget(PotentialMetric("fubini_study"), 2, prior=False)
    draws = run_chains(target, 400, chains=3, warmup=200, seed=1)
    s = _square(draws.z)
    assert _fit(s / (1 + s), stats.beta(2, 1), draws.effective_sample_size) > 1e-3
    assert draws.effective_sample_size < len(draws.z) / 5


@pytest.mark.thorough
def test_chains_have_the_law_of_the_ball_with_negative_gamma_and_not_that_of_another() -> None:
    target = VolumeTarget(PotentialMetric("complex_ball"), 2, gamma=-1, prior=False, radius=1)
    draws = run_chains(target, 400, chains=3, warmup=200, seed=2)
    s, effective = _square(draws.z), draws.effective_sample_size
    assert _fit(s, stats.beta(2, 4), effective) > 1e-3
    assert _fit(s, stats.beta(2, 2.5), effective) < 1e-3  # that of γ = -½


def test_importance_on_the_truncated_ball() -> None:
    """γ = 1 on |z| < ½: s has density ∝ s^{d-1}(1 - s)^{-(d+1)}, so t = s/(1 - s) ∝ t^{d-1}."""
    d = 2
    target = VolumeTarget(PotentialMetric("complex_ball"), d, prior=False, radius=0.5)
    draws = importance_resample(target, 1000, proposals=40_000, seed=0)
    s = _square(draws.z)
    t = s / (1 - s) / (0.25 / 0.75)
    assert float(stats.kstest(t.numpy(), lambda x: x**d).pvalue) > 1e-3
    assert draws.effective_sample_size > 1000


def test_importance_with_a_prior_and_no_volume_is_the_prior() -> None:
    target = VolumeTarget(PotentialMetric("flat"), 3, gamma=0)
    draws = importance_resample(target, 2000, seed=3)
    assert float(stats.kstest(_square(draws.z).numpy(), stats.gamma(3).cdf).pvalue) > 1e-3


def test_improper_targets_are_warned_about() -> None:
    with pytest.warns(ImproperTargetWarning, match="radius"):
        assert VolumeTarget(PotentialMetric("flat"), 2, prior=False).warn_if_improper()
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        for target in (
            VolumeTarget(PotentialMetric("flat"), 2),
            VolumeTarget(PotentialMetric("fubini_study"), 2, prior=False),
            VolumeTarget(PotentialMetric("flat"), 2, prior=False, radius=3),
        ):
            assert not target.warn_if_improper()
    with pytest.warns(ImproperTargetWarning):  # Fubini-Study with γ = -1 grows
        VolumeTarget(PotentialMetric("fubini_study"), 2, gamma=-1, prior=False).warn_if_improper()


def test_seeds_decide() -> None:
    target = VolumeTarget(PotentialMetric("fubini_study"), 1)
    first, second = (importance_resample(target, 10, seed=4).z for _ in range(2))
    assert torch.equal(first, second)
    assert not torch.equal(first, importance_resample(target, 10, seed=5).z)
    one, two = (run_chains(target, 10, chains=2, warmup=10, seed=0).z for _ in range(2))
    assert torch.equal(one, two)


def test_few_effective_proposals_are_warned_about() -> None:
    target = VolumeTarget(PotentialMetric("flat"), 2, gamma=0)
    sharp = VolumeTarget(PotentialMetric("complex_ball"), 2, gamma=3, prior=False, radius=0.9999)
    assert importance_resample(target, 50).effective_sample_size > 900
    with pytest.warns(UserWarning, match="proposals carry the weights"):
        importance_resample(sharp, 200, proposals=400)


@pytest.mark.parametrize(
    ("arguments", "name"),
    [
        ({"dimension": 0}, "dimension"),
        ({"gamma": math.nan}, "gamma"),
        ({"volume": "area"}, "volume"),
        ({"radius": -1.0}, "radius"),
    ],
)
def test_bad_targets(arguments: dict, name: str) -> None:
    with pytest.raises(InputError, match=name):
        VolumeTarget(PotentialMetric("flat"), **({"dimension": 2} | arguments))


def test_bad_requests() -> None:
    improper = VolumeTarget(PotentialMetric("flat"), 2, prior=False)
    proper = VolumeTarget(PotentialMetric("flat"), 2)
    with pytest.raises(InputError, match="prior or a radius"):
        importance_resample(improper, 10)
    with pytest.raises(InputError, match="count"):
        importance_resample(proper, 0)
    with pytest.raises(InputError, match="proposals"):
        importance_resample(proper, 10, proposals=5)
    with pytest.raises(InputError, match="chains"):
        run_chains(proper, 100, chains=1)


def test_a_zero_volume_to_a_negative_power_is_refused() -> None:
    flat = FisherMetric(lambda z: (z.real.to(z.dtype), torch.zeros_like(z.real)))  # log volume -∞
    target = VolumeTarget(flat, 2, -1.0)
    with pytest.raises(InputError, match="target: expected finite powers of the volume"):
        importance_resample(target, 5)


def small_decoder(dtype: torch.dtype) -> Decoder:
    config = VAEConfig(data_dim=5, latent_dim=2, hidden=(6,), decoder="modulus", seed=2)
    return Decoder(config).to(dtype)


@pytest.mark.parametrize("default", ["cpu", "meta"])
@pytest.mark.parametrize("volume", ["log_volume", "log_det_hermitian"])
def test_decoders_in_single_precision_and_any_default_device(
    volume: Literal["log_volume", "log_det_hermitian"], default: str
) -> None:
    metric = FisherMetric(small_decoder(torch.float32))
    mixture = MixtureMetric(torch.ones(1), torch.zeros(1, 2) + 0j, torch.ones(1, 2))
    torch.set_default_device(default)
    try:
        for each in (metric, mixture):
            target = VolumeTarget(each, 2, volume=volume)
            assert not target.warn_if_improper()
            drawn = [importance_resample(target, 20, seed=1).z]
            if default == "meta" and volume == "log_volume":
                drawn.append(run_chains(target, 10, chains=2, warmup=10, seed=1).z)
            for z in drawn:
                assert (z.dtype, z.device.type) == (torch.complex64, "cpu")
                assert bool(z.isfinite().all())
    finally:
        torch.set_default_device("cpu")


class Exponential(HermitianMetric):
    """g = e^{|z|²} I, of which the volume alone is wanted."""

    def jet(self, z: torch.Tensor, order: int) -> HermitianJet:
        assert order == 0
        g = torch.diag_embed(_square(z).exp().unsqueeze(-1).expand(z.shape)).to(z.dtype)
        return HermitianJet(g)


def test_tails_that_are_degenerate_or_overflow_are_no_nan() -> None:
    """Volumes of 0 far out decay, whatever det g's own rounding; e^{|z|²} overflows at 10³."""
    real_part = FisherMetric(lambda z: ComplexNormal(z.real + 0j, scale=1.0), check=False)
    overflowing = Exponential()
    with warnings.catch_warnings():
        warnings.simplefilter("error", ImproperTargetWarning)
        assert not VolumeTarget(real_part, 1, gamma=0.5).warn_if_improper()
        assert not VolumeTarget(overflowing, 2, gamma=-1.0).warn_if_improper()
    for target in (VolumeTarget(real_part, 1, gamma=-0.5), VolumeTarget(overflowing, 2, gamma=2.0)):
        with pytest.warns(ImproperTargetWarning, match="give a radius") as found:
            assert target.warn_if_improper()
        assert "nan" not in str(found[0].message)
