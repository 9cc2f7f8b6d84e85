"""What is called analytic has no kink; what hides one from the watch is not called so."""

from __future__ import annotations

from collections.abc import Callable

import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from kahler_verify.jets.analytic import is_analytic
from tests.jets.test_smoothness import KINKS, SMOOTH, Net

Z = torch.tensor([[0.3 - 0.7j, -1.1 + 0.2j], [0.1j, 0.4]], dtype=torch.complex128)


@pytest.mark.parametrize("name", KINKS)
def test_no_kink_is_called_analytic(name: str) -> None:
    assert not is_analytic(Net(KINKS[name]), Z)


COMMON = ("tanh", "exp", "x²", "x³", "gelu", "softplus", "silu", "mish", "sigmoid", "softmax")


@pytest.mark.parametrize("name", [*COMMON, "sin(50 x)", "group_norm", "erf", "Runge's function"])
def test_common_functions_are(name: str) -> None:
    assert is_analytic(Net(SMOOTH[name]), Z)


def through_a_buffer(x: Tensor) -> Tensor:
    buffer = torch.zeros_like(x)
    buffer[..., :] = x
    return buffer.abs() + x


def in_place(x: Tensor) -> Tensor:
    return (x + 0).relu_()


def rounded(x: Tensor) -> Tensor:
    return x + torch.div(x, 0.1, rounding_mode="floor")


def out_of_place(x: Tensor) -> Tensor:
    buffer = torch.empty_like(x)
    torch.mul(x, 1, out=buffer)
    return buffer.abs() + x


def by_a_mask(x: Tensor) -> Tensor:
    return x * (x > 0).to(x)


def detached(x: Tensor) -> Tensor:
    return x * x.detach().sign()


@pytest.mark.parametrize(
    "function", [through_a_buffer, in_place, rounded, out_of_place, by_a_mask, detached]
)
def test_a_kink_cannot_hide(function: Callable[[Tensor], Tensor]) -> None:
    assert not is_analytic(Net(function), Z)


class Convolutional(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.fc = nn.Linear(4, 8 * 4)
        self.up = nn.ConvTranspose2d(8, 4, 4, 2, 1)
        self.norm = nn.BatchNorm2d(4)
        self.out = nn.Conv2d(4, 1, 3, padding=1)

    def forward(self, z: Tensor) -> tuple[Tensor, Tensor]:
        h = F.silu(self.fc(torch.cat([z.real, z.imag], -1)).unflatten(-1, (8, 2, 2)))
        mean = self.out(F.interpolate(self.norm(self.up(h)), scale_factor=2)).flatten(1)
        return mean, torch.zeros_like(mean)


def test_a_convolutional_decoder_is() -> None:
    assert is_analytic(Convolutional().double().eval(), Z)


def test_a_field_that_torch_did_not_see_is_not() -> None:
    """As of code that was compiled: the factor depends on z, and nothing says how."""

    def decoder(z: Tensor) -> tuple[Tensor, Tensor]:
        mean = torch.cat([z.real, z.imag], -1)
        with torch.utils._python_dispatch._disable_current_modes():
            spread = mean.abs()
        return mean, spread

    assert not is_analytic(decoder, Z)
    assert is_analytic(lambda z: (decoder(z)[0], torch.zeros(len(z), 4, dtype=torch.float64)), Z)
