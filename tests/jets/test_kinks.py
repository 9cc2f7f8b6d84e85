"""Connection and curvature at real latents need a C² decoder; the metric itself does not."""

import warnings

import pytest
import torch
from torch import Tensor, nn

import kahler_verify as kv
from kahler_verify.curves import SmoothnessWarning
from kahler_verify.errors import InputError

DOUBLE = torch.float64
Z = torch.tensor([[0.3, -0.7], [1.1, 0.2]], dtype=DOUBLE)


def network(layer: nn.Module, width: int = 64) -> nn.Sequential:
    with torch.random.fork_rng():
        torch.manual_seed(0)
        net = nn.Sequential(nn.Linear(2, 64), layer, nn.Linear(width, 6)).double()
    return net.requires_grad_(False)


class Pair(nn.Module):
    def __init__(self, mean: nn.Module):
        super().__init__()
        self.mean = mean

    def forward(self, z: Tensor) -> tuple[Tensor, Tensor]:
        mean = self.mean(z)
        return mean, 0.1 * mean


def metrics(net: nn.Module) -> list[kv.RiemannianMetric]:
    return [kv.PulledBackMetric(net), kv.FisherMetric(Pair(net)), kv.ExpectedMetric(Pair(net))]


ROUGH = {
    "relu": nn.ReLU(),
    "leaky": nn.LeakyReLU(),
    "prelu": nn.PReLU(),
    "selu": nn.SELU(),
    "hardtanh": nn.Hardtanh(),
    "hardswish": nn.Hardswish(),
    "elu of another slope": nn.ELU(0.5),
}


@pytest.mark.parametrize("name", ROUGH)
def test_kinks_are_named_and_the_metric_is_given(name: str) -> None:
    for metric in metrics(network(ROUGH[name])):
        assert bool(torch.linalg.cholesky_ex(metric.metric_matrix(Z))[1].eq(0).all())
        for method in (metric.christoffels, metric.scalar_curvature, metric.brownian_drift):
            with pytest.raises(InputError, match=r"C² decoder, but the layer '.*1' .* is C⁰ only"):
                method(Z)


def test_max_pooling_and_steps() -> None:
    pooled = nn.Sequential(nn.Linear(2, 16), nn.Unflatten(1, (1, 16)), nn.MaxPool1d(2)).double()
    with pytest.raises(InputError, match=r"the layer '2' \(MaxPool1d"):
        kv.PulledBackMetric(pooled).christoffels(Z)
    with pytest.raises(InputError, match="the operation round in it jumps"):
        kv.PulledBackMetric(lambda z: torch.cat([z, z.round()], -1)).christoffels(Z)


@pytest.mark.parametrize("layer", [nn.ELU(), nn.CELU(0.5), nn.Softsign()])
def test_what_is_once_differentiable_is_warned_of_once(layer: nn.Module) -> None:
    for metric in metrics(network(layer)):
        with pytest.warns(SmoothnessWarning, match=r"the layer '.*1' .* is C¹ only"):
            metric.christoffels(Z)
        with warnings.catch_warnings():
            warnings.simplefilter("error", SmoothnessWarning)
            metric.scalar_curvature(Z)


SMOOTH_AS_USED = {
    "a clamp far out": lambda z: torch.cat([z.sin(), z.exp().clamp(1e-9, 1e9)], -1),
    "one function in two forms": lambda z: torch.where(
        z > 0, z + (-z).exp().log1p(), z.exp().log1p()
    ),
    "a stable log-sum-exp": lambda z: torch.cat(
        [z, ((z - z.amax(-1, keepdim=True)).exp().sum(-1, keepdim=True)).log() + z.amax(-1, True)],
        -1,
    ),
    "a root of a square": lambda z: (z * z + 1).sqrt(),
    "the modulus, squared": lambda z: torch.cat([z, z.abs() ** 2], -1),
}
ROUGH_AS_USED = {
    "a clamp within": lambda z: torch.cat([z, z.clamp(-1, 1)], -1),
    "a modulus": lambda z: torch.cat([z, (z - 0.1).abs()], -1),
    "a root that hides a modulus": lambda z: torch.cat([z, ((z - 0.1) ** 2).sqrt()], -1),
    "a case distinction": lambda z: torch.where(z > 0.1, z * z, z),
    "a second derivative that jumps": lambda z: torch.cat([z, z.clamp(min=0) ** 2], -1),
    "sorting": lambda z: torch.cat([z.sort(-1).values, z.prod(-1, keepdim=True)], -1),
}


@pytest.mark.parametrize("name", SMOOTH_AS_USED)
def test_no_smooth_function_is_accused(name: str) -> None:
    with warnings.catch_warnings():
        warnings.simplefilter("error", SmoothnessWarning)
        for z in (Z, Z.float()):
            assert bool(kv.PulledBackMetric(SMOOTH_AS_USED[name]).christoffels(z).isfinite().all())


@pytest.mark.parametrize("name", ROUGH_AS_USED)
def test_kinks_are_found_by_behaviour(name: str) -> None:
    for z in (Z, Z.float()):
        with pytest.raises(InputError, match="need a C² decoder, but it"):
            kv.PulledBackMetric(ROUGH_AS_USED[name]).christoffels(z)


def test_who_does_not_want_checks_gets_none() -> None:
    net = network(nn.ReLU())
    for metric in (
        kv.PulledBackMetric(net, check=False),
        kv.PulledBackMetric(net, validate_args=False),
        kv.FisherMetric(Pair(net), check=False),
    ):
        metric.christoffels(Z)


def test_functional_kinks_are_named_to_curves() -> None:
    net = network(nn.Identity())
    metric = kv.PulledBackMetric(lambda z: torch.relu(net(z)) + net(z))
    with pytest.warns(SmoothnessWarning, match="the operation relu in it is C⁰ only"):
        metric.geodesic(Z[0], Z[1], raise_on_failure=False)
