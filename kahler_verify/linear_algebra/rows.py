"""What is done with complex rows that are kept as planes: Gram matrices, multiples."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from kahler_verify.linear_algebra.products import in_forward_mode, is_transformed, real_product


def planes_of(x: Tensor) -> Tensor:
    """Complex [...] as [2, ...]."""
    x = x.resolve_conj()  # vmap has no rule for the imaginary part of a conjugate
    return torch.stack([x.real, x.imag])


def is_recorded(*tensors: Tensor) -> bool:
    """Does autograd record them, and nothing else follow?

    Only then are the functions below used: torch.func and forward mode take what they are made of.
    """
    recorded = torch.is_grad_enabled() and any(t.requires_grad for t in tensors)
    return recorded and not is_transformed(*tensors) and not in_forward_mode()


def is_followed(*tensors: Tensor) -> bool:
    """May nothing be written in place?"""
    recorded = torch.is_grad_enabled() and any(t.requires_grad for t in tensors)
    return recorded or is_transformed(*tensors) or in_forward_mode()


def _times(x: Tensor, y: Tensor) -> Tensor:
    """X Yᵀ of real matrices, or of batches of them."""
    return real_product(x, y) if x.ndim == 2 else x @ y.mT


def four_times(p: Tensor, q: Tensor) -> tuple[tuple[Tensor, Tensor], tuple[Tensor, Tensor]]:
    """The products of both planes of rows p with both of q: of a batch as one, point by point."""
    if p.ndim == 4 and p.shape[1] == q.shape[1]:
        left, right = (x.transpose(0, 1).flatten(1, 2) for x in (p, q))
        upper, lower = (left @ right.mT).tensor_split([p.shape[2]], 1)
        (xu, xv), (yu, yv) = (half.tensor_split([q.shape[2]], 2) for half in (upper, lower))
        return (xu, xv), (yu, yv)
    (x, y), (u, v) = p, q
    return (_times(x, u), _times(x, v)), (_times(y, u), _times(y, v))


def gram_parts(planes: Tensor) -> tuple[Tensor, Tensor]:
    """Re and Im of X Xᴴ."""
    if is_recorded(planes):
        re, im = _Gram.apply(planes)
        return re, im
    if planes.ndim == 4 and planes.transpose(0, 1).is_contiguous():  # one product has all four
        (xx, _), (yx, yy) = four_times(planes, planes)
        return xx + yy, yx - yx.mT
    x, y = planes
    crossed = _times(y, x)
    return _times(x, x) + _times(y, y), crossed - crossed.mT


class _Gram(torch.autograd.Function):
    """X Xᴴ; its gradient takes four products, where autograd would take twice as many."""

    @staticmethod
    def forward(ctx: Any, planes: Tensor) -> tuple[Tensor, Tensor]:
        ctx.save_for_backward(planes)
        return gram_parts(planes)

    @staticmethod
    def backward(ctx: Any, by_re: Tensor, by_im: Tensor) -> Tensor:
        (planes,) = ctx.saved_tensors
        x, y = planes
        s, a = by_re + by_re.mT, by_im - by_im.mT
        if x.ndim != 3 or torch.is_grad_enabled() or is_transformed(by_re, by_im):
            return torch.stack([s @ x - a @ y, s @ y + a @ x])
        out = torch.empty_like(planes)
        torch.bmm(s, x, out=out[0]).baddbmm_(a, y, alpha=-1)
        torch.bmm(s, y, out=out[1]).baddbmm_(a, x)
        return out


def times_real(planes: Tensor, scale: Tensor) -> Tensor:
    """Planes [2, B, r, n] times real [B or 1, 1 or r, n]; point by point in memory."""
    if planes.ndim != 4 or scale.ndim != 3 or is_followed(planes, scale):
        return planes * scale
    by_point = planes.transpose(0, 1)
    out = planes.new_empty(_broadcast(by_point, scale[:, None]))
    return torch.mul(by_point, scale[:, None], out=out).transpose(0, 1)


def _broadcast(x: Tensor, y: Tensor) -> list[int]:
    """The shape of their product, of as many axes as each has; torch's function takes 20 µs."""
    return [m if n == 1 else n for m, n in zip(x.shape, y.shape, strict=True)]


def scaled(planes: Tensor, factor: Tensor) -> Tensor:
    """Rows, planes [2, ...], times complex numbers, planes with the same axes, each perhaps 1."""
    return _Scaled.apply(planes, factor) if is_recorded(planes, factor) else _scale(planes, factor)


def _scale(planes: Tensor, factor: Tensor, *, conjugate: bool = False) -> Tensor:
    """(x + iy)(p + iq), or (x + iy)(p - iq)."""
    (x, y), (p, q) = planes, factor
    sign = -1 if conjugate else 1
    if is_followed(planes, factor):
        return torch.stack([x * p - sign * y * q, sign * x * q + y * p])
    out = planes.new_empty(_broadcast(planes, factor))
    torch.mul(x, p, out=out[0]).addcmul_(y, q, value=-sign)
    torch.mul(y, p, out=out[1]).addcmul_(x, q, value=sign)
    return out


class _Scaled(torch.autograd.Function):
    """The product, which takes two passes for each plane, and whose gradients do as well."""

    @staticmethod
    def forward(ctx: Any, planes: Tensor, factor: Tensor) -> Tensor:
        ctx.save_for_backward(planes, factor)
        return _scale(planes, factor)

    @staticmethod
    def backward(ctx: Any, by_out: Tensor) -> tuple[Tensor | None, Tensor | None]:
        planes, factor = ctx.saved_tensors
        by_planes = by_factor = None
        if ctx.needs_input_grad[0]:
            by_planes = _scale(by_out, factor, conjugate=True).sum_to_size(planes.shape)
        if ctx.needs_input_grad[1]:
            (x, y), (re, im) = planes, by_out
            both = torch.stack([re * x + im * y, im * x - re * y])
            by_factor = both.sum_to_size(factor.shape)
        return by_planes, by_factor
