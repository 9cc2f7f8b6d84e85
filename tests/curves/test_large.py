"""Geodesics without matrices, against those of the spectral solver, and in image latents."""

import pytest
import torch
from torch import nn
from torch.distributions import Bernoulli, NegativeBinomial

from benchmarks.peoples_models import AutoencoderKL
from kahler_verify import FisherMetric, FisherRaoMetric, PulledBackMetric, RiemannianMetric
from kahler_verify.curves.large import connect_large
from kahler_verify.errors import CurveError, InputError

D = torch.float64
LAWS = {
    "unit variance": lambda x: x,
    "diagonal": lambda x: (x, 0.3 * x),
    "Bernoulli": lambda x: Bernoulli(logits=x),
    "negative binomial": lambda x: NegativeBinomial(3.0, logits=x),
}


def net(d=4, outputs=12):
    torch.manual_seed(0)
    net = nn.Sequential(nn.Linear(d, 30), nn.Tanh(), nn.Linear(30, outputs)).to(D)
    return net.requires_grad_(False)


def points(d=4, seed=1):
    a, b = torch.randn(2, d, dtype=D, generator=torch.Generator().manual_seed(seed))
    return a, b


@pytest.mark.parametrize("law", LAWS)
def test_lengths_are_those_of_the_spectral_solver(law):
    """To the order of the chords, h²: a quarter of the difference with twice as many."""
    module, (a, b) = net(), points()
    metric = FisherRaoMetric(lambda z: LAWS[law](module(z)))
    truth = float(metric.geodesic(a, b).length)
    off = []
    for segments in (16, 32):
        found = connect_large(metric, a, b, segments=segments, tolerance=1e-6)
        assert found.converged
        assert found.length < found.straight
        off.append(abs(found.length - truth) / truth)
        assert off[-1] <= 4 * found.gap
    assert off[1] < 0.4 * off[0]
    assert off[1] < 1e-3


def test_nodes_are_on_the_geodesic():
    metric, (a, b) = PulledBackMetric(net()), points()
    path = metric.geodesic(a, b)
    found = connect_large(metric, a, b, segments=32, tolerance=1e-6)
    torch.testing.assert_close(found.nodes[0], a)
    torch.testing.assert_close(found.nodes[-1], b)
    wanted = path(torch.linspace(0, 1, 33, dtype=D))
    assert (found.nodes - wanted).abs().max() < 2e-2 * (b - a).norm()


def test_the_number_of_steps_does_not_grow_with_the_nodes():
    metric, (a, b) = PulledBackMetric(net()), points()
    few, many = (connect_large(metric, a, b, segments=n, tolerance=1e-4) for n in (8, 64))
    assert many.iterations < 2 * few.iterations + 5
    assert many.passes > few.passes


def test_image_latents_keep_their_shape():
    model = AutoencoderKL(8, 2, sample_size=8)
    metric = FisherMetric(model)
    a, b = torch.randn(2, 4, 4, 4, generator=torch.Generator().manual_seed(0))
    found = connect_large(metric, a, b, segments=8, tolerance=2e-2)
    assert found.nodes.shape == (9, 4, 4, 4)
    assert found.converged
    assert found.length < found.straight
    wide = FisherMetric(AutoencoderKL(8, 2, sample_size=8).double())
    again = connect_large(wide, a.double(), b.double(), segments=8, tolerance=2e-2)
    assert found.length == pytest.approx(again.length, rel=2e-2)
    assert found.length < 0.9 * found.straight
    assert "not converged" not in repr(found)


def test_a_sketch_of_the_metric_saves_steps():
    """On a decoder whose metric has a condition of 1e6."""
    torch.manual_seed(0)
    scales = torch.diag(torch.logspace(0, -3, 12, dtype=D))
    first = nn.Linear(12, 40).to(D)
    with torch.no_grad():
        first.weight.copy_(torch.linalg.qr(torch.randn(40, 12, dtype=D)).Q @ scales)
    module = nn.Sequential(first, nn.Tanh(), nn.Linear(40, 60).to(D)).requires_grad_(False)
    metric, (a, b) = PulledBackMetric(module), points(12)
    plain, sketched = (
        connect_large(metric, a, 3 * b, rank=rank, tolerance=1e-4) for rank in (0, 12)
    )
    assert sketched.iterations < plain.iterations
    assert sketched.length == pytest.approx(plain.length, rel=1e-3)


def test_a_flat_space_is_done_at_once():
    metric, (a, b) = PulledBackMetric(nn.Linear(4, 6).to(D)), points()
    found = connect_large(metric, a, b)
    assert found.iterations <= 1
    assert found.length == pytest.approx(found.straight)
    with torch.no_grad():
        expected = metric.norm(b - a, a).item()
    assert found.length == pytest.approx(expected)


def test_a_failed_search_is_said():
    metric, (a, b) = PulledBackMetric(net()), points()
    with pytest.raises(CurveError, match="in 2 steps, and not to 1e-06"):
        connect_large(metric, a, b, tolerance=1e-6, most=2)
    found = connect_large(metric, a, b, tolerance=1e-6, most=2, raise_on_failure=False)
    assert not found.converged
    assert found.residual > 1e-6
    assert "not converged" in repr(found)


def test_bad_arguments():
    metric, (a, b) = PulledBackMetric(net()), points()
    flat = RiemannianMetric.from_function(lambda z: torch.diag_embed(1 + 0 * z), check=False)
    with pytest.raises(InputError, match="expected one of a decoder"):
        connect_large(flat, a, b)
    with pytest.raises(InputError, match="segments"):
        connect_large(metric, a, b, segments=1)
    with pytest.raises(InputError, match="a: expected one finite point"):
        connect_large(metric, torch.stack([a, a]), b)
    with pytest.raises(InputError, match="b: expected"):
        connect_large(metric, a, b * torch.nan)
