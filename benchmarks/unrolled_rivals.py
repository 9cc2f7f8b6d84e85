"""Mixtures of small dimension with ``compile=True``, against the general kernels and the rivals.

Ours is compiled when it is first called, before anything is timed.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import replace
from typing import Any

import torch
from torch import Tensor

from benchmarks.mixture_rivals import build_mixture, mixture_problem, ricci_problem
from benchmarks.networks import latent_points
from benchmarks.problem import Problem, Rival
from benchmarks.timing import Run
from kahler_verify.geometry import MixtureMetric

GENERAL = "ours, general kernels"


def unrolled_problem(sizes: Mapping[str, Any], dtype: torch.dtype, device: torch.device) -> Problem:
    """∂∂̄ log Σ π_k exp q_k at B points; sizes: d ≤ 4, K, B."""
    return _compiled(sizes, dtype, device, mixture_problem, MixtureMetric.metric_matrix)


def unrolled_ricci_problem(
    sizes: Mapping[str, Any], dtype: torch.dtype, device: torch.device
) -> Problem:
    """The Ricci tensor at B points; sizes: d ≤ 2, K, B."""
    return _compiled(sizes, dtype, device, ricci_problem, MixtureMetric.ricci_tensor)


def _compiled(
    sizes: Mapping[str, Any],
    dtype: torch.dtype,
    device: torch.device,
    make: Callable[..., Problem],
    quantity: Callable[[MixtureMetric, Tensor], Tensor],
) -> Problem:
    """The same problem with the general kernels among the rivals."""
    general = make(sizes, dtype, device)
    mixture, z = build_mixture(sizes, dtype, device), latent_points(sizes, dtype, device)
    metric = MixtureMetric(*mixture, validate_args=False, compile=True)

    def ours() -> Tensor:
        with torch.no_grad():
            return quantity(metric, z)

    def build() -> Run:
        return general.ours

    return replace(general, ours=ours, rivals={GENERAL: Rival(build), **general.rivals})
