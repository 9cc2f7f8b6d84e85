"""Long runs of exp, which keep what they should, and derivatives of exp against differences."""

import pytest
import torch
from torch import Tensor, nn

from kahler_verify.curves import Status, shoot
from kahler_verify.errors import CurveError, InputError
from kahler_verify.geometry.base import MetricJet
from kahler_verify.geometry.pulled_back import PulledBackMetric
from kahler_verify.geometry.riemannian import RiemannianMetric
from tests.manifolds import DOUBLE, draw, given, network


class Torus(RiemannianMetric):
    """(2 + cos v)² du² + dv², with its derivatives."""

    def jet(self, z: Tensor, order: int) -> MetricJet:
        v = z[:, 1]
        ring, zero, one = 2 + v.cos(), torch.zeros_like(v), torch.ones_like(v)
        first = -2 * v.sin() * ring
        second = 2 * v.sin() ** 2 - 2 * v.cos() * ring
        g = torch.diag_embed(torch.stack([ring**2, one], -1))
        bend = [torch.diag_embed(torch.stack([x, zero], -1)) for x in (zero, first, second)]
        d = torch.stack([bend[0], bend[1]], 1)
        dd = torch.stack([0 * d, torch.stack([bend[0], bend[2]], 1)], 1)
        return MetricJet(*[g, d, dd][: order + 1])


TORUS = Torus()
Z = torch.tensor([[0.0, 0.4]], dtype=DOUBLE)
V = torch.tensor([[0.35, 0.5]], dtype=DOUBLE)


def momentum(z: Tensor, v: Tensor) -> Tensor:
    """Clairaut's constant, which turning about the axis conserves."""
    return (2 + z[:, 1].cos()) ** 2 * v[:, 0]


def test_a_symplectic_run_does_not_drift() -> None:
    """Its error stays as it is in ten times the time, where that of a loose adaptive run grows."""
    kept, drifts = [], []
    z = Z.expand(8, 2)
    for length in (20, 200):  # and a little less, as errors swing
        v = length * torch.linspace(0.8, 1, 8, dtype=DOUBLE)[:, None] * V
        found = shoot(TORUS, z, v, integrator="symplectic", steps=length)
        kept.append(found.speed_change.abs().max().item())
        assert torch.allclose(momentum(found.point, found.velocity), momentum(z, v), rtol=1e-11)
        loose = shoot(TORUS, z, v, tolerance=1e-2, raise_on_failure=False)
        drifts.append(loose.speed_change.abs().max().item())
    assert max(kept) < 1e-4  # of the fourth order in the step, a third of a unit of length
    assert kept[1] < 2 * kept[0]
    assert drifts[1] > 4 * drifts[0]
    assert drifts[1] > 100 * kept[1]


def test_orders_of_the_symplectic_method() -> None:
    exact = shoot(TORUS, Z, 5 * V, tolerance=1e-13).point
    errors = [
        (shoot(TORUS, Z, 5 * V, integrator="symplectic", steps=n).point - exact).norm().item()
        for n in (20, 40)
    ]
    assert 13 < errors[0] / errors[1] < 19
    back = shoot(TORUS, exact, -5 * V, integrator="symplectic", steps=40)
    again = shoot(TORUS, back.point, -back.velocity, integrator="symplectic", steps=40)
    assert torch.allclose(again.point, exact, atol=1e-10)  # symmetric


def test_a_projected_run_keeps_its_speed() -> None:
    loose = {"tolerance": 1e-4, "raise_on_failure": False}
    plain = shoot(TORUS, Z, 100 * V, **loose)
    found = shoot(TORUS, Z, 100 * V, integrator="projected", **loose)
    assert found.speed_change.abs() < 1e-13
    assert plain.speed_change.abs() > 1e-6
    assert found.evaluations < 1.3 * plain.evaluations
    fine = shoot(TORUS, Z, 3 * V, integrator="projected", tolerance=1e-12)
    assert torch.allclose(fine.point, TORUS.exp(Z, 3 * V, tolerance=1e-12), rtol=1e-9)


def pulled_back(net: nn.Module) -> RiemannianMetric:
    return PulledBackMetric(net)


@pytest.mark.parametrize("integrator", ["adaptive", "projected"])
@pytest.mark.parametrize("make", [pulled_back, given])
def test_exp_has_derivatives(make: type, integrator: str) -> None:
    """By the point, the velocity and the weights, against differences of whole runs."""
    net = network()
    weights = net[0].weight
    z, v = 0.7 * draw(2, 3, 2)
    aside = [draw(3, 2, seed=1), draw(3, 2, seed=2), draw(*weights.shape, seed=3)]
    probe = draw(2, 3, 2, seed=4)

    def looked_at(z: Tensor, v: Tensor) -> Tensor:
        shot = shoot(make(net), z, v, tolerance=1e-12, integrator=integrator)
        return (torch.stack([shot.point, shot.velocity]) * probe).sum()

    z.requires_grad_()
    v.requires_grad_()
    slopes = torch.autograd.grad(looked_at(z, v), (z, v, weights))
    step = 1e-5
    for case, (slope, along) in enumerate(zip(slopes, aside, strict=True)):
        ends = []
        with torch.no_grad():
            for sign in (1, -1):
                moved = (
                    [x + (n == case) * sign * step * along for n, x in enumerate((z, v))]
                    if case < 2
                    else [z, v]
                )
                if case == 2:
                    weights += sign * step * along
                ends.append(looked_at(*moved).item())
                if case == 2:
                    weights -= sign * step * along
        difference = (ends[0] - ends[1]) / (2 * step)
        assert abs((slope * along).sum().item() - difference) < 1e-6 * (1 + abs(difference))


def test_derivatives_change_no_number_and_are_not_recorded_in_vain() -> None:
    metric = pulled_back(network().requires_grad_(False))
    z, v = draw(2, 3, 2)
    plain = shoot(metric, z, v)
    assert not plain.point.requires_grad
    again = shoot(metric, z, v.requires_grad_())
    assert torch.equal(again.point.detach(), plain.point)


def test_those_that_do_not_arrive_leave_the_others_their_derivatives() -> None:
    """From the disk of the flat plane one leaves, the other does not."""
    disk = RiemannianMetric.from_function(
        lambda z: (
            torch.where((z * z).sum(-1) < 1, 1.0, torch.nan)[..., None, None]
            * torch.eye(2, dtype=DOUBLE)
        ),
        check=False,
    )
    v = torch.tensor([[0.3, 0.1], [3.0, 0.0]], dtype=DOUBLE, requires_grad=True)
    shot = shoot(disk, torch.zeros(2, 2, dtype=DOUBLE), v, raise_on_failure=False)
    assert shot.status.tolist() == [Status.MINIMUM, Status.LEFT_DOMAIN]
    slope = torch.autograd.grad(shot.point[0].sum(), v)[0]
    assert torch.allclose(slope, torch.tensor([[1.0, 1.0], [0.0, 0.0]], dtype=DOUBLE))


def test_bad_input() -> None:
    with pytest.raises(InputError, match="integrator: expected adaptive, projected or symplectic"):
        shoot(TORUS, Z, V, integrator="euler")
    with pytest.raises(InputError, match="steps: expected a positive number"):
        shoot(TORUS, Z, V, integrator="symplectic", steps=0)
    with pytest.raises(CurveError, match="1 of 1 geodesics did not arrive"):
        shoot(TORUS, Z, 400 * V, integrator="symplectic", steps=3)
