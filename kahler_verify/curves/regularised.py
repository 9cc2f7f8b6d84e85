"""Metrics with a floor: for decoders that have forgotten some of their latent directions."""

from __future__ import annotations

import copy
from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor, nn

from kahler_verify.errors import InputError
from kahler_verify.geometry.pulled_back import PulledBackMetric


class WithCoordinates(nn.Module):
    """z ↦ (f(z), s z).

    Args:
        function: f, from z [B, d] to a tensor [B, ...]; a module or another callable.
        scale: s.
    """

    scale: Tensor

    def __init__(self, function: Callable[[Tensor], Any], scale: Tensor):
        super().__init__()
        self.function = function
        self.register_buffer("scale", scale)

    def forward(self, z: Tensor) -> Tensor:
        """Both, as [B, n + d]."""
        return torch.cat([self.function(z).flatten(1), self.scale * z], -1)


def regularised(metric: PulledBackMetric, x: Tensor, strength: float = 1e-3) -> PulledBackMetric:
    """The metric g + ε 1, with ε a part of g's mean eigenvalue at points x, in their median.

    Where a decoder forgets a direction, g is nearly 0 along it: any way of going that way is as
    short as any other, geodesics are hardly determined, and searches take long or fail.  This
    is another metric, whose geodesics and distances are others (the distance is never less); its
    searches are short.  It is a pull-back too, along z ↦ (f(z), √ε z), so that all else applies.

    Args:
        metric: pulled back along f.
        x: points [N, d], such as encoded data.
        strength: ε over that eigenvalue.

    Raises:
        InputError: strength is not above 0, or the metric is not one pulled back along a function.
    """
    if type(metric) is not PulledBackMetric:
        raise InputError(f"metric: expected a PulledBackMetric, got a {type(metric).__name__}")
    if not 0 < strength < float("inf"):
        raise InputError(f"strength: expected a number above 0, got {strength!r}")
    metric.space.check("x", x)
    if x.ndim != 2 or len(x) == 0:
        raise InputError(f"x: expected points [N, d] with N ≥ 1, got {list(x.shape)}")
    with torch.no_grad():
        g = metric.metric_matrix(x)
        floor = strength * g.diagonal(dim1=-2, dim2=-1).mean(-1).median()
    out = copy.copy(metric)
    out.function = WithCoordinates(metric.function, floor.sqrt())
    out._outputs = 0
    return out
