"""Models: configurations, shapes, dtypes, holomorphy, and the evidence lower bound."""

import math

import pytest
import torch
from torch import nn
from torch.distributions import Independent

from kahler_verify.distributions import ComplexNormal
from kahler_verify.errors import InputError
from kahler_verify.geometry import FisherMetric
from kahler_verify.models.vae import ComplexVAE, VAEConfig
from kahler_verify.networks.decoder import ComplexLinear, Residual

SMALL = {"data_dim": 6, "latent_dim": 2, "hidden": (5, 4)}
FAMILIES = [
    ("holomorphic", "complex"),
    ("split", "complex"),
    ("modulus", "complex"),
    ("split", "real"),
    ("modulus", "real"),
]


def _latents(count=3, dim=2, dtype=torch.complex64):
    return torch.randn(count, dim, dtype=dtype, generator=torch.Generator().manual_seed(1))


@pytest.mark.parametrize("covariance", ["constant", "scalar", "diagonal"])
@pytest.mark.parametrize(("decoder", "likelihood"), FAMILIES)
def test_decoders_return_the_likelihood_of_their_configuration(decoder, likelihood, covariance):
    config = VAEConfig(**SMALL, decoder=decoder, likelihood=likelihood, covariance=covariance)
    model = ComplexVAE(config).double()
    z = _latents(dtype=torch.complex128)
    distribution = model.decoder(z)
    mean, log_variance = model.decoder.parameters_at(z)
    assert distribution.batch_shape == (3,)
    assert distribution.event_shape == (6,)
    torch.testing.assert_close(distribution.mean, mean)
    if likelihood == "complex":
        assert isinstance(distribution, ComplexNormal)
        assert distribution.structure == ("scalar" if covariance == "scalar" else "diagonal")
    else:
        assert isinstance(distribution, Independent)
    if covariance == "scalar":
        log_variance = log_variance[..., None].expand(3, 6)
    torch.testing.assert_close(distribution.variance, log_variance.exp())
    varies = bool((log_variance[0] - log_variance[1]).abs().max() > 1e-6)
    assert varies == (covariance != "constant")
    torch.testing.assert_close(model.decoder.parameters_at(z[0]).mean, mean[0])


@pytest.mark.parametrize("decoder", ["holomorphic", "split", "modulus"])
def test_the_mean_is_holomorphic_exactly_in_the_holomorphic_family(decoder):
    model = ComplexVAE(VAEConfig(**SMALL, decoder=decoder)).double()
    z = _latents(dtype=torch.complex128)
    direction = _latents(dtype=torch.complex128).flip(0)

    def mean(z):
        return model.decoder.parameters_at(z).mean

    _, along = torch.func.jvp(mean, (z,), (direction,))
    _, turned = torch.func.jvp(mean, (z,), (1j * direction,))
    complex_linear = bool((turned - 1j * along).abs().max() < 1e-13)
    assert complex_linear == (decoder == "holomorphic") == model.decoder.is_holomorphic


def test_double_keeps_the_imaginary_parts():
    layer = ComplexLinear(3, 2)
    weight = layer.weight.detach()
    layer.to(torch.float64)
    assert layer.weight.dtype == torch.complex128
    torch.testing.assert_close(layer.weight.to(torch.complex64), weight)
    assert float(layer.weight.detach().imag.abs().min()) > 0


def test_complex_linear_is_the_matrix_product():
    layer = ComplexLinear(3, 2)
    z = _latents(4, 3)
    expected = torch.stack([layer.weight @ row + layer.bias for row in z])
    torch.testing.assert_close(layer(z), expected)


def test_seeds_fix_the_weights_and_leave_torch_alone():
    torch.manual_seed(11)
    expected = torch.rand(3)
    torch.manual_seed(11)
    first = ComplexVAE(VAEConfig(**SMALL, seed=5))
    assert torch.equal(torch.rand(3), expected)
    second, other = ComplexVAE(VAEConfig(**SMALL, seed=5)), ComplexVAE(VAEConfig(**SMALL, seed=6))
    weight = first.decoder.mean_head.weight
    assert torch.equal(weight, second.decoder.mean_head.weight)
    assert not torch.equal(weight, other.decoder.mean_head.weight)


@pytest.mark.parametrize("likelihood", ["complex", "real"])
def test_elbo_terms_are_unbiased_and_bounded_by_the_evidence(likelihood):
    """With one latent dimension the evidence log p(x) can be integrated on a grid."""
    config = VAEConfig(
        data_dim=3, latent_dim=1, hidden=(4,), decoder="split", likelihood=likelihood
    )
    model = ComplexVAE(config).double()
    dtype = torch.complex128 if likelihood == "complex" else torch.float64
    x = torch.randn(4, 3, dtype=dtype, generator=torch.Generator().manual_seed(2))
    line = torch.linspace(-5, 5, 201, dtype=torch.float64)
    grid = torch.complex(*torch.meshgrid(line, line, indexing="ij")).reshape(-1, 1)
    log_prior = -(grid.abs() ** 2).sum(-1) - math.log(math.pi)
    with torch.no_grad():
        log_joint = model.decoder(grid).log_prob(x[:, None]) + log_prior
        evidence = torch.logsumexp(log_joint, -1) + 2 * math.log(float(line[1] - line[0]))
        mean, log_variance = model.encoder(x)
        deviation = (log_variance / 2).exp()
        posterior = ComplexNormal(mean, scale_diag=deviation)
        prior = ComplexNormal(torch.zeros_like(mean), scale=1.0)
        _, divergence = model.elbo_terms(x, generator=torch.Generator().manual_seed(0))
    torch.testing.assert_close(divergence, torch.distributions.kl_divergence(posterior, prior))
    elbo = model.elbo(x, samples=400)
    assert elbo < float(evidence.mean())
    gap = float(evidence.mean()) - elbo
    assert gap < float(divergence.mean()) + 5  # a bound, and not a vacuous one
    assert model.elbo(x, samples=400) == elbo


def test_standardising_makes_the_bound_equivariant():
    """Scaling the data by c moves the bound by the Jacobian, -2 D log c, and nothing else."""
    x = torch.randn(50, 6, dtype=torch.complex128, generator=torch.Generator().manual_seed(3))
    bounds = []
    for factor in (1.0, 1000.0):
        model = ComplexVAE(VAEConfig(**SMALL)).double()
        model.standardise(factor * x + 7)
        bounds.append(model.elbo(factor * x + 7))
    assert bounds[1] - bounds[0] == pytest.approx(-2 * 6 * math.log(1000), abs=1e-6)


def test_pole_distance_is_least_over_all_units():
    model = ComplexVAE(VAEConfig(**SMALL, activation="tanh")).double()
    z = _latents(dtype=torch.complex128)
    first = model.decoder.layers[0](z)
    distance = model.decoder.pole_distance(z)
    nearest = (first - 0.5j * torch.pi).abs().amin(-1)
    assert bool((distance <= nearest + 1e-12).all())
    nested = nn.Sequential(model.decoder.layers, Residual(nn.Identity()))
    model.decoder.layers = nested
    torch.testing.assert_close(model.decoder.pole_distance(z), distance)
    entire = ComplexVAE(VAEConfig(**SMALL, activation="sin")).double()
    assert bool(torch.isinf(entire.decoder.pole_distance(z)).all())


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"latent_dim": 0}, "latent_dim to be a whole number"),
        ({"latent_dim": 2.0}, "latent_dim to be a whole number"),
        ({"data_dim": True}, "data_dim to be a whole number"),
        ({"hidden": ()}, "tuple of 1 to 64 widths"),
        ({"hidden": (4, 0)}, "hidden to be a whole number"),
        ({"hidden": (10**9,)}, "hidden to be a whole number"),
        ({"decoder": "resnet"}, "decoder among"),
        ({"covariance": "full"}, "covariance among"),
        ({"likelihood": "bernoulli"}, "likelihood among"),
        ({"likelihood": "real"}, "real-valued holomorphic function is constant"),
        ({"activation": "log"}, "branch cuts"),
        ({"activation": "relu", "decoder": "split"}, "C²"),
        ({"activation": "split_tanh"}, "not holomorphic"),
        ({"activation": "tanh", "decoder": "split"}, "is holomorphic"),
        ({"activation": "modulus_squash", "decoder": "split"}, "split_"),
        ({"beta": -1.0}, "beta"),
        ({"beta": math.nan}, "beta"),
        ({"noise": math.inf}, "noise"),
        ({"seed": -1}, "seed"),
        ({"data": None}, "string"),
    ],
)
def test_bad_configurations(changes, message):
    with pytest.raises(InputError, match=message):
        VAEConfig(**{**SMALL, **changes})


@pytest.mark.parametrize(
    "z",
    [
        torch.zeros(3, 2),
        torch.zeros(3, 2, dtype=torch.complex128),
        torch.zeros(3, 3, dtype=torch.complex64),
        torch.zeros((), dtype=torch.complex64),
    ],
)
def test_bad_latents(z):
    with pytest.raises(InputError, match=r"expected z to be torch\.complex64 of shape"):
        ComplexVAE(VAEConfig(**SMALL)).decoder(z)


def test_bad_samples():
    model = ComplexVAE(VAEConfig(**SMALL))
    with pytest.raises(InputError, match=r"expected x to be torch\.complex64"):
        model.encoder(torch.zeros(3, 6))
    with pytest.raises(InputError, match="all equal"):
        model.standardise(torch.ones(5, 6, dtype=torch.complex64))


def test_the_posterior_s_divergence_is_never_negative_in_single_precision() -> None:
    """Σ |m|² + s² - 1 - log s² where log s² is nearly 0, against double precision."""
    model = ComplexVAE(VAEConfig(data_dim=6, latent_dim=3))
    log_variance = torch.logspace(-7, 0.5, 300).reshape(-1, 3)
    for sign in (-1, 1):
        values = sign * log_variance
        model.encoder.forward = lambda x, v=values: (torch.zeros_like(v).to(torch.complex64), v)  # type: ignore[method-assign]
        _, divergence = model.draw_latents(torch.zeros(1))
        truth = torch.special.expm1(values.double()) - values.double()
        tiny = values.double().abs() < 1e-3
        series = values.double() ** 2 / 2 * (1 + values.double() / 3)
        truth = torch.where(tiny, series, truth).sum(-1)
        torch.testing.assert_close(divergence.double(), truth, rtol=2e-6, atol=0)


@pytest.mark.parametrize("dtype", [torch.float32, torch.complex64, torch.complex128])
@pytest.mark.parametrize("scale", [1e-24, 1e-30, 1e18, 3e30])
def test_data_of_any_scale(scale: float, dtype: torch.dtype) -> None:
    """The model, and the metric of its decoder, are those of the data in units of their own."""
    x = torch.randn(40, 3, dtype=dtype, generator=torch.Generator().manual_seed(0))
    x[:, 2] = 1  # a constant column
    likelihood = "complex" if dtype.is_complex else "real"
    config = VAEConfig(
        data_dim=3, latent_dim=2, hidden=(5,), likelihood=likelihood, decoder="modulus"
    )
    models = [ComplexVAE(config).to(dtype.to_real() if dtype.is_complex else dtype) for _ in "ab"]
    own, far = models
    own.standardise(x)
    far.standardise(x * scale)
    assert own.decoder.scale.item() * scale == pytest.approx(far.decoder.scale.item(), rel=1e-5)
    z = torch.randn(4, 2, dtype=dtype.to_complex(), generator=torch.Generator().manual_seed(1))
    for name in ("metric_matrix", "log_volume"):
        expected, got = (getattr(FisherMetric(m.decoder), name)(z) for m in models)
        torch.testing.assert_close(got, expected, rtol=1e-4, atol=1e-5)
    nats = 3 * (2 if dtype.is_complex else 1) * math.log(scale)
    if scale < 1e20 or dtype == torch.complex128:
        assert far.elbo(x * scale) == pytest.approx(own.elbo(x) - nats, rel=1e-4, abs=1e-2)


def test_a_spread_that_the_dtype_cannot_hold_is_refused() -> None:
    model = ComplexVAE(VAEConfig(data_dim=3, latent_dim=2, hidden=(5,)))
    x = torch.randn(9, 3, dtype=torch.complex128, generator=torch.Generator().manual_seed(0))
    for scale in (1e-50, 1e-310, 1e50, 1e300):
        with pytest.raises(InputError, match="change their units"):
            model.standardise(x * scale)
