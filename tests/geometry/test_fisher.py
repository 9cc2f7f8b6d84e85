"""The Fisher metric of decoders: against definitions, real likelihoods, shortcuts and gradients."""

import math
import time
from collections.abc import Callable

import pytest
import torch
from torch import Tensor, nn
from torch.distributions import Independent, MultivariateNormal, Normal, kl_divergence

from kahler_verify import ComplexNormal, FisherMetric
from kahler_verify.errors import InputError
from kahler_verify.models.vae import ComplexVAE, VAEConfig
from kahler_verify.networks.decoder import ComplexLinear

C, R = torch.complex128, torch.float64
D, d = 4, 3


def numbers(*shape: int, seed: int = 0) -> Tensor:
    return torch.randn(shape, dtype=C, generator=torch.Generator().manual_seed(seed))


W, V, Q = numbers(D, d), numbers(D, d, seed=1), 0.3 * numbers(D, d, d, seed=2)
POINTS = 0.4 * numbers(5, d, seed=3)


def mean_of(z: Tensor) -> Tensor:
    """Not holomorphic, with second derivatives of every kind."""
    bent = torch.einsum("nab,...a,...b->...n", Q, z, z + z.conj())
    return z @ W.mT + 0.5 * z.conj() @ V.mT + bent


def deviations(z: Tensor) -> Tensor:
    wave = z @ V.mT
    return (0.2 * wave.real + 0.1 * (wave * wave.conj()).real).exp()


def factor_of(z: Tensor) -> Tensor:
    below = torch.einsum("nab,...a,...b->...n", Q, z, z.conj())
    return torch.diag_embed(deviations(z)).to(z.dtype) + torch.tril(
        below[..., None] * below[..., None, :], -1
    )


DECODERS: dict[str, Callable[[Tensor], ComplexNormal]] = {
    "scalar": lambda z: ComplexNormal(mean_of(z), scale=deviations(z)[..., 0], validate_args=False),
    "diagonal": lambda z: ComplexNormal(mean_of(z), scale_diag=deviations(z), validate_args=False),
    "full": lambda z: ComplexNormal(mean_of(z), scale_tril=factor_of(z), validate_args=False),
}
each_layout = pytest.mark.parametrize("layout", DECODERS)


def real_vector(u: Tensor) -> Tensor:
    return torch.cat([u.real, u.imag], -1)


@each_layout
def test_real_metric_matrix_is_the_inner_product(layout: str) -> None:
    metric = FisherMetric(DECODERS[layout])
    u, v = numbers(2, 5, d, seed=4)
    matrix = metric.real_metric_matrix(POINTS)
    torch.testing.assert_close(matrix, matrix.mT)
    expected = torch.einsum("bi,bij,bj->b", real_vector(u), matrix, real_vector(v))
    torch.testing.assert_close(metric.inner_product(u, v, POINTS), expected)


@each_layout
def test_log_volume_is_half_the_log_det_of_the_real_metric(layout: str) -> None:
    metric = FisherMetric(DECODERS[layout])
    expected = torch.linalg.slogdet(metric.real_metric_matrix(POINTS))[1] / 2
    torch.testing.assert_close(metric.log_volume(POINTS), expected)
    g, k = metric.metric_matrix(POINTS), metric.complementary_part(POINTS)
    both = torch.cat([torch.cat([g, k], -1), torch.cat([k.conj(), g.conj()], -1)], -2)
    augmented = d * math.log(2) + torch.linalg.slogdet(both)[1] / 2
    torch.testing.assert_close(metric.log_volume(POINTS), augmented)


@each_layout
def test_second_order_of_the_divergence(layout: str) -> None:
    """KL(z ‖ z + ε) + KL(z ‖ z - ε) = 2 g(ε, ε̄) + 2 Re k(ε, ε) + O(ε⁴): the inner product."""
    decoder = DECODERS[layout]
    step = 1e-3 * numbers(5, d, seed=5)
    p = decoder(POINTS)
    both = kl_divergence(p, decoder(POINTS + step)) + kl_divergence(p, decoder(POINTS - step))
    expected = FisherMetric(decoder).inner_product(step, step, POINTS)
    torch.testing.assert_close(both, expected, rtol=1e-4, atol=0)


def test_the_volume_of_the_real_part_is_zero_although_det_g_is_one_half() -> None:
    """μ = Re z, Σ = 1: g = k = ½."""
    metric = FisherMetric(lambda z: (z.real.to(z.dtype), torch.zeros_like(z.real)))
    z = POINTS[:, :1]
    torch.testing.assert_close(
        metric.log_det_hermitian(z), torch.full((5,), math.log(0.5), dtype=R)
    )
    assert bool((metric.log_volume(z) == -math.inf).all())
    torch.testing.assert_close(metric.complementary_part(z), torch.full((5, 1, 1), 0.5, dtype=C))


REAL = {
    "independent": lambda z: Independent(
        Normal(mean_of(z).real, deviations(z), validate_args=False), 1, validate_args=False
    ),
    "full": lambda z: MultivariateNormal(
        mean_of(z).real, scale_tril=factor_of(z).real, validate_args=False
    ),
}


@pytest.mark.parametrize("kind", REAL)
def test_a_real_likelihood_has_half_of_the_complex_formula(kind: str) -> None:
    """Against the KL that torch's own distributions give."""
    decoder = REAL[kind]
    step = 1e-3 * numbers(5, d, seed=5)
    p = decoder(POINTS)
    both = kl_divergence(p, decoder(POINTS + step)) + kl_divergence(p, decoder(POINTS - step))
    expected = FisherMetric(decoder).inner_product(step, step, POINTS)
    torch.testing.assert_close(both, expected, rtol=1e-4, atol=0)


def test_the_two_real_likelihoods_agree() -> None:
    def diagonal(z: Tensor) -> MultivariateNormal:
        return MultivariateNormal(
            mean_of(z).real, scale_tril=torch.diag_embed(deviations(z)), validate_args=False
        )

    one, other = FisherMetric(diagonal), FisherMetric(REAL["independent"])
    torch.testing.assert_close(one.metric_matrix(POINTS), other.metric_matrix(POINTS))
    torch.testing.assert_close(one.scalar_curvature(POINTS), other.scalar_curvature(POINTS))


def test_a_complex_likelihood_is_a_real_one_of_twice_the_size() -> None:
    """CN(μ, s²) on C^D is N((Re μ, Im μ), s²/2) on R^{2D}."""

    def realified(z: Tensor) -> MultivariateNormal:
        return DECODERS["full"](z).to_real()

    one, other = FisherMetric(DECODERS["full"]), FisherMetric(realified)
    torch.testing.assert_close(one.metric_matrix(POINTS), other.metric_matrix(POINTS))
    torch.testing.assert_close(one.complementary_part(POINTS), other.complementary_part(POINTS))


def small_vae(**changes: object) -> ComplexVAE:
    config = {"data_dim": 6, "latent_dim": d, "hidden": (5,), "covariance": "constant"}
    return ComplexVAE(VAEConfig(**{**config, **changes})).double()  # type: ignore[arg-type]


@pytest.mark.parametrize(
    "quantity", ["metric_matrix", "log_volume", "ricci_tensor", "scalar_curvature", "kahler_defect"]
)
def test_the_holomorphic_shortcut_agrees_with_the_general_kernels(quantity: str) -> None:
    """Hidden behind a function, the decoder is not known to be holomorphic."""
    decoder = small_vae().decoder
    short, general = FisherMetric(decoder), FisherMetric(lambda z: decoder(z))
    got, expected = getattr(short, quantity)(POINTS), getattr(general, quantity)(POINTS)
    torch.testing.assert_close(got, expected, rtol=1e-9, atol=1e-9)


def test_the_shortcut_is_kaehler_and_the_general_metric_is_not() -> None:
    holomorphic = FisherMetric(small_vae().decoder)
    assert holomorphic.kahler_defect(POINTS).abs().max() < 1e-12
    assert holomorphic.complementary_part(POINTS).abs().max() == 0
    varying = FisherMetric(small_vae(covariance="diagonal").decoder)
    assert varying.kahler_defect(POINTS).abs().max() > 1e-6


def test_the_counterexample_of_the_claims() -> None:
    """D = 1, d = 2, μ = z₁, Σ = e^{2 Re z₂}: g = diag(e^{-2 Re z₂}, 1), defect -e^{-2 Re z₂}."""
    metric = FisherMetric(lambda z: (z[..., :1], 2 * z[..., 1:].real))
    z = POINTS[:, :2]
    decay = torch.exp(-2 * z[:, 1].real)
    expected = torch.diag_embed(torch.stack([decay, torch.ones_like(decay)], -1)).to(C)
    torch.testing.assert_close(metric.metric_matrix(z), expected)
    defect = metric.kahler_defect(z)
    torch.testing.assert_close(defect[:, 1, 0, 0], -decay.to(C))


class Small(nn.Module):
    """A decoder with weights: μ = L₂ (L₁ z)² and a log variance that depends on z."""

    def __init__(self) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.first, self.last, self.noise = (
            ComplexLinear(2, 3), ComplexLinear(3, 4), ComplexLinear(2, 4)
        )  # fmt: skip

    def forward(self, z: Tensor) -> tuple[Tensor, Tensor]:
        hidden = self.first(z)
        return self.last(hidden * hidden + hidden.conj()), self.noise(z).real


@pytest.mark.parametrize("quantity", ["log_det_hermitian", "log_volume", "scalar_curvature"])
def test_gradients_by_weights_and_points_are_right(quantity: str) -> None:
    """Against central differences: these are training losses."""
    decoder = Small().double()
    metric = FisherMetric(decoder)
    z = POINTS[:, :2].clone().requires_grad_(True)
    loss = lambda: getattr(metric, quantity)(z).sum()  # noqa: E731
    weight = decoder.first.weight_pairs
    grad_weight, grad_z = torch.autograd.grad(loss(), [weight, z])
    step = 1e-5
    for index in ((0, 0, 0), (1, 1, 1), (2, 0, 1)):
        assert grad_weight[index].item() == pytest.approx(
            _difference(loss, weight.data, index, step), rel=1e-5, abs=1e-6
        )
    for index in ((0, 0), (2, 1), (4, 0)):
        expected = complex(
            _difference(loss, z.data, index, step), _difference(loss, z.data, index, 1j * step)
        )
        assert grad_z[index].item() == pytest.approx(expected, rel=1e-5, abs=1e-6)


def _difference(
    loss: Callable[[], Tensor], data: Tensor, index: tuple[int, ...], step: complex
) -> float:
    values = []
    for sign in (1, -1):
        data[index] += sign * step
        values.append(loss().item())
        data[index] -= sign * step
    return (values[0] - values[1]) / (2 * abs(step))


def test_moving_the_decoder_moves_the_metric() -> None:
    decoder = small_vae().decoder
    metric = FisherMetric(decoder)
    exact = metric.metric_matrix(POINTS)
    single = FisherMetric(decoder.to(torch.float32)).metric_matrix(POINTS.to(torch.complex64))
    assert single.dtype == torch.complex64
    torch.testing.assert_close(single.to(C), exact, rtol=1e-4, atol=1e-5)


def test_a_decoder_is_checked_once() -> None:
    calls = []

    def decoder(z: Tensor) -> tuple[Tensor, Tensor]:
        calls.append(len(z))
        return z @ W.mT, torch.zeros(*z.shape[:-1], D, dtype=R)

    metric = FisherMetric(decoder)
    metric.metric_matrix(POINTS)
    first = len(calls)
    metric.metric_matrix(POINTS)
    assert len(calls) - first < first / 2
    unchecked = FisherMetric(
        lambda z: (z.abs().square().to(C), torch.zeros_like(z.real)), check=False
    )
    unchecked.christoffels(POINTS)
    with pytest.raises(InputError, match="C²"):
        FisherMetric(unchecked.decoder).christoffels(POINTS)
    metric = FisherMetric(unchecked.decoder)  # which needs first derivatives only
    torch.testing.assert_close(metric.metric_matrix(POINTS), unchecked.metric_matrix(POINTS))


def test_a_large_batch_is_quick_and_scales_linearly_in_memory() -> None:
    """4096 points of a decoder into C^32: seconds, not minutes."""
    decoder = ComplexVAE(VAEConfig(data_dim=32, latent_dim=4, hidden=(32,))).decoder
    metric = FisherMetric(decoder)
    z = numbers(4096, 4, seed=6).to(torch.complex64)
    metric.metric_matrix(z[:2])
    start = time.perf_counter()
    g = metric.metric_matrix(z)
    assert g.shape == (4096, 4, 4)
    assert time.perf_counter() - start < 20


def test_to_casts_a_copy_of_the_decoder() -> None:
    decoder = ComplexVAE(VAEConfig(latent_dim=2, data_dim=5, hidden=(8,), seed=3)).decoder
    metric = FisherMetric(decoder)
    precise = metric.to(dtype=torch.complex128)
    z = torch.randn(4, 2, dtype=torch.complex128, generator=torch.Generator().manual_seed(0))
    single = metric.metric_matrix(z.to(torch.complex64))
    torch.testing.assert_close(precise.metric_matrix(z), single.to(z.dtype), rtol=1e-4, atol=1e-4)
    assert next(decoder.parameters()).dtype == torch.float32
    with pytest.raises(InputError, match="complex128"):
        precise.metric_matrix(z.to(torch.complex64))
    with pytest.raises(InputError, match="module"):
        FisherMetric(lambda z: (z, z.real)).to(dtype=torch.complex128)
    with pytest.raises(InputError, match="complex dtype"):
        metric.to(dtype=torch.float64)


def test_vmap_may_come_first() -> None:
    def decoder(z: Tensor) -> tuple[Tensor, Tensor]:
        return mean_of(z), 2 * deviations(z).log()

    batched = torch.vmap(FisherMetric(decoder).metric_matrix)(POINTS)
    torch.testing.assert_close(batched, FisherMetric(decoder).metric_matrix(POINTS))
