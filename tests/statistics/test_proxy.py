"""The mixture proxy: exact where it can be, seeded, and judged by numbers that are known."""

import pytest
import torch
from torch import Tensor

from kahler_verify import FisherMetric, MixtureMetric
from kahler_verify.errors import InputError
from kahler_verify.models.vae import VAEConfig
from kahler_verify.networks.decoder import Decoder
from kahler_verify.statistics.proxy import (
    agreement,
    closed_form_mixture,
    constant_metric,
    fit_mixture,
    relative_errors,
)

C, R = torch.complex128, torch.float64
d = 2


def numbers(*shape: int, seed: int = 0) -> Tensor:
    return torch.randn(shape, dtype=C, generator=torch.Generator().manual_seed(seed))


def hermitian(*batch: int, seed: int = 0) -> Tensor:
    root = numbers(*batch, d, d, seed=seed)
    return root @ root.mH + torch.eye(d)


LATENTS = 0.7 * numbers(80, d, seed=1)
TARGET = MixtureMetric(
    torch.full((3,), 1 / 3, dtype=R), 0.5 * numbers(3, d, seed=2), hermitian(3, seed=3)
)


def test_precisions_are_transposed_metrics() -> None:
    """Of a metric with complex entries off its diagonal, g and not gᵀ comes back."""
    matrix = hermitian(seed=4)
    flat = constant_metric(matrix)
    torch.testing.assert_close(flat.metric_matrix(LATENTS), matrix.expand(80, d, d))
    copied = closed_form_mixture(flat, LATENTS[:1])
    torch.testing.assert_close(copied.metric_matrix(LATENTS), matrix.expand(80, d, d))


def test_agreement_of_a_multiple() -> None:
    class Triple(MixtureMetric):
        def _parts(self, z: Tensor) -> tuple[Tensor, None]:
            return 3 * super()._parts(z)[0], None

    triple = Triple(TARGET.weights, TARGET.centres, TARGET.precisions)
    found = agreement(triple, TARGET, LATENTS)
    assert found.relative_error == pytest.approx(2)
    assert found.eigenvalue_ratios == pytest.approx((3, 3, 3))
    assert found.log_volume_correlation == pytest.approx(1)
    constant = agreement(constant_metric(hermitian(seed=5)), TARGET, LATENTS)
    assert constant.log_volume_correlation is None


@pytest.mark.parametrize("start", ["best", "closed form", "constant"])
def test_a_mixture_is_fitted_better_than_by_a_constant(start: str) -> None:
    fit = fit_mixture(TARGET, LATENTS, components=3, start=start, steps=300)  # type: ignore[arg-type]
    held_out = fit.held_out_latents
    error = agreement(fit.metric, TARGET, held_out).relative_error
    assert error == pytest.approx(min(fit.errors))
    assert error < 0.6 * agreement(fit.constant, TARGET, held_out).relative_error
    assert error < 0.6 * agreement(fit.initial, TARGET, held_out).relative_error
    constant = agreement(fit.constant, TARGET, held_out).relative_error
    assert constant <= agreement(fit.mean, TARGET, held_out).relative_error
    fresh = agreement(fit.metric, TARGET, 0.7 * numbers(200, d, seed=6))
    assert fresh.log_volume_correlation is not None
    assert fresh.log_volume_correlation > 0.8


def test_parameters_start_at_the_closed_form() -> None:
    fit = fit_mixture(TARGET, LATENTS, components=4, start="closed form", steps=1)
    held_out = fit.held_out_latents
    error = relative_errors(
        fit.initial.metric_matrix(held_out), TARGET.metric_matrix(held_out)
    ).mean()
    assert fit.errors == pytest.approx((float(error),))
    torch.testing.assert_close(fit.metric.precisions, fit.initial.precisions)
    torch.testing.assert_close(fit.metric.centres, fit.initial.centres)
    torch.testing.assert_close(fit.initial.precisions, TARGET.metric_matrix(fit.initial.centres).mT)


def test_the_same_seed_gives_the_same_fit() -> None:
    fits = []
    for seed, other in ((0, 1), (0, 2), (1, 3)):
        torch.manual_seed(other)
        fits.append(fit_mixture(TARGET, LATENTS, components=2, steps=5, seed=seed))
    assert torch.equal(fits[0].metric.precisions, fits[1].metric.precisions)
    assert fits[0].errors == fits[1].errors != fits[2].errors
    parts = torch.cat([fits[0].fitted_latents, fits[0].held_out_latents])
    assert torch.equal(parts.real.sort(0).values, LATENTS.real.sort(0).values)


def test_a_decoder_in_single_precision() -> None:
    torch.manual_seed(0)
    decoder = Decoder(VAEConfig(data_dim=5, latent_dim=d, hidden=(8,)))
    z = LATENTS.to(torch.complex64)
    fit = fit_mixture(FisherMetric(decoder), z, components=2, steps=20)
    assert fit.metric.precisions.dtype == torch.complex64
    assert not fit.metric.precisions.requires_grad
    assert min(fit.errors) < fit.errors[0]


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"latents": LATENTS.real}, "latents: expected a complex tensor"),
        ({"latents": LATENTS[0]}, r"latents: expected a complex tensor \[n, d\].*\[2\]"),
        ({"latents": LATENTS[:4]}, "latents: expected at least 8 besides the 1 held out"),
        ({"components": 0}, "components: expected a whole number"),
        ({"held_out": 1.0}, "held_out: expected a fraction"),
        ({"start": "warm"}, "start: expected one of best"),
        ({"steps": 0}, "steps: expected a whole number"),
        ({"learning_rate": 0.0}, "learning_rate: expected a positive number"),
    ],
)
def test_bad_input(changes: dict, message: str) -> None:
    arguments = {"latents": LATENTS, **changes}
    with pytest.raises(InputError, match=message):
        fit_mixture(TARGET, **arguments)
