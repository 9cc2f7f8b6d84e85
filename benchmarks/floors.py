"""Operation counts: what the least work of a quantity is, and how it grows.

A complex multiply-add counts 8 real operations; a floor is the count over the measured peak of a
complex matrix product.  Three real products instead of four (6 operations) can go under it.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Any

import torch


def fisher_operations(sizes: Mapping[str, Any]) -> float:
    """For one point, with the full Jacobian of the mean, and of φ through a triangular factor.

    The factor (h × h in place of D × h) is what an affine log variance allows; where Σ is constant
    or scalar, the mean's widest layer folds in the same way, and the package may go under this.
    """
    d, h, D, sigma = sizes["d"], sizes["h"], sizes["D"], sizes["sigma"]
    outputs = {"diagonal": D, "scalar": 1, "constant": 0}[sigma]
    values = 8 * h * (d + h) + 4 * h * outputs
    if sizes["family"] == "holomorphic":
        rank = min(h, outputs)
        return values + 8 * d * (h * h + h * D + h * rank) + 4 * d * d * (D + rank)
    rank = min(2 * h, outputs)
    return values + 2 * d * (8 * h * h + 8 * h * D + 4 * h * rank) + 4 * d * d * (2 * D + rank)


def fisher_traffic(sizes: Mapping[str, Any], dtype: torch.dtype) -> float:
    """Bytes for a batch: weights, points and metrics, once each."""
    d, h, D, points = sizes["d"], sizes["h"], sizes["D"], sizes["B"]
    weights = h * (d + h) + 2 * h * D
    return 2 * dtype.itemsize * (weights + points * (d + d * d))


def training_operations(sizes: Mapping[str, Any]) -> float:
    """For one point: forward, and the explicit backward pass (about three times as much)."""
    d, h, D = sizes["d"], sizes["h"], sizes["D"]
    tangents = 8 * d * (3 * h * h + 3 * h * D + 2 * h * h)
    small = 24 * d * d * h + 8 * d * d * D + 16 * d**3
    return tangents + small + 3 * (8 * h * (d + h) + 4 * h * D)


def mixture_operations(sizes: Mapping[str, Any]) -> float:
    """For one point: all P_k(z - c_k), the quadratic forms, the mean of P_k, the covariance."""
    d, K = sizes["d"], sizes["K"]
    return K * (8 * d * d + 2 * d * d + 4 * d * d + 12 * d)


def exponent(values: Sequence[float], costs: Sequence[float]) -> float:
    """The slope of log cost over log value, by least squares."""
    x, y = [math.log(v) for v in values], [math.log(c) for c in costs]
    mean_x, mean_y = sum(x) / len(x), sum(y) / len(y)
    return sum((a - mean_x) * (b - mean_y) for a, b in zip(x, y, strict=True)) / sum(
        (a - mean_x) ** 2 for a in x
    )
