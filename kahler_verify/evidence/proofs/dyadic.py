"""Exact numbers of tensors, as balls and as strings, and rounding upwards."""

from __future__ import annotations

from fractions import Fraction
from typing import Any

import flint
import numpy as np
import torch
from flint import acb, arb, fmpq
from torch import Tensor

from kahler_verify.errors import InputError
from kahler_verify.evidence.numbers.arrays import Array, array

FIRST_BITS = 64
MOST_BITS = 1024
UNITS = {torch.float32: -23, torch.complex64: -23, torch.float64: -52, torch.complex128: -52}


def larger(x: Any, y: Any) -> Any:
    """The larger of two exact reals; what is not a number wins."""
    return y if bool(y > x) or y.is_nan() else x


def unit_of(name: str, t: Any) -> int:
    """The exponent of the unit roundoff's double, after a check of the dtype."""
    if not isinstance(t, Tensor) or t.dtype not in UNITS:
        kinds = "a float32, float64, complex64 or complex128 tensor"
        raise InputError(f"{name}: expected {kinds}, got {getattr(t, 'dtype', type(t).__name__)}")
    return UNITS[t.dtype]


def batch_of(name: str, t: Tensor, rank: int) -> torch.Size:
    """The leading dimensions, after a check of dtype, rank and finiteness."""
    unit_of(name, t)
    if t.ndim < rank:
        raise InputError(f"{name}: expected at least {rank} dimensions, got shape {tuple(t.shape)}")
    if not bool(torch.isfinite(t).all()):
        raise InputError(f"{name}: expected finite numbers, got some that are not")
    return t.shape[: t.ndim - rank]


def part_at(t: Tensor, rank: int, batch: tuple[int, ...], where: tuple[int, ...]) -> Tensor:
    """The tensor's part at one point of the batch, on the CPU."""
    return t.detach().expand((*batch, *t.shape[t.ndim - rank :]))[where].cpu()


def balls_of(t: Tensor) -> Array:
    """Exact complex balls of a tensor's numbers, all of which are dyadic."""
    flat = t.detach().to(torch.complex128).flatten().tolist()
    return array([acb(x.real, x.imag) for x in flat], tuple(t.shape))


def exact(t: Tensor) -> Any:
    """Nested lists of pairs of strings "p/q", one for each number; None for what is not finite."""
    if t.ndim:
        return [exact(x) for x in t]
    x = complex(t.item())
    if not (np.isfinite(x.real) and np.isfinite(x.imag)):
        return None
    return [str(Fraction(x.real)), str(Fraction(x.imag))]


def floor_of(unit: int) -> Fraction:
    """Errors below this count as none."""
    return Fraction(2) ** (unit - 16)


def rational(x: Fraction) -> fmpq:
    """A fraction as FLINT's."""
    return fmpq(x.numerator, x.denominator)


def rounded_up(x: Any) -> Fraction | None:
    """A short dyadic number above an exact real; None where it is not finite."""
    if not bool(x.is_finite()):
        return None
    with flint.ctx.workprec(24):
        top = (x * (1 + arb(2) ** -20)).upper().fmpq()
    return Fraction(int(top.p), int(top.q))
