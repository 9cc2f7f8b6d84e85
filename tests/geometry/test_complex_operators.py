"""Operators at complex latents: products, directions and solutions of the real form on R^{2d}."""

import pytest
import torch

from kahler_verify import FisherMetric
from kahler_verify.distributions import ComplexNormal
from kahler_verify.errors import InputError
from kahler_verify.geometry import PotentialMetric
from kahler_verify.models.vae import VAEConfig
from kahler_verify.networks.decoder import Decoder
from kahler_verify.spaces import COMPLEX

D = torch.complex128


def latents(*shape: int, seed: int = 0) -> torch.Tensor:
    return torch.randn(*shape, dtype=D, generator=torch.Generator().manual_seed(seed))


def decoder(covariance: str) -> Decoder:
    torch.manual_seed(1)
    config = VAEConfig(data_dim=12, latent_dim=6, hidden=(16,), covariance=covariance)
    return Decoder(config).double().requires_grad_(False)


def real_matrix(metric, z: torch.Tensor) -> torch.Tensor:
    return metric.riemannian().metric_matrix(COMPLEX.to_real(z))


def close(a: torch.Tensor, b: torch.Tensor) -> None:
    torch.testing.assert_close(a, b, rtol=1e-9, atol=1e-10 * float(b.abs().max()))


@pytest.mark.parametrize("covariance", ["constant", "diagonal"])
@pytest.mark.parametrize("method", ["dense", "matrix-free"])
def test_it_is_the_real_form(covariance: str, method) -> None:
    metric, z = FisherMetric(decoder(covariance)), latents(6)
    exact = real_matrix(metric, z)
    operator = metric.operator(z, method=method)
    for seed in range(3):  # the second product is the first that a transpose takes
        u = latents(6, seed=seed + 1)
        w = operator.product(u)
        assert w.dtype == D
        close(COMPLEX.to_real(w), exact @ COMPLEX.to_real(u))
        close((w.conj() * latents(6)).real.sum(), metric.inner_product(u, latents(6), z))
    top = operator.top(4, tolerance=1e-9)
    close(top.values, torch.linalg.eigvalsh(exact).flip(0)[:4])
    rows = COMPLEX.to_real(top.directions)
    assert top.directions.shape == (4, 6)
    torch.testing.assert_close(rows @ rows.mT, torch.eye(4, dtype=rows.dtype))
    torch.testing.assert_close(rows @ exact, top.values[:, None] * rows, rtol=1e-4, atol=1e-4)
    solved = operator.solve(latents(2, 6), ridge=0.1, tolerance=1e-10)
    shifted = exact + 0.1 * torch.eye(12, dtype=exact.dtype)
    torch.testing.assert_close(COMPLEX.to_real(solved.x) @ shifted, COMPLEX.to_real(latents(2, 6)))
    volume = operator.log_volume()
    assert abs(volume.value - float(metric.log_volume(z))) <= 1e-6 + 2 * volume.error


def test_a_holomorphic_mean_has_each_value_twice() -> None:
    metric, z = FisherMetric(decoder("constant")), latents(6)
    top = metric.operator(z, method="matrix-free").top(4)
    torch.testing.assert_close(top.values[::2], top.values[1::2], rtol=1e-6, atol=0)
    v, w = top.directions[0], top.directions[1]  # a plane over C: w = ± i v
    assert abs(abs((w.conj() * v).sum().imag) - 1) < 1e-5


def test_metrics_without_decoders_have_operators_too() -> None:
    metric, z = PotentialMetric("fubini_study"), latents(3)
    operator = metric.operator(z)
    close(
        COMPLEX.to_real(operator.product(latents(3))),
        real_matrix(metric, z) @ COMPLEX.to_real(latents(3)),
    )


def test_vectors_are_complex_there() -> None:
    operator = FisherMetric(decoder("constant")).operator(latents(6))
    with pytest.raises(InputError, match="u: expected a complex tensor"):
        operator.product(torch.zeros(12).double())


def test_other_covariances_go_by_the_matrix() -> None:
    own, z = decoder("constant"), latents(6)

    def full(z: torch.Tensor) -> ComplexNormal:
        mean = own.mean(z)
        factor = torch.eye(12, dtype=D) * (1 + 0.1 * mean.abs().square()[..., None])
        return ComplexNormal(mean, scale_tril=factor)

    metric, u = FisherMetric(full, check=False), latents(6, seed=1)
    close(
        COMPLEX.to_real(metric.operator(z).product(u)), real_matrix(metric, z) @ COMPLEX.to_real(u)
    )
