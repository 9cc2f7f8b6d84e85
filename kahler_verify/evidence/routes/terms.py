"""Matrices over named indices in torch, and the special functions that torch has too few digits of.

Inverses and determinants go through ``cholesky`` and ``solve_triangular`` alone: see
``torch_faults``.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import reduce
from math import factorial, log, pi

import torch
from sympy import Symbol
from torch import Tensor

COMPONENT = Symbol("component")  # the axis over the components of a mixture
FUNCTIONS: Mapping[str, Callable[..., Tensor]] = {
    name: getattr(torch, name)
    for name in ("exp", "log", "sin", "cos", "tan", "sinh", "cosh", "tanh")
} | {
    "log1pexp": lambda x: torch.log(1 + torch.exp(x)),
    "logistic": lambda x: torch.reciprocal(1 + torch.exp(-x)),
    "loggamma": lambda x: _loggamma(x.real) + 0j,  # of real numbers
    "polygamma": lambda n, x: _polygamma(int(n.real), x.real) + 0j,
}

FAR = 40  # from here on Stirling's series with so many terms has all digits
STIRLING = (1 / 12, -1 / 360, 1 / 1260, -1 / 1680, 1 / 1188)


def _loggamma(x: Tensor) -> Tensor:
    """By Stirling's series far out, and the recurrence: torch's own ψ′ has nine digits."""
    z = x + FAR
    series = sum(c / z ** (2 * n + 1) for n, c in enumerate(STIRLING))
    far = (z - 0.5) * torch.log(z) - z + log(2 * pi) / 2 + series
    return far - torch.stack([torch.log(x + k) for k in range(FAR)]).sum(0)


def _polygamma(n: int, x: Tensor) -> Tensor:
    """ψ by the derivative of that series, ψ⁽ⁿ⁾ by Hurwitz's zeta function."""
    if n == 0:
        z = x + FAR
        series = sum((2 * n + 1) * c / z ** (2 * n + 2) for n, c in enumerate(STIRLING))
        far = torch.log(z) - 1 / (2 * z) - series
        return far - torch.stack([1 / (x + k) for k in range(FAR)]).sum(0)
    return (-1) ** (n + 1) * factorial(n) * torch.special.zeta(n + 1, x)


@dataclass(frozen=True)
class Term:
    """Matrices [*axes, rows, cols] over named latent indices."""

    axes: tuple[Symbol, ...]
    value: Tensor

    @property
    def is_number(self) -> bool:
        """Whether the matrices are 1 × 1."""
        return self.value.shape[-2:] == (1, 1)


def adjoint(value: Tensor) -> Tensor:
    """The adjoint without a lazy conjugate, which forward mode cannot batch."""
    value = value * 1  # of a lazy conjugate, real parts are views that vmap does not know
    return (torch.complex(value.real, -value.imag) * 1).mT


def number(value: complex) -> Term:
    """A number, over no axes."""
    return Term((), torch.tensor([[value]], dtype=torch.complex128))


def aligned(term: Term, axes: tuple[Symbol, ...]) -> Tensor:
    """The value with an axis, of length one where the term has none, for each of ``axes``."""
    order = [term.axes.index(a) for a in axes if a in term.axes]
    value = term.value.permute(*order, -2, -1)
    for n, a in enumerate(axes):
        if a not in term.axes:
            value = value.unsqueeze(n)
    return value


def _together(x: Term, y: Term) -> tuple[tuple[Symbol, ...], Tensor, Tensor]:
    axes = (*x.axes, *[a for a in y.axes if a not in x.axes])
    return axes, aligned(x, axes), aligned(y, axes)


def plus(x: Term, y: Term) -> Term:
    """The sum over the axes of both."""
    axes, left, right = _together(x, y)
    return Term(axes, left + right)


def times(x: Term, y: Term) -> Term:
    """The product over the axes of both; a 1 × 1 matrix multiplies as a number."""
    axes, left, right = _together(x, y)
    return Term(axes, left * right if x.is_number or y.is_number else left @ right)


def trace(term: Term) -> Term:
    """The trace of each matrix, as a number."""
    return Term(term.axes, term.value.diagonal(dim1=-2, dim2=-1).sum(-1)[..., None, None])


def without_repeats(term: Term) -> Term:
    """The diagonal over an index that occurs twice."""
    for n, axis in enumerate(term.axes):
        if axis in term.axes[:n]:
            first = term.axes.index(axis)
            value = term.value.diagonal(dim1=first, dim2=n).movedim(-1, first)
            return without_repeats(Term((*term.axes[:n], *term.axes[n + 1 :]), value))
    return term


def _factor(matrix: Tensor, positive: bool) -> tuple[Tensor, Tensor]:
    """L and R with X⁻¹ = L⁻ᴴL⁻¹R: X = L Lᴴ and R = 1, or XᴴX = L Lᴴ and R = Xᴴ."""
    if positive:
        eye = torch.eye(matrix.shape[-1], dtype=matrix.dtype)
        return torch.linalg.cholesky((matrix + matrix.mH) / 2), eye
    return torch.linalg.cholesky(matrix.mH @ matrix), matrix.mH


def _inverse(matrix: Tensor, positive: bool) -> Tensor:
    if matrix.shape[-1] == 1:
        return matrix.reciprocal()
    factor, right = _factor(matrix, positive)
    half = torch.linalg.solve_triangular(factor, right.expand_as(factor), upper=False)
    return torch.linalg.solve_triangular(factor.mH, half, upper=True)


def log_det(term: Term, positive: bool) -> Term:
    """The log determinant of each matrix, by Cholesky."""
    factor, _ = _factor(term.value, positive)
    value = factor.diagonal(dim1=-2, dim2=-1).real.log().sum(-1) * (2 if positive else 1)
    return Term(term.axes, value[..., None, None].to(torch.complex128))


def integer_power(base: Term, power: int, positive: bool) -> Term:
    """The power of each matrix; ``positive`` ones are inverted by their own factor."""
    if power < 0:
        base = Term(base.axes, _inverse(base.value, positive))
    return reduce(times, [base] * abs(power))


def over_components(term: Term) -> Term:
    """The sum over a mixture's components."""
    axis = term.axes.index(COMPONENT)
    return Term(tuple(a for a in term.axes if a != COMPONENT), term.value.sum(axis))
