"""Points and manifolds that tests of several rooms take their answers from."""

import torch
from torch import Tensor, nn

from kahler_verify.geometry.pulled_back import PulledBackMetric
from kahler_verify.geometry.riemannian import RiemannianMetric

DOUBLE = torch.float64


def draw(*shape: int, seed: int = 0) -> Tensor:
    """Standard normal numbers."""
    return torch.randn(*shape, dtype=DOUBLE, generator=torch.Generator().manual_seed(seed))


def lift(z: Tensor) -> Tensor:
    """The point of the unit sphere over z, stereographic from the north pole."""
    s = (z * z).sum(-1, keepdim=True)
    return torch.cat([2 * z, s - 1], -1) / (1 + s)


def project(x: Tensor) -> Tensor:
    """The other way round."""
    return x[..., :-1] / (1 - x[..., -1:])


SPHERE = PulledBackMetric(lift)


def network() -> nn.Sequential:
    """A small smooth decoder with weights to be differentiated by."""
    with torch.random.fork_rng():
        torch.manual_seed(0)
        return nn.Sequential(nn.Linear(2, 12), nn.Tanh(), nn.Linear(12, 8)).double()


def given(net: nn.Module) -> RiemannianMetric:
    """A metric of which no more is known than its values."""

    def g(z: Tensor) -> Tensor:
        return torch.diag_embed(1 + net(z)[..., :2] ** 2)

    return RiemannianMetric.from_function(g, check=False)


def rough(gain: float) -> PulledBackMetric:
    """A decoder whose straight starts end at other minima than the shortest ones."""
    generator = torch.Generator().manual_seed(1)
    layers = [nn.Linear(2, 24), nn.Tanh(), nn.Linear(24, 24), nn.Tanh(), nn.Linear(24, 8)]
    net = nn.Sequential(*layers).double().requires_grad_(False)
    for layer in layers[::2]:
        nn.init.normal_(layer.weight, 0, gain / layer.in_features**0.5, generator=generator)
        nn.init.normal_(layer.bias, 0, 0.5, generator=generator)
    return PulledBackMetric(net)
