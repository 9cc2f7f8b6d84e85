"""Complex rows kept as planes: real tensors [2, ..., r, n] of all real, then all imaginary parts.

torch stores a complex number as two neighbours, and pays for it in every pass: products by real
factors are not vectorised, conjugates are copied, and products are left to a library that is slower
than that of real ones.  On planes all arithmetic is real, and a complex product is three real ones.

Generated kernels take :class:`Pairs` and :class:`Image` where they take complex rows [..., r, n]:
they scale rows by real numbers and multiply them with transposes, no more.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from functools import cached_property
from typing import Any

import torch
from torch import Tensor

from kahler_verify.linear_algebra.products import is_transformed, real_product
from kahler_verify.linear_algebra.rows import (
    four_times,
    gram_parts,
    is_followed,
    is_recorded,
    planes_of,
    scaled,
    times_real,
)

__all__ = [
    "Image",
    "Pairs",
    "Weight",
    "pair_product",
    "planes_of",
    "real_part_product",
    "scaled",
]

# Three real products and their sums, instead of four that are one, pay where all sizes reach this.
THREE_PRODUCTS_FROM = {"rows": 128, "width": 64}


class Weight:
    """A complex matrix W = a + ib [m, n], with what products need of it, each made once.

    Autograd records what is made of the matrix; functions that know their gradients take
    ``detached`` instead.
    """

    def __init__(self, matrix: Tensor):
        self.matrix = matrix.resolve_conj()

    @cached_property
    def detached(self) -> Weight:
        """The same for autograd a constant."""
        return Weight(self.matrix.detach())

    @cached_property
    def parts(self) -> tuple[Tensor, Tensor, Tensor]:
        """a, b and a + b."""
        a, b = self.matrix.real.contiguous(), self.matrix.imag.contiguous()
        return a, b, a + b

    @cached_property
    def adjoint_parts(self) -> tuple[Tensor, Tensor, Tensor]:
        """Those of Wᴴ."""
        a, b, _ = self.parts
        return a.mT, -b.mT, (a - b).mT

    @cached_property
    def stacked(self) -> Tensor:
        """The real matrix (a, b) [2m, n]."""
        return torch.cat([self.matrix.real, self.matrix.imag])

    @cached_property
    def real_part(self) -> Tensor:
        """The matrix (a, -b) [m, 2n] of Re(W h) by (Re h, Im h)."""
        return torch.cat([self.matrix.real, -self.matrix.imag], -1)

    @cached_property
    def gram(self) -> Weight:
        """WᴴW [n, n]."""
        adjoint = Pairs(planes_of(self.matrix.mT), conjugated=True)
        return Weight(adjoint @ adjoint.mH)

    @cached_property
    def real_gram(self) -> Tensor:
        """BᵀB [2n, 2n] of B = ``real_part``."""
        columns = self.real_part.mT
        return real_product(columns, columns)


@dataclass(frozen=True)
class Columns:
    """The transpose of rows, or their adjoint."""

    rows: _Rows
    adjoint: bool


class _Rows:
    """What kernels take for complex rows X."""

    @property
    def mT(self) -> Columns:
        """Xᵀ, to multiply with."""
        return Columns(self, adjoint=False)

    @property
    def mH(self) -> Columns:
        """Xᴴ, to multiply with."""
        return Columns(self, adjoint=True)


class Pairs(_Rows):
    """Complex rows [..., r, n] as planes [2, ..., r, n], in what kernels do with rows.

    Attributes:
        planes: real and imaginary parts.
        conjugated: whether the rows are the conjugates of what the planes say.
    """

    def __init__(self, planes: Tensor, *, conjugated: bool = False):
        self.planes = planes
        self.conjugated = conjugated

    def __mul__(self, scale: Tensor) -> Pairs:
        """Rows times real numbers [..., 1 or r, n]."""
        return Pairs(times_real(self.planes, scale), conjugated=self.conjugated)

    def conj(self) -> Pairs:
        """The conjugate rows."""
        return Pairs(self.planes, conjugated=not self.conjugated)

    def __matmul__(self, columns: Columns) -> Tensor:
        """X Yᵀ or X Yᴴ as a complex tensor [..., r, s]."""
        other = columns.rows
        assert isinstance(other, Pairs)
        with_conjugate = self.conjugated != (other.conjugated != columns.adjoint)
        if other is self and with_conjugate:
            re, im = gram_parts(self.planes)
        else:
            (xu, xv), (yu, yv) = four_times(self.planes, other.planes)
            sign = 1 if with_conjugate else -1
            re, im = xu + sign * yv, yu - sign * xv
        # torch.complex cannot be differentiated under vmap behind a conjugate
        return torch.view_as_complex(torch.stack([re, -im if self.conjugated else im], -1))


@dataclass(frozen=True)
class Image(_Rows):
    """Rows X Wᵀ that are not multiplied out, as their products need WᴴW alone: X (WᵀW̄) Yᴴ.

    Attributes:
        rows: planes of X [2, ..., r, n]; or real rows [2, ..., r, 2n], of which B = ``real_part``
            of W gives the planes of the image.
        weight: W.
        real: whether the rows are real.
        factor: real numbers [..., 1, 1] that the rows are multiplied with, if any.
        conjugated: whether the image is conjugated.
    """

    rows: Tensor
    weight: Weight
    real: bool
    factor: Tensor | None = None
    conjugated: bool = False

    def __mul__(self, scale: Tensor) -> Image:
        """The image times one real number [..., 1, 1] for all of a point's rows."""
        return replace(self, factor=scale if self.factor is None else self.factor * scale)

    def conj(self) -> Image:
        """The conjugate rows."""
        return replace(self, conjugated=not self.conjugated)

    def __matmul__(self, columns: Columns) -> Tensor:
        """The product with the transpose of another image under the same weight."""
        other = columns.rows
        assert isinstance(other, Image)
        assert other.weight is self.weight
        # complex rows have no product without a conjugate: it would need WᵀW
        assert self.real or columns.adjoint != (self.conjugated != other.conjugated)
        if self.real:
            flat = self.rows.flatten(0, -2)
            through = real_product(flat, self.weight.real_gram).view(self.rows.shape)
        else:
            through = pair_product(self.rows, self.weight.gram)
        left = Pairs(through, conjugated=self.conjugated)
        right = Pairs(other.rows, conjugated=other.conjugated)
        out = left @ Columns(right, columns.adjoint)
        for factor in (self.factor, other.factor):
            out = out if factor is None else out * factor
        return out


def pair_product(planes: Tensor, weight: Weight) -> Tensor:
    """X Wᵀ [2, ..., m] of planes [2, ..., n] of X and W [m, n]."""
    m, n = weight.matrix.shape
    rows = planes.reshape(2, -1, n)
    if is_recorded(rows, weight.matrix):
        out = _PairProduct.apply(rows, weight.matrix, weight.detached)
    elif _three_pay(rows, m) and not is_followed(rows, weight.matrix):
        out = _three_products(rows, weight.parts)
    else:
        out = _four_products(rows, weight.stacked)
    return out.view(*planes.shape[:-1], m)


def real_part_product(planes: Tensor, weight: Weight) -> Tensor:
    """Re(X Wᵀ) [..., m] of planes [2, ..., n] of X and W [m, n]."""
    m, n = weight.matrix.shape
    rows = planes.reshape(2, -1, n)
    if is_recorded(rows, weight.matrix):
        out = _RealPartProduct.apply(rows, weight.matrix, weight.detached)
    else:
        out = _real_part_product(rows, weight)
    return out.view(*planes.shape[1:-1], m)


def _three_pay(rows: Tensor, outputs: int) -> bool:
    _, count, n = rows.shape
    few = THREE_PRODUCTS_FROM
    return count >= few["rows"] and min(outputs, n) >= few["width"] and not rows.is_cuda


def _three_products(rows: Tensor, parts: tuple[Tensor, Tensor, Tensor]) -> Tensor:
    """Rows [2, R, n] by a, b and a + b [m, n] to [2, R, m]."""
    (x, y), (a, b, both) = rows, parts
    xa, yb = real_product(x, a), real_product(y, b)
    out = rows.new_empty(2, *xa.shape)
    torch.sub(xa, yb, out=out[0])
    torch.sub(real_product(x + y, both), xa.add_(yb), out=out[1])
    return out


def _four_products(rows: Tensor, stacked: Tensor) -> Tensor:
    """The same by (a, b) [2m, n], in one product of real matrices."""
    _, count, n = rows.shape
    four = real_product(rows.reshape(-1, n), stacked).view(2, count, 2, len(stacked) // 2)
    xa, xb = four[0].unbind(1)
    ya, yb = four[1].unbind(1)
    return torch.stack([xa - yb, xb + ya])


def _real_part_product(rows: Tensor, weight: Weight) -> Tensor:
    m, n = weight.matrix.shape
    x, y = rows
    if m >= n or is_followed(rows, weight.matrix):
        return real_product(torch.cat([x, y], -1), weight.real_part)
    a, b, _ = weight.parts
    return real_product(x, a) - real_product(y, b)


class _PairProduct(torch.autograd.Function):
    """The product; its gradients are such products."""

    @staticmethod
    def forward(ctx: Any, rows: Tensor, matrix: Tensor, weight: Weight) -> Tensor:
        ctx.save_for_backward(rows, matrix)
        ctx.weight = weight
        return pair_product(rows, weight)

    @staticmethod
    def backward(ctx: Any, by_out: Tensor) -> tuple[Tensor | None, Tensor | None, None]:
        rows, matrix = ctx.saved_tensors
        by_rows = by_matrix = None
        if ctx.needs_input_grad[0]:
            if torch.is_grad_enabled():  # to be differentiated again
                by_rows = pair_product(by_out, Weight(matrix.mH))
            elif _three_pay(by_out, matrix.shape[1]) and not is_transformed(by_out):
                by_rows = _three_products(by_out, ctx.weight.adjoint_parts)
            else:
                a, b, _ = ctx.weight.adjoint_parts
                by_rows = _four_products(by_out, torch.cat([a, b]))
        if ctx.needs_input_grad[1]:  # Gᵀ X̄
            g, h, both = (p.mT for p in (*by_out, by_out[0] + by_out[1]))
            x, y, difference = (p.mT for p in (*rows, rows[0] - rows[1]))
            gx, hy = real_product(g, x), real_product(h, y)
            by_matrix = torch.complex(gx + hy, real_product(both, difference) - gx + hy)
        return by_rows, by_matrix, None


class _RealPartProduct(torch.autograd.Function):
    """Its real part; without the zeros that a part of a complex tensor leaves in gradients."""

    @staticmethod
    def forward(ctx: Any, rows: Tensor, matrix: Tensor, weight: Weight) -> Tensor:
        ctx.save_for_backward(rows, matrix)
        ctx.weight = weight
        return _real_part_product(rows, weight)

    @staticmethod
    def backward(ctx: Any, by_out: Tensor) -> tuple[Tensor | None, Tensor | None, None]:
        rows, matrix = ctx.saved_tensors
        by_rows = by_matrix = None
        if ctx.needs_input_grad[0]:
            again = torch.is_grad_enabled()
            a, b = (matrix.real.mT, -matrix.imag.mT) if again else ctx.weight.adjoint_parts[:2]
            by_rows = torch.stack([real_product(by_out, a), real_product(by_out, b)])
        if ctx.needs_input_grad[1]:
            x, y = (real_product(by_out.mT, part.mT) for part in rows)
            by_matrix = torch.complex(x, -y)
        return by_rows, by_matrix, None
