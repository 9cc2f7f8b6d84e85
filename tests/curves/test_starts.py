"""First guesses: which curves each of them finds that others miss, and how many agreed."""

import math

import pytest
import torch
from torch import Tensor

from kahler_verify.curves import (
    STRAIGHT,
    Collocation,
    Mesh,
    Polygon,
    Solver,
    Spectral,
    Spline,
    Starts,
    Status,
    connect,
)
from kahler_verify.curves.connect.starts import bent, moved, resampled, straight
from kahler_verify.errors import InputError
from kahler_verify.geometry.pulled_back import PulledBackMetric
from kahler_verify.geometry.riemannian import RiemannianMetric
from tests.manifolds import DOUBLE, draw, rough


def torus(z: Tensor) -> Tensor:
    u, v = z.unbind(-1)
    ring = 2 + v.cos()
    return torch.stack([ring * u.cos(), ring * u.sin(), v.sin()], -1)


TORUS = PulledBackMetric(torus)
FLAT_TORUS = RiemannianMetric.from_function(
    lambda z: torch.eye(2, dtype=z.dtype).expand(*z.shape, 2)
)
PERIODS = (2 * math.pi, 2 * math.pi)


def test_guesses_begin_and_end_where_they_should() -> None:
    a, b = draw(2, 5, 2)
    starts = Starts(codes=draw(40, 2, seed=3))
    guesses, paths, evaluations = starts.guesses(TORUS, a, b)
    assert paths == 2
    assert guesses.shape == (5, 5, 33, 2)
    assert bool(guesses.isfinite().all())
    for guess in guesses:
        assert torch.equal(guess[:, 0], a)
        assert torch.equal(guess[:, -1], b)
    assert bool((evaluations >= 32 * 32 // 5).all())
    assert torch.allclose(resampled(straight(a, b), Mesh(4, 2).times)[:, 4], (a + b) / 2)
    aside = bent(a, b, 0.3)[:, 16] - (a + b) / 2
    assert torch.allclose(aside.norm(dim=-1), 0.3 * (b - a).norm(dim=-1))
    assert (aside * (b - a)).sum(-1).abs().max() < 1e-14


def test_translates_round_a_torus() -> None:
    """Seven eighths of the way round the tube, the short way is the other one."""
    a = torch.tensor([[0.3, -2.7], [0.0, 0.0]], dtype=DOUBLE)
    b = torch.tensor([[0.3, 2.8], [0.5, 0.0]], dtype=DOUBLE)
    one = TORUS.geodesic(a, b, starts=STRAIGHT)
    path = TORUS.geodesic(a, b, starts=Starts(periods=PERIODS))
    assert math.isclose(one.length[0].item(), 5.5, rel_tol=1e-10)
    assert math.isclose(path.length[0].item(), 2 * math.pi - 5.5, rel_tol=1e-10)
    assert math.isclose(path.length[1].item(), 1.5, rel_tol=1e-10)
    assert torch.allclose(torus(path(1.0)), torus(b), atol=1e-14)
    turn = (path(1.0) - b)[0] / (2 * math.pi)
    assert torch.allclose(turn, torch.tensor([0.0, -1.0], dtype=DOUBLE))
    apart = torch.remainder(b - a + math.pi, 2 * math.pi) - math.pi
    flat = FLAT_TORUS.distance(a, b, starts=Starts(periods=PERIODS))
    assert torch.allclose(flat, apart.norm(dim=-1), rtol=1e-13)
    same = TORUS.distance(a, a + torch.tensor([0.0, 2 * math.pi]), starts=Starts(periods=PERIODS))
    assert same.abs().max() < 1e-6  # energies of 1e-15, in rounding of sin(2π), have such roots


def test_the_shortest_way_round_a_wall_is_found_on_a_grid() -> None:
    """A long wall with a door far aside: neither lines nor bent ones come near it."""

    def wall(z: Tensor) -> Tensor:
        x, y = z.unbind(-1)
        door = torch.sigmoid(4 * (y - 1.2))
        return torch.stack([x, y, 3 * torch.exp(-8 * x**2) * (1 - door)], -1)

    metric = PulledBackMetric(wall)
    a = torch.tensor([[-1.0, -1.0], [-1.0, 1.6]], dtype=DOUBLE)
    b = torch.tensor([[1.0, -1.0], [1.0, -0.5]], dtype=DOUBLE)
    lines = metric.distance(a, b, starts=STRAIGHT, raise_on_failure=False)
    grid = metric.geodesic(a, b, starts=Starts(bends=()))
    codes = torch.stack(torch.meshgrid(*[torch.linspace(-2, 2, 17, dtype=DOUBLE)] * 2), -1)
    graph = metric.distance(
        a[1:], b[1:], starts=Starts(bends=(), grid=0, codes=codes.reshape(-1, 2))
    )
    assert not bool(lines[0] < 1.05 * grid.length[0])  # or not resolved
    assert grid(0.5)[0, 1] > 0.7  # through the door
    assert torch.allclose(graph, grid.length[1:], rtol=1e-9)
    assert grid.report.agreeing.tolist()[0] == 1
    assert grid.report.starts.tolist() == [2, 2]


@pytest.mark.parametrize("gain", [2.0, pytest.param(2.5, marks=pytest.mark.thorough)])
def test_starts_mend_the_triangle_inequality(gain: float) -> None:
    """From lines alone, lengths of local minima violate it."""
    metric, x = rough(gain), 1.5 * draw(12, 2, seed=1)[:8]

    def violation(starts: Starts) -> float:
        length = metric.distances(x, starts=starts, raise_on_failure=False)
        assert length.isnan().double().mean() < 0.2
        excess = length[:, None] - length[:, :, None] - length[None]
        return (excess.nan_to_num(0).max() / length.nan_to_num(0).max()).item()

    assert violation(STRAIGHT) > 1e-2
    assert violation(Starts()) < 1e-7


def test_reports_count_starts_that_agree() -> None:
    a, b = 0.3 * draw(2, 4, 2)
    report = FLAT_TORUS.geodesic(a, b).report
    assert report.agreeing.tolist() == [4] * 4
    assert report.starts.tolist() == [4] * 4
    assert FLAT_TORUS.geodesic(a, a).report.agreeing.tolist() == [1] * 4
    alone = connect(FLAT_TORUS, a, b, start=bent(a, b, 0.2))
    assert alone.report.starts.tolist() == [1] * 4


def test_parts_of_a_graph_that_hang_not_together_give_no_guess() -> None:
    codes = torch.cat([0.1 * draw(20, 2), 50 + 0.1 * draw(20, 2)])
    a, b = codes[:1] + 0.01, codes[-1:] + 0.01
    guesses = Starts(bends=(), grid=0, codes=codes).guesses(FLAT_TORUS, a, b)
    assert bool(guesses.points[1].isnan().all())
    path = FLAT_TORUS.geodesic(a, b, starts=Starts(bends=(), grid=0, codes=codes))
    assert path.report.starts.item() == 1
    assert torch.allclose(path.length, (b - a).norm(dim=-1))


A = draw(3, 2)
BAD = {
    "periods": (Starts(periods=(1.0,)), "periods: expected 2 finite numbers"),
    "no period": (Starts(periods=(0.0, 3.0)), "periods: expected the metric to repeat"),
    "codes": (Starts(codes=draw(4, 3)), r"codes: expected points \[N, 2\]"),
}


@pytest.mark.parametrize("case", BAD)
def test_bad_starts(case: str) -> None:
    starts, message = BAD[case]
    with pytest.raises(InputError, match=message):
        TORUS.geodesic(A, -A, starts=starts)


def test_one_guess_or_several() -> None:
    with pytest.raises(InputError, match="start, starts: expected one"):
        TORUS.geodesic(A, -A, start=straight(A, -A), starts=Starts())


def test_every_solver_is_given_several_starts() -> None:
    few = Spectral(levels=(Mesh(8, 8),), most_iterations=1)
    report = TORUS.geodesic(A, -A, solver=few, raise_on_failure=False).report
    assert report.agreeing.tolist() == [0] * 3


@pytest.mark.parametrize("solver", [Spline(), Polygon(), Collocation()], ids=repr)
def test_other_solvers_agree_as_far_as_they_go(solver: Solver) -> None:
    """Their curves are longer than the geodesic, by no more than their reports' gaps say."""
    metric = rough(1.3)
    a, b = 0.8 * draw(2, 3, 2)
    best = metric.distance(a, b)
    path = metric.geodesic(a, b, solver=solver, starts=STRAIGHT)
    excess = path.length / best - 1
    assert bool((excess > -1e-10).all())
    assert bool((excess < 5e-3).all())
    assert bool((path.report.gap >= 0.3 * excess - 1e-10).all())
    assert bool((path.report.evaluations > 100).all())


def test_a_solver_that_has_not_arrived_says_so() -> None:
    metric, (a, b) = rough(2.0), 1.2 * draw(2, 2, 2)
    for solver in (Spline(most_iterations=2), Polygon(most_iterations=2)):
        path = metric.geodesic(a, b, solver=solver, starts=STRAIGHT, raise_on_failure=False)
        assert not bool(path.report.converged.any())
        assert bool(path.length.isnan().all() | (path.report.status == Status.SADDLE).any())


def test_a_start_is_moved_with_its_ends() -> None:
    """Else its first step is a corner, which costs a step of Newton's method to forget."""
    points = draw(3, 9, 2)
    a, b = draw(2, 3, 2, seed=1)
    found = moved(points, a, b)
    assert torch.equal(found[:, 0], a)
    assert torch.equal(found[:, -1], b)
    aside = found - points
    middle = ((a - points[:, 0]) + (b - points[:, -1])) / 2
    assert torch.allclose(aside[:, 4], middle, rtol=1e-12)
    assert torch.allclose(aside.diff(n=2, dim=1), torch.zeros(3, 7, 2, dtype=DOUBLE), atol=1e-12)
