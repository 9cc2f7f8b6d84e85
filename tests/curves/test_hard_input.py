"""Input that has no curve, or none that is smooth: a clear error, a warning or a report."""

import warnings
from pathlib import Path

import pytest
import torch
from torch import nn

from kahler_verify.curves import STRAIGHT, SmoothnessWarning, Status, bounds, distances
from kahler_verify.errors import CurveError, InputError
from kahler_verify.geometry.pulled_back import PulledBackMetric
from tests.manifolds import DOUBLE, SPHERE, draw, lift

A, B = draw(2, 3, 2)


def decoder(activation: nn.Module) -> PulledBackMetric:
    with torch.random.fork_rng():
        torch.manual_seed(0)
        net = nn.Sequential(nn.Linear(2, 16), activation, nn.Linear(16, 6)).double()
    return PulledBackMetric(net.requires_grad_(False))


@pytest.mark.parametrize("activation", [nn.ReLU(), nn.LeakyReLU(), nn.ELU()])
def test_layers_that_are_not_smooth_are_named(activation: nn.Module) -> None:
    with pytest.warns(SmoothnessWarning, match=r"the layer '1' \(.*\) is C. only"):
        path = decoder(activation).geodesic(A, B, starts=STRAIGHT, raise_on_failure=False)
    found = path.report.converged
    assert bool((path.report.gap[found] < 1e-8).all())
    assert torch.equal(path.length.isnan(), ~found)


def test_smooth_layers_are_not() -> None:
    with warnings.catch_warnings():
        warnings.simplefilter("error", SmoothnessWarning)
        decoder(nn.Softplus()).geodesic(A, B)


def test_more_latents_than_outputs_are_no_metric() -> None:
    flat = PulledBackMetric(lambda z: torch.tanh(z.sum(-1, keepdim=True)))
    path = flat.geodesic(A, B, raise_on_failure=False)
    assert path.report.status.tolist() == [Status.LEFT_DOMAIN] * 3
    with pytest.raises(CurveError, match="3 of 3 curves were not found: 3 left the domain"):
        flat.geodesic(A, B)


def test_a_metric_that_degenerates_on_the_way_is_never_crossed_unsaid() -> None:
    """x = z³/3 has no derivative at 0, which every curve between the two sides passes."""
    metric = PulledBackMetric(lambda z: torch.stack([z[..., 0] ** 3 / 3, z[..., 1]], -1))
    a, b = torch.tensor([[[-1.0, 0.2]], [[1.0, -0.3]]], dtype=DOUBLE)
    path = metric.geodesic(a, b, raise_on_failure=False)
    assert path.report.status.item() != Status.MINIMUM
    assert bool(path.length.isnan())


def test_one_dimension() -> None:
    """All curves are the same but for their speed: an ellipse's arc."""
    ellipse = PulledBackMetric(lambda z: torch.cat([2 * z.cos(), z.sin()], -1))
    a, b = torch.tensor([[0.1], [0.4]], dtype=DOUBLE), torch.tensor([[2.0], [5.0]], dtype=DOUBLE)
    angle = a + torch.linspace(0, 1, 200_001, dtype=DOUBLE) * (b - a)
    x = ellipse.embed(angle.reshape(-1, 1)).reshape(2, -1, 2)
    arc = (x[:, 1:] - x[:, :-1]).norm(dim=-1).sum(-1)
    assert torch.allclose(ellipse.distance(a, b), arc, rtol=1e-9)
    assert torch.allclose(ellipse.exp(a, ellipse.log(a, b)), b, atol=1e-8)


def test_antipodes_have_no_single_geodesic() -> None:
    """Every half circle is one: what is found is half a circle, or said not to be found."""
    a = torch.tensor([[0.5, 0.2]], dtype=DOUBLE)
    b = -a / (a * a).sum()
    path = SPHERE.geodesic(a, b, raise_on_failure=False)
    assert path.report.status.item() != Status.MINIMUM or abs(path.length.item() - torch.pi) < 1e-8


BAD = {
    "float16": (lambda: SPHERE.geodesic(A.half(), B.half()), "float32 or float64"),
    "integers": (lambda: SPHERE.geodesic(A.long(), B.long()), "a: expected a real floating-point"),
    "mixed precision": (lambda: SPHERE.geodesic(A, B.float()), "b: expected a tensor"),
    "no tensor": (lambda: SPHERE.geodesic([0.0, 1.0], B), "a: expected a real .* got list"),
    "batches": (lambda: SPHERE.geodesic(A, B[:2]), "batch dimensions that broadcast"),
    "segments": (lambda: bounds(SPHERE.geodesic(A, A), segments=0), "segments: expected"),
}


@pytest.mark.parametrize("case", BAD)
def test_bad_input(case: str) -> None:
    call, message = BAD[case]
    with pytest.raises(InputError, match=message):
        call()


def test_an_interrupted_matrix_goes_on(tmp_path: Path) -> None:
    x, kept = 0.5 * draw(5, 2), tmp_path / "kept.npz"
    seen: list[int] = []

    def stop(done: int, total: int) -> None:
        seen.append(done)
        assert total == 15
        if len(seen) == 2:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        distances(SPHERE, x, pairs_at_once=4, kept=kept, progress=stop)
    assert seen == [4, 5]  # equal points are the first wave
    again: list[int] = []
    found = distances(
        SPHERE, x, pairs_at_once=4, kept=kept, progress=lambda done, _: again.append(done)
    )
    assert again[0] > 5
    assert again[-1] == 15
    whole = distances(SPHERE, x)
    assert torch.allclose(found.lengths, whole.lengths, rtol=1e-12)
    assert torch.equal(found.report.status, whole.report.status)
    with pytest.raises(InputError, match="kept: expected what was kept of these points"):
        distances(SPHERE, 2 * x, kept=kept)
    with pytest.raises(InputError, match="kept: expected what was kept of these points"):
        distances(PulledBackMetric(lambda z: 2 * lift(z)), x, kept=kept)
    kept.write_text("no archive")
    with pytest.raises(InputError, match="kept: expected a file of distances"):
        distances(SPHERE, x, kept=kept)


def test_a_curve_draws_itself() -> None:
    path = SPHERE.geodesic(A, B)
    axes = path.plot()
    assert len(axes.lines) == 6
    assert list(axes.lines[1].get_xdata()) == [A[0, 0].item(), B[0, 0].item()]
