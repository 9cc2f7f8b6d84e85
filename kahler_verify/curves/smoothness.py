"""A warning where a decoder has layers whose derivatives jump: curves lose their order there."""

from __future__ import annotations

import warnings

import torch
from torch import Tensor

from kahler_verify.geometry.riemannian import RiemannianMetric
from kahler_verify.jets.kinks import AT_C1
from kahler_verify.jets.smoothness import SmoothnessWarning

__all__ = ["SmoothnessWarning", "warn_of_kinks"]


def warn_of_kinks(metric: RiemannianMetric, z: Tensor) -> None:
    """Name the first layer of a metric's decoder, at z [..., d], that is not C²."""
    inside = z.reshape(-1, z.shape[-1])
    inside = inside[inside.isfinite().all(-1)]
    with torch.no_grad():
        known = metric._kinks(inside) if len(inside) else []
    if not known:
        return
    layer, smoothness = known[0]
    text = (
        "is C¹ only: curves converge slowly with their mesh, and curvature jumps"
        if smoothness >= AT_C1
        else "is C⁰ only: geodesics bend at its kinks, second derivatives miss them, and "
        "searches may not converge"
    )
    warnings.warn(
        f"{layer} {text}; tanh, softplus or SiLU are smooth", SmoothnessWarning, stacklevel=4
    )
