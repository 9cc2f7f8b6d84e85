"""Karcher means: known answers, the line search, weights, and what has no mean."""

import math

import pytest
import torch
from torch import Tensor, nn

from kahler_verify.curves import Spectral, mean
from kahler_verify.errors import CurveError, InputError
from kahler_verify.geometry.pulled_back import PulledBackMetric
from kahler_verify.geometry.riemannian import RiemannianMetric
from tests.manifolds import DOUBLE, SPHERE, draw

POLAR = RiemannianMetric.from_function(
    lambda z: torch.diag_embed(torch.stack([torch.ones_like(z[..., 0]), z[..., 0] ** 2], -1))
)


def test_two_points_meet_half_way() -> None:
    x = 0.5 * draw(2, 2)
    found = mean(SPHERE, x)
    path = SPHERE.geodesic(x[0], x[1])
    assert torch.allclose(found.point, path(0.5), atol=1e-6)
    assert torch.allclose(found.variance, path.length**2 / 4, rtol=1e-9)
    weighted = mean(SPHERE, x, torch.tensor([3.0, 1.0], dtype=DOUBLE))
    quarter = SPHERE.distance(weighted.point, x[0]) / path.length
    assert math.isclose(quarter.item(), 0.25, rel_tol=1e-6)


def test_means_of_flat_space_in_polar_coordinates() -> None:
    x = torch.rand(6, 2, dtype=DOUBLE, generator=torch.Generator().manual_seed(0)) + 0.5
    weights = draw(6).abs()
    found = mean(POLAR, x, weights)
    place = torch.stack([x[:, 0] * x[:, 1].cos(), x[:, 0] * x[:, 1].sin()], -1)
    exact = (weights / weights.sum()) @ place
    r, angle = found.point
    assert torch.allclose(torch.stack([r * angle.cos(), r * angle.sin()]), exact, atol=1e-7)


def test_a_regular_polygon_is_centred_from_anywhere() -> None:
    """Symmetry gives the mean; curvature makes steps from afar too long or too short."""
    angle = 2 * math.pi * torch.arange(5, dtype=DOUBLE) / 5
    x = 0.8 * torch.stack([angle.cos(), angle.sin()], -1)
    found = mean(SPHERE, x, start=torch.tensor([0.5, -0.3], dtype=DOUBLE))
    assert found.point.abs().max() < 1e-6
    assert torch.allclose(found.variance, torch.tensor(4 * math.atan(0.8) ** 2, dtype=DOUBLE))
    assert found.converged
    assert found.iterations > 1


def test_a_decoders_mean_is_a_minimum_nearby() -> None:
    with torch.random.fork_rng():
        torch.manual_seed(0)
        net = nn.Sequential(nn.Linear(2, 16), nn.Tanh(), nn.Linear(16, 12)).double()
    metric = PulledBackMetric(net.requires_grad_(False))
    x = draw(5, 2)
    found = mean(metric, x)
    assert found.gradient < 1e-7
    for aside in 0.02 * draw(4, 2, seed=1):
        assert (metric.distance(found.point + aside, x) ** 2).mean() > found.variance
    assert torch.equal(mean(metric, x[:1]).point, x[0])


def test_the_variance_never_rises(monkeypatch: pytest.MonkeyPatch) -> None:
    """On a long thin sphere's side whole steps overshoot; each kept one is lower."""
    from kahler_verify.curves.mean import _Search

    seen = []
    improved = _Search.improved

    def watched(self: _Search, at: tuple[Tensor, ...]) -> tuple[Tensor, ...] | None:
        there = improved(self, at)
        if there is not None:
            seen.append((at.variance.item(), there.variance.item()))
        return there

    monkeypatch.setattr(_Search, "improved", watched)
    hill = PulledBackMetric(
        lambda z: torch.cat([z, 2 * torch.exp(-2 * (z * z).sum(-1, keepdim=True))], -1)
    )
    x = draw(6, 2, seed=2)
    mean(hill, x, raise_on_failure=False)
    assert seen
    assert all(after <= before * (1 + 1e-9) for before, after in seen)


def test_means_have_derivatives() -> None:
    """By points, weights and a decoder's weights, against differences of whole searches."""
    with torch.random.fork_rng():
        torch.manual_seed(0)
        net = nn.Sequential(nn.Linear(2, 12), nn.Tanh(), nn.Linear(12, 8)).double()
    metric, matrix = PulledBackMetric(net), net[0].weight
    x, weights = 0.5 * draw(4, 2), torch.tensor([1.0, 2.0, 0.5, 1.5], dtype=DOUBLE)
    assert not mean(PulledBackMetric(net.requires_grad_(False)), x).point.requires_grad
    matrix.requires_grad_()
    probe, aside = draw(3, seed=1), (draw(4, 2, seed=2), draw(4, seed=3), draw(12, 2, seed=4))

    def looked_at(x: Tensor, weights: Tensor) -> Tensor:
        found = mean(metric, x, weights, tolerance=1e-10, solver=Spectral(tolerance=1e-12))
        return found.point @ probe[:2] + found.variance * probe[2]

    inputs = (x.clone().requires_grad_(), weights.clone().requires_grad_())
    slopes = torch.autograd.grad(looked_at(*inputs), (*inputs, matrix))
    step = 1e-4
    for case, (slope, along) in enumerate(zip(slopes, aside, strict=True)):
        ends = []
        for sign in (1, -1):
            moved = [x, weights, matrix.detach().clone()]
            moved[case] = moved[case] + sign * step * along
            with torch.no_grad():
                before = matrix.clone()
                matrix.copy_(moved[2])
                ends.append(looked_at(*moved[:2]).item())
                matrix.copy_(before)
        difference = (ends[0] - ends[1]) / (2 * step)
        assert abs((slope * along).sum().item() - difference) < 1e-5 * (1 + abs(difference))


X = draw(3, 2)
BAD = {
    "one point": (lambda: mean(SPHERE, X[0]), r"x: expected points \[N, d\]"),
    "none": (lambda: mean(SPHERE, X[:0]), "with N ≥ 1"),
    "number of weights": (lambda: mean(SPHERE, X, torch.ones(2, dtype=DOUBLE)), "weights: expect"),
    "negative": (lambda: mean(SPHERE, X, -torch.ones(3, dtype=DOUBLE)), "none negative"),
    "no weight": (lambda: mean(SPHERE, X, torch.zeros(3, dtype=DOUBLE)), "not all 0"),
    "start": (lambda: mean(SPHERE, X, start=X), "start: expected a point"),
    "complex": (lambda: mean(SPHERE, X + 0j), "x: expected a real"),
}


@pytest.mark.parametrize("case", BAD)
def test_bad_input(case: str) -> None:
    call, message = BAD[case]
    with pytest.raises(InputError, match=message):
        call()


def test_no_mean_is_an_error() -> None:
    with pytest.raises(CurveError, match="the mean was not found in 1 steps"):
        mean(SPHERE, draw(4, 2), most_iterations=1)
    assert not mean(SPHERE, draw(4, 2), most_iterations=1, raise_on_failure=False).converged
