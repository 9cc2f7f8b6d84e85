"""Lower bounds by a potential: never above the distance, close to it, and what they are of."""

import math

import pytest
import torch
from torch import nn

from kahler_verify.curves import bounds, dual_bound
from kahler_verify.curves.proved import dual
from kahler_verify.curves.proved.dual import _Search
from kahler_verify.curves.proved.triangles import Grid, enclosed, sampled
from kahler_verify.errors import InputError
from kahler_verify.geometry.pulled_back import PulledBackMetric
from kahler_verify.geometry.riemannian import RiemannianMetric
from tests.manifolds import DOUBLE, draw


def decoder(activation: nn.Module) -> nn.Sequential:
    layers = [nn.Linear(2, 16), activation, nn.Linear(16, 16), activation, nn.Linear(16, 10)]
    for n, layer in enumerate(layers[::2]):
        nn.init.normal_(
            layer.weight, 0, layer.in_features**-0.5, generator=torch.Generator().manual_seed(n)
        )
        nn.init.zeros_(layer.bias)
    return nn.Sequential(*layers).double().requires_grad_(False)


HALF_PLANE = RiemannianMetric.from_function(
    lambda z: torch.eye(2, dtype=z.dtype) / z[..., 1, None, None] ** 2
)


def test_a_flat_metric_is_bounded_almost_exactly() -> None:
    linear = nn.Linear(2, 3).double().requires_grad_(False)
    a, b = draw(2, 3, 2)
    found = dual_bound(PulledBackMetric(nn.Sequential(linear)), a, b, cells=24)
    exact = (linear(a) - linear(b)).norm(dim=-1)
    assert found.proved
    assert bool((found.lower <= exact).all())
    assert bool((found.lower >= exact * (1 - 1e-3)).all())


def test_the_half_plane() -> None:
    a = torch.tensor([[0.0, 1.0], [0.3, 0.8]], dtype=DOUBLE)
    b = torch.tensor([[1.0, 1.5], [1.0, 2.0]], dtype=DOUBLE)
    squared = ((a - b) ** 2).sum(-1)
    exact = torch.acosh(1 + squared / (2 * a[:, 1] * b[:, 1]))
    box = torch.tensor([[-0.5, 0.5], [1.5, 2.5]])
    coarse, fine = (dual_bound(HALF_PLANE, a, b, box=box, cells=n) for n in (20, 80))
    assert not fine.proved
    for found, gap in ((coarse, 0.12), (fine, 0.04)):
        assert bool((found.lower <= exact).all())
        assert bool((found.lower >= exact * (1 - gap)).all())


@pytest.mark.parametrize("activation", [nn.Softplus(), nn.Tanh()])
def test_decoders_are_bounded_within_a_few_per_cent(activation: nn.Module) -> None:
    metric = PulledBackMetric(decoder(activation))
    a, b = (1.0 if isinstance(activation, nn.Softplus) else 0.4) * draw(2, 2, 2)
    path = metric.geodesic(a, b)
    found = bounds(path, segments=128, arithmetic="floats", cells=80)
    assert found.proved
    assert bool((found.inside <= path.length).all())
    assert bool((found.inside >= 0.95 * path.length).all())
    assert bool((found.inside >= found.lower).all())
    assert bool((found.box[0] <= torch.minimum(a, b).amin(0)).all())
    assert bounds(path).inside is None


def test_metrics_are_enclosed_on_every_triangle() -> None:
    """M ⪯ g at random points of each, and not by much."""
    net = decoder(nn.Tanh())
    metric = PulledBackMetric(net)
    grid = Grid(torch.tensor([[-0.4, -0.3], [0.6, 0.5]], dtype=DOUBLE), 20)
    below = enclosed(list(net), grid)
    most = sampled(metric, grid, DOUBLE)
    for seed in range(20):
        u = 2 * torch.rand(2, dtype=DOUBLE, generator=torch.Generator().manual_seed(seed)) - 1
        upper = int(u[0] < u[1])
        g = metric.metric_matrix(grid.middle + grid.half * u)
        assert torch.linalg.eigvalsh(g - below[upper]).min() >= 0
    volume, most = (m.det().clamp_min(0).sqrt().mean() for m in (below, most))
    assert 0.7 * most < volume < most


def test_a_potential_is_judged_by_its_steepest_triangle() -> None:
    """Whatever φ is offered, the bound holds: one that cheats is scaled down."""
    metric = PulledBackMetric(decoder(nn.Tanh()))
    a, b = 0.3 * draw(2, 1, 2)
    length = metric.distance(a, b)
    grid = Grid(dual._box(torch.stack([a, b]), None), 16)
    search = _Search(grid, enclosed(list(metric.function), grid))
    aim = search.aim(a[0], b[0])
    for seed in range(5):
        value, phi = search.certified(draw(17 * 17, seed=seed).numpy(), aim)
        assert value <= length
    steep = 1e6 * draw(17 * 17).numpy()
    assert search.certified(steep, aim)[0] <= length
    value, phi = search.certified(search.searched(aim, 200, None)[0], aim)
    assert value > 0.5 * length
    assert math.isclose(aim @ phi.flatten().numpy(), value, rel_tol=1e-9)
    assert search.certified(0 * steep, aim)[0] == 0
    search.below[:, 40] = 0  # where nothing is known of g, φ may not change
    assert search.certified(steep, aim)[0] == 0


A = draw(2, 2)
BAD = {
    "no plane": (lambda: dual_bound(PulledBackMetric(lambda z: z), draw(1, 3), draw(1, 3)), "a: "),
    "NaN": (lambda: dual_bound(HALF_PLANE, A * math.nan, A), "a: expected finite points"),
    "batches": (lambda: dual_bound(HALF_PLANE, A, A[:1]), r"b: expected \[2, 2\]"),
    "outside": (
        lambda: dual_bound(HALF_PLANE, A, A, box=torch.tensor([[8.0, 8.0], [9.0, 9.0]])),
        "box: expected one that holds",
    ),
    "box": (lambda: dual_bound(HALF_PLANE, A, A, box=torch.zeros(2, 2)), "box: expected least"),
    "cells": (lambda: dual_bound(HALF_PLANE, A, A, cells=0), "cells: expected a positive"),
}


@pytest.mark.parametrize("case", BAD)
def test_bad_input(case: str) -> None:
    call, message = BAD[case]
    with pytest.raises(InputError, match=message):
        call()
