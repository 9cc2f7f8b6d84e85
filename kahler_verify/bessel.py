"""The quotient of modified Bessel functions A_n(κ) = I_{n/2}(κ)/I_{n/2-1}(κ), to all its digits.

It is the mean resultant length of von Mises-Fisher laws on the sphere in R^n.  Torch has I₀ and I₁
alone, and quotients of them lose the derivatives: A′ = 1 - A² - (n - 1) A/κ cancels like κ².
Here A, A′, A″ and A‴ by autograd have theirs at small and at large κ:

- for κ up to a bound, A = κ ρ(κ²) with Gauss' continued fraction ρ_ν = 1/(2(ν + 1) + κ² ρ_{ν+1}),
  run backwards from an order at which its tail no longer counts;
- beyond it, the expansion A = Σ c_j κ^{-j}, whose coefficients follow from that equation for A′.
"""

from __future__ import annotations

from fractions import Fraction
from functools import cache
from math import asinh

import torch
from torch import Tensor
from torch.overrides import handle_torch_function, has_torch_function_unary

from kahler_verify.errors import InputError

TERMS = 40  # of the expansion
LEAST_BOUND = 30  # from here on they suffice, for n = 2
DIGITS = 40.0  # of the tail, in powers of e: 4e-18
LARGEST = 64  # n: the bound grows with n²


@cache
def _coefficients(n: int) -> tuple[float, ...]:
    """c_0, c_1, …: 2c_m = (m - n) c_{m-1} - Σ_{0<i<m} c_i c_{m-i}."""
    c = [Fraction(1)]
    for m in range(1, TERMS + 1):
        inner = sum((c[i] * c[m - i] for i in range(1, m)), Fraction(0))
        c.append(((m - n) * c[m - 1] - inner) / 2)
    return tuple(map(float, c))


@cache
def _steps(n: int) -> tuple[float, int]:
    """The bound between the two ways, and how many steps the fraction takes below it.

    A step's error is damped by I_{ν+1}/I_ν squared, which is less than exp(-2 asinh(ν/κ)).
    """
    order = n / 2 - 1
    bound = LEAST_BOUND + order**2
    steps, damped = 0, 0.0
    while damped < DIGITS:
        steps += 1
        damped += 2 * asinh((order + steps) / bound)
    return bound, steps


def bessel_quotient(concentration: Tensor, n: int) -> Tensor:
    """A_n of each entry, which must be ≥ 0; differentiable, three times to nearly all digits.

    Raises:
        InputError: n is not from 2 to 64.
    """
    if has_torch_function_unary(concentration):  # one call to whoever carries derivatives
        return handle_torch_function(bessel_quotient, (concentration,), concentration, n)
    if n not in range(2, LARGEST + 1):
        raise InputError(f"n: expected a dimension from 2 to {LARGEST}, got {n}")
    bound, steps = _steps(n)
    order = n / 2 - 1
    is_small = concentration <= bound
    small = torch.where(is_small, concentration, bound)
    square = small * small
    fraction = torch.zeros_like(square)
    for k in reversed(range(steps)):
        fraction = 1 / (2 * (order + k + 1) + square * fraction)
    inverse = 1 / torch.where(is_small, bound, concentration)
    series = torch.zeros_like(inverse)
    for c in reversed(_coefficients(n)):
        series = c + inverse * series
    return torch.where(is_small, small * fraction, series)
