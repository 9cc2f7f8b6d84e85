"""Volumes of any metric as losses: their gradients, and where there are none; memory."""

import math
import platform

import pytest
import torch
from torch import Tensor
from torch.autograd import grad, gradcheck, gradgradcheck

from kahler_verify import FisherMetric, PotentialMetric
from kahler_verify.errors import InputError
from kahler_verify.geometry import HermitianJet, HermitianMetric
from kahler_verify.geometry.base import keep_freed_memory

POINTS = torch.tensor([[0.3 + 0.1j], [1.0 + 0j], [-0.2 - 0.5j]], dtype=torch.complex128)


def folded(*, validate_args: bool = True) -> FisherMetric:
    """μ = x + i y²/2, Σ = 1: √det g_ℝ = 2|y|, so that there is no volume on the real line."""

    def decoder(z: Tensor) -> tuple[Tensor, Tensor]:
        return torch.complex(z.real, z.imag * z.imag / 2), torch.zeros_like(z.real)

    return FisherMetric(decoder, check=False, validate_args=validate_args)


def test_the_gradient_of_the_log_volume() -> None:
    z = POINTS[[0, 2]].requires_grad_()
    value = folded().log_volume(z)
    torch.testing.assert_close(value, (2 * z.imag.abs()).log()[:, 0])
    torch.testing.assert_close(grad(value.sum(), z)[0], 1j / z.imag)


def test_no_gradient_where_there_is_no_volume() -> None:
    z = POINTS.clone().requires_grad_()
    value = folded().log_volume(z)
    assert value.isinf().tolist() == [False, True, False]
    with pytest.raises(InputError, match="no gradient where the metric is degenerate"):
        value.sum().backward()
    value = folded().log_volume(z)
    (masked,) = grad(value[value > -math.inf].sum(), z)
    torch.testing.assert_close(masked[[0, 2]], 1j / z[[0, 2]].imag)
    assert masked[1] == 0


def test_unchecked_the_gradient_there_is_nan() -> None:
    z = POINTS.clone().requires_grad_()
    value = folded(validate_args=False).log_volume(z)
    assert value[1] == -math.inf
    (slope,) = grad(value.sum(), z, retain_graph=True)
    assert slope[:, 0].isnan().tolist() == [False, True, False]
    (masked,) = grad(torch.where(value.isinf(), 0, value).sum(), z)
    assert masked[:, 0].isnan().tolist() == [False] * 3


def thin(z: Tensor) -> tuple[Tensor, Tensor]:
    """One output for two latents: det g = 0."""
    return z[..., :1] * z[..., 1:], torch.zeros(z.shape[:-1]).double()


def test_log_det_of_a_degenerate_metric_is_an_error_or_nan() -> None:
    z = torch.cat([POINTS, POINTS.flip(0)], -1).requires_grad_()
    with pytest.raises(InputError, match="positive definite"):
        FisherMetric(thin).log_det_hermitian(z)
    value = FisherMetric(thin, validate_args=False).log_det_hermitian(z)
    assert bool(value.isnan().all())
    assert bool(grad(value.sum(), z)[0].isnan().all())


@pytest.mark.parametrize("quantity", ["log_det_hermitian", "log_volume"])
@pytest.mark.parametrize("count", [2, 600])
def test_the_whole_batch_has_the_gradients_of_its_points(quantity: str, count: int) -> None:
    """A potential with an explicit metric, in batches that are eliminated in different ways."""
    generator = torch.Generator().manual_seed(0)
    z = torch.randn(count, 3, dtype=torch.complex128, generator=generator).requires_grad_()
    volume = getattr(PotentialMetric("fubini_study"), quantity)
    (slope,) = grad(volume(z).sum(), z)
    expected = (
        -4 * 2 * z / (1 + (z * z.conj()).real.sum(-1, keepdim=True))
    )  # log det = -4 log(1+|z|²)
    torch.testing.assert_close(slope, expected)


@pytest.mark.parametrize("quantity", ["log_det_hermitian", "log_volume"])
def test_second_derivatives_by_weights_and_points(quantity: str) -> None:
    generator = torch.Generator().manual_seed(0)
    w = torch.randn(3, 2, dtype=torch.complex128, generator=generator).requires_grad_()
    z = POINTS.reshape(1, 3)[:, :2].clone().requires_grad_()

    def loss(w: Tensor, z: Tensor) -> Tensor:
        def decoder(z: Tensor) -> tuple[Tensor, Tensor]:
            mean = z @ w.mT + (z * z.conj()) @ w.mT.conj()
            return mean, 0.1 * mean.real

        value: Tensor = getattr(FisherMetric(decoder, check=False), quantity)(z)
        return value

    assert gradcheck(loss, (w, z), rtol=1e-4, atol=1e-5)
    assert gradgradcheck(loss, (w, z), rtol=1e-3, atol=1e-4)


@pytest.mark.skipif(platform.libc_ver()[0] != "glibc", reason="a setting of glibc")
def test_freed_memory_is_kept() -> None:
    """Else pages of 160 MiB, 40 thousand of them, would be fetched anew."""
    import resource

    keep_freed_memory()

    def hold() -> list[Tensor]:
        return [torch.ones(2**21) for _ in range(20)]

    def fetched() -> int:
        before = resource.getrusage(resource.RUSAGE_SELF).ru_minflt
        hold()
        return resource.getrusage(resource.RUSAGE_SELF).ru_minflt - before

    hold()
    # the fewest: what other tests left may lie in the way of some pieces at first
    assert min(fetched() for _ in range(3)) < 5000


class Disc(HermitianMetric):
    """The Poincaré metric of the unit disc, g = 1 / (1 - |z|²)²: all that a metric has to give."""

    def jet(self, z, order):
        x = z[..., 0, None, None]
        square = x * x.conj()
        room = 1 - square
        d = 2 * x.conj() / room**3 if order > 0 else None
        dd = 2 / room**3 + 6 * square / room**4 if order > 1 else None
        d, dd = (None if d is None else d[..., None]), (None if dd is None else dd[..., None, None])
        return HermitianJet(1 / room**2, d, dd)


def test_a_hermitian_metric_is_a_class_with_one_method() -> None:
    metric, z = Disc(), torch.tensor([[0.3 + 0.2j], [0j]], dtype=torch.complex128)
    g = metric.metric_matrix(z)
    torch.testing.assert_close(metric.scalar_curvature(z), torch.full((2,), -2.0).double())
    torch.testing.assert_close(metric.ricci_tensor(z), -2 * g)
    torch.testing.assert_close(metric.log_volume(z), (2 * g[:, 0, 0].real).log())
    torch.testing.assert_close(metric.inner_product(z + 1, z + 1, z), metric.norm(z + 1, z) ** 2)
    assert not metric.complementary_part(z).any()
    assert not metric.kahler_defect(z).any()
    assert metric.holomorphic_sectional_curvature(z, z + 1).allclose(torch.tensor(-2.0).double())
