"""What is homogeneous in a vector is right for vectors of any length."""

import math

import pytest
import torch
from torch import Tensor

from kahler_verify.errors import InputError
from kahler_verify.geometry import FisherMetric, HermitianMetric, MixtureMetric, PotentialMetric
from kahler_verify.models.vae import VAEConfig
from kahler_verify.networks.decoder import Decoder

DTYPES = [torch.complex64, torch.complex128]


def metrics(dtype: torch.dtype) -> list[HermitianMetric]:
    real = dtype.to_real()
    decoder = Decoder(VAEConfig(data_dim=6, latent_dim=3, hidden=(8,)))
    centres = torch.tensor([[1, 0.5j, -1], [0, 1, 0.2]], dtype=dtype)
    precisions = torch.tensor([[1, 2, 0.5], [0.7, 1, 3]], dtype=real)
    weights = torch.tensor([0.4, 0.6], dtype=real)
    return [
        PotentialMetric("fubini_study"),
        MixtureMetric(weights, centres, precisions),
        FisherMetric(decoder.to(real)),
    ]


def drawn(dtype: torch.dtype) -> tuple[Tensor, Tensor, Tensor]:
    generator = torch.Generator().manual_seed(3)
    return tuple(torch.randn(4, 3, dtype=dtype, generator=generator) for _ in range(3))  # type: ignore[return-value]


@pytest.mark.parametrize("dtype", DTYPES, ids=str)
@pytest.mark.parametrize("which", [0, 1, 2])
def test_any_length(which: int, dtype: torch.dtype) -> None:
    metric, (z, u, v) = metrics(dtype)[which], drawn(dtype)
    far = [1e-10, 1e10, 1e-30, 1e30] if dtype == torch.complex64 else [1e-78, 1e80, 1e-300, 1e300]
    near = {"rtol": 1e-4 if dtype == torch.complex64 else 1e-9, "atol": 0.0}  # s v is rounded
    section, inner = metric.holomorphic_sectional_curvature(z, v), metric.inner_product(u, v, z)
    for s in far:
        torch.testing.assert_close(
            metric.holomorphic_sectional_curvature(z, s * v), section, **near
        )
        torch.testing.assert_close(
            metric.inner_product(s * u, v / s, z), inner, rtol=1e-4, atol=1e-6
        )
        covector = metric.metric_vector_product(s * u, z) / s
        torch.testing.assert_close(
            covector, metric.metric_vector_product(u, z), rtol=1e-4, atol=1e-6
        )
    x = (far[0] * v).requires_grad_()
    metric.holomorphic_sectional_curvature(z, x).sum().backward()
    y = v.clone().requires_grad_()
    metric.holomorphic_sectional_curvature(z, y).sum().backward()
    assert x.grad is not None
    assert y.grad is not None
    torch.testing.assert_close(x.grad * far[0], y.grad, rtol=1e-3, atol=1e-5)


def test_intermediate_values_stay_in_range() -> None:
    """g of 1e30 along vectors of 1e-25: the product 1e-20 can be told, and that of 1e30 cannot."""
    one = torch.ones(1)
    metric = MixtureMetric(one, torch.zeros(1, 2, dtype=torch.complex64), 1e30 * torch.ones(1, 2))
    z, u = torch.zeros(2, dtype=torch.complex64), torch.full((2,), 1e-25 + 0j)
    assert metric.inner_product(u, u, z).item() == pytest.approx(4e-20, rel=1e-5)
    with pytest.raises(InputError, match="u and v: expected vectors whose product"):
        metric.inner_product(1e30 * u / u.abs(), u / u.abs() * 1e30, z)
    with pytest.raises(InputError, match="u: expected vectors whose product"):
        metric.metric_vector_product(1e30 * u / u.abs(), z)


@pytest.mark.parametrize("which", [0, 1, 2])
def test_zero_and_not_finite_vectors(which: int) -> None:
    metric, (z, u, v) = metrics(torch.complex64)[which], drawn(torch.complex64)
    v[1] = 0
    assert metric.inner_product(u, v, z)[1] == 0
    assert not metric.metric_vector_product(v, z)[1].any()
    with pytest.raises(InputError, match="v: expected vectors other than 0"):
        metric.holomorphic_sectional_curvature(z, v)
    for bad in (math.nan, math.inf):
        v[1] = bad
        for call in (
            lambda: metric.inner_product(u, v, z),
            lambda: metric.metric_vector_product(v, z),
            lambda: metric.holomorphic_sectional_curvature(z, v),
        ):
            with pytest.raises(InputError, match=r"[uv]: expected finite vectors"):
                call()


def test_inside_transforms() -> None:
    metric, (z, _, v) = metrics(torch.complex128)[0], drawn(torch.complex128)
    expected = metric.holomorphic_sectional_curvature(z, v)
    mapped = torch.vmap(lambda z, v: metric.holomorphic_sectional_curvature(z, 1e80 * v))(z, v)
    torch.testing.assert_close(mapped, expected)
    slope = torch.func.grad(lambda v: metric.inner_product(v, v, z[0]))(1e-200 * v[0])
    torch.testing.assert_close(slope, 2 * metric.metric_vector_product(1e-200 * v[0], z[0]))
