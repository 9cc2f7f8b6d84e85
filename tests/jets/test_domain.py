"""torch's logarithm has a slope below 0, where it has no value: no metric may be made of it."""

import math

import pytest
import torch
from torch import Tensor, nn

import kahler_verify as kv
from kahler_verify.errors import InputError
from kahler_verify.jets.domain import all_finite

Z = torch.tensor([[0.1, 0.2], [-3.0, 1.0]], dtype=torch.float64)
METHODS = ("metric_matrix", "christoffels", "scalar_curvature", "log_volume")


class Real(nn.Module):
    def forward(self, z: Tensor) -> tuple[Tensor, Tensor]:
        return torch.cat([z.log(), z * z], -1), 0.1 * torch.cat([z, z], -1)


class Complex(nn.Module):
    def forward(self, z: Tensor) -> tuple[Tensor, Tensor]:
        return torch.cat([z.real.log() + 1j * z.imag, z * z], -1), -(z * z.conj()).real.repeat(1, 2)


METRICS = {
    "real Fisher": lambda check: kv.FisherMetric(Real(), validate_args=check),
    "expected": lambda check: kv.ExpectedMetric(Real(), validate_args=check),
    "pulled back": lambda check: kv.PulledBackMetric(lambda z: Real()(z)[0], validate_args=check),
    "complex Fisher": lambda check: kv.FisherMetric(Complex(), validate_args=check),
}


@pytest.mark.parametrize("method", METHODS)
@pytest.mark.parametrize("name", METRICS)
def test_no_metric_where_the_decoder_has_no_value(name: str, method: str) -> None:
    z = Z + 0.3j if name == "complex Fisher" else Z
    strict = getattr(METRICS[name](True), method)
    inside = strict(z[:1])
    assert bool(inside.isfinite().all())
    with pytest.raises(InputError, match=r"NaN or infinities"):
        strict(z)
    loose = getattr(METRICS[name](False), method)
    loose(z[:1])  # decoders are checked at the first point
    both = loose(z)
    assert torch.allclose(both[0], inside[0])
    assert bool(both[1].isnan().all())


def test_the_message_names_what_has_no_value() -> None:
    with pytest.raises(InputError, match=r"function: expected finite values f\(z\)"):
        METRICS["expected"](True).metric_matrix(Z)
    with pytest.raises(InputError, match=r"z: expected finite values, but z has NaN"):
        METRICS["expected"](True).metric_matrix(Z * math.nan)


def test_geodesics_end_at_the_domains_edge() -> None:
    metric = kv.PulledBackMetric(lambda z: torch.cat([z.log(), z], -1))
    curve = metric.geodesic(Z[0], Z[1], raise_on_failure=False)
    assert curve.report is not None
    assert int(curve.report.status) == 3
    assert bool(curve.length.isnan())


def test_a_function_is_checked_where_it_is_finite() -> None:
    """The first point of a batch may lie outside the domain."""

    def disc(z: Tensor) -> Tensor:
        inside = ((z * z).sum(-1) < 4)[..., None, None]
        return torch.where(inside, 1.0, torch.nan).to(z) * torch.eye(2, dtype=z.dtype)

    metric = kv.RiemannianMetric.from_function(disc, validate_args=False)
    out = metric.christoffels(torch.tensor([[3.0, 0.0], [0.5, 0.5]], dtype=torch.float64))
    assert bool(out[0].isnan().all())
    assert torch.equal(out[1], torch.zeros(2, 2, 2, dtype=torch.float64))


def test_finite_numbers_with_an_infinite_sum() -> None:
    large = torch.full((3,), 3e38)
    assert bool(large.sum().isinf())
    assert all_finite(large)
    assert all_finite(torch.complex(large, large))
    assert all_finite(torch.complex(large.double() * 3e269, large.double() * 3e269))
    for bad in (math.nan, math.inf, -math.inf):
        assert not all_finite(torch.tensor([1.0, bad]))
    assert not all_finite(torch.tensor([math.inf, -math.inf]))
