"""Traces and log determinants of a matrix that is known by its products alone, by random probes.

Rows are vectors, as in :mod:`kahler_verify.linear_algebra.krylov`.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import torch
from scipy.special import stdtrit
from torch import Tensor

from kahler_verify.errors import InputError
from kahler_verify.linear_algebra.krylov import Product, generator, lanczos

__all__ = ["Estimate", "LogDet", "log_det", "trace"]

_CONFIDENCE = 0.95


@dataclass(frozen=True)
class Estimate:
    """A number from random probes.

    Attributes:
        value: the estimate.
        error: half the width of a 95% interval.
        products: vectors that were multiplied.
    """

    value: float
    error: float
    products: int


@dataclass(frozen=True)
class LogDet:
    """log det (A + ridge) by stochastic Lanczos quadrature.

    Attributes:
        samples: [p], the probes' estimates, each the middle of its quadratures.
        bias: half the mean distance of an upper and a lower quadrature.
        products: vectors that were multiplied.
        key: what probes and steps were; differences of equal keys have common probes.
    """

    samples: Tensor
    bias: float
    products: int
    key: tuple[int, ...]

    @property
    def value(self) -> float:
        """The mean over probes."""
        return self.samples.mean().item()

    @property
    def error(self) -> float:
        """Of a 95% interval of the probes' mean, widened by the bias."""
        return _half_width(self.samples) + self.bias

    def minus(self, other: LogDet) -> Estimate:
        """The difference of two, whose error is that of the probes' differences.

        Raises:
            InputError: they have not the same probes.
        """
        if self.key != other.key:
            raise InputError(
                "other: expected the same seed, probes and steps, so that probes are common"
            )
        apart = self.samples - other.samples
        error = _half_width(apart) + self.bias + other.bias
        return Estimate(apart.mean().item(), error, self.products + other.products)


def _half_width(samples: Tensor) -> float:
    """Of the 95% interval of a mean, by Student's law."""
    n = len(samples)
    if n < 2:
        return math.inf
    quantile = float(stdtrit(n - 1, (1 + _CONFIDENCE) / 2))
    return quantile * samples.std().item() / math.sqrt(n)


def _signs(count: int, like: Tensor, seed: int) -> Tensor:
    """Rademacher probes [count, d]."""
    bits = torch.randint(0, 2, (count, like.shape[-1]), generator=generator(seed))
    return (2 * bits - 1).to(like)


def trace(product: Product, like: Tensor, *, probes: int = 16, seed: int = 0) -> Estimate:
    """The trace of a positive semidefinite matrix by Hutch++, a third of the probes for its range.

    With as many probes as rows it is the sum of the diagonal.

    Source: Meyer, Musco, Musco, Woodruff, arXiv 2010.09649.
    """
    d = like.shape[-1]
    if probes < 6:
        raise InputError(f"probes: expected at least 6, got {probes}")
    if d <= probes:
        axes = torch.eye(d, dtype=like.dtype, device=like.device)
        return Estimate((product(axes) * axes).sum().item(), 0.0, d)
    sketch = probes // 3
    signs = _signs(probes - sketch, like, seed)
    range_of = product(signs[:sketch])
    Q = torch.linalg.qr(range_of.mT).Q.mT
    exact = (product(Q) * Q).sum()
    rest = signs[sketch:] - (signs[sketch:] @ Q.mT) @ Q
    samples = (product(rest) * rest).sum(-1)
    error = _half_width(samples)
    return Estimate((exact + samples.mean()).item(), error, sketch + len(Q) + len(samples))


def log_det(
    product: Product,
    like: Tensor,
    *,
    ridge: float = 0.0,
    smallest: float | None = None,
    probes: int = 8,
    steps: int = 30,
    seed: int = 0,
) -> LogDet:
    """log det (A + ridge) by stochastic Lanczos quadrature.

    Each probe's vᵀ log(A) v lies below Gauss' quadrature, and above Gauss and Radau's with a node
    at or below the smallest eigenvalue.  The middle of both is the estimate, and half their
    distance its bias.  Of a node that is only guessed the lower one is a guess.

    Args:
        product: of a positive definite matrix A, or of a semidefinite one with a ridge.
        like: [d], whose dtype and device vectors have.
        ridge: added to the matrix.
        smallest: a lower bound of A's eigenvalues; a half of the smallest one seen by default.
        probes: independent random vectors, at least 2.
        steps: of Lanczos' method for each.
        seed: of the probes.

    Raises:
        InputError: too few probes, or the matrix is not positive definite to working precision.

    Source: Ubaru, Chen, Saad, SIAM J. Matrix Anal. Appl. 38 (2017); Golub and Meurant, Matrices,
    Moments and Quadrature, chapter 6.
    """
    d = like.shape[-1]
    if probes < 2:
        raise InputError(f"probes: expected at least 2, got {probes}")
    steps = min(steps, d)
    signs = _signs(probes, like, seed)
    found = lanczos(lambda v: product(v) + ridge * v, signs, steps)
    T = found.matrix()
    nodes = torch.linalg.eigvalsh(T)
    least = torch.where(nodes.abs() > 0, nodes, torch.inf).min().item()
    if not least > 0:
        raise InputError(
            "expected a matrix that is positive definite to working precision, but an eigenvalue "
            f"is at most {least:.3g}: state a ridge"
        )
    floor = least / 2 if smallest is None else smallest + ridge
    if not floor > 0:
        raise InputError(f"smallest: expected a bound > 0 with its ridge, got {floor}")
    upper = _quadrature(T)
    lower = _quadrature(_radau(T, found.beside[:, -1], min(floor, least)))
    lower = torch.where(found.beside[:, -1] > 0, lower, upper)
    middle, bias = d * (upper + lower) / 2, d * ((upper - lower) / 2).abs().mean().item()
    return LogDet(middle.double().cpu(), bias, probes * steps, (seed, probes, steps))


def _quadrature(T: Tensor) -> Tensor:
    """e₁ᵀ log(T) e₁, [p]."""
    nodes, vectors = torch.linalg.eigh(T)
    weights = vectors[:, 0].square()
    logarithms = torch.where(
        nodes > 0, nodes, 1
    ).log()  # what a closed space has left is weightless
    return (weights * logarithms).sum(-1)


def _radau(T: Tensor, out: Tensor, node: float) -> Tensor:
    """T [p, m, m], one larger, with an eigenvalue at ``node``."""
    p, m, _ = T.shape
    shifted = T - node * torch.eye(m, dtype=T.dtype, device=T.device)
    right = torch.zeros(p, m, dtype=T.dtype, device=T.device)
    right[:, -1] = out.square()
    corner = node + torch.linalg.solve(shifted, right)[:, -1]
    larger = torch.nn.functional.pad(T, (0, 1, 0, 1))
    larger[:, -1, -1] = corner
    larger[:, -1, -2] = larger[:, -2, -1] = out
    return larger
