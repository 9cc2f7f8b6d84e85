"""Mixture metrics: against autograd of the potential, bounds, and indefinite densities."""

import math

import pytest
import torch
from torch import Tensor
from torch.distributions import Categorical, MixtureSameFamily
from torch.func import jacrev

from kahler_verify import ComplexNormal, MixtureMetric
from kahler_verify.errors import InputError

C, R = torch.complex128, torch.float64
K, d = 4, 3


def numbers(*shape: int, seed: int = 0) -> Tensor:
    return torch.randn(shape, dtype=C, generator=torch.Generator().manual_seed(seed))


POINTS = 0.5 * numbers(6, d)


def mixture(kind: str = "potential", spread: float = 1.0, seed: int = 1) -> MixtureMetric:
    root = numbers(K, d, d, seed=seed)
    weights = torch.rand(K, dtype=R, generator=torch.Generator().manual_seed(seed)) + 0.1
    return MixtureMetric(
        weights / weights.sum(),
        spread * numbers(K, d, seed=seed + 1),
        root @ root.mH + 0.5 * torch.eye(d),
        kind=kind,  # type: ignore[arg-type]
    )


def mixed_hessian(metric: MixtureMetric, z: Tensor) -> Tensor:
    """∂∂̄ of the value, in real coordinates."""
    value = lambda u: metric.value(torch.complex(u[:d], u[d:]))  # noqa: E731
    h = jacrev(jacrev(value))(torch.cat([z.real, z.imag]))
    xx, xy, yx, yy = h[:d, :d], h[:d, d:], h[d:, :d], h[d:, d:]
    return torch.complex(xx + yy, xy - yx) / 4


@pytest.mark.parametrize("kind", ["potential", "density"])
def test_metric_is_the_hessian_of_the_value(kind: str) -> None:
    metric = mixture(kind)
    expected = torch.stack([mixed_hessian(metric, z) for z in POINTS])
    torch.testing.assert_close(metric.metric_matrix(POINTS), expected)


def test_the_density_is_that_of_the_distribution() -> None:
    """Ψ = -log p - d log π, with CN(c_k, P_k⁻¹) as components."""
    metric = mixture("density")
    covariances = torch.linalg.inv(metric.precisions)
    components = ComplexNormal.from_covariance(metric.centres, covariances)
    density = MixtureSameFamily(Categorical(metric.weights), components, validate_args=False)
    expected = -density.log_prob(POINTS) - d * math.log(math.pi)
    torch.testing.assert_close(metric.value(POINTS), expected)
    posterior = components.log_prob(POINTS[:, None]) + metric.weights.log()
    torch.testing.assert_close(metric.responsibilities(POINTS), torch.softmax(posterior, -1))


@pytest.mark.parametrize("spread", [0.1, 1.0, 10.0])
@pytest.mark.parametrize("seed", range(5))
def test_the_potential_is_at_least_as_curved_as_its_flattest_component(
    spread: float, seed: int
) -> None:
    """λ_min(g) ≥ min_k λ_min(P_k): the covariance between components only adds."""
    metric = mixture(spread=spread, seed=seed)
    smallest = torch.linalg.eigvalsh(metric.metric_matrix(POINTS)).min()
    assert smallest >= torch.linalg.eigvalsh(metric.precisions).min() * (1 - 1e-12)


def two_components(distance: float) -> MixtureMetric:
    centres = torch.zeros(2, d, dtype=C)
    centres[1, 0] = distance
    precisions = torch.eye(d, dtype=C).expand(2, d, d)
    return MixtureMetric(torch.full((2,), 0.5, dtype=R), centres, precisions, kind="density")


def test_a_density_is_indefinite_between_far_components() -> None:
    """Equal P: PSH everywhere if and only if (c₁-c₂)ᴴP(c₁-c₂) ≤ 4; beyond, an error and no NaN."""
    for distance in (1.9, 2.1, 6.0):
        metric = two_components(distance)
        middle = metric.centres.mean(0)
        least = torch.linalg.eigvalsh(metric.metric_matrix(middle))[0].item()
        assert least == pytest.approx(1 - distance**2 / 4)
        if distance < 2:
            torch.testing.assert_close(
                metric.log_det_hermitian(middle), torch.tensor(math.log(least), dtype=R)
            )
            continue
        for quantity in ("log_det_hermitian", "log_volume", "scalar_curvature", "christoffels"):
            with pytest.raises(InputError, match="positive definite"):
                getattr(metric, quantity)(middle)


@pytest.mark.parametrize("kind", ["potential", "density"])
def test_volume_and_inner_product(kind: str) -> None:
    metric, points = mixture(kind, spread=0.1), 0.1 * POINTS
    u, v = numbers(2, 6, d, seed=8)
    matrix = metric.real_metric_matrix(points)
    x, y = torch.cat([u.real, u.imag], -1), torch.cat([v.real, v.imag], -1)
    expected = torch.einsum("bi,bij,bj->b", x, matrix, y)
    torch.testing.assert_close(metric.inner_product(u, v, points), expected)
    volume = torch.linalg.slogdet(matrix)[1] / 2
    torch.testing.assert_close(metric.log_volume(points), volume)


def test_moving_all_components_with_the_point_changes_nothing() -> None:
    metric, step = mixture(), numbers(d, seed=9)
    moved = MixtureMetric(metric.weights, metric.centres + step, metric.precisions)
    for quantity in ("value", "metric_matrix", "curvature_tensor"):
        expected = getattr(metric, quantity)(POINTS)
        torch.testing.assert_close(getattr(moved, quantity)(POINTS + step), expected)


def test_one_component_is_flat() -> None:
    whole = mixture()
    metric = MixtureMetric(torch.ones(1, dtype=R), whole.centres[:1], whole.precisions[:1])
    expected = whole.precisions[0].mT.expand(6, d, d)
    torch.testing.assert_close(metric.metric_matrix(POINTS), expected)
    assert metric.curvature_tensor(POINTS).abs().max() == 0
    assert metric.christoffels(POINTS).abs().max() == 0


@pytest.mark.parametrize("scale", [1e-8, 1e-4, 1e4])
def test_close_and_far_components_keep_their_digits(scale: float) -> None:
    """Centres that nearly agree, or stand far away: centred moments cancel nothing."""
    metric = mixture(spread=scale)
    shifted = MixtureMetric(metric.weights, metric.centres * 0, metric.precisions)
    got = metric.metric_matrix(POINTS * scale)
    assert bool(torch.isfinite(got).all())
    if scale < 1:
        expected = shifted.metric_matrix(POINTS * 0)
        torch.testing.assert_close(got, expected, rtol=10 * scale, atol=0)


def test_gradients() -> None:
    """Log det g by centres, weights and points, to second order."""
    base = mixture()
    z = POINTS[:1].clone().requires_grad_(True)
    centres = base.centres.clone().requires_grad_(True)
    logits = base.weights.log().requires_grad_(True)

    def volume(z: Tensor, centres: Tensor, logits: Tensor) -> Tensor:
        weights = torch.softmax(logits, 0)
        return MixtureMetric(weights, centres, base.precisions).log_volume(z)

    assert torch.autograd.gradcheck(volume, (z, centres, logits))
    assert torch.autograd.gradgradcheck(volume, (z, centres, logits))


def test_to_another_dtype() -> None:
    metric = mixture("density", spread=0.1)
    single = metric.to(dtype=torch.complex64)
    got = single.metric_matrix(POINTS.to(torch.complex64))
    assert got.dtype == torch.complex64
    assert single.weights.dtype == torch.float32
    assert single.kind == "density"
    torch.testing.assert_close(got.to(C), metric.metric_matrix(POINTS), rtol=1e-4, atol=1e-5)


def test_many_components_do_not_cost_much() -> None:
    """K = 500 at d = 4: the full curvature of 64 points."""
    root = numbers(500, 4, 4)
    metric = MixtureMetric(
        torch.full((500,), 1 / 500, dtype=R), numbers(500, 4), root @ root.mH + torch.eye(4)
    )
    assert metric.curvature_tensor(numbers(64, 4)).shape == (64, 4, 4, 4, 4)
