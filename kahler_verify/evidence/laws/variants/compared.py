"""A variant beside its kernel, and what variants' comparisons share."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence

import torch
from torch import Tensor

from kahler_verify.evidence.finding import Finding
from kahler_verify.geometry.metric import PartwiseMetric

C, R = torch.complex128, torch.float64
TOLERANCE = 1e-12


def beside(what: str, error: float, bound: float = TOLERANCE) -> Finding:
    """A variant beside its kernel: what was compared, the error, and what it may be."""
    return Finding((error,), (bound,), unit="relative", what=what, route="variants")


def numbers(*shape: int, seed: int = 0) -> Tensor:
    """Complex normal numbers, the same in every run."""
    return torch.randn(shape, dtype=C, generator=torch.Generator().manual_seed(seed))


def relative(got: Tensor, truth: Tensor) -> float:
    """The largest error, relative to the largest entry."""
    if got.shape != truth.shape:
        return math.inf
    error = (got - truth).detach().abs().max()
    return float(error / truth.detach().abs().max().clamp_min(1e-300))


def framed(got: Tensor, truth: Tensor, g: Tensor) -> float:
    """The largest error of covariant tensors [..., d, d] or [..., d], each index by √g_aa."""
    if got.shape != truth.shape:
        return math.inf
    norm = g.diagonal(dim1=-2, dim2=-1).real.sqrt()
    error = (got - truth).detach().abs() / norm.unsqueeze(-2)
    return float((error / norm.unsqueeze(-1) if got.ndim == g.ndim else error[..., 0, :]).max())


def condition(g: Tensor) -> float:
    """The largest condition number of g in the frame where its diagonal is 1."""
    norm = g.diagonal(dim1=-2, dim2=-1).real.sqrt()
    return float(torch.linalg.cond(g / norm.unsqueeze(-1) / norm.unsqueeze(-2)).max())


def gradients(value: Tensor, leaves: Sequence[Tensor]) -> list[Tensor]:
    """∂ Σ value by each leaf; 0 by those that it does not depend on."""
    found = torch.autograd.grad(value.sum(), leaves, allow_unused=True)
    return [torch.zeros_like(x) if g is None else g for g, x in zip(found, leaves, strict=True)]


class PlainMetric(PartwiseMetric):
    """A metric from its parts as plain kernels give them."""

    def __init__(self, parts: Callable[[Tensor], tuple[Tensor, Tensor | None]]):
        super().__init__()
        self.parts = parts

    def _parts(self, z: Tensor) -> tuple[Tensor, Tensor | None]:
        return self.parts(z)

    def _metric_d(self, z: Tensor) -> Tensor:
        raise NotImplementedError

    _metric_db = _metric_d
