"""Derivatives are given where a function has a value."""

from __future__ import annotations

from collections.abc import Iterable

import torch
from torch import Tensor

from kahler_verify.linear_algebra.products import is_transformed


def nowhere(x: Tensor, outputs: Iterable[Tensor]) -> Tensor:
    """x [B, ...], NaN where an output [B, ...] of the decoder is NaN or infinite.

    A function may have slopes where it has no value, as torch's logarithm below 0.
    """
    lost = x.new_zeros(len(x), dtype=torch.bool)
    for output in outputs:
        lost = lost | ~output[:, None].isfinite().flatten(1).all(1)
    if not is_transformed(lost) and not bool(lost.any()):
        return x
    return torch.where(lost.reshape(-1, *[1] * (x.ndim - 1)), torch.nan, x)
