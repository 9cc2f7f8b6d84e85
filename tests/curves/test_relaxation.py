"""The path that goes downhill point by point, and where its shortcut by an encoder fails (S2)."""

import math
from collections.abc import Callable

import pytest
import torch
from torch import Tensor

from kahler_verify.curves import STRAIGHT, Curve, Mesh, Relaxation, Status
from kahler_verify.curves.connect.relaxation import pushed
from kahler_verify.errors import InputError
from kahler_verify.geometry import LocalVarianceMetric, PulledBackMetric


def paraboloid(z: Tensor) -> Tensor:
    return torch.cat([z, z.square().sum(-1, keepdim=True) / 2], -1)


def encoder(c: float) -> Callable[[Tensor], Tensor]:
    """h with h∘f = 1 for every c, of the exact witness."""

    def h(x: Tensor) -> Tensor:
        first = x[..., 0] + c * (x[..., 2] - x[..., :2].square().sum(-1) / 2)
        return torch.stack([first, x[..., 1]], -1)

    return h


METRIC = PulledBackMetric(paraboloid)
A, B = torch.tensor([[0.9, -0.8], [1.2, 0.3]]), torch.tensor([[1.0, 1.1], [-0.2, 1.0]])


def polygon(nodes: Tensor) -> Tensor:
    x = paraboloid(nodes)
    return (x[:, 1:] - x[:, :-1]).norm(dim=-1).sum(-1)


def test_it_finds_geodesics() -> None:
    """Longer than the best by what few chords cost: a quarter for twice as many."""
    best = METRIC.geodesic(A, B).length
    excesses = []
    for chords in (4, 8):
        solver = Relaxation(chords=chords, still=1e-7, tolerance=0.1)
        path = METRIC.geodesic(A, B, solver=solver, starts=STRAIGHT)
        assert path.report.status.tolist() == [Status.MINIMUM] * 2
        excesses.append(path.length / best - 1)
    assert bool(((excesses[1] > 0) & (excesses[1] < 1e-2)).all())
    order = (excesses[0] / excesses[1]).log2()
    assert torch.allclose(order, torch.full_like(order, 2), atol=0.3)  # of linear elements


def test_its_direction_is_the_gradients() -> None:
    """It lowers the energy from the first sweep on; at rest the gradient vanishes."""
    start = Mesh(6, 1).times[:, None] * (B - A)[:, None] + A[:, None]
    nodes, sweeps = Relaxation(chords=6, most_iterations=2).relaxed(METRIC, start)
    assert sweeps.tolist() == [2, 2]
    assert bool((polygon(nodes) < polygon(start)).all())
    nodes, _ = Relaxation(chords=6, still=1e-8).relaxed(METRIC, start)
    inner = nodes[:, 1:-1].clone().requires_grad_()
    x = paraboloid(torch.cat([nodes[:, :1], inner, nodes[:, -1:]], 1))
    (slope,) = torch.autograd.grad((x[:, 1:] - x[:, :-1]).square().sum(), inner)
    assert slope.abs().max() < 1e-6


def test_an_inverse_of_the_decoder_takes_straight_lines_for_geodesics() -> None:
    """S2's witness: with c = 0, J_h y = 0 on equally spaced straight lines."""
    start = Mesh(16, 1).times[:, None] * (B - A)[:, None] + A[:, None]
    nodes, sweeps = Relaxation(encoder=encoder(0.0)).relaxed(METRIC, start)
    assert sweeps.tolist() == [1, 1]
    assert torch.allclose(nodes, start, atol=1e-12)
    solver = Relaxation(encoder=encoder(0.0), tolerance=1e-3)
    path = METRIC.geodesic(A, B, solver=solver, starts=STRAIGHT, raise_on_failure=False)
    assert path.report.status.tolist() == [Status.NOT_CONVERGED] * 2  # and is not returned
    assert bool(path.length.isnan().all())


def test_an_inverse_of_the_decoder_may_climb() -> None:
    """The cosine of J_h y with Jᵀy is -.885 for c = -3 at (1, 0), and +.969 of J⁺."""
    z = torch.tensor([[1.0, 0.0]])
    step = torch.tensor([[1.0, 0.0]])
    y = paraboloid(z + step) - 2 * paraboloid(z) + paraboloid(z - step)
    slope = torch.autograd.functional.jacobian(paraboloid, z[0])  # [3, 2]
    down = y @ slope
    for found, cosine in (
        (pushed(encoder(-3.0), paraboloid(z), y), -1.0),
        (y @ torch.linalg.pinv(slope).mT, 1.0),
    ):
        assert math.isclose(float(torch.cosine_similarity(found, down)), cosine, abs_tol=1e-12)


def test_bad_input() -> None:
    with pytest.raises(InputError, match="metric: expected one that is pulled back"):
        LocalVarianceMetric(A, 0.5, 0.1).geodesic(A, B, solver=Relaxation(), starts=STRAIGHT)
    lost = METRIC.geodesic(
        A, B, solver=Relaxation(most_iterations=2), starts=STRAIGHT, raise_on_failure=False
    )
    assert lost.report.status.tolist() == [Status.NOT_CONVERGED] * 2
    assert isinstance(lost, Curve)
