"""Derivatives are given where a function has a value."""

from __future__ import annotations

import cmath
from collections.abc import Iterable

import torch
from torch import Tensor

from kahler_verify.linear_algebra.products import is_transformed


def nowhere(x: Tensor, outputs: Iterable[Tensor]) -> Tensor:
    """x [B, ...], NaN where an output [B, ...] of the decoder is NaN or infinite.

    A function may have slopes where it has no value, as torch's logarithm below 0.
    """
    outputs = list(outputs)
    if not is_transformed(x, *outputs) and all(map(all_finite, outputs)):
        return x
    lost = x.new_zeros(len(x), dtype=torch.bool)
    for output in outputs:
        lost = lost | ~output[:, None].isfinite().flatten(1).all(1)
    return torch.where(lost.reshape(-1, *[1] * (x.ndim - 1)), torch.nan, x)


def all_finite(x: Tensor) -> bool:
    """Is no number NaN or infinite?"""
    # a finite sum has finite terms, and takes a tenth of the time; that of finite ones may overflow
    return cmath.isfinite(x.detach().sum().item()) or bool(x.isfinite().all())
