"""Pull-backs: Gauss' equation against derivatives of the metric, and Latent Space Oddity's mean."""

from typing import Any

import pytest
import torch
from torch import Tensor, nn

from kahler_verify.errors import InputError
from kahler_verify.geometry.base import MetricJet
from kahler_verify.geometry.fisher_rao import FisherRaoMetric
from kahler_verify.geometry.pulled_back import ExpectedMetric, PulledBackMetric
from kahler_verify.geometry.riemannian import RiemannianMetric

R, SMALL = 2.0, 1.0


def torus(z: Tensor) -> Tensor:
    u, v = z.unbind(-1)
    ring = R + SMALL * v.cos()
    return torch.stack([ring * u.cos(), ring * u.sin(), SMALL * v.sin()], -1)


def _draw(*shape: int, seed: int = 0) -> Tensor:
    return torch.randn(*shape, dtype=torch.float64, generator=torch.Generator().manual_seed(seed))


class WithoutGauss(RiemannianMetric):
    """The same metric, by its own derivatives."""

    def __init__(self, metric: PulledBackMetric):
        super().__init__()
        self.metric = metric

    def jet(self, z: Tensor, order: int) -> MetricJet:
        return self.metric.jet(z, order)


def test_a_torus_of_revolution() -> None:
    metric, z = PulledBackMetric(torus), _draw(5, 2)
    u, v = _draw(2, 5, 2, seed=1)
    curvature = z[:, 1].cos() / (SMALL * (R + SMALL * z[:, 1].cos()))
    assert torch.allclose(metric.sectional_curvature(z, u, v), curvature)
    assert torch.allclose(metric.scalar_curvature(z), 2 * curvature)


def test_gauss_agrees_with_the_derivatives_of_the_metric() -> None:
    with torch.random.fork_rng():
        torch.manual_seed(0)
        net = nn.Sequential(nn.Linear(3, 8), nn.Softplus(), nn.Linear(8, 6)).double()
    metric, z, v = PulledBackMetric(net), _draw(4, 3), _draw(4, 3, seed=1)
    plain = WithoutGauss(metric)
    for name in ("christoffels", "riemann_tensor", "ricci_tensor", "scalar_curvature"):
        here, there = getattr(metric, name)(z), getattr(plain, name)(z)
        assert torch.allclose(here, there, atol=1e-12 * there.abs().max().item()), name
    assert torch.allclose(metric.geodesic_acceleration(z, v), plain.geodesic_acceleration(z, v))
    w = _draw(4, 3, seed=2)
    assert torch.allclose(metric.sectional_curvature(z, v, w), plain.sectional_curvature(z, v, w))


def test_a_sampled_metric_is_that_of_one_draw() -> None:
    """Two draws ε and -ε of signs have the expected metric for their mean, exactly."""
    with torch.random.fork_rng():
        torch.manual_seed(0)
        net = nn.Sequential(nn.Linear(2, 8), nn.Tanh(), nn.Linear(8, 10)).double()
    net.requires_grad_(False)
    metric = ExpectedMetric(lambda z: tuple(net(z).chunk(2, -1)))
    z, epsilon = _draw(3, 2), _draw(5, seed=1).sign()
    pair = [metric.sampled(sign * epsilon).metric_matrix(z) for sign in (1, -1)]
    torch.testing.assert_close(sum(pair) / 2, metric.metric_matrix(z), rtol=1e-12, atol=1e-14)
    assert not torch.allclose(pair[0], pair[1], rtol=1e-2)
    mean, log_variance = net[2].weight.double().chunk(2)
    h = 1 - net[:2](z) ** 2
    deviation = (net(z).chunk(2, -1)[1] / 2).exp()
    outer = mean + (epsilon * deviation / 2)[..., None] * log_variance
    slopes = (outer * h[:, None]) @ net[0].weight
    torch.testing.assert_close(pair[0], slopes.mT @ slopes, rtol=1e-12, atol=1e-14)
    path = metric.sampled(epsilon).geodesic(z[0], z[1])
    assert float(path.length) > 0


@pytest.mark.parametrize(
    ("epsilon", "message"),
    [
        (torch.ones(2, 5), r"expected a vector \[n\], got \[2, 5\]"),
        (1.0, r"expected a vector \[n\], got float"),
        (torch.ones(4), "expected 5 numbers, one for each output, got 4"),
    ],
)
def test_a_draw_has_a_number_for_each_output(epsilon: Any, message: str) -> None:
    metric = ExpectedMetric(lambda z: (z @ torch.ones(2, 5).to(z), z @ torch.ones(2, 5).to(z)))
    with pytest.raises(InputError, match=message):
        metric.sampled(epsilon).metric_matrix(torch.zeros(1, 2).double())


def test_the_expected_metric_and_its_variance_are_those_of_samples() -> None:
    with torch.random.fork_rng():
        torch.manual_seed(0)
        net = nn.Sequential(nn.Linear(2, 8), nn.Tanh(), nn.Linear(8, 10)).double()

    def decoder(z: Tensor) -> tuple[Tensor, Tensor]:
        return tuple(net(z).chunk(2, -1))

    metric, z = ExpectedMetric(decoder), _draw(1, 2)
    count = 40_000
    eps = _draw(count, 5, seed=1)

    def sample(z: Tensor) -> Tensor:
        mean, log_variance = decoder(z)
        return mean + (log_variance / 2).exp() * eps

    with torch.no_grad():
        J = torch.func.jacfwd(sample)(z)[:, :, 0]
    products = J.mT @ J
    mean, variance = metric.metric_matrix(z)[0], metric.variance(z)[0]
    error = (variance / count).sqrt()
    assert bool(((products.mean(0) - mean).abs() < 5 * error).all())
    fourth = ((products - products.mean(0)) ** 4).mean(0)
    spread = ((fourth - variance**2) / count).sqrt()
    assert bool(((products.var(0) - variance).abs() < 5 * spread).all())


def test_it_is_not_the_fisher_rao_metric() -> None:
    """O9: Fisher-Rao weighs by 1/σ², and counts σ twice."""

    def decoder(z: Tensor) -> tuple[Tensor, Tensor]:
        return z[:, :1], 2 * z[:, 1:]  # μ = z_1, σ = e^{z_2}

    z = _draw(3, 2)
    scale = (2 * z[:, 1]).exp()
    expected = ExpectedMetric(decoder).metric_matrix(z).diagonal(dim1=-2, dim2=-1)
    assert torch.allclose(expected, torch.stack([torch.ones_like(scale), scale], -1))
    fisher = FisherRaoMetric(decoder).metric_matrix(z).diagonal(dim1=-2, dim2=-1)
    assert torch.allclose(fisher, torch.stack([1 / scale, torch.full_like(scale, 2.0)], -1))
