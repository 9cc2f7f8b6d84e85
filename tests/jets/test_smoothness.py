"""Kinks and jumps are found by behaviour, and nothing smooth is taken for one."""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterable

import pytest
import torch
from _pytest.mark import ParameterSet
from torch import Tensor, nn
from torch.nn import functional as F

from kahler_verify import FisherMetric
from kahler_verify.errors import InputError
from kahler_verify.jets import check_decoder

Z = torch.tensor([[0.3 - 0.7j, -1.1 + 0.2j]], dtype=torch.complex128)


class Net(nn.Module):
    """A real network on (x, y) with some function as its activation."""

    def __init__(self, function: Callable[[Tensor], Tensor]) -> None:
        super().__init__()
        generator = torch.Generator().manual_seed(1)
        self.first, self.last = nn.Linear(4, 8), nn.Linear(8, 5)
        for parameter in self.parameters():
            parameter.data = torch.randn(parameter.shape, generator=generator) / 2
        self.double()
        self.function = function

    def forward(self, z: Tensor) -> tuple[Tensor, Tensor]:
        hidden = self.function(self.first(torch.cat([z.real, z.imag], -1)))
        mean = self.last(hidden)
        return mean, 0.1 * mean


def spread(x: Tensor) -> Tensor:
    """One feature in the place of all eight."""
    return x.expand(*x.shape[:-1], 8)


def zeros(x: Tensor) -> Tensor:
    return torch.zeros_like(x)


KINKS: dict[str, Callable[[Tensor], Tensor]] = {
    # by name
    "relu": F.relu,
    "leaky_relu": F.leaky_relu,
    "elu": F.elu,
    "selu": F.selu,
    "celu": F.celu,
    "celu, alpha 2": lambda x: F.celu(x, 2.0),
    "hardtanh": F.hardtanh,
    "relu6": F.relu6,
    "hardswish": F.hardswish,
    "hardsigmoid": F.hardsigmoid,
    "softshrink": F.softshrink,
    "abs": torch.abs,
    "softsign": F.softsign,
    "max_pool1d": lambda x: F.max_pool1d(x[:, None], 3, 1, 1)[:, 0],
    "round": torch.round,
    "floor": torch.floor,
    "trunc": torch.trunc,
    "sign": torch.sign,
    "quantisation": lambda x: torch.round(255 * x) / 255,
    # by behaviour
    "clamp": lambda x: x.clamp(-0.5, 0.5),
    "clamp_min": lambda x: x.clamp(min=0.1),
    "maximum": lambda x: torch.maximum(x, -x / 2),
    "amax": lambda x: spread(x.amax(-1, keepdim=True)),
    "median": lambda x: spread(x.median(-1, keepdim=True)[0]),
    "sort": lambda x: x.sort(-1)[0],
    "topk": lambda x: x.topk(8, -1)[0],
    "cummax": lambda x: x.cummax(-1)[0],
    "fmod": lambda x: torch.fmod(x, 1.0),
    "remainder": lambda x: x % 1.0,
    "frac": torch.frac,
    "copysign": lambda x: torch.copysign(x * x, x),
    "smooth_l1": lambda x: F.smooth_l1_loss(x, zeros(x), reduction="none"),
    "huber": lambda x: F.huber_loss(x, zeros(x), reduction="none"),
    "where, a kink": lambda x: torch.where(x > 0, x, x / 2),
    "where, a jump": lambda x: torch.where(x > 0.3, x, x / 2),
    "where, C¹": lambda x: torch.where(x > 0, x * x, 0 * x),
    "masked_fill": lambda x: x.masked_fill(x < 0, 0.0),
    "a product with a mask": lambda x: x * (x > 0),
    "gather": lambda x: torch.stack([x, 2 * x], -1).gather(-1, (x > 0.2).long()[..., None])[..., 0],
    "the root of a square": lambda x: (x * x).sqrt(),
}

SMOOTH: dict[str, Callable[[Tensor], Tensor]] = {
    "the identity": lambda x: x,
    "a constant": lambda x: 0 * x + 1,
    "tanh": torch.tanh,
    "tanh(100 x)": lambda x: torch.tanh(100 * x),
    "tanh(10⁴ x)": lambda x: torch.tanh(1e4 * x),
    "exp": torch.exp,
    "exp(5 x)": lambda x: 0.01 * torch.exp(5 * x),
    "x²": lambda x: x * x,
    "x³": lambda x: x + x**3 / 6,
    "gelu": F.gelu,
    "gelu by tanh": lambda x: F.gelu(x, approximate="tanh"),
    "softplus": F.softplus,
    "softplus beyond its threshold": lambda x: F.softplus(30 * x),
    "softplus about its threshold": lambda x: F.softplus(x + 20),
    "softplus, beta 10": lambda x: F.softplus(x, beta=10),
    "silu": F.silu,
    "mish": F.mish,
    "mish beyond its threshold": lambda x: F.mish(30 * x),
    "sigmoid": torch.sigmoid,
    "logsigmoid": F.logsigmoid,
    "sin(50 x)": lambda x: torch.sin(50 * x),
    "sin(1000 x)": lambda x: torch.sin(1000 * x),
    "a narrow bell": lambda x: torch.exp(-200 * x * x),
    "Runge's function": lambda x: 1 / (1 + 25 * x * x),
    "softmax": lambda x: x.softmax(-1),
    "softmax with a maximum inside": lambda x: (
        (x - x.amax(-1, keepdim=True)).exp()
        / (x - x.amax(-1, keepdim=True)).exp().sum(-1, keepdim=True)
    ),
    "a clamp that is never reached": lambda x: torch.tanh(x).clamp(-3, 3),
    "two forms of one function": lambda x: torch.where(x > 0, x.sigmoid(), 1 - (-x).sigmoid()),
    "the sum of what was sorted": lambda x: spread(x.sort(-1)[0].square().sum(-1, keepdim=True)),
    "group_norm": lambda x: F.group_norm(x, 2),
    "rms_norm": lambda x: F.rms_norm(x, (8,)),
    "lgamma": lambda x: torch.lgamma(x * x + 1),
    "erf": torch.erf,
    "large values": lambda x: 100 * torch.tanh(x),
    "small values": lambda x: 1e-12 * torch.tanh(x),
}


# a search for a kink that is there, or for one in a steep function, takes half a second
EVERY_DAY = {
    *[name for name in KINKS if list(KINKS).index(name) < list(KINKS).index("clamp")],
    *("clamp", "sort", "fmod", "smooth_l1", "where, a kink", "where, a jump", "where, C¹"),
    *("the identity", "tanh", "tanh(10⁴ x)", "exp", "x³", "gelu", "gelu by tanh"),
    *("softplus about its threshold", "silu", "mish", "sin(1000 x)", "small values"),
    *("softmax with a maximum inside", "two forms of one function"),
}


def daily(names: Iterable[str], every_day: Collection[str] = EVERY_DAY) -> list[ParameterSet]:
    """The others are for the thorough profile."""
    return [
        pytest.param(name, marks=() if name in every_day else pytest.mark.thorough)
        for name in names
    ]


@pytest.mark.sampled(10)
@pytest.mark.parametrize("name", daily(KINKS))
def test_kinks_have_a_metric_and_no_connection(name: str) -> None:
    decoder = Net(KINKS[name])
    check_decoder(decoder, Z, order=1)
    with pytest.raises(InputError, match="C² decoder, but"):
        check_decoder(decoder, Z, order=2)


@pytest.fixture
def searched(monkeypatch: pytest.MonkeyPatch) -> None:
    """The search itself is tested, also where what a function is composed of is analytic."""
    monkeypatch.setattr("kahler_verify.jets.smoothness.is_analytic", lambda *_: False)


@pytest.mark.usefixtures("searched")
@pytest.mark.parametrize("name", daily(SMOOTH))
def test_smooth_functions_are_not_accused(name: str) -> None:
    check_decoder(Net(SMOOTH[name]), Z, order=2)


SINGLE = ["clamp", "sort", "where, a kink", "where, a jump", "maximum", "frac"]


@pytest.mark.parametrize("name", daily(SINGLE, ["clamp", "where, a jump"]))
def test_kinks_are_found_in_single_precision(name: str) -> None:
    decoder = Net(KINKS[name]).float()
    with pytest.raises(InputError, match="C² decoder, but"):
        check_decoder(decoder, Z.to(torch.complex64), order=2)


RESOLVED = [name for name in SMOOTH if name not in ("tanh(10⁴ x)", "small values")]


@pytest.mark.usefixtures("searched")
@pytest.mark.parametrize("name", daily(RESOLVED, ["tanh", "gelu", "softplus", "sin(50 x)"]))
def test_smooth_functions_are_not_accused_in_single_precision(name: str) -> None:
    check_decoder(Net(SMOOTH[name]).float(), Z.to(torch.complex64), order=2)


def test_the_message_says_what_jumps_and_where() -> None:
    """At Re z = ½ in the only coordinate: the place is on the kink."""

    def decoder(z: Tensor) -> tuple[Tensor, Tensor]:
        x = z.real
        return torch.where(x > 0.5, 2 * x - 0.5, x).to(z.dtype), 0 * x

    z = Z[:, :1]
    with pytest.raises(InputError, match=r"first derivative jumps\) near z = \[0.5[+-].*Where"):
        check_decoder(decoder, z)


def test_a_metric_of_a_network_with_kinks_is_given_and_its_curvature_refused() -> None:
    decoder = Net(F.relu)
    metric = FisherMetric(decoder)
    slopes = torch.func.jacfwd(lambda u: decoder(torch.complex(u[:2], u[2:])[None])[0][0])(
        torch.cat([Z.real, Z.imag], -1)[0]
    )
    logs = 0.1 * slopes
    mean = decoder(Z)[0][0]
    real = slopes.T @ torch.diag((-0.1 * mean).exp()) @ slopes + logs.T @ logs / 2
    torch.testing.assert_close(metric.real_metric_matrix(Z)[0], real)
    for quantity in (metric.christoffels, metric.kahler_defect, metric.scalar_curvature):
        with pytest.raises(InputError, match=r"C² decoder, but.*Relu"):
            quantity(Z)


def test_a_kink_at_the_very_point_has_no_metric_there() -> None:
    def decoder(z: Tensor) -> tuple[Tensor, Tensor]:
        return torch.relu(torch.cat([z.real, z.imag], -1)), torch.cat([z.real, z.imag], -1)

    with pytest.raises(InputError, match="a kink at this very point"):
        FisherMetric(decoder).metric_matrix(0 * Z)
    FisherMetric(decoder).metric_matrix(Z)
