"""Batches of Hermitian positive definite matrices: log det with its gradients, Cholesky factors.

Matrices are [..., n, n], complex Hermitian or real symmetric; only the lower triangle and the real
part of the diagonal are read.  A matrix is *degenerate* where it is not positive definite to
working precision: a pivot that is rounding noise beside its diagonal entry, below 100 n ε of it,
counts as zero, because pivots after it mean nothing.

Nothing here synchronises a GPU.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor

from kahler_verify.kernels.hermitian_geometry import log_det_pullback, log_det_pullback_d
from kahler_verify.products import in_forward_mode

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

# From g [B, n, n], and whether to invert it, to its pivots and the noise in them, real [n, B], and
# g⁻¹ or an empty tensor; of degenerate matrices the last pivots and g⁻¹ mean nothing.
Eliminate = Callable[[Tensor, bool], tuple[Tensor, Tensor, Tensor]]


def factored(g: Tensor) -> tuple[Tensor, Tensor]:
    """The Cholesky factor L [..., n, n] with g = L Lᴴ, and where g is degenerate, bool [...]."""
    factor, pivots = _cholesky(g)
    return factor, ~(pivots > _noise(g.diagonal(dim1=-2, dim2=-1).real, -1)).all(-1)


def log_det(g: Tensor, *, if_degenerate: float = math.nan) -> tuple[Tensor, Tensor | None]:
    """log det g, real [...], and where g is degenerate, bool [...]; None where a look found none.

    On a CPU, and outside of torch.func's and torch.compile's transforms, one look is taken.
    Where g is degenerate the value is ``if_degenerate``, and where g is not finite it is NaN.

    A cotangent w of log det g becomes w g⁻¹ at g; further derivatives follow from
    ∂g⁻¹ = -g⁻¹ ∂g g⁻¹.  Where g is degenerate there is no gradient, and it is NaN; but 0 where
    w = 0, so that a mask keeps such matrices out of a loss.

    Source: the kernels ``log_det_pullback`` and ``log_det_pullback_d`` of ``hermitian_geometry``.
    """
    differentiated = g.requires_grad and torch.is_grad_enabled()
    if differentiated and torch.compiler.is_compiling():
        value, degenerate = _TracedLogDet.apply(g, if_degenerate)
    elif _is_transformed(g):
        value, _, degenerate = _LogDet.apply(g, if_degenerate)
    elif differentiated:
        value, _, degenerate = _PlainLogDet.apply(g, if_degenerate)
    else:
        value, _, degenerate = _eliminated(g, if_degenerate, inverse=False)
    return value, degenerate


class _LogDet(torch.autograd.Function):
    """(log det g, P = g⁻¹, whether degenerate); cotangents w and V become w P - P V P.

    P is an output, and so what is saved for the backward pass is differentiable itself, to every
    order.  Where g is degenerate P is 0.
    """

    @staticmethod
    def forward(g: Tensor, if_degenerate: float) -> tuple[Tensor, Tensor, Tensor]:
        """Values of all three; forward mode wants no views of other tensors."""
        value, inverse, degenerate = _eliminated(g, if_degenerate, inverse=True)
        if degenerate is None:  # transforms want tensors
            degenerate = torch.zeros_like(value, dtype=torch.bool)
        return value.clone(), inverse.clone(), degenerate

    @staticmethod
    def setup_context(ctx: Any, inputs: tuple[Any, ...], output: Any) -> None:
        """What derivatives need."""
        _, inverse, degenerate = output
        if degenerate is not None:
            ctx.mark_non_differentiable(degenerate)
        ctx.set_materialize_grads(False)
        ctx.save_for_backward(inputs[0], inverse, degenerate)
        ctx.save_for_forward(inputs[0], inverse, degenerate)

    @staticmethod
    def backward(ctx: Any, *cotangents: Tensor | None) -> tuple[Tensor | None, None]:
        """The cotangent of g."""
        w, v, _ = cotangents
        g, inverse, degenerate = ctx.saved_tensors
        out = None if v is None else _inverse_along(v, g)
        if w is not None:
            first = _scaled(inverse, degenerate, w)
            out = first if out is None else first + out
        return out, None

    @staticmethod
    def jvp(ctx: Any, along: Tensor, _: None) -> tuple[Tensor, Tensor, None]:
        """Tr(P V) and -P V P."""
        g, inverse, degenerate = ctx.saved_tensors
        slope = (inverse.mT * along).sum((-2, -1)).real
        return torch.where(degenerate, torch.nan, slope), _inverse_along(along, g), None

    @staticmethod
    def vmap(_: Any, in_dims: tuple[int, None], g: Tensor, if_degenerate: float) -> Any:
        """All of this is batched already."""
        return _LogDet.apply(g.movedim(in_dims[0], 0), if_degenerate), (0, 0, 0)


class _PlainLogDet(torch.autograd.Function):
    """The same outside of torch.func, where calls need not bind a signature: half the overhead."""

    @staticmethod
    def forward(ctx: Any, g: Tensor, if_degenerate: float) -> tuple[Tensor, Tensor, Tensor | None]:
        """Values, and what derivatives need."""
        output = _eliminated(g, if_degenerate, inverse=True)
        _LogDet.setup_context(ctx, (g,), output)
        return output

    backward = _LogDet.backward


class _TracedLogDet(torch.autograd.Function):
    """(log det g, whether degenerate) for torch.compile, which knows first derivatives alone."""

    @staticmethod
    def forward(ctx: Any, g: Tensor, if_degenerate: float) -> tuple[Tensor, Tensor | None]:
        """Values, and what the derivative needs."""
        value, inverse, degenerate = _eliminated(g, if_degenerate, inverse=True)
        ctx.mark_non_differentiable(degenerate)
        ctx.save_for_backward(inverse, degenerate)
        return value, degenerate

    @staticmethod
    def backward(ctx: Any, w: Tensor, _: Tensor) -> tuple[Tensor, None]:
        """The cotangent of g."""
        inverse, degenerate = ctx.saved_tensors
        return _scaled(inverse, degenerate, w), None


def _scaled(inverse: Tensor, degenerate: Tensor | None, w: Tensor) -> Tensor:
    """w g⁻¹; where g is degenerate NaN, or 0 for w = 0."""
    if degenerate is not None:
        w = torch.where(degenerate & (w != 0), torch.nan, w)
    return w[..., None, None] * inverse


def _inverse_along(v: Tensor, g: Tensor) -> Tensor:
    """-g⁻¹ V g⁻¹: the derivative of g⁻¹ along V, and the pullback of V too."""
    factor, _ = factored(g)  # where it has none the identity, which keeps V = NaN and V = 0
    return log_det_pullback_d(v.unsqueeze(-3), factor).squeeze(-3)


def _is_transformed(g: Tensor) -> bool:
    """Inside torch.func's vmap, grad or jvp, or in a level of forward mode."""
    if torch.compiler.is_compiling():
        return False
    return in_forward_mode() or torch._C._functorch.is_functorch_wrapped_tensor(g)


def _noise(entries: Tensor, axis: int = 0) -> Tensor:
    """Below which pivots count as zero, beside diagonal entries with the matrix along an axis."""
    return entries * (100 * entries.shape[axis] * torch.finfo(entries.dtype).eps)


def _all(flags: Tensor) -> bool:
    """Whether a look finds all set: no where it would keep a GPU waiting, or cannot be had."""
    hidden = torch.compiler.is_compiling() or torch._C._functorch.is_functorch_wrapped_tensor(flags)
    return flags.is_cpu and not hidden and bool(flags.all())


# ------------------------------------------------------------------ elimination


def _eliminated(
    g: Tensor, if_degenerate: float, *, inverse: bool
) -> tuple[Tensor, Tensor, Tensor | None]:
    """(log det g, g⁻¹ or an empty tensor if not asked for, where g is degenerate or None)."""
    n, batch = g.shape[-1], g.shape[:-2]
    rows = g if g.ndim == 3 else g.reshape(math.prod(batch), n, n)
    chunk = max(1, CHUNK // (n * n * g.element_size()))
    eliminate = _method(rows, inverse=inverse)
    if len(rows) <= chunk or eliminate is not _batch_last:
        pivots, noise, out = eliminate(rows, inverse)
    else:
        found = []
        out = torch.empty_like(rows, memory_format=torch.contiguous_format) if inverse else rows[:0]
        for start in range(0, len(rows), chunk):
            *own, part = eliminate(rows[start : start + chunk], inverse)
            found.append(torch.stack(own))
            if inverse:
                out[start : start + chunk] = part
        pivots, noise = torch.cat(found, -1)
    value = pivots.log().sum(0)
    sound = pivots > noise  # which no NaN is
    degenerate = None if _all(sound) else ~sound.all(0)
    if degenerate is not None:  # there, and where g is not finite, pivots and g⁻¹ mean nothing
        value.masked_fill_(degenerate, if_degenerate)
        if not math.isnan(if_degenerate):
            value.masked_fill_(~torch.isfinite(rows).all(-1).all(-1), math.nan)
        if inverse:
            out.masked_fill_(degenerate[:, None, None], 0)
    if g.ndim == 3:
        return value, out, degenerate
    out = out.reshape(g.shape) if inverse else out
    return value.reshape(batch), out, None if degenerate is None else degenerate.reshape(batch)


def _method(g: Tensor, *, inverse: bool) -> Eliminate:
    """How matrices [B, n, n] are eliminated: by their size and number."""
    size, n = g.shape[:2]
    if n == 1 or (n == 2 and g.is_complex() and size >= MANY_PAIRS):
        return _written_out
    many = size >= (MANY if inverse else MANY_VALUES)
    small = n * n * g.element_size() <= SMALL
    return _batch_last if many and small and g.is_cpu else _by_library


def _cholesky(g: Tensor) -> tuple[Tensor, Tensor]:
    """L [..., n, n] and the pivots [..., n]: where there is no L, the identity and NaN."""
    factor, info = torch.linalg.cholesky_ex(g)
    roots = factor.diagonal(dim1=-2, dim2=-1).real
    pivots = roots * roots
    found = info == 0
    if not _all(found):
        eye = torch.eye(g.shape[-1], dtype=g.dtype, device=g.device)
        factor = torch.where(found[..., None, None], factor, eye)
        pivots = torch.where(found[..., None], pivots, math.nan)
    return factor, pivots


def _by_library(g: Tensor, inverse: bool) -> tuple[Tensor, Tensor, Tensor]:
    """Pivots of g [B, n, n] and their noise, real [n, B], and g⁻¹ if it is asked for."""
    factor, pivots = _cholesky(g)
    out = g[:0]
    if inverse:  # LAPACK has the kernel in one call, 1.3 times as fast; a GPU's would wait
        out = torch.cholesky_inverse(factor) if g.is_cpu else log_det_pullback(factor)
    return pivots.t(), _noise(g.diagonal(dim1=-2, dim2=-1).real.t()), out


def _written_out(g: Tensor, inverse: bool) -> tuple[Tensor, Tensor, Tensor]:
    """The same for n = 1, and for complex n = 2: [[a, b̄], [b, c]] has the pivots a, c - |b|²/a."""
    if g.shape[-1] == 1:
        a = g[:, 0, 0].real
        out = a.reciprocal()[:, None, None].to(g.dtype) if inverse else g[:0]
        return a[None], _noise(a[None]), out
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
    return torch.stack([a, p]), _noise(torch.stack([a, c])), out


def _batch_last(g: Tensor, inverse: bool) -> tuple[Tensor, Tensor, Tensor]:
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
    noise = _noise(diagonal)
    if not inverse:  # elimination alone
        for k in range(n - 1):
            column = m[k + 1 :, k]
            x = column * diagonal[k].reciprocal()  # a complex quotient is ten times as slow
            m[k + 1 :, k + 1 :].addcmul_(x[:, None], column.conj().resolve_conj(), value=-1)
        return diagonal, noise, g[:0]
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
    return torch.stack(inverses).reciprocal_(), noise, out
