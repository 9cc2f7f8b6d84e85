"""A floor under a metric that forgets directions: what it is, and that it makes searches short."""

import pytest
import torch
from torch import Tensor, nn

from kahler_verify.curves import STRAIGHT, connect, regularised
from kahler_verify.errors import InputError
from kahler_verify.geometry.pulled_back import ExpectedMetric, PulledBackMetric
from tests.manifolds import DOUBLE, draw


class Collapsed(nn.Module):
    """Two directions that count, and ripples of a hundredth of their size along all."""

    def __init__(self, d: int):
        super().__init__()
        self.main, self.ripples = (
            nn.Sequential(nn.Linear(n, 24), nn.Tanh(), nn.Linear(24, 12)).double() for n in (2, d)
        )
        for n, (net, gain) in enumerate(((self.main, 1.0), (self.ripples, 4.0))):
            generator = torch.Generator().manual_seed(n)
            scale = gain * net[0].in_features ** -0.5
            nn.init.normal_(net[0].weight, 0, scale, generator=generator)
            nn.init.normal_(net[2].weight, 0, 0.2, generator=generator)
            for layer in net[::2]:
                nn.init.normal_(layer.bias, 0, 0.3, generator=generator)
        self.requires_grad_(False)

    def forward(self, z: Tensor) -> Tensor:
        return torch.cat([self.main(z[..., :2]), 0.01 * self.ripples(z)], -1)


def collapsed(d: int) -> PulledBackMetric:
    return PulledBackMetric(Collapsed(d))


def test_it_is_the_metric_with_a_floor() -> None:
    metric, x = collapsed(4), draw(9, 4)
    floored = regularised(metric, x, 0.05)
    g = metric.metric_matrix(x)
    added = floored.metric_matrix(x) - g
    floor = 0.05 * g.diagonal(dim1=1, dim2=2).mean(-1).median()
    assert torch.allclose(added, floor * torch.eye(4, dtype=DOUBLE).expand(9, 4, 4), rtol=1e-9)
    assert regularised(metric.float(), x.float()).metric_matrix(x.float()).dtype == torch.float32
    assert floored.float().metric_matrix(x.float()).dtype == torch.float32


def test_searches_find_all_and_sooner() -> None:
    metric, x = collapsed(6), draw(40, 6)
    a, b = 0.5 * draw(2, 8, 6, seed=1)
    reports = [
        connect(m, a, b, starts=STRAIGHT, raise_on_failure=False).report
        for m in (metric, regularised(metric, x, 1e-2))
    ]
    assert bool(reports[1].converged.all())
    assert reports[1].evaluations.sum() < 0.5 * reports[0].evaluations.sum()
    both = reports[0].converged
    assert bool((reports[1].length > reports[0].length)[both].all())


def test_bad_input() -> None:
    metric, x = collapsed(3), draw(4, 3)
    with pytest.raises(InputError, match="strength: expected a number above 0"):
        regularised(metric, x, 0.0)
    with pytest.raises(InputError, match="metric: expected a PulledBackMetric, got a Expected"):
        regularised(ExpectedMetric(lambda z: (z, z)), x)
    with pytest.raises(InputError, match="x: expected points"):
        regularised(metric, x[0])
