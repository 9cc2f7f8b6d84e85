"""Geodesics between points: known answers, and that a failed search is never a line."""

import math

import pytest
import torch
from torch import Tensor, nn
from torch.distributions import Bernoulli, Normal

from kahler_verify.curves import (
    STRAIGHT,
    Collocation,
    Curve,
    Mesh,
    Spectral,
    Starts,
    Status,
    connect,
    second_variation,
)
from kahler_verify.errors import CurveError, InputError
from kahler_verify.geometry.base import MetricJet
from kahler_verify.geometry.data_metrics import LocalVarianceMetric
from kahler_verify.geometry.fisher_rao import FisherRaoMetric
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


def great_circle(a: Tensor, b: Tensor) -> Tensor:
    x, y = lift(a), lift(b)
    return 2 * torch.atan2((x - y).norm(dim=-1), (x + y).norm(dim=-1))


def hyperbolic(a: Tensor, b: Tensor) -> Tensor:
    room = (1 - (a * a).sum(-1)) * (1 - (b * b).sum(-1))
    return 2 * torch.asinh(((a - b) ** 2).sum(-1).div(room).sqrt())


SPHERE = Conformal(1)
SPHERE_IN_SPACE = PulledBackMetric(lift)
BALL = Conformal(-1)
ONE_START = STRAIGHT  # what cannot be found is given up sooner
PLANE_IN_POLAR = PulledBackMetric(
    lambda z: z[..., :1] * torch.stack([z[..., 1].cos(), z[..., 1].sin()], -1)
)


def torus(z: Tensor) -> Tensor:
    u, v = z.unbind(-1)
    ring = 2 + v.cos()
    return torch.stack([ring * u.cos(), ring * u.sin(), v.sin()], -1)


def tanh_decoder(d: int = 2, outputs: int = 24) -> nn.Module:
    with torch.random.fork_rng():
        torch.manual_seed(0)
        net = nn.Sequential(
            nn.Linear(d, 32), nn.Tanh(), nn.Linear(32, 32), nn.Tanh(), nn.Linear(32, outputs)
        ).double()
        for layer in net[::2]:
            nn.init.normal_(layer.weight, 0, 1.3 / layer.in_features**0.5)
    return net.requires_grad_(False)


def test_the_metrics_of_these_tests_are_what_they_say() -> None:
    z = 0.3 * draw(4, 3)
    for metric in (SPHERE, BALL):
        given = RiemannianMetric.from_function(lambda z, metric=metric: metric.jet(z, 0).g)
        for ours, theirs in zip(metric.jet(z, 2), given.jet(z, 2), strict=True):
            assert torch.allclose(ours, theirs)


@pytest.mark.parametrize("metric", [SPHERE, SPHERE_IN_SPACE], ids=["given", "pulled back"])
@pytest.mark.parametrize("d", [1, 2, 5])
def test_great_circles(metric: RiemannianMetric, d: int) -> None:
    a, b = 0.7 * draw(2, 6, d, seed=d)
    path = metric.geodesic(a, b)
    report, exact = path.report, great_circle(a, b)
    assert torch.allclose(path.length, exact, rtol=1e-11, atol=0)
    assert bool(report.converged.all())
    assert bool((report.morse_index == 0).all())
    assert bool((report.speed_variation < 1e-4).all())
    assert bool((path.length**2 <= 2 * path.energy * (1 + 1e-14)).all())
    x, y = lift(a), lift(b)
    middle = (x + y) / (x + y).norm(dim=-1, keepdim=True)
    assert torch.allclose(lift(path(0.5)), middle, atol=1e-5)
    assert torch.equal(path(0.0), a)
    assert torch.equal(path(1.0), b)
    assert path(torch.linspace(0, 1, 7)).shape == (6, 7, d)
    speed = metric.norm(path.velocity(torch.linspace(0, 1, 7)), path(torch.linspace(0, 1, 7)))
    assert torch.allclose(speed, exact[:, None].expand(-1, 7), rtol=1e-4)


@pytest.mark.parametrize("d", [2, 4])
def test_hyperbolic_ball(d: int) -> None:
    a, b = (0.9 * x / (1 + x.norm(dim=-1, keepdim=True)) for x in draw(2, 8, d))
    assert torch.allclose(BALL.distance(a, b), hyperbolic(a, b), rtol=1e-11, atol=0)


def test_flat_space_in_polar_coordinates() -> None:
    generator = torch.Generator().manual_seed(0)
    a, b = torch.rand(2, 8, 2, dtype=DOUBLE, generator=generator) + torch.tensor([0.5, 0.0])
    exact = (PLANE_IN_POLAR.embed(a) - PLANE_IN_POLAR.embed(b)).norm(dim=-1)
    given = RiemannianMetric.from_function(
        lambda z: torch.diag_embed(torch.stack([torch.ones_like(z[..., 0]), z[..., 0] ** 2], -1))
    )
    for metric in (PLANE_IN_POLAR, given):
        path = metric.geodesic(a, b)
        assert torch.allclose(path.length, exact, rtol=1e-12, atol=0)
        assert torch.allclose(
            second_variation(path).smallest, torch.ones(8, dtype=DOUBLE), atol=5e-3
        )


def test_a_product_of_normals_is_hyperbolic() -> None:
    metric = FisherRaoMetric(lambda z: Normal(z[..., :1], z[..., 1:].exp()))
    a, b = draw(2, 8, 2)
    (m, s), (n, t) = (x.unbind(-1) for x in (a, b))
    s, t = s.exp(), t.exp()
    exact = math.sqrt(2) * torch.acosh(1 + ((m - n) ** 2 / 2 + (s - t) ** 2) / (2 * s * t))
    assert torch.allclose(metric.distance(a, b), exact, rtol=1e-11, atol=0)


def test_the_line_of_bernoulli_laws_is_as_long_as_pi() -> None:
    metric = FisherRaoMetric(lambda z: Bernoulli(logits=z))
    for reach in (1.0, 3.0, 9.0):
        a, b = torch.full((1,), -reach, dtype=DOUBLE), torch.full((1,), reach, dtype=DOUBLE)
        p, q = (2 * torch.sigmoid(x).sqrt().asin() for x in (a, b))
        assert torch.allclose(metric.distance(a, b), q - p, rtol=1e-9)
    assert abs((q - p).item() - math.pi) < 0.05


def test_equators_of_a_torus() -> None:
    metric = PulledBackMetric(torus)
    along = torch.linspace(0.2, 1.6, 5, dtype=DOUBLE)
    inner = torch.stack([0 * along, torch.full_like(along, math.pi)], -1)  # the inner equator
    ahead = inner + torch.stack([along, 0 * along], -1)
    assert torch.allclose(metric.distance(inner, ahead), along, rtol=1e-11)
    outer = ahead * torch.tensor([1.0, 0.0])
    straight = metric.geodesic(0 * outer, outer)
    assert torch.allclose(straight.length, 3 * along, rtol=1e-11)  # K = 1/3: minima to π√3/3


def test_a_saddle_is_left_for_a_minimum() -> None:
    """Half way round the outer equator is a geodesic by symmetry, and not the shortest one."""
    metric = PulledBackMetric(torus)
    a, b = torch.zeros(1, 2, dtype=DOUBLE), torch.tensor([[3.0, 0.0]], dtype=DOUBLE)
    path = metric.geodesic(a, b, starts=ONE_START)
    assert path.length.item() < 9 - 0.5
    assert path.report.morse_index.item() == 0
    around = Curve(metric, Mesh(8, 8), Mesh(8, 8).times[:, None] * b)
    assert second_variation(around).morse_index.item() == 1


@pytest.mark.parametrize(("length", "index"), [(2.0, 0), (3.1, 0), (3.2, 1), (6.0, 1), (6.4, 2)])
def test_morse_index_past_conjugate_points(length: float, index: int) -> None:
    """Each point conjugate to the first, π apart on the sphere, adds d - 1 to the index."""

    def equator(t: Tensor) -> Tensor:
        angle = (length * t).unsqueeze(-1)
        return torch.cat([angle.cos(), angle.sin(), 0 * angle], -1)

    found = second_variation(Curve.through(SPHERE_IN_SPACE, equator))
    assert found.morse_index.item() == 2 * index
    assert abs(found.smallest.item() - (1 - (length / math.pi) ** 2)) < 1e-5


def test_near_antipodes_are_right_or_flagged() -> None:
    a = 0.5 * draw(24, 2)
    x = -lift(a)
    antipode = x[..., :-1] / (1 - x[..., -1:])
    aside = torch.stack([-antipode[..., 1], antipode[..., 0]], -1)
    for distance in (0.3, 0.03):
        b = antipode + distance * (draw(24, 1, seed=1) * aside - antipode)
        path = SPHERE_IN_SPACE.geodesic(a, b, raise_on_failure=False)
        found, exact = path.report.converged, great_circle(a, b)
        assert torch.allclose(path.length[found], exact[found], rtol=1e-8)
        assert found.double().mean() >= 0.9
        assert torch.equal(path.length.isnan(), path.report.status >= Status.NOT_CONVERGED)


def test_a_decoder_against_a_fine_reference() -> None:
    metric = PulledBackMetric(tanh_decoder())
    a, b = 1.2 * draw(2, 12, 2)
    path = metric.geodesic(a, b)
    fine = connect(
        metric, a, b, start=path, solver=Spectral(levels=(Mesh(32, 12),), tolerance=1e-9)
    )
    excess = path.length / fine.length - 1
    assert excess.abs().median() < 1e-9
    assert excess.max() < 1e-8
    assert bool((path.report.gap >= excess - 1e-13).all())  # the estimate is not optimistic
    assert bool((path.length <= metric_length_of_line(metric, a, b)).all())


def metric_length_of_line(metric: RiemannianMetric, a: Tensor, b: Tensor) -> Tensor:
    return Curve.through(metric, lambda t: a[:, None] + t[:, None] * (b - a)[:, None]).length


def test_both_energies_find_the_same_geodesics() -> None:
    """A pull-back as such, and as a metric of which no more is known."""
    embedded = PulledBackMetric(tanh_decoder(3))
    plain = RiemannianMetric.from_function(lambda z: embedded.jet(z, 0).g, check=False)
    a, b = 0.8 * draw(2, 4, 3)
    assert torch.allclose(embedded.distance(a, b), plain.distance(a, b), rtol=1e-9)


@pytest.mark.parametrize("structure", ["diagonal", "full"])
def test_paths_of_a_data_metric_solve_the_equation(structure: str) -> None:
    angle = torch.linspace(0, math.pi, 60, dtype=DOUBLE)
    data = torch.stack([angle.cos(), angle.sin()], -1) + 0.05 * draw(60, 2)
    metric = LocalVarianceMetric(data, 0.3, 0.1, structure=structure)
    path = metric.geodesic(data[:6], data[-6:])
    line = metric_length_of_line(metric, data[:6], data[-6:])
    assert bool((path.length < 0.9 * line).all())  # the data's arc is shorter than its chord
    assert path.report.residual.max() < 0.1
    assert path.report.gap.max() < 1e-8


@pytest.mark.thorough
def test_collocation_finds_the_same_geodesics() -> None:
    a, b = 0.5 * draw(2, 3, 2)
    path = SPHERE.geodesic(a, b, solver=Collocation())
    assert torch.allclose(path.length, great_circle(a, b), rtol=1e-8)
    assert path.report.gap.max() < 1e-8
    outside = torch.tensor([[1.5, 0.4]], dtype=DOUBLE)
    lost = BALL.geodesic(0.3 * a[:1], outside, solver=Collocation(), raise_on_failure=False)
    assert lost.report.status.item() != Status.MINIMUM
    assert not bool(lost.report.converged.any())


def test_known_failures_are_never_lines() -> None:
    """Sheets that no curve joins: the ball and its outside, and both sides of a wall of NaN."""
    a = torch.tensor([[0.3, 0.1], [0.2, 0.0]], dtype=DOUBLE)
    b = torch.tensor([[1.5, 0.4], [0.1, 0.3]], dtype=DOUBLE)
    wall = RiemannianMetric.from_function(
        lambda z: (
            torch.where((z[..., :1, None] - 0.9).abs() < 0.1, torch.nan, torch.eye(2, dtype=DOUBLE))
            * (1 + z[..., 1:, None] ** 2)
        ),
        check=False,
    )
    for metric in (BALL, wall):
        path = metric.geodesic(a, b, starts=ONE_START, raise_on_failure=False)
        assert path.report.converged.tolist() == [False, True]
        assert path.length.isnan().tolist() == [True, False]
        assert bool(path(0.5)[0].isnan().all())
        assert metric.distance(a, b, starts=ONE_START, raise_on_failure=False).isnan().tolist() == [
            True,
            False,
        ]
        with pytest.raises(CurveError, match="1 of 2 curves were not found") as caught:
            metric.geodesic(a, b, starts=ONE_START)
        assert caught.value.report.status[0] != Status.MINIMUM
    outside = torch.tensor([[0.9, 0.0]], dtype=DOUBLE)
    report = wall.geodesic(a[:1], outside, raise_on_failure=False).report
    assert report.status.item() == Status.LEFT_DOMAIN


def test_pairs_without_a_minimum_are_tried_from_bent_lines() -> None:
    """The line between two points beside a hill runs over its top, a saddle of the energy."""
    hill = PulledBackMetric(
        lambda z: torch.cat([z, 4 * torch.exp(-2 * (z * z).sum(-1, keepdim=True))], -1)
    )
    a = torch.tensor([[-1.5, 0.0], [-1.5, 0.4]], dtype=DOUBLE)
    path = hill.geodesic(a, -a)
    assert bool((path.length < metric_length_of_line(hill, a, -a) - 0.5).all())
    assert bool((path(0.5).norm(dim=-1) > 0.5).all())  # round the hill


def test_the_shortest_of_several_starts_is_kept() -> None:
    """Past the side of a hill a straight start ends at the longer of two minima."""
    hill = PulledBackMetric(
        lambda z: torch.cat([z, 3 * torch.exp(-2 * (z * z).sum(-1, keepdim=True))], -1)
    )
    heights = torch.linspace(-0.3, 0.3, 7, dtype=DOUBLE)
    a = torch.stack([torch.full_like(heights, -1.5), heights], -1)
    b = torch.stack([torch.full_like(heights, 1.5), 0.1 - heights.flip(0)], -1)
    one = hill.distance(a, b, starts=STRAIGHT)
    many = hill.distance(a, b, starts=Starts(grid=0))
    assert bool((many <= one * (1 + 1e-12)).all())
    sides = []
    for bend in (0.5, -0.5):
        wave = bend * (math.pi * torch.linspace(0, 1, 33, dtype=DOUBLE)).sin()
        start = a[:, None] + torch.linspace(0, 1, 33, dtype=DOUBLE)[:, None] * (b - a)[:, None]
        start = start + torch.stack([0 * wave, 3 * wave], -1)
        sides.append(connect(hill, a, b, start=start).length)
    assert torch.allclose(many, torch.minimum(*sides), rtol=1e-9)


def test_too_few_steps_do_not_count_as_convergence() -> None:
    solver = Spectral(levels=(Mesh(8, 8),), most_iterations=1)
    path = SPHERE.geodesic(
        draw(1, 2), draw(1, 2, seed=1), solver=solver, starts=STRAIGHT, raise_on_failure=False
    )
    assert path.report.status.item() == Status.NOT_CONVERGED
    assert path.length.isnan().all()


def test_a_corner_is_seen_by_the_gap() -> None:
    """|x| has no second derivative at 0: the order is lost, and the report says so."""
    metric = PulledBackMetric(lambda z: torch.cat([z, 2 * (z[..., :1] - 0.1234).relu()], -1))
    a, b = torch.tensor([[-1.0, 0.0]], dtype=DOUBLE), torch.tensor([[1.0, 1.0]], dtype=DOUBLE)
    strict = metric.geodesic(a, b, raise_on_failure=False)
    assert strict.report.status.item() != Status.MINIMUM or strict.report.gap.item() < 1e-8
    with pytest.raises(CurveError):
        metric.geodesic(a, b, solver=Spectral(levels=(Mesh(8, 2), Mesh(8, 4))))


def test_equal_end_points() -> None:
    a = draw(3, 2)
    b = torch.cat([a[:1], draw(2, 2, seed=5)])
    path = SPHERE.geodesic(a, b)
    assert path.length[0].item() == 0
    assert path.velocity(0.3)[0].abs().max().item() == 0
    assert SPHERE.log(a, a).abs().max().item() == 0
    assert not path.length.isnan().any()
    assert SPHERE.distances(a).diagonal().abs().max().item() == 0


def test_batches_and_precision() -> None:
    a, b = draw(2, 3, 2), draw(3, 2, seed=1)
    path = SPHERE.geodesic(a, b)
    assert path.length.shape == (2, 3)
    assert path(torch.tensor([0.1, 0.2])).shape == (2, 3, 2, 2)
    assert torch.allclose(SPHERE.distance(a[0, 0], b[0]), path.length[0, 0])
    single = SPHERE_IN_SPACE.geodesic(0.5 * a[0].float(), 0.5 * b.float())
    exact = great_circle(0.5 * a[0], 0.5 * b)
    assert single.length.dtype == torch.float32
    assert torch.allclose(single.length.double(), exact, rtol=1e-5)
    assert SPHERE.geodesic(a[:0, 0], b[0]).length.shape == (0,)


def test_the_gradient_of_the_distance() -> None:
    a, b = (0.5 * draw(4, 2, seed=s) for s in (0, 1))
    a.requires_grad_()
    ours, exact = SPHERE.distance(a, b), great_circle(a, b)
    assert torch.allclose(*[torch.autograd.grad(x.sum(), a)[0] for x in (ours, exact)], rtol=1e-6)
    scale = torch.tensor(2.0, dtype=DOUBLE, requires_grad=True)
    metric = PulledBackMetric(lambda z: scale * lift(z))
    length = metric.distance(a.detach(), b)
    slope = torch.autograd.grad(length.sum(), scale)[0]
    assert torch.allclose(slope, exact.sum(), rtol=1e-9)
    same = SPHERE.distance(a, a.detach())
    assert torch.autograd.grad(same.sum(), a)[0].abs().max() == 0


def test_distance_matrices() -> None:
    x, y = 0.6 * draw(4, 2), 0.6 * draw(3, 2, seed=1)
    exact = great_circle(x[:, None], y[None])
    assert torch.allclose(SPHERE_IN_SPACE.distances(x, y, pairs_at_once=5), exact, rtol=1e-11)
    whole = SPHERE_IN_SPACE.distances(x)
    assert torch.equal(whole, whole.T)
    assert torch.allclose(whole, great_circle(x[:, None], x[None]), rtol=1e-11)
    outside = torch.tensor([[1.5, 0.0]], dtype=DOUBLE)
    pairs = (0.3 * x, torch.cat([0.1 * y, outside]))
    lengths = BALL.distances(*pairs, starts=ONE_START, raise_on_failure=False)
    assert lengths.isnan().tolist() == [[False] * 3 + [True]] * 4


A = draw(3, 2)
BAD = {
    "NaN": (lambda: SPHERE.geodesic(A * math.nan, A), "a: expected finite"),
    "infinite": (lambda: SPHERE.geodesic(A, A / 0), "b: expected finite"),
    "batches": (lambda: SPHERE.geodesic(A, A[:2]), "batch dimensions that broadcast"),
    "coordinates": (lambda: SPHERE.geodesic(A, A[:, :1]), "b: expected a tensor"),
    "half": (lambda: SPHERE.geodesic(A.half(), A.half()), "float32 or float64"),
    "complex": (lambda: SPHERE.geodesic(A + 0j, A + 0j), "a: expected a real"),
    "time": (lambda: SPHERE.geodesic(A, A / 2)(1.5), r"t: expected .* in \[0, 1\]"),
    "table of times": (lambda: SPHERE.geodesic(A, A / 2)(torch.zeros(2, 2)), "t: expected"),
    "start": (lambda: SPHERE.geodesic(A, -A, start=A), "start: expected points"),
    "one point": (lambda: SPHERE.distances(A[0]), r"x: expected points \[N, d\]"),
}


@pytest.mark.parametrize("case", BAD)
def test_bad_input(case: str) -> None:
    call, message = BAD[case]
    with pytest.raises(InputError, match=message):
        call()


def test_float32_is_polished_in_float64() -> None:
    """The search is float32's, the answer float64's; the report says so."""
    a, b = (0.5 * draw(6, 2, seed=s).float() for s in (0, 1))
    exact = great_circle(a.double(), b.double())

    class Lift(nn.Module):
        def forward(self, z: Tensor) -> Tensor:
            return lift(z)

    sphere = PulledBackMetric(Lift())
    rough = sphere.geodesic(a, b)
    path = sphere.geodesic(a, b, polish=True)
    assert path.length.dtype == torch.float64
    assert torch.allclose(path.length, exact, rtol=1e-11)
    assert not torch.allclose(rough.length.double(), exact, rtol=1e-9)
    assert bool(path.report.polished.all())
    assert not bool(rough.report.polished.any())
    assert bool((path.report.evaluations > rough.report.evaluations).all())
    assert path.report.starts.tolist() == rough.report.starts.tolist()
    with pytest.raises(InputError, match="polish: expected end points in float32"):
        sphere.geodesic(a.double(), b.double(), polish=True)
