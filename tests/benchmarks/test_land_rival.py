"""What both laws are judged by: in a flat space the Gaussian's likelihood, however L is scaled."""

import math
from types import SimpleNamespace

import pytest
import torch
from torch import Tensor

from benchmarks import land_rival
from benchmarks.land_rival import counted, log_likelihood
from kahler_verify.geometry import RiemannianMetric


@pytest.mark.parametrize("scale", [1.0, 4.0])
def test_the_right_normaliser_in_flat_spaces(scale: float, monkeypatch: pytest.MonkeyPatch) -> None:
    """g = s² 1: vectors of the Riemannian length are s times the chart's."""
    monkeypatch.setattr(land_rival, "JUDGING", 24)
    monkeypatch.setattr(land_rival, "PANELS", 30)

    def g(z: Tensor) -> Tensor:
        return scale**2 * torch.eye(2).to(z).expand(*z.shape[:-1], 2, 2)

    x = torch.randn(40, 2, dtype=torch.float64, generator=torch.Generator().manual_seed(0))
    mean = torch.tensor([0.1, -0.2], dtype=torch.float64)
    covariance = torch.tensor([[0.8, 0.3], [0.3, 0.5]], dtype=torch.float64)
    metric = RiemannianMetric.from_function(g, check=False)
    for by_length in (False, True):
        unit = scale if by_length else 1.0  # of L in the chart
        d = unit * (x - mean)
        expected = math.log(2 * math.pi) + float(torch.logdet(covariance)) / 2
        expected += 2 * math.log(scale / unit)  # the volume is s² dx
        found = log_likelihood(metric, x, mean, covariance, by_length=by_length)
        square = float((d * torch.linalg.solve(covariance, d.mT).mT).sum(-1).mean()) / 2
        assert found[1] == pytest.approx(expected, abs=1e-7)
        assert found[0] == pytest.approx(-square - expected, abs=1e-7)


def test_calls_are_counted() -> None:
    module = SimpleNamespace(double=lambda x: 2 * x, other=abs)
    calls = counted(module, ("double",))
    assert [module.double(3), module.double(4), module.other(-1)] == [6, 8, 1]
    assert calls == {"double": 2}
