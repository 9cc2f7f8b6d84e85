"""Laws that geodesics of every metric obey, and closed forms to 1e-12."""

import math
from collections.abc import Callable
from functools import cache

import pytest
import torch
from torch import Tensor, nn
from torch.distributions import Categorical, Normal

from kahler_verify.curves import Curve, Spectral, Starts, connect, measure, shoot, transport
from kahler_verify.geometry import (
    ExpectedMetric,
    LocalVarianceMetric,
    PotentialMetric,
    PrecisionWeightedMetric,
    PulledBackMetric,
    RiemannianMetric,
)
from kahler_verify.geometry.fisher_rao import FisherRaoMetric
from tests.manifolds import DOUBLE, draw, lift

FINE = Spectral(tolerance=1e-12)


def network(outputs: int, d: int = 2) -> nn.Sequential:
    with torch.random.fork_rng():
        torch.manual_seed(0)
        net = nn.Sequential(nn.Linear(d, 12), nn.Tanh(), nn.Linear(12, outputs)).double()
    return net.requires_grad_(False)


NET = network(12)


def stochastic(z: Tensor) -> tuple[Tensor, Tensor]:
    out: Tensor = NET(z)
    return out[..., :6], out[..., 6:]


DATA = draw(40, 2, seed=9)
METRICS: dict[str, Callable[[], RiemannianMetric]] = {
    "pulled back": lambda: PulledBackMetric(network(8)),
    "expected": lambda: ExpectedMetric(stochastic),
    "Fisher-Rao": lambda: FisherRaoMetric(stochastic),
    "LAND": lambda: LocalVarianceMetric(DATA, 0.7, 0.2),
    "full LAND": lambda: LocalVarianceMetric(DATA, 0.7, 0.2, structure="full"),
    "precision-weighted": lambda: PrecisionWeightedMetric(
        DATA[:6], 0.7 * torch.eye(2, dtype=DOUBLE).expand(6, 2, 2), temperature=1.5
    ),
    "potential": lambda: PotentialMetric("fubini_study").riemannian(),
    "given": lambda: RiemannianMetric.from_function(
        lambda z: torch.diag_embed(1 + torch.sin(z + z.flip(-1)) ** 2), check=False
    ),
}


@cache
def solved(name: str) -> tuple[RiemannianMetric, Tensor, Tensor, Curve]:
    metric = METRICS[name]()
    a, b = 0.5 * draw(2, 3, 2)
    return metric, a, b, metric.geodesic(a, b, solver=Spectral(tolerance=1e-10))


@pytest.mark.parametrize("name", METRICS)
class TestLaws:
    """Each on three geodesics of a metric."""

    def test_distance_is_symmetric(self, name: str) -> None:
        metric, a, b, path = solved(name)
        assert torch.allclose(metric.distance(b, a), path.length, rtol=1e-8)

    def test_length_does_not_depend_on_the_parameter(self, name: str) -> None:
        metric, _, _, path = solved(name)

        def run_unevenly(t: Tensor) -> Tensor:
            return path(t**2 * (3 - 2 * t))

        again = Curve.through(metric, run_unevenly, elements=32)
        assert torch.allclose(measure(again).length, path.length, rtol=1e-7)
        assert bool((again.energy > 1.05 * path.energy).all())

    def test_parts_of_geodesics_are_geodesics(self, name: str) -> None:
        metric, a, b, path = solved(name)
        middle = path(0.4)
        first, second = metric.distance(a, middle), metric.distance(middle, b)
        assert torch.allclose(first, 0.4 * path.length, rtol=1e-5)
        assert torch.allclose(first + second, path.length, rtol=1e-8)

    def test_triangles(self, name: str) -> None:
        metric, a, b, path = solved(name)
        corner = a.roll(1, 0) + 0.1
        around = metric.distance(a, corner) + metric.distance(corner, b)
        assert bool((around >= path.length * (1 - 1e-8)).all())

    def test_exp_inverts_log(self, name: str) -> None:
        metric, a, b, path = solved(name)
        v = metric.log(a, b, solver=Spectral(tolerance=1e-10))
        assert torch.allclose(metric.norm(v, a), path.length, rtol=1e-6)
        assert torch.allclose(metric.exp(a, v), b, atol=1e-6)

    def test_gauss_lemma(self, name: str) -> None:
        """⟨d exp(v), d exp(u)⟩ at the end is ⟨v, u⟩ at the beginning."""
        metric, a, b, _ = solved(name)
        v, u, step = metric.log(a, b), draw(3, 2, seed=4), 1e-4
        shot = shoot(metric, a, v, tolerance=1e-12)
        ends = [metric.exp(a, v + h * u, tolerance=1e-12) for h in (step, -step)]
        change = (ends[0] - ends[1]) / (2 * step)
        there = metric.inner_product(shot.velocity, change, shot.point)
        assert torch.allclose(there, metric.inner_product(v, u, a), rtol=1e-5, atol=1e-5)

    def test_transport_is_isometric(self, name: str) -> None:
        metric, a, b, path = solved(name)
        u, w = draw(2, 3, 2, seed=5)
        carried = [transport(path, x).vector for x in (u, w)]
        assert torch.allclose(
            metric.inner_product(*carried, b), metric.inner_product(u, w, a), rtol=1e-5, atol=1e-5
        )
        along = transport(path, path.velocity(0.0)).vector
        assert torch.allclose(along, path.velocity(1.0), rtol=1e-3, atol=1e-3)

    def test_an_isometry_changes_nothing(self, name: str) -> None:
        """The same metric in turned coordinates."""
        metric, a, b, path = solved(name)
        turn = torch.linalg.qr(draw(2, 2, seed=6))[0]
        turned = RiemannianMetric.from_function(
            lambda y: turn @ metric.jet(y @ turn, 0).g @ turn.mT, check=False
        )
        assert torch.allclose(turned.distance(a @ turn.mT, b @ turn.mT), path.length, rtol=1e-8)


@pytest.mark.parametrize("d", [1, 2, 3, 8])
def test_spheres(d: int) -> None:
    a, b = draw(2, 6, d) / math.sqrt(d)
    x, y = lift(a), lift(b)
    exact = 2 * torch.atan2((x - y).norm(dim=-1), (x + y).norm(dim=-1))
    path = PulledBackMetric(lift).geodesic(a, b, solver=FINE)
    assert torch.allclose(path.length, exact, rtol=1e-12, atol=0)


def test_hyperbolic_half_plane() -> None:
    """(dx² + dy²)/y²; in log y, so that no step leaves it."""
    metric = RiemannianMetric.from_function(
        lambda z: torch.diag_embed(
            torch.stack([torch.exp(-2 * z[..., 1]), torch.ones_like(z[..., 1])], -1)
        )
    )
    a, b = draw(2, 6, 2)
    (x, y), (u, v) = ((p[:, 0], p[:, 1].exp()) for p in (a, b))
    exact = 2 * torch.asinh((((x - u) ** 2 + (y - v) ** 2) / (4 * y * v)).sqrt())
    assert torch.allclose(metric.distance(a, b, solver=FINE), exact, rtol=1e-12, atol=0)


@pytest.mark.parametrize("d", [2, 8])
def test_hyperbolic_ball(d: int) -> None:
    def g(z: Tensor) -> Tensor:
        return torch.diag_embed((4 / (1 - (z * z).sum(-1, keepdim=True)) ** 2).expand(z.shape))

    a, b = (0.7 * x / (1 + x.norm(dim=-1, keepdim=True)) for x in draw(2, 4, d))
    room = (1 - (a * a).sum(-1)) * (1 - (b * b).sum(-1))
    exact = 2 * torch.asinh((((a - b) ** 2).sum(-1) / room).sqrt())
    path = RiemannianMetric.from_function(g).geodesic(a, b, solver=FINE)
    assert torch.allclose(path.length, exact, rtol=1e-12, atol=0)


def test_normal_laws() -> None:
    metric = FisherRaoMetric(lambda z: Normal(z[..., :1], z[..., 1:].exp()))
    a, b = draw(2, 6, 2)
    (m, s), (n, t) = ((p[:, 0], p[:, 1].exp()) for p in (a, b))
    half = (((m - n) ** 2 / 2 + (s - t) ** 2) / (4 * s * t)).sqrt()
    exact = 2 * math.sqrt(2) * torch.asinh(half)
    assert torch.allclose(metric.distance(a, b, solver=FINE), exact, rtol=1e-12, atol=0)


def test_categorical_laws_are_on_a_sphere_of_radius_two() -> None:
    def law(z: Tensor) -> Categorical:
        return Categorical(logits=torch.cat([z, torch.zeros_like(z[..., :1])], -1))

    a, b = draw(2, 6, 3)
    p, q = (law(z).probs.sqrt() for z in (a, b))
    exact = 4 * torch.atan2((p - q).norm(dim=-1), (p + q).norm(dim=-1))
    length = FisherRaoMetric(law).distance(a, b, solver=FINE)
    assert torch.allclose(length, exact, rtol=1e-12, atol=0)


def test_flat_space_in_odd_coordinates() -> None:
    def odd(z: Tensor) -> Tensor:
        x, y = z.unbind(-1)
        return torch.stack([x + 0.3 * torch.sin(y), y + 0.2 * x**2 + 0.1 * x**3], -1)

    a, b = draw(2, 8, 2)
    exact = (odd(a) - odd(b)).norm(dim=-1)
    assert torch.allclose(PulledBackMetric(odd).distance(a, b, solver=FINE), exact, rtol=1e-12)


def test_a_torus_has_several_geodesics_between_two_points() -> None:
    """Turns about the hole and the tube: each class has its own, which Clairaut's law holds for."""

    def torus(z: Tensor) -> Tensor:
        u, v = z.unbind(-1)
        ring = 2 + v.cos()
        return torch.stack([ring * u.cos(), ring * u.sin(), v.sin()], -1)

    metric = PulledBackMetric(torus)
    a = torch.tensor([[0.2, 2.5]], dtype=DOUBLE)
    ends = torch.tensor([[1.0, 3.5]], dtype=DOUBLE)
    turns = 2 * math.pi * torch.tensor([[0, 0], [0, -1], [-1, 0], [0, 1], [1, -1]], dtype=DOUBLE)
    path = connect(metric, a.expand(5, 2), ends + turns, solver=FINE, starts=Starts(grid=0))
    assert bool(path.report.converged.all())
    lengths = path.length.tolist()
    assert all(abs(x - y) > 1e-3 for k, x in enumerate(lengths) for y in lengths[:k])
    assert path.length.argmin() == 0
    times = torch.linspace(0, 1, 21, dtype=DOUBLE)
    momentum = (2 + path(times)[..., 1].cos()) ** 2 * path.velocity(times)[..., 0]
    assert bool(((momentum - momentum[:, :1]).abs() < 1e-5 * path.length[:, None]).all())
