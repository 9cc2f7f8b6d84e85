"""Which matrices are degenerate to working precision: by a glance at pivots, or a closer look."""

from __future__ import annotations

import math
from dataclasses import dataclass

import torch
from torch import Tensor


def limit(n: int, dtype: torch.dtype, terms: int = 1) -> float:
    """Below which eigenvalues are rounding noise, of n × n matrices with a diagonal of ones."""
    return (16 * math.sqrt(n) + 2 * math.sqrt(terms)) * torch.finfo(dtype).eps


def real_diagonal(g: Tensor) -> Tensor:
    """The diagonal, real [..., n], of which derivatives need not know."""
    return g.detach().diagonal(dim1=-2, dim2=-1).real


def are_positive(pivots: Tensor, axis: int) -> Tensor:
    """Which no NaN is, nor what has lost digits to underflow."""
    floor = pivots.shape[axis] * torch.finfo(pivots.dtype).smallest_normal
    return (pivots > floor).all(axis)


def are_large(pivots: Tensor, scale: Tensor, terms: int, axis: int) -> Tensor:
    """Of which matrices the pivots alone say that they are not degenerate."""
    pivots = pivots.detach()
    least = math.e * limit(pivots.shape[axis], pivots.dtype, terms)
    return ((pivots / scale).prod(axis) > least) & are_positive(pivots, axis)


def can_look(x: Tensor) -> bool:
    """No where that would keep a GPU waiting, or values cannot be had."""
    hidden = torch.compiler.is_compiling() or torch._C._functorch.is_functorch_wrapped_tensor(x)
    return x.is_cpu and not hidden


def are_all(flags: Tensor) -> bool:
    """Whether a look finds all set."""
    return can_look(flags) and bool(flags.all())


@dataclass(frozen=True)
class Closer:
    """A closer look at some matrices [b, n, n], in double precision and in units of their own.

    Attributes:
        sound: which are not degenerate.
        lower: L of the matrices in their units; the identity where there is none.
    """

    sound: Tensor
    lower: Tensor

    @classmethod
    def of(cls, g: Tensor, scale: Tensor, terms: int) -> Closer:
        """Of g in units √scale, real [b, n]."""
        n, wide = g.shape[-1], torch.complex128 if g.is_complex() else torch.float64
        units = scale.double()
        # entries of so little have an absolute error
        smallest = torch.finfo(g.dtype).smallest_normal * torch.finfo(g.dtype).eps
        least = limit(n, g.dtype, terms) + n * smallest / units.amin(-1)
        roots = units.rsqrt()
        h = roots[:, :, None] * g.to(wide) * roots[:, None]
        h = h.tril(-1) + torch.diag_embed(h.diagonal(dim1=-2, dim2=-1).real)
        finite = torch.isfinite(h).all(-1).all(-1)
        eye = torch.eye(n, dtype=wide, device=g.device)
        lower, info = torch.linalg.cholesky_ex(torch.where(finite[:, None, None], h, eye))
        found = finite & (info == 0)
        lower = torch.where(found[:, None, None], lower, eye)
        trace = torch.cholesky_inverse(lower.detach()).diagonal(dim1=-2, dim2=-1).real.sum(-1)
        sound = found & (trace * least < 1)
        unsure = found & ~sound & (trace * least < n)
        if bool(unsure.any()):
            sound[unsure] = torch.linalg.eigvalsh(h.detach()[unsure])[:, 0] > least[unsure]
        return cls(sound, lower)

    def log_det(self, scale: Tensor) -> Tensor:
        """Of the matrices as they came."""
        roots = self.lower.diagonal(dim1=-2, dim2=-1).real
        return 2 * roots.log().sum(-1) + scale.double().log().sum(-1)

    def inverse(self, scale: Tensor) -> Tensor:
        """Of the matrices as they came."""
        roots = scale.double().rsqrt()
        return roots[:, :, None] * torch.cholesky_inverse(self.lower) * roots[:, None]

    def factor(self, scale: Tensor) -> Tensor:
        """Of the matrices as they came."""
        return scale.double().sqrt()[:, :, None] * self.lower
