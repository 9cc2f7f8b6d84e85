"""Discrete energies against autograd, elimination against dense algebra, and claims S1, S5, L5."""

import math

import pytest
import torch
from scipy.integrate import quad
from torch import Tensor, nn

from kahler_verify.curves import Curve, Mesh, elimination, measure, regularised, shoot
from kahler_verify.curves.elements import gauss, interpolation, rule
from kahler_verify.curves.elimination import assembled, negative_eigenvalues, solve
from kahler_verify.curves.energy import Energy, ImageEnergy, MetricEnergy, energy_of
from kahler_verify.geometry.pulled_back import PulledBackMetric
from kahler_verify.geometry.riemannian import RiemannianMetric
from tests.manifolds import DOUBLE, draw


def decoder(d: int) -> nn.Module:
    with torch.random.fork_rng():
        torch.manual_seed(0)
        net = nn.Sequential(nn.Linear(d, 12), nn.Tanh(), nn.Linear(12, 7))
        return net.double().requires_grad_(False)


def curved(z: Tensor) -> Tensor:
    """A metric with no symmetry."""
    d = z.shape[-1]
    root = torch.eye(d, dtype=z.dtype) + 0.3 * torch.sin(z[..., :, None] + 2 * z[..., None, :])
    return root @ root.mT + 0.1 * torch.eye(d, dtype=z.dtype)


ENERGIES = {
    "metric": lambda d: MetricEnergy(RiemannianMetric.from_function(curved)),
    "image": lambda d: ImageEnergy(PulledBackMetric(decoder(d))),
}


@pytest.mark.parametrize("degree", [1, 2, 5, 9, 16])
def test_rules_are_exact(degree: int) -> None:
    nodes, weights, slope, _ = rule(degree)
    for power in range(2 * degree):
        assert math.isclose((weights * nodes**power).sum().item(), 1 / (power + 1), rel_tol=1e-13)
    times = torch.linspace(0, 1, 11, dtype=DOUBLE)
    for power in range(degree + 1):
        expected = power * nodes ** max(power - 1, 0)
        assert torch.allclose(slope @ nodes**power, expected, atol=1e-11)
        assert torch.allclose(interpolation(degree, times) @ nodes**power, times**power, atol=1e-12)
    x, w = gauss(degree)
    assert math.isclose((w * x ** (2 * degree - 1)).sum().item(), 1 / (2 * degree), rel_tol=1e-12)


@pytest.mark.parametrize("kind", ENERGIES)
@pytest.mark.parametrize(("mesh", "d"), [(Mesh(1, 4), 2), (Mesh(3, 2), 5), (Mesh(4, 1), 3)])
def test_derivatives_are_those_of_autograd(kind: str, mesh: Mesh, d: int) -> None:
    energy: Energy = ENERGIES[kind](d)
    nodes = draw(2, mesh.size, d)
    at = energy.expand(nodes, mesh)
    assert torch.allclose(at.value, energy.value(nodes, mesh), rtol=1e-13)
    hessian = assembled(at.hessian, d)
    gradient = torch.zeros_like(nodes)
    gradient.index_add_(1, mesh.index.flatten(), at.gradient.reshape(2, -1, d))
    for row in range(2):

        def value(z: Tensor, row: int = row) -> Tensor:
            whole = torch.cat([nodes[row, :1], z, nodes[row, -1:]])
            return energy.value(whole[None], mesh)[0]

        inner = nodes[row, 1:-1]
        slope = torch.autograd.functional.jacobian(value, inner)
        assert torch.allclose(gradient[row, 1:-1], slope, rtol=1e-10, atol=1e-11)
        bend = torch.autograd.functional.hessian(value, inner)
        size = inner.numel()
        assert torch.allclose(hessian[row], bend.reshape(size, size), rtol=1e-9, atol=1e-10)
    floor = torch.linalg.eigvalsh(assembled(at.gauss_newton, d)).min()
    assert floor > 0


def test_a_linear_last_layer_is_reduced_exactly() -> None:
    with torch.random.fork_rng():
        torch.manual_seed(0)
        layers = [nn.Linear(3, 8), nn.Tanh(), nn.Linear(8, 50)]
        net = nn.Sequential(*layers).double().requires_grad_(False)
    metric, mesh, nodes = PulledBackMetric(net), Mesh(4, 3), draw(2, 13, 3)
    small = energy_of(metric)
    assert small.metric.embed(nodes[0]).shape == (13, 8)
    for one, other in zip(
        small.expand(nodes, mesh), ImageEnergy(metric).expand(nodes, mesh), strict=True
    ):
        assert torch.allclose(one, other, rtol=1e-11, atol=1e-12)
    floored = regularised(metric, nodes[0], 0.1)
    small = energy_of(floored)
    assert small.metric.embed(nodes[0]).shape == (13, 8 + 3)
    assert small.pairs_at_once(nodes) > 1
    for one, other in zip(
        small.expand(nodes, mesh), ImageEnergy(floored).expand(nodes, mesh), strict=True
    ):
        assert torch.allclose(one, other, rtol=1e-11, atol=1e-12)
    for kept in (nn.Sequential(*layers[:2]), nn.Sequential(*layers, nn.Tanh()), net.forward):
        assert energy_of(PulledBackMetric(kept)).metric.embed(nodes[0]).shape[1] in (8, 50)
    differentiated = PulledBackMetric(net.requires_grad_())
    assert energy_of(differentiated).metric.embed(nodes[0]).shape == (13, 50)


def matrices(mesh: Mesh, d: int, *, definite: bool) -> Tensor:
    size = (mesh.degree + 1) * d
    root = draw(3, mesh.elements, size, size, seed=mesh.degree)
    return root @ root.mT if definite else root + root.mT


@pytest.mark.parametrize("mesh", [Mesh(1, 3), Mesh(2, 1), Mesh(2, 2), Mesh(5, 4), Mesh(6, 1)])
@pytest.mark.parametrize("d", [1, 2])
@pytest.mark.parametrize("at_once", [True, False])
def test_elimination_is_dense_algebra(
    mesh: Mesh, d: int, at_once: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(elimination, "AT_ONCE", math.inf if at_once else 0)
    hessian = matrices(mesh, d, definite=True)
    gradient = draw(3, mesh.elements, hessian.shape[-1], seed=7)
    whole = torch.zeros(3, mesh.size, d, dtype=DOUBLE)
    whole.index_add_(1, mesh.index.flatten(), gradient.reshape(3, -1, d))
    step, definite = solve(hessian, gradient, d)
    dense = torch.linalg.solve(assembled(hessian, d), whole[:, 1:-1].flatten(1))
    assert bool(definite.all())
    assert torch.allclose(step.flatten(1), dense, rtol=1e-7)
    assert torch.equal(negative_eigenvalues(hessian, d), torch.zeros(3, dtype=torch.long))
    indefinite = matrices(mesh, d, definite=False)
    count = (torch.linalg.eigvalsh(assembled(indefinite, d)) < 0).sum(-1)
    assert torch.equal(negative_eigenvalues(indefinite, d), count)
    flags = solve(indefinite, gradient, d)[1]
    assert torch.equal(flags, count == 0)


def test_a_curve_is_measured_as_by_quadrature() -> None:
    """S5: L² ≤ 2E, with equality at constant speed alone."""
    metric = RiemannianMetric.from_function(curved)
    curve = Curve.through(metric, lambda t: torch.stack([t.sin(), t**2], -1))

    def speed(t: float) -> float:
        at = torch.tensor(t, dtype=DOUBLE)
        z = torch.stack([at.sin(), at**2])
        return metric.norm(torch.stack([at.cos(), 2 * at]), z).item()

    assert math.isclose(curve.length.item(), quad(speed, 0, 1, epsabs=1e-12)[0], rel_tol=1e-10)
    double = quad(lambda t: speed(t) ** 2, 0, 1, epsabs=1e-12)[0]
    assert math.isclose(2 * curve.energy.item(), double, rel_tol=1e-10)
    assert curve.length**2 < 2 * curve.energy
    a, b = 0.5 * draw(2, 5, 2)
    path = metric.geodesic(a, b)
    assert torch.allclose(path.length**2, 2 * path.energy, rtol=1e-8)


def test_the_residual_sees_what_is_no_geodesic() -> None:
    """A great circle run through unevenly, and a small circle at constant speed."""
    metric = PulledBackMetric(lambda z: torch.stack([*_circle(z)], -1))
    even = Curve.through(metric, lambda t: torch.stack([0 * t, 2 * t], -1))
    uneven = Curve.through(metric, lambda t: torch.stack([0 * t, t + t**2], -1))
    small = Curve.through(metric, lambda t: torch.stack([0 * t + 0.5, 2 * t], -1))
    assert measure(even).residual < 1e-9
    assert math.isclose(measure(uneven).residual.item(), 1, rel_tol=1e-6)  # |z''| / L = 2 / 2
    exact = 2 * math.sin(0.5)  # curvature tan(θ) times the length 2 cos(θ)
    assert math.isclose(measure(small).residual.item(), exact, rel_tol=1e-9)
    assert measure(small).speed_variation < 1e-12
    assert math.isclose(measure(uneven).speed_variation.item(), 1, abs_tol=0.05)


def _circle(z: Tensor) -> tuple[Tensor, ...]:
    height, angle = z.unbind(-1)
    return height.cos() * angle.cos(), height.cos() * angle.sin(), height.sin()


def test_the_printed_equation_keeps_the_speed_and_is_wrong() -> None:
    """L5: c'' = -½ M⁻¹ (∂vec M)ᵀ (c' ⊗ c') conserves speed for any order, and is no geodesic's.

    As printed, ∂vec M is [d², d] with the derivative's index free: only the term of ∂_e g_ab is
    left, where -Γ has ∂_a g_eb + ∂_b g_ea - ∂_e g_ab. In one dimension the two agree.
    """

    def printed(metric: RiemannianMetric, z: Tensor, v: Tensor) -> Tensor:
        jet = metric.jet(z, 1)
        along = torch.einsum("beac,ba,bc->be", jet.d, v, v)
        return -torch.linalg.solve(jet.g, along) / 2

    metric = RiemannianMetric.from_function(curved)
    z, v = draw(2, 6, 2)
    right = metric.geodesic_acceleration(z, v)
    wrong = printed(metric, z, v)
    for acceleration in (right, wrong):  # ½ ∂_v g(v, v) + g(v, v̇) = 0: the speed stays
        jet = metric.jet(z, 1)
        drift = torch.einsum("beac,be,ba,bc->b", jet.d, v, v, v) / 2
        drift += torch.einsum("bac,ba,bc->b", jet.g, v, acceleration)
        assert drift.abs().max() < 1e-12
    assert ((wrong - right).norm(dim=-1) / right.norm(dim=-1)).min() > 0.05
    path = metric.geodesic(0.3 * z, 0.3 * v)
    times = torch.linspace(0.1, 0.9, 9)
    at, velocity = (x.flatten(0, 1) for x in (path(times), path.velocity(times)))
    step = 1e-4
    bend = ((path.velocity(times + step) - path.velocity(times - step)) / (2 * step)).flatten(0, 1)
    scale = bend.norm(dim=-1).max()
    assert (bend - metric.geodesic_acceleration(at, velocity)).norm(dim=-1).max() < 1e-3 * scale
    assert (bend - printed(metric, at, velocity)).norm(dim=-1).max() > 0.1 * scale
    one, w = draw(2, 4, 1)
    assert torch.allclose(printed(metric, one, w), metric.geodesic_acceleration(one, w))
    shot = shoot(metric, 0.3 * z, path.velocity(0.0))
    assert torch.allclose(shot.point, 0.3 * v, atol=1e-4)


def test_what_is_kept_under_inference_mode_serves_derivatives_later() -> None:
    mesh = Mesh(3, 5)
    with torch.inference_mode():
        kept = [mesh.index, mesh.stiffness, *rule(5)]
    assert not any(part.is_inference() for part in kept)
