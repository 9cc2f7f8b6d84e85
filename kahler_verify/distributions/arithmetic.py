"""Squares, blocks and solves that keep their derivatives in every mode of autograd."""

from collections.abc import Callable

import torch
from torch import Tensor


def real_blocks(plus: Tensor, minus: Tensor) -> Tensor:
    """``½ [[Re P, -Im M], [Im P, Re M]]`` of P = Σ + R and M = Σ - R."""
    upper = torch.cat([plus.real, -minus.imag], -1)
    lower = torch.cat([plus.imag, minus.real], -1)
    return torch.cat([upper, lower], -2) / 2


def improper_square(whitened: Tensor, coherence: Tensor) -> Tensor:
    """``|w|² - Re ρ̄ w²``."""
    return squared_modulus(whitened) - (coherence.conj() * whitened * whitened).real


def squared_modulus(x: Tensor) -> Tensor:
    """``|x|²``, real, whose Hessian at 0 autograd gets right."""
    return (x * x.conj()).real


def solve_lower(factor: Tensor, columns: Tensor) -> Tensor:
    """``L^{-1} Y`` for a lower triangular L [..., D, D] and columns Y [..., D, n]."""
    return torch.linalg.solve_triangular(factor, columns, upper=False)


def on_columns(
    operation: Callable[[Tensor, Tensor], Tensor], factor: Tensor, vectors: Tensor
) -> Tensor:
    """Applies ``operation(factor, columns)`` to vectors ``[..., D]``.

    Dimensions that the factor does not have become columns of one call: the factor is not copied
    for each sample.
    """
    extra = vectors.ndim - 1 - (factor.ndim - 2)
    if extra <= 0:
        return operation(factor, vectors[..., None])[..., 0]
    columns = vectors.flatten(0, extra - 1).movedim(0, -1)
    result = operation(factor, columns).movedim(-1, 0)
    return result.reshape(vectors.shape[:extra] + result.shape[1:])
