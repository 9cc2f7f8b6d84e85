"""What estimators in scikit-learn's manner share: data as tensors, counts, seeds."""

from __future__ import annotations

from typing import Any

import numpy as np
import torch
from torch import Tensor

from kahler_verify.errors import InputError
from kahler_verify.geometry.riemannian import RiemannianMetric


def real_metric(metric: object) -> RiemannianMetric:
    """The estimator's metric, if it is one on real latents."""
    if not isinstance(metric, RiemannianMetric):
        raise InputError(
            "metric: expected a metric at real latents (a Hermitian one has .riemannian()), got "
            f"{type(metric).__name__}"
        )
    return metric


def points(metric: RiemannianMetric, x: Any, *, least: int = 1, name: str = "X") -> Tensor:
    """Data [N, d] as a tensor without a gradient: float32 stays, all else becomes float64.

    Raises:
        InputError: x is no matrix of finite real numbers with as many columns as the metric has
            coordinates, or has fewer than ``least`` rows.
    """
    try:
        x = x.detach() if isinstance(x, Tensor) else torch.from_numpy(np.array(x))
    except (TypeError, ValueError) as error:
        raise InputError(f"{name}: expected real points [N, d], but {error}") from error
    if x.is_complex():
        raise InputError(f"{name}: expected real points, got {x.dtype}")
    if x.dtype != torch.float32:
        x = x.double()
    if x.ndim != 2 or len(x) < least:
        raise InputError(
            f"{name}: expected points [N, d] with N ≥ {least}, got shape {list(x.shape)}"
        )
    if not bool(x.isfinite().all()):
        rows = (~x.isfinite().all(-1)).nonzero().squeeze(-1).tolist()
        raise InputError(
            f"{name}: expected finite points, got NaN or infinities in {len(rows)} of {len(x)} "
            f"rows, the first of them {rows[:8]}"
        )
    return metric.space.check(name, x)


def count(name: str, value: Any, least: int = 1, most: float = float("inf")) -> int:
    """A whole number within limits."""
    whole = isinstance(value, int | np.integer) and not isinstance(value, bool)
    if not whole or not least <= value <= most:
        limits = f"{least} or more" if most == float("inf") else f"{least} to {int(most)}"
        raise InputError(f"{name}: expected a whole number, {limits}, got {value!r}")
    return int(value)
