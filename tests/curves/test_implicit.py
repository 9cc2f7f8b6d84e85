"""Derivatives of geodesics by end points and parameters, against differences of whole searches."""

import pytest
import torch
from torch import Tensor, nn

from kahler_verify.curves import Spectral
from kahler_verify.geometry.pulled_back import PulledBackMetric
from kahler_verify.geometry.riemannian import RiemannianMetric
from tests.manifolds import DOUBLE, draw, given, network

FINE = Spectral(tolerance=1e-12)


def pulled_back(net: nn.Module) -> RiemannianMetric:
    return PulledBackMetric(net)


@pytest.mark.parametrize("make", [pulled_back, given])
def test_derivatives_are_those_of_differences(make: type) -> None:
    net = network()
    a, b = 0.7 * draw(2, 3, 2)
    weights = net[0].weight
    times = torch.tensor([0.3, 0.7], dtype=DOUBLE)
    aside, other, shift = draw(3, 2, seed=1), draw(3, 2, seed=2), draw(*weights.shape, seed=3)

    def looked_at(a: Tensor, b: Tensor) -> Tensor:
        path = make(net).geodesic(a, b, solver=FINE)
        return torch.cat([path(times).flatten(), path.length, path.energy])

    a.requires_grad_()
    b.requires_grad_()
    values = looked_at(a, b)
    probe = draw(len(values), seed=4)
    slopes = torch.autograd.grad((values * probe).sum(), (a, b, weights))
    step = 1e-4
    cases = ((aside, None, None), (None, other, None), (None, None, shift))
    for case, slope, along in zip(cases, slopes, (aside, other, shift), strict=True):
        ends = []
        for sign in (1, -1):
            with torch.no_grad():
                if case[2] is not None:
                    weights += sign * step * shift
                first = a if case[0] is None else a + sign * step * aside
                last = b if case[1] is None else b + sign * step * other
                ends.append((looked_at(first, last) * probe).sum().item())
                if case[2] is not None:
                    weights -= sign * step * shift
        difference = (ends[0] - ends[1]) / (2 * step)
        assert abs((slope * along).sum().item() - difference) < 1e-5 * (1 + abs(difference))


def test_the_first_variation_of_length() -> None:
    """∂L/∂b = g(ż(1), ·)/L, and ∂L/∂a = -g(ż(0), ·)/L."""
    metric = pulled_back(network().requires_grad_(False))
    a, b = 0.7 * draw(2, 4, 2)
    a.requires_grad_()
    b.requires_grad_()
    path = metric.geodesic(a, b, solver=FINE)
    slopes = torch.autograd.grad(path.length.sum(), (a, b))
    for time, sign, slope in ((0.0, -1, slopes[0]), (1.0, 1, slopes[1])):
        covector = metric.metric_vector_product(path.velocity(time), path(time))
        assert torch.allclose(slope, sign * covector / path.length[:, None], atol=1e-6)
    again = torch.autograd.grad(metric.distance(a, b, solver=FINE).sum(), (a, b))
    for one, other in zip(slopes, again, strict=True):
        assert torch.allclose(one, other, atol=1e-6)


def test_nothing_is_recorded_where_nothing_depends() -> None:
    path = pulled_back(network().requires_grad_(False)).geodesic(*draw(2, 3, 2))
    assert not path.nodes.requires_grad
    with torch.no_grad():
        assert not pulled_back(network()).geodesic(*draw(2, 3, 2)).nodes.requires_grad


def test_curves_that_were_not_found_leave_the_others_their_derivatives() -> None:
    ball = RiemannianMetric.from_function(
        lambda z: (
            (4 / (1 - (z * z).sum(-1)) ** 2)[..., None, None]
            * torch.where((z * z).sum(-1) < 1, 1.0, torch.nan)[..., None, None]
            * torch.eye(2, dtype=DOUBLE)
        ),
        check=False,
    )
    a = torch.tensor([[0.1, 0.2], [0.1, 0.2]], dtype=DOUBLE, requires_grad=True)
    b = torch.tensor([[0.5, -0.3], [1.5, 0.0]], dtype=DOUBLE)
    path = ball.geodesic(a, b, raise_on_failure=False)
    slope = torch.autograd.grad(path(0.5)[0].sum(), a)[0]
    assert bool((slope[0] != 0).all())
    assert bool((slope[1] == 0).all())


@pytest.mark.parametrize("make", [pulled_back, given])
def test_the_logarithm_has_derivatives(make: type) -> None:
    metric = make(network().requires_grad_(False))
    a, b = 0.7 * draw(2, 2, 2)
    probe, aside, step = draw(2, 2, seed=5), draw(2, 2, seed=6), 1e-4
    b.requires_grad_()
    slope = torch.autograd.grad((metric.log(a, b, solver=FINE) * probe).sum(), b)[0]
    with torch.no_grad():
        ends = [metric.log(a, b + h * aside, solver=FINE) for h in (step, -step)]
    difference = ((ends[0] - ends[1]) * probe).sum() / (2 * step)
    assert torch.allclose((slope * aside).sum(), difference, rtol=1e-5)
