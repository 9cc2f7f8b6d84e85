"""The exponential and logarithmic maps, and parallel transport: known answers and orders."""

import math
from itertools import pairwise

import pytest
import torch
from torch import Tensor, nn

from kahler_verify.curves import Curve, Status, jacobi_fields, shoot, transport
from kahler_verify.errors import CurveError, InputError
from kahler_verify.geometry.base import MetricJet
from kahler_verify.geometry.pulled_back import PulledBackMetric
from kahler_verify.geometry.riemannian import RiemannianMetric
from tests.manifolds import DOUBLE, draw, lift


class Conformal(RiemannianMetric):
    """The metric 4/(1 + κ|z|²)² dz² of curvature κ, with its derivatives."""

    def __init__(self, curvature: float):
        super().__init__()
        self.curvature = curvature

    def jet(self, z: Tensor, order: int) -> MetricJet:
        room = 1 + self.curvature * (z * z).sum(-1)
        unit = torch.eye(z.shape[-1], dtype=z.dtype)
        slope = -8 * self.curvature / room**3  # of the factor by |z|²
        bend = 24 * self.curvature**2 / room**4
        first = 2 * slope[:, None] * z
        second = 4 * bend[:, None, None] * z[:, :, None] * z[:, None, :]
        second = second + 2 * slope[:, None, None] * unit
        parts = [4 / room**2, first, second][: order + 1]
        return MetricJet(*[part[..., None, None] * unit for part in parts])


SPHERE = Conformal(1)
SPHERE_IN_SPACE = PulledBackMetric(lift)
BALL = Conformal(-1)


@pytest.mark.parametrize("metric", [SPHERE, SPHERE_IN_SPACE], ids=["given", "pulled back"])
@pytest.mark.parametrize("d", [1, 2, 4])
def test_exp_follows_great_circles(metric: RiemannianMetric, d: int) -> None:
    z, v = 0.5 * draw(5, d), 0.3 * draw(5, d, seed=1)
    shot = shoot(metric, z, v)
    x, turn = torch.func.jvp(lift, (z,), (v,))
    angle = turn.norm(dim=-1, keepdim=True)
    exact = angle.cos() * x + angle.sin() * turn / angle
    assert torch.allclose(lift(shot.point), exact, atol=1e-9)
    assert shot.speed_change.abs().max() < 1e-9
    back = shoot(metric, shot.point, -shot.velocity)
    assert torch.allclose(back.point, z, atol=1e-8)


def test_exp_from_the_middle_of_the_ball_is_a_tangent() -> None:
    v = draw(6, 3)
    size = v.norm(dim=-1, keepdim=True)
    exact = torch.tanh(size) * v / size  # the metric there is 4 dz², so that |v|_g = 2|v|
    assert torch.allclose(BALL.exp(torch.zeros_like(v), v), exact, rtol=1e-9)


def test_log_is_the_inverse_of_exp() -> None:
    z, w = 0.5 * draw(6, 2), 0.5 * draw(6, 2, seed=1)
    for metric in (SPHERE, SPHERE_IN_SPACE, BALL if bool((z.norm(dim=-1) < 1).all()) else SPHERE):
        v = metric.log(z, w)
        assert torch.allclose(metric.exp(z, v), w, atol=1e-7)
        assert torch.allclose(metric.norm(v, z), metric.distance(z, w), rtol=1e-8)


def test_log_on_a_decoder() -> None:
    with torch.random.fork_rng():
        torch.manual_seed(1)
        net = nn.Sequential(nn.Linear(3, 24), nn.Tanh(), nn.Linear(24, 16)).double()
    metric = PulledBackMetric(net)
    z, w = draw(2, 5, 3)
    v = metric.log(z, w)
    assert (metric.exp(z, v) - w).norm(dim=-1).median() < 1e-6
    assert torch.allclose(metric.norm(v, z), metric.distance(z, w).detach(), rtol=1e-7)


def test_gauss_lemma() -> None:
    """The radial geodesic is orthogonal to spheres: ⟨v, d exp(u)⟩ at the end is ⟨v, u⟩."""
    z, v, u = 0.3 * draw(3, 1, 2)
    step = 1e-4
    shot = shoot(SPHERE, z, v, tolerance=1e-13)
    ahead, behind = (SPHERE.exp(z, v + h * u, tolerance=1e-13) for h in (step, -step))
    change = (ahead - behind) / (2 * step)
    there = SPHERE.inner_product(shot.velocity, change, shot.point)
    assert torch.allclose(there, SPHERE.inner_product(v, u, z), rtol=1e-6)


@pytest.mark.parametrize("d", [2, 3])
def test_jacobi_fields_on_a_sphere(d: int) -> None:
    """They grow like sin, and vanish together at π: there geodesics meet again."""
    length = 4.0

    def equator(t: Tensor) -> Tensor:
        angle = (length * t).unsqueeze(-1)
        return torch.cat([angle.cos(), angle.sin(), torch.zeros(*t.shape, d - 2)], -1)

    found = jacobi_fields(Curve.through(SPHERE, equator))
    angle = length * found.times
    exact = torch.where(angle > 0, (angle.sin() / torch.where(angle > 0, angle, 1)).abs(), 1)
    assert torch.allclose(found.spread, torch.minimum(exact, torch.ones_like(exact)), atol=1e-6)
    assert abs(found.conjugate.item() * length - math.pi) < 1e-4
    short = jacobi_fields(Curve.through(SPHERE, lambda t: equator(0.75 * t)))
    assert short.conjugate.item() == math.inf
    ball = Curve.through(BALL, lambda t: 0.5 * t[:, None] * torch.ones(d, dtype=DOUBLE) / d)
    assert jacobi_fields(ball).conjugate.item() == math.inf


def test_jacobi_fields_are_derivatives_of_exp() -> None:
    for metric in (SPHERE, BALL, SPHERE_IN_SPACE):
        z, w = 0.3 * draw(2, 1, 2)
        path = metric.geodesic(z, w)
        v, step = metric.log(z, w), 1e-4
        columns = []
        for axis in torch.eye(2, dtype=DOUBLE):
            ends = [metric.exp(z, v + h * axis, tolerance=1e-13) for h in (step, -step)]
            columns.append((ends[0] - ends[1])[0] / (2 * step))
        fields = jacobi_fields(path, steps=16).fields[0, -1]
        assert torch.allclose(fields, torch.stack(columns, -1), rtol=1e-5, atol=1e-5)


def test_exp_takes_few_evaluations() -> None:
    """To 1e-10, of a tanh decoder: no more than six hundred for most."""
    generator = torch.Generator().manual_seed(0)
    net = nn.Sequential(
        nn.Linear(8, 64), nn.Tanh(), nn.Linear(64, 64), nn.Tanh(), nn.Linear(64, 64)
    )
    for layer in net[::2]:
        nn.init.normal_(layer.weight, 0, 1.3 / layer.in_features**0.5, generator=generator)
        nn.init.zeros_(layer.bias)
    metric = PulledBackMetric(net.double().requires_grad_(False))
    z, v = 0.5 * draw(2, 4, 8)
    shot, fine = shoot(metric, z, v), shoot(metric, z, v, tolerance=1e-12)
    assert ((shot.point - fine.point).norm(dim=-1) / v.norm(dim=-1)).median() < 1e-10
    assert shot.evaluations.median() <= 600


def test_any_length_of_velocity_and_none() -> None:
    z = 0.5 * draw(4, 2)
    v = draw(4, 2, seed=1) * torch.tensor([1e-200, 1e-20, 1e-5, 0.0], dtype=DOUBLE)[:, None]
    shot = shoot(SPHERE, z, v)
    assert torch.allclose(shot.point, z + v, atol=1e-9)
    assert torch.equal(shot.point[3], z[3])
    assert torch.allclose(shot.velocity[:2], v[:2], rtol=1e-15)
    assert shot.speed_change.abs().max() < 1e-9


def test_the_error_follows_the_tolerance() -> None:
    z, v = 0.4 * draw(2, 8, 2)
    x, turn = torch.func.jvp(lift, (z,), (2 * v,))
    angle = turn.norm(dim=-1, keepdim=True)
    exact = angle.cos() * x + angle.sin() * turn / angle
    errors = []
    for tolerance in (1e-5, 1e-8, 1e-11):
        shot = shoot(SPHERE, z, 2 * v, tolerance=tolerance)
        errors.append((lift(shot.point) - exact).abs().max().item())
        assert errors[-1] < 20 * tolerance
    assert errors[0] > errors[1] > errors[2]


def test_geodesics_that_do_not_arrive_are_flagged() -> None:
    """A flat half plane ends at its edge."""
    half = RiemannianMetric.from_function(
        lambda z: torch.where(z[..., :1, None] > 0, 1.0, torch.nan) * torch.eye(2, dtype=DOUBLE),
        check=False,
    )
    z = torch.tensor([[1.0, 0.0], [1.0, 0.0]], dtype=DOUBLE)
    v = torch.tensor([[-2.0, 1.0], [2.0, 1.0]], dtype=DOUBLE)
    shot = shoot(half, z, v, raise_on_failure=False)
    assert shot.status.tolist() == [Status.LEFT_DOMAIN, Status.MINIMUM]
    assert bool(shot.point[0].isnan().all())
    assert torch.allclose(shot.point[1], z[1] + v[1])
    with pytest.raises(CurveError, match="1 of 2 geodesics did not arrive: 1 left the domain"):
        half.exp(z, v)
    few = shoot(SPHERE, z, v, most_steps=2, raise_on_failure=False)
    assert bool(few.point.isnan().all())


def latitude(angle: float, turns: float = 1.0) -> Curve:
    """The circle at an angle from the south pole, which is z = 0."""
    radius = math.tan(angle / 2)

    def circle(t: Tensor) -> Tensor:
        phase = 2 * math.pi * turns * t
        return radius * torch.stack([phase.cos(), phase.sin()], -1)

    return Curve.through(SPHERE_IN_SPACE, circle)


@pytest.mark.parametrize("angle", [0.3, 1.0, 1.5, 2.5])
def test_holonomy_of_a_latitude_circle(angle: float) -> None:
    u = torch.tensor([1.0, 0.0], dtype=DOUBLE)
    carried = transport(latitude(angle), u, steps=32)
    turned = torch.atan2(carried.vector[1], carried.vector[0]).item()
    exact = 2 * math.pi * (1 - math.cos(angle))
    # carried to the left by what the curve encloses
    assert abs(math.remainder(turned - exact, 2 * math.pi)) < 1e-6
    assert abs(carried.norm_change.item()) < 1e-7


def test_transport_is_an_isometry_of_order_four() -> None:
    curve = latitude(1.2, turns=0.7)
    u, w = draw(2, 2)
    norms, errors = [], []
    fine = transport(curve, u, steps=64).vector
    for steps in (2, 4, 8):
        carried = transport(curve, u, steps=steps)
        errors.append((carried.vector - fine).norm().item())
        norms.append(abs(carried.norm_change.item()))
        scale = carried.error.item() * SPHERE_IN_SPACE.norm(u, curve(0.0)).item()
        there = SPHERE_IN_SPACE.norm(carried.vector - fine, curve(1.0)).item()
        assert 0.3 * scale < there < 3 * scale
    assert all(12 < a / b < 20 for a, b in pairwise(errors))
    assert norms[2] < norms[1] < norms[0]
    ends = [transport(curve, x, steps=32).vector for x in (u, w)]
    before = SPHERE_IN_SPACE.inner_product(u, w, curve(0.0))
    assert torch.allclose(SPHERE_IN_SPACE.inner_product(*ends, curve(1.0)), before, rtol=1e-7)


@pytest.mark.parametrize(("method", "order"), [("reflection", 2), ("polar", 2), ("projection", 1)])
def test_orders_of_transport_through_data_space(method: str, order: int) -> None:
    """S3, on an open path that no symmetry makes better: a loxodrome on an ellipsoid."""
    metric = PulledBackMetric(lambda z: lift(z) * torch.tensor([1.0, 1.5, 0.7]))
    curve = Curve.through(metric, lambda t: torch.stack([0.2 + t, 0.5 * t**2 - 0.3], -1))
    u = draw(2)
    exact = transport(curve, u, steps=64).vector
    errors = []
    for steps in (2, 4, 8, 16):
        carried = transport(curve, u, steps=steps, method=method)
        errors.append(metric.norm(carried.vector - exact, curve(1.0)).item())
        assert abs(carried.norm_change.item()) < 1e-12
    assert all(abs(math.log2(a / b) - order) < 0.2 for a, b in pairwise(errors[1:]))


def test_velocities_of_geodesics_are_parallel() -> None:
    a, b = 0.5 * draw(2, 6, 3)
    path = SPHERE.geodesic(a, b)
    carried = SPHERE.transport(path, path.velocity(0.0))
    assert torch.allclose(carried, path.velocity(1.0), rtol=1e-4, atol=1e-5)
    linear = SPHERE.transport(path, 2 * draw(6, 3))
    assert torch.allclose(linear, 2 * SPHERE.transport(path, draw(6, 3)), rtol=1e-12)


A = draw(3, 2)
BAD = {
    "velocity": (lambda: SPHERE.exp(A, A[:, :1]), "v: expected a tensor"),
    "NaN": (lambda: SPHERE.exp(A, A * math.nan), "v: expected finite"),
    "tolerance": (lambda: SPHERE.exp(A, A, tolerance=0.0), "tolerance: expected"),
    "steps": (lambda: transport(latitude(1.0), A[0], steps=3), "steps: expected a positive even"),
    "batch": (
        lambda: transport(SPHERE.geodesic(A, A / 2), A[:2]),
        "u: expected a batch that broadcasts",
    ),
    "method": (lambda: transport(latitude(1.0), A[0], method="pole"), "method: expected one of"),
    "no data space": (
        lambda: transport(SPHERE.geodesic(A, A / 2), A, method="reflection"),
        "pulled back from a data space",
    ),
    "another metric": (lambda: BALL.transport(latitude(1.0), A[0]), "curve of this metric"),
}


@pytest.mark.parametrize("case", BAD)
def test_bad_input(case: str) -> None:
    call, message = BAD[case]
    with pytest.raises(InputError, match=message):
        call()
