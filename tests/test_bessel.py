"""The Bessel quotient and its derivatives, against 40 digits, at small and at large κ."""

import mpmath
import pytest
import torch

from kahler_verify.bessel import _steps, bessel_quotient
from kahler_verify.errors import InputError

KAPPA = (1e-9, 1e-3, 0.5, 2.0, 11.0, 29.0, 30.0, 31.0, 45.0, 200.0, 1e4, 1e7)


def _truth(n: int, kappa: float) -> list[float]:
    """A and three derivatives, from A′ = 1 - A² - (n - 1) A/κ at many digits."""
    with mpmath.workdps(120):
        t = mpmath.mpf(kappa)
        A = mpmath.besseli(mpmath.mpf(n) / 2, t) / mpmath.besseli(mpmath.mpf(n) / 2 - 1, t)
        c = n - 1
        first = 1 - A**2 - c * A / t
        second = -2 * A * first - c * (first / t - A / t**2)
        third = -2 * first**2 - 2 * A * second
        third -= c * (second / t - 2 * first / t**2 + 2 * A / t**3)
        return [float(x) for x in (A, first, second, third)]


def _found(n: int, kappa: torch.Tensor) -> list[torch.Tensor]:
    x = kappa.clone().requires_grad_()
    values = [bessel_quotient(x, n)]
    for _ in range(3):
        values.append(torch.autograd.grad(values[-1].sum(), x, create_graph=True)[0])
    return [v.detach() for v in values]


@pytest.mark.parametrize("n", [2, 3, 5, 16, 64])
def test_all_digits_at_small_and_at_large_concentrations(n: int) -> None:
    bound, _ = _steps(n)
    kappa = torch.tensor([*KAPPA, bound - 1e-3, bound, bound + 1e-3], dtype=torch.float64)
    found = torch.stack(_found(n, kappa), 1)
    for x, row in zip(kappa.tolist(), found.tolist(), strict=True):
        for order, (value, truth) in enumerate(zip(row, _truth(n, x), strict=True)):
            allowed = (4e-15, 1e-13, 1e-12, 1e-11)[order]
            assert abs(value - truth) <= allowed * abs(truth) + 1e-300, (x, order, value, truth)


def test_at_zero() -> None:
    value, slope, bend, _ = _found(2, torch.zeros(1, dtype=torch.float64))
    assert (value.item(), slope.item(), bend.item()) == (0.0, 0.5, 0.0)


def test_on_the_sphere_it_is_langevins_function() -> None:
    kappa = torch.linspace(0.5, 60, 50, dtype=torch.float64)
    assert torch.allclose(bessel_quotient(kappa, 3), 1 / kappa.tanh() - 1 / kappa, rtol=1e-14)


def test_single_precision_keeps_its_digits() -> None:
    kappa = torch.logspace(-3, 6, 60)
    double = bessel_quotient(kappa.double(), 2)
    assert torch.allclose(bessel_quotient(kappa, 2).double(), double, rtol=1e-6)


@pytest.mark.parametrize("n", [1, 65])
def test_dimensions_out_of_range(n: int) -> None:
    with pytest.raises(InputError, match="from 2 to 64"):
        bessel_quotient(torch.ones(2), n)
