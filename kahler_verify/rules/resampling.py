"""Pooling and resampling: linear in the image."""

from __future__ import annotations

from typing import Any

from torch import Tensor

from kahler_verify.rules.expansion import Expansion, by_point, by_vmap, linear
from kahler_verify.rules.registry import rule

_POOLS = (
    *(f"{kind}avg_pool{n}d" for kind in ("", "adaptive_") for n in (1, 2, 3)),
    *("_adaptive_avg_pool2d", "_adaptive_avg_pool3d"),
)
_UPSAMPLINGS = (
    *(f"upsample_nearest{n}d" for n in (1, 2, 3)),
    *(f"_upsample_nearest_exact{n}d" for n in (1, 2, 3)),
    *("upsample_linear1d", "upsample_bilinear2d", "upsample_bicubic2d", "upsample_trilinear3d"),
    *("_upsample_bilinear2d_aa", "_upsample_bicubic2d_aa"),
)
_AXES = {"1d": 3, "2d": 4, "3d": 5}


@rule(*_POOLS, *_UPSAMPLINGS)
def resampled(call: Any, x: Expansion, *arguments: Any, **named: Any) -> Expansion:
    """Each image by itself, so that rows join the batch."""
    axes = _AXES[call.__name__.removesuffix("_aa")[-2:]]
    rows = by_point if x.value.ndim == axes else by_vmap
    return linear(lambda t: call(t, *arguments, **named), x, rows)


@rule("grid_sampler", "grid_sampler_2d", "grid_sampler_3d")
def sampled(call: Any, x: Expansion, grid: Tensor, *arguments: Any) -> Expansion:
    """At places that do not vary."""
    return linear(lambda t: call(t, grid, *arguments), x)
