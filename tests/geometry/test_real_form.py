"""Real geometry of Hermitian metrics: derivatives, known geodesics, k ≠ 0."""

import math

import pytest
import torch
from torch import Tensor

from kahler_verify.curves import STRAIGHT
from kahler_verify.errors import InputError
from kahler_verify.geometry import FisherMetric, PotentialMetric, RiemannianMetric
from kahler_verify.geometry.metric import PartwiseMetric
from kahler_verify.spaces import COMPLEX
from tests.manifolds import draw
from tests.states import d as DIMENSION
from tests.states import decoder


class WithPart(PartwiseMetric):
    """A metric with k ≠ 0 that is not Kähler."""

    def _parts(self, z: Tensor) -> tuple[Tensor, Tensor | None]:
        g = torch.diag_embed(2 + (z * z.conj()).real.sum(-1, keepdim=True).expand(z.shape)) + 0j
        k = 0.3 * torch.sin(z[..., :, None] * z[..., None, :].conj())
        return g, k + k.mT

    def _metric_d(self, z: Tensor) -> Tensor:
        raise NotImplementedError

    def _metric_db(self, z: Tensor) -> Tensor:
        raise NotImplementedError


METRICS = {
    "fubini_study": (lambda: PotentialMetric("fubini_study"), 2),
    "decoder": (lambda: FisherMetric(decoder()), None),
    "k": (WithPart, 2),
}


@pytest.mark.parametrize("name", METRICS)
def test_jets_are_those_of_autograd(name: str) -> None:
    make, d = METRICS[name]
    metric = make()
    d = d or DIMENSION
    x = 0.4 * draw(3, 2 * d)
    ours = metric.riemannian()
    plain = RiemannianMetric.from_function(
        lambda x: metric.real_metric_matrix(COMPLEX.from_real(x)), check=False
    )
    for one, other in zip(ours.jet(x, 2), plain.jet(x, 2), strict=True):
        assert torch.allclose(one, other, rtol=1e-9, atol=1e-10)
    assert torch.allclose(ours.jet(x, 1).d, ours.jet(x, 2).d, rtol=1e-12, atol=1e-12)
    u, v = draw(3, 2 * d, seed=1), draw(3, 2 * d, seed=2)
    complex_ones = [COMPLEX.from_real(w) for w in (u, v, x)]
    assert torch.allclose(ours.inner_product(u, v, x), metric.inner_product(*complex_ones))


def test_fubini_study_geodesics() -> None:
    """2 Re g of ∂∂̄ log(1 + |z|²) has cos² of L/√2 = |1 + z·w̄|²/((1 + |z|²)(1 + |w|²))."""
    metric = PotentialMetric("fubini_study").riemannian()
    a, b = 0.6 * draw(2, 5, 4)
    z, w = COMPLEX.from_real(a), COMPLEX.from_real(b)
    one = 1 + (z * w.conj()).sum(-1)
    sizes = (1 + (z * z.conj()).real.sum(-1)) * (1 + (w * w.conj()).real.sum(-1))
    exact = math.sqrt(2) * torch.acos((one.abs() ** 2 / sizes).sqrt())
    assert torch.allclose(metric.distance(a, b), exact, rtol=1e-9)
    v = metric.log(a, b)
    assert torch.allclose(metric.exp(a, v), b, atol=1e-6)
    line, turned = draw(5, 4, seed=3), draw(5, 4, seed=3)
    turned = torch.cat([-line[:, 2:], line[:, :2]], -1)  # i times the vector
    holomorphic = metric.sectional_curvature(a, line, turned)
    assert torch.allclose(holomorphic, torch.full_like(holomorphic, 2.0), rtol=1e-8)


def test_geodesics_of_a_ball() -> None:
    """The unit ball with potential -log(1 - |z|²), complex hyperbolic space."""

    metric = PotentialMetric("complex_ball").riemannian()
    a, b = (0.8 * x / (1 + x.norm(dim=-1, keepdim=True)) for x in draw(2, 5, 4))
    z, w = COMPLEX.from_real(a), COMPLEX.from_real(b)
    one = 1 - (z * w.conj()).sum(-1)
    sizes = (1 - (z * z.conj()).real.sum(-1)) * (1 - (w * w.conj()).real.sum(-1))
    exact = math.sqrt(2) * torch.acosh((one.abs() ** 2 / sizes).sqrt())
    assert torch.allclose(metric.distance(a, b), exact, rtol=1e-9)


@pytest.mark.thorough  # nested forward mode: a second for each jet
def test_geodesics_of_a_complex_decoder() -> None:
    metric = FisherMetric(decoder()).riemannian()
    d = 2 * DIMENSION
    a, b = 0.3 * draw(2, 1, d)
    path = metric.geodesic(a, b, starts=STRAIGHT)
    assert bool((path.report.gap < 1e-8).all())
    there = metric.exp(a, path.velocity(0.0))
    assert torch.allclose(there, b, atol=1e-4)


def test_complex_points_are_refused() -> None:
    with pytest.raises(InputError, match="real"):
        PotentialMetric("fubini_study").riemannian().geodesic(*draw(2, 2) + 0j)


def test_a_real_form_moves_with_its_metric() -> None:
    single = FisherMetric(decoder()).riemannian().float()
    x = 0.3 * draw(2, 2 * DIMENSION)
    ours = single.metric_matrix(x.float())
    whole = FisherMetric(decoder()).riemannian().metric_matrix(x)
    assert ours.dtype == torch.float32
    assert torch.allclose(ours.double(), whole, rtol=1e-4, atol=1e-4)
