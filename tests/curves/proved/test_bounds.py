"""Bounds of distances, and that a saddle is never taken for a minimum."""

import math

import pytest
import torch
from torch import Tensor, nn

from kahler_verify.curves import (
    Collocation,
    Curve,
    Mesh,
    Spectral,
    Status,
    bounds,
    connect,
    distances,
)
from kahler_verify.curves.connect import spectral
from kahler_verify.errors import InputError
from kahler_verify.geometry.data_metrics import LocalVarianceMetric
from kahler_verify.geometry.pulled_back import PulledBackMetric
from tests.manifolds import DOUBLE, draw, lift


def decoder(activation: nn.Module) -> nn.Sequential:
    with torch.random.fork_rng():
        torch.manual_seed(0)
        net = nn.Sequential(nn.Linear(2, 12), activation, nn.Linear(12, 12), activation)
        net = nn.Sequential(net, nn.Linear(12, 10)).double()
    for layer in net.modules():
        if isinstance(layer, nn.Linear):
            generator = torch.Generator().manual_seed(layer.in_features)
            nn.init.normal_(layer.weight, 0, 1.3 / layer.in_features**0.5, generator=generator)
    return net.requires_grad_(False)


@pytest.mark.parametrize("activation", [nn.Tanh(), nn.Sigmoid(), nn.Softplus()])
def test_proved_bounds_enclose_the_length(activation: nn.Module) -> None:
    net = decoder(activation)
    metric = PulledBackMetric(net)
    a, b = draw(2, 2, 2)
    path = metric.geodesic(a, b)
    coarse, fine = bounds(path, segments=64), bounds(path, segments=256)
    assert fine.proved
    chord = (net(a) - net(b)).norm(dim=-1)
    assert bool((fine.upper >= path.length).all())
    assert bool((fine.upper <= coarse.upper).all())
    excess, before = (x.upper / path.length - 1 for x in (fine, coarse))
    assert bool((excess < 2e-4).all())
    assert bool((before / excess > 12).all())  # of second order
    assert torch.allclose(fine.lower, chord, rtol=1e-12)
    assert bool((fine.lower <= chord).all())


@pytest.mark.parametrize("activation", [nn.Tanh(), nn.Sigmoid(), nn.Softplus()])
def test_floats_bound_as_balls_do(activation: nn.Module) -> None:
    """From outside, and closely: they enclose the same formula, with wider rounding."""
    metric = PulledBackMetric(decoder(activation))
    path = metric.geodesic(*draw(2, 3, 2))
    balls, floats = (bounds(path, segments=64, arithmetic=a) for a in ("balls", "floats"))
    assert floats.proved
    assert bool((floats.lower <= balls.lower).all())
    assert torch.allclose(floats.lower, balls.lower, rtol=1e-10)
    assert bool((floats.upper >= path.length).all())
    excess, other = (x.upper / path.length - 1 for x in (floats, balls))
    assert bool((excess <= 1.25 * other + 1e-7).all())
    assert bool((bounds(path, segments=512, arithmetic="floats").upper < floats.upper).all())
    with pytest.raises(InputError, match="arithmetic: expected balls or floats"):
        bounds(path, arithmetic="integers")


def test_reports_have_bounds_where_they_are_asked_for() -> None:
    metric, (a, b) = PulledBackMetric(decoder(nn.Tanh())), draw(2, 3, 2)
    assert bool(metric.geodesic(a, b).report.upper.isnan().all())
    path = metric.geodesic(a, b, segments=128)
    known = bounds(path, segments=128, arithmetic="floats")
    assert torch.equal(path.report.upper, known.upper)
    assert torch.equal(path.report.lower, known.lower)
    report = distances(metric, a, segments=256).report
    apart = ~torch.eye(3, dtype=torch.bool)
    assert bool((report.upper >= report.length).all())
    assert bool((report.lower < report.length)[apart].all())
    assert bool((report.upper < 1.01 * report.length)[apart].all())
    with pytest.raises(InputError, match="segments: expected a number"):
        metric.geodesic(a, b, segments=-1)


def test_the_bound_holds_for_a_curve_that_is_no_geodesic() -> None:
    """Against a fine polygon in data space, which is never longer than the curve."""
    net = decoder(nn.Tanh())

    def wave(t: Tensor) -> Tensor:
        return torch.stack([2 * t - 1, (9 * t).sin()], -1)

    curve = Curve.through(PulledBackMetric(net), wave)
    x = net(curve(torch.linspace(0, 1, 20_001)))
    polygon = (x[1:] - x[:-1]).norm(dim=-1).sum()
    for segments, arithmetic in ((16, "balls"), (128, "floats"), (512, "balls")):
        found = bounds(curve, segments=segments, arithmetic=arithmetic)
        assert found.upper >= polygon
        assert found.lower <= (x[0] - x[-1]).norm()
    assert found.upper < polygon * (1 + 1e-4)


def test_what_is_not_proved_is_called_an_estimate() -> None:
    net = decoder(nn.Tanh())
    unknown = PulledBackMetric(lambda z: net(z))
    a, b = draw(2, 3, 2)
    path = unknown.geodesic(a, b)
    found = bounds(path)
    assert not found.proved
    assert torch.allclose(found.upper, path.length, rtol=1e-10)
    assert bool((found.lower <= path.length).all())
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        gelu = nn.Sequential(nn.Linear(2, 8), nn.GELU(), nn.Linear(8, 6)).double()
    assert not bounds(PulledBackMetric(gelu).geodesic(a, b)).proved
    data = draw(30, 2, seed=3)
    land = LocalVarianceMetric(data, 0.5, 0.1)
    path = land.geodesic(data[:3], data[3:6])
    found = bounds(path)
    assert bool((found.lower > 0).all())
    assert bool((found.lower <= path.length).all())
    bound = land.metric_matrix(draw(200, 2)).diagonal(dim1=1, dim2=2).min().sqrt()
    assert bool((found.lower <= bound * (data[:3] - data[3:6]).norm(dim=-1)).all())


def circles(length: float, d: int) -> Tensor:
    """Great circles [8, 129, d] away from the north pole, in stereographic coordinates."""
    x, v = draw(2, 400, d + 1, seed=d)
    x = x / x.norm(dim=-1, keepdim=True)
    v = v - (v * x).sum(-1, keepdim=True) * x
    v = v / v.norm(dim=-1, keepdim=True)
    t = length * torch.linspace(0, 1, 129, dtype=DOUBLE)[:, None]
    p = t.cos() * x[:, None] + t.sin() * v[:, None]
    p = p[p[..., -1].amax(-1) < 0.7][:8]
    return p[..., :-1] / (1 - p[..., -1:])


@pytest.mark.parametrize("d", [2, 3])
@pytest.mark.parametrize("length", [1.0005, 1.01, 1.1])
def test_planted_saddles_are_recognised(
    length: float, d: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Past the antipode a great circle is no minimum: it must be called a saddle, or be left."""
    metric = PulledBackMetric(lift)
    circle = circles(length * math.pi, d)
    ends = circle[:, 0], circle[:, -1]
    monkeypatch.setattr(spectral, "SADDLES", 0)
    one = Spectral(levels=(Mesh(8, 8),), most_iterations=4)
    report = connect(metric, *ends, start=circle, solver=one, raise_on_failure=False).report
    assert not bool(report.converged.any())
    if length < 1.05:  # farther on, Newton's method slides off it
        assert report.status.tolist() == [Status.SADDLE] * 8
        assert report.morse_index.tolist() == [d - 1] * 8
        assert torch.allclose(report.length, torch.full_like(report.length, length * math.pi))


def test_a_saddle_of_another_solver_is_recognised() -> None:
    metric = PulledBackMetric(lift)
    circle = circles(1.2 * math.pi, 2)[:2]
    path = connect(
        metric,
        circle[:, 0],
        circle[:, -1],
        start=circle,
        solver=Collocation(tolerance=1e-8),
        raise_on_failure=False,
    )
    assert path.report.status.tolist() == [Status.SADDLE] * 2
    assert path.report.morse_index.tolist() == [1] * 2
