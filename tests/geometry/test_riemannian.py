"""Levi-Civita geometry: known answers, every method against the definition, and bad input."""

import math

import pytest
import torch
from torch import Tensor, nn

from kahler_verify.errors import InputError
from kahler_verify.geometry import ExpectedMetric, FisherMetric
from kahler_verify.geometry.pulled_back import PulledBackMetric
from kahler_verify.geometry.riemannian import RiemannianMetric
from tests.manifolds import DOUBLE, draw


def conformal(factor):
    """The metric λ(|z|²) 1."""

    def g(z: Tensor) -> Tensor:
        scale = factor((z * z).sum(-1))
        return scale[..., None, None] * torch.eye(z.shape[-1], dtype=z.dtype)

    return RiemannianMetric.from_function(g)


SPHERE = conformal(lambda s: 4 / (1 + s) ** 2)
BALL = conformal(lambda s: 4 / (1 - s) ** 2)


def polar(z: Tensor) -> Tensor:
    return torch.diag_embed(torch.stack([torch.ones_like(z[..., 0]), z[..., 0] ** 2], -1))


def test_points_may_share_memory() -> None:
    """Expanded points have one place in memory, which forward mode does not write to."""

    def opaque(z: Tensor) -> Tensor:  # functions that no rule knows
        x, y = z[..., 0], z[..., 1]
        return torch.stack([torch.special.i0(x), torch.cumprod(z + 1, -1)[..., 1], y], -1)

    class Decoder(nn.Module):
        def forward(self, z: Tensor) -> tuple[Tensor, Tensor]:
            return opaque(z), 0.1 * opaque(z)

    decoder = Decoder()
    z = torch.tensor([1.1, 0.4], dtype=DOUBLE)
    metrics = (
        RiemannianMetric.from_function(polar),
        PulledBackMetric(opaque),
        FisherMetric(decoder),
        ExpectedMetric(decoder),
    )
    for metric in metrics:
        for method in (metric.christoffels, metric.scalar_curvature, metric.log_volume):
            assert torch.equal(method(z.expand(3, 2)), method(z.repeat(3, 1)))
        acceleration = metric.geodesic_acceleration(z.expand(3, 2), torch.ones_like(z).expand(3, 2))
        assert torch.equal(acceleration[0], acceleration[2])


@pytest.mark.parametrize("d", [2, 3, 5])
@pytest.mark.parametrize(("metric", "curvature", "size"), [(SPHERE, 1, 1.0), (BALL, -1, 0.1)])
def test_space_forms(metric: RiemannianMetric, curvature: int, size: float, d: int) -> None:
    z = size * draw(4, d)
    u, v = draw(2, 4, d, seed=1)
    g = metric.metric_matrix(z)
    assert torch.allclose(
        metric.sectional_curvature(z, u, v), torch.full((4,), float(curvature), dtype=DOUBLE)
    )
    assert torch.allclose(metric.ricci_tensor(z), curvature * (d - 1) * g)
    assert torch.allclose(
        metric.scalar_curvature(z), torch.full((4,), float(curvature * d * (d - 1)), dtype=DOUBLE)
    )
    both = g[:, :, None, :, None] * g[:, None, :, None, :]
    expected = curvature * (both - both.transpose(-1, -2))
    assert torch.allclose(
        metric.riemann_tensor(z), expected, atol=1e-10 * g.abs().max().item() ** 2
    )
    # D²w/dt² = -R(w, v)v = -κ(⟨v, v⟩w - ⟨w, v⟩v)
    expected = curvature * (
        metric.inner_product(u, v, z)[:, None] * v - metric.squared_norm(v, z)[:, None] * u
    )
    assert torch.allclose(metric.jacobi_acceleration(z, v, u), expected)


def test_the_sphere_of_radius_two_in_three_dimensions() -> None:
    metric = conformal(lambda s: 16 / (1 + s) ** 2)
    z = draw(3, 3)
    assert torch.allclose(metric.scalar_curvature(z), torch.full((3,), 1.5, dtype=DOUBLE))
    u, v = draw(2, 3, 3, seed=1)
    assert torch.allclose(metric.sectional_curvature(z, u, v), torch.full((3,), 0.25, dtype=DOUBLE))


def test_polar_coordinates_are_flat_and_their_symbols_are_the_textbooks() -> None:
    metric = RiemannianMetric.from_function(polar)
    z = draw(4, 2).abs() + 0.5
    r = z[:, 0]
    expected = torch.zeros(4, 2, 2, 2, dtype=DOUBLE)
    expected[:, 0, 1, 1] = -r  # Γ^r_θθ
    expected[:, 1, 0, 1] = expected[:, 1, 1, 0] = 1 / r
    assert torch.allclose(metric.christoffels(z), expected)
    assert torch.allclose(metric.scalar_curvature(z), torch.zeros(4, dtype=DOUBLE), atol=1e-12)
    assert torch.allclose(metric.log_volume(z), r.log())
    drift = torch.stack([1 / (2 * r), torch.zeros_like(r)], -1)
    assert torch.allclose(metric.brownian_drift(z), drift)
    assert torch.allclose(metric.log_volume_gradient(z), 2 * drift)


def test_contracted_symbols_agree_with_the_symbols() -> None:
    z, v, w = draw(3, 5, 3)
    gamma = SPHERE.christoffels(z)
    acceleration = -torch.einsum("beac,ba,bc->be", gamma, v, v)
    assert torch.allclose(SPHERE.geodesic_acceleration(z, v), acceleration)
    assert torch.allclose(
        SPHERE.transport_rate(z, v, w), -torch.einsum("beac,ba,bc->be", gamma, v, w)
    )
    g = SPHERE.metric_matrix(z)
    drift = -torch.einsum("beac,bac->be", gamma, torch.linalg.inv(g)) / 2
    assert torch.allclose(SPHERE.brownian_drift(z), drift)


def test_derivatives_of_the_volume() -> None:
    z = draw(4, 3).requires_grad_()
    slope = torch.autograd.grad(SPHERE.log_volume(z).sum(), z)[0]
    assert torch.allclose(slope, SPHERE.log_volume_gradient(z.detach()))


@pytest.mark.parametrize("exponent", [-300, -150, 150, 300])
def test_any_length_of_vectors(exponent: int) -> None:
    z, u, v = draw(3, 4, 3)
    scale = 2.0**exponent
    reference = SPHERE.sectional_curvature(z, u, v)
    assert torch.equal(SPHERE.sectional_curvature(z, u * scale, v), reference)
    assert torch.allclose(SPHERE.norm(v * scale, z), SPHERE.norm(v, z) * scale, rtol=1e-14)
    small = SPHERE.geodesic_acceleration(z, v) * scale * scale
    assert torch.allclose(SPHERE.geodesic_acceleration(z, v * scale), small, rtol=1e-13)


def test_nearly_parallel_vectors_span_the_same_plane() -> None:
    z, u, v = draw(3, 4, 3)
    close = SPHERE.sectional_curvature(z, u, u + 1e-6 * v)
    assert torch.allclose(close, SPHERE.sectional_curvature(z, u, v), rtol=1e-8)


def test_batches_chunks_and_broadcasts() -> None:
    z, v = draw(6, 4, 2), draw(4, 2, seed=1)
    whole = SPHERE.geodesic_acceleration(z, v)
    assert whole.shape == (6, 4, 2)
    small = RiemannianMetric.from_function(SPHERE.function, memory_budget=2000)
    assert torch.allclose(small.geodesic_acceleration(z, v), whole)
    assert torch.allclose(SPHERE.scalar_curvature(z[0, 0]), torch.tensor(2.0, dtype=DOUBLE))
    assert SPHERE.metric_matrix(z[:0]).shape == (0, 4, 2, 2)


def test_single_precision() -> None:
    z = draw(8, 3).float()
    assert torch.allclose(SPHERE.scalar_curvature(z), torch.full((8,), 6.0), rtol=1e-4)


Z = draw(3, 2)
BAD = {
    "complex z": (lambda: SPHERE.metric_matrix(Z.to(torch.complex128)), "z: expected a real"),
    "integers": (lambda: SPHERE.metric_matrix(torch.ones(3, 2, dtype=torch.long)), "z: expected a"),
    "list": (lambda: SPHERE.metric_matrix([[0.0, 1.0]]), "z: expected a real .* got list"),
    "number": (lambda: SPHERE.metric_matrix(torch.tensor(1.0)), "z: expected shape"),
    "NaN": (lambda: SPHERE.metric_matrix(Z * math.nan), "but z has NaN"),
    "infinite": (lambda: SPHERE.christoffels(Z / 0), "z|finite"),
    "vector of another dtype": (lambda: SPHERE.norm(Z.float(), Z), "v: expected a tensor"),
    "vector of another size": (lambda: SPHERE.norm(Z[:, :1], Z), "v: expected a tensor"),
    "complex vector": (lambda: SPHERE.norm(Z + 0j, Z), "v: expected a real"),
    "batches": (lambda: SPHERE.norm(Z[:2], Z), "batch dimensions that broadcast"),
    "a line": (lambda: SPHERE.sectional_curvature(*[Z[:, :1]] * 3), "d ≥ 2"),
    "no plane": (lambda: SPHERE.sectional_curvature(Z, Z, 2 * Z), "span a plane"),
    "zero": (lambda: SPHERE.sectional_curvature(Z, Z, 0 * Z), "span a plane"),
    "degenerate": (
        lambda: RiemannianMetric.from_function(
            lambda z: z[..., :, None] * z[..., None, :]
        ).christoffels(Z),
        "positive definite",
    ),
    "not a function": (lambda: RiemannianMetric.from_function(3), "function: expected a callable"),
    "a vector for a matrix": (
        lambda: RiemannianMetric.from_function(lambda z: z).metric_matrix(Z),
        r"expected g\(z\)",
    ),
    "not symmetric": (
        lambda: RiemannianMetric.from_function(
            lambda z: torch.eye(2, dtype=DOUBLE) + torch.stack([z * 0, z], -1)
        ).metric_matrix(Z),
        "symmetric",
    ),
    "detached": (
        lambda: RiemannianMetric.from_function(
            lambda z: torch.eye(2, dtype=DOUBLE) * (1 + (z.detach() ** 2).sum(-1))[..., None, None]
        ).christoffels(Z),
        "contradict",
    ),
    "budget": (
        lambda: RiemannianMetric.from_function(polar, memory_budget=0),
        "memory_budget: expected bytes",
    ),
}


@pytest.mark.parametrize("case", BAD)
def test_bad_input(case: str) -> None:
    call, message = BAD[case]
    with pytest.raises(InputError, match=message):
        call()
