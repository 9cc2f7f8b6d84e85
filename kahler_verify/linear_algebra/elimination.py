"""Pivots and inverses of batches of positive definite matrices, by the fastest of three ways."""

from __future__ import annotations

import math
from collections.abc import Callable

import torch
from torch import Tensor

from kahler_verify.kernels.hermitian_geometry import log_det_pullback
from kahler_verify.linear_algebra.degeneracy import (
    Closer,
    are_all,
    are_large,
    are_positive,
    can_look,
    limit,
    real_diagonal,
)

# LAPACK is called for one matrix after the other, and for small ones a call costs more than its
# arithmetic: then elimination with the batch as the last axis is faster, up to SMALL bytes a matrix
# and from MANY matrices on, or, without the inverse, from MANY_VALUES on.  Measured with one thread
# on x86 with AVX-512, torch 2.13.  A GPU's library calls are batched.
SMALL = 1024
MANY, MANY_VALUES = 320, 512
# Bytes of matrices that are eliminated at a time: more leave the cache, with fewer the calls show.
CHUNK = 2**21
# Where a step of elimination is so many numbers, it is worth two calls to leave out a sixth.
PARTS = 2**17
# A 2 × 2 matrix written out takes thirty calls; from so many matrices on that is less.
MANY_PAIRS = 128
# From g [B, n, n], and whether to invert it, to pivots, real [n, B], and g⁻¹ or an empty tensor;
# of degenerate matrices the last pivots and g⁻¹ mean nothing.
Eliminate = Callable[[Tensor, bool], tuple[Tensor, Tensor]]


def eliminated(
    g: Tensor, if_degenerate: float, units: bool, terms: int, *, inverse: bool
) -> tuple[Tensor, Tensor, Tensor | None]:
    """(log det g, g⁻¹ or an empty tensor if not asked for, where g is degenerate or None)."""
    n, batch = g.shape[-1], g.shape[:-2]
    rows = g if g.ndim == 3 else g.reshape(math.prod(batch), n, n)
    chunk = max(1, CHUNK // (n * n * g.element_size()))
    looks = can_look(g)
    wanted, inverse = inverse, inverse or not looks
    eliminate = _method(rows, inverse=inverse)
    if len(rows) <= chunk or eliminate is not _batch_last:
        pivots, out = eliminate(rows, inverse)
    else:
        found = []
        out = torch.empty_like(rows, memory_format=torch.contiguous_format) if inverse else rows[:0]
        for start in range(0, len(rows), chunk):
            own, part = eliminate(rows[start : start + chunk], inverse)
            found.append(own)
            if inverse:
                out[start : start + chunk] = part
        pivots = torch.cat(found, -1)
    value = pivots.log().sum(0)
    scale = pivots.new_ones(()).expand(len(rows), n) if units else real_diagonal(rows)
    sound = are_large(pivots, scale.t(), terms, 0)
    degenerate = None
    if not looks:
        trace = (scale * real_diagonal(out)).sum(-1)
        degenerate = ~(are_positive(pivots, 0) & (trace * limit(n, g.dtype, terms) < 1))
    elif not bool(sound.all()):
        few = (~sound).nonzero()[:, 0]
        closer = Closer.of(rows[few], scale[few], terms)
        value[few] = closer.log_det(scale[few]).to(value.dtype)
        if inverse:
            out[few] = closer.inverse(scale[few]).to(out.dtype)
        if not bool(closer.sound.all()):
            degenerate = ~sound
            degenerate[few] = ~closer.sound
    if degenerate is not None:  # there, and where g is not finite, pivots and g⁻¹ mean nothing
        value.masked_fill_(degenerate, if_degenerate)
        if not math.isnan(if_degenerate):
            value.masked_fill_(~torch.isfinite(rows).all(-1).all(-1), math.nan)
        if inverse:
            out.masked_fill_(degenerate[:, None, None], 0)
    out = out if wanted else rows[:0]
    if g.ndim == 3:
        return value, out, degenerate
    out = out.reshape(g.shape) if wanted else out
    return value.reshape(batch), out, None if degenerate is None else degenerate.reshape(batch)


def _method(g: Tensor, *, inverse: bool) -> Eliminate:
    """How matrices [B, n, n] are eliminated: by their size and number."""
    size, n = g.shape[:2]
    if n == 1 or (n == 2 and g.is_complex() and size >= MANY_PAIRS):
        return _written_out
    many = size >= (MANY if inverse else MANY_VALUES)
    small = n * n * g.element_size() <= SMALL
    return _batch_last if many and small and g.is_cpu else _by_library


def factor_and_pivots(g: Tensor) -> tuple[Tensor, Tensor]:
    """L [..., n, n] and the pivots [..., n]: where there is no L, the identity and NaN."""
    factor, info = torch.linalg.cholesky_ex(g)
    roots = factor.diagonal(dim1=-2, dim2=-1).real
    pivots = roots * roots
    found = info == 0
    if not are_all(found):
        eye = torch.eye(g.shape[-1], dtype=g.dtype, device=g.device)
        factor = torch.where(found[..., None, None], factor, eye)
        pivots = torch.where(found[..., None], pivots, math.nan)
    return factor, pivots


def _by_library(g: Tensor, inverse: bool) -> tuple[Tensor, Tensor]:
    """Pivots of g [B, n, n], real [n, B], and g⁻¹ if it is asked for."""
    factor, pivots = factor_and_pivots(g)
    out = g[:0]
    if inverse:  # LAPACK has the kernel in one call, 1.3 times as fast; a GPU's would wait
        out = torch.cholesky_inverse(factor) if g.is_cpu else log_det_pullback(factor)
    return pivots.t(), out


def _written_out(g: Tensor, inverse: bool) -> tuple[Tensor, Tensor]:
    """The same for n = 1, and for complex n = 2: [[a, b̄], [b, c]] has the pivots a, c - |b|²/a."""
    if g.shape[-1] == 1:
        a = g[:, 0, 0].real
        out = a.reciprocal()[:, None, None].to(g.dtype) if inverse else g[:0]
        return a[None], out
    a, _, _, _, x, y, c, _ = torch.view_as_real(g.resolve_conj()).flatten(1).unbind(1)
    r = a.reciprocal()
    u, v = x * r, y * r
    p = c - torch.addcmul(x * u, y, v)  # neither ac nor |b|², which may overflow
    out = g[:0]
    if inverse:
        q = p.reciprocal()
        u, v, zero = -u * q, v * q, torch.zeros_like(q)
        planes = torch.stack([c * r * q, zero, u, v, u, -v, q, zero])  # and one copy turns them
        out = torch.view_as_complex(planes.t().contiguous().view(-1, 2, 2, 2))
    return torch.stack([a, p]), out


def _batch_last(g: Tensor, inverse: bool) -> tuple[Tensor, Tensor]:
    """The same with the batch as the last axis, so that all steps run over contiguous numbers.

    The matrix is swept by one index after the other: by k, with the pivot p = g_kk, g_ij becomes
    g_ij - g_ik g_kj / p, row and column k become g_ik / p and g_kj / p, and p becomes -1/p.  Swept
    by all of them it is -g⁻¹.  Of each only column k is read: an entry above the diagonal is right
    from the sweep by its row's index on, which writes that row.
    """
    size, n = g.shape[:2]
    m = torch.empty(n, n, size, dtype=g.dtype, device=g.device)
    m.view(n * n, size).copy_(g.reshape(size, n * n).t())
    diagonal = m.diagonal().real.t()
    if not inverse:  # elimination alone
        for k in range(n - 1):
            column = m[k + 1 :, k]
            x = column * diagonal[k].reciprocal()  # a complex quotient is ten times as slow
            m[k + 1 :, k + 1 :].addcmul_(x[:, None], column.conj().resolve_conj(), value=-1)
        return diagonal, g[:0]
    x, y = torch.empty_like(m[0]), torch.empty_like(m[0])
    below, inverses = x.unsqueeze(1), []
    views = zip(diagonal.unbind(0), m.unbind(0), m.unbind(1), strict=True)
    for k, (p, row, column) in enumerate(views):
        r = p.reciprocal()
        inverses.append(r)
        torch.conj_physical(column, out=y)
        torch.mul(column, r, out=x)
        if m.numel() < PARTS:
            m.addcmul_(below, y, value=-1)
        else:  # the rows below k of the columns before k are not read again
            m[:, k + 1 :].addcmul_(below, y[k + 1 :], value=-1)
            m[:k, :k].addcmul_(below[:k], y[:k], value=-1)
        column.copy_(x)
        torch.conj_physical(x, out=row)
        p.copy_(-r)
    if m.is_complex():  # nothing has read them
        m.diagonal().imag.zero_()
    out = torch.empty_like(g, memory_format=torch.contiguous_format)
    out.view(size, n * n).copy_(m.neg_().view(n * n, size).t())
    return torch.stack(inverses).reciprocal_(), out
