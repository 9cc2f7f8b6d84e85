"""Batches of Hermitian positive definite matrices: log det with its gradients, Cholesky factors.

Matrices are [..., n, n], complex Hermitian or real symmetric; only the lower triangle and the real
part of the diagonal are read.

A matrix is *degenerate* where it is not positive definite to working precision.  Its units are no
part of that: it is divided by the square roots of its diagonal entries first, and degenerate is
what has then no eigenvalue above ``limit``, the rounding error of matrices that are sums of so and
so many products: (16 √n + 2 √terms) ε.  Sums of rank-deficient products were measured to leave
eigenvalues of at most a third of that, in both precisions, for n ≤ 64 and up to 20000 terms.

Most matrices are seen to be above it from their pivots: n numbers with the sum n, all of them but
the least together at most e, so that the least is at least the product of pivots over e.  The few
others are factored again in double precision.  Nothing here synchronises a GPU: there, and under
torch.compile, where none can be picked out, the trace of the inverse stands for the least
eigenvalue, which is between its reciprocal and n times that.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from kahler_verify.kernels.hermitian_geometry import log_det_pullback, log_det_pullback_d
from kahler_verify.linear_algebra.products import in_forward_mode

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


def limit(n: int, dtype: torch.dtype, terms: int = 1) -> float:
    """Below which eigenvalues are rounding noise, of n × n matrices with a diagonal of ones."""
    return (16 * math.sqrt(n) + 2 * math.sqrt(terms)) * torch.finfo(dtype).eps


def factored(g: Tensor, *, terms: int = 1) -> tuple[Tensor, Tensor]:
    """The Cholesky factor L [..., n, n] with g = L Lᴴ, and where g is degenerate, bool [...].

    ``terms``: as in `log_det`.
    """
    if g.ndim == 2:
        factor, degenerate = factored(g[None], terms=terms)
        return factor[0], degenerate[0]
    factor, pivots = _cholesky(g)
    scale = _diagonal(g)
    sound = _are_large(pivots, scale, terms, -1)
    if _all(sound):
        return factor, ~sound
    if not _can_look(g):
        inverse = torch.linalg.solve_triangular(
            factor, torch.diag_embed(scale.sqrt()).to(g.dtype), upper=False
        )
        trace = (inverse * inverse.conj()).real.sum((-2, -1))
        return factor, ~(
            _are_positive(pivots, -1) & (trace * limit(g.shape[-1], g.dtype, terms) < 1)
        )
    few = (~sound).nonzero(as_tuple=True)
    closer = _Closer.of(g[few], scale[few], terms)
    better = closer.factor(scale[few]).to(g.dtype)
    factor = factor.index_put(few, torch.where(closer.sound[:, None, None], better, factor[few]))
    return factor, (~sound).index_put(few, ~closer.sound)


def log_det(
    g: Tensor, *, if_degenerate: float = math.nan, units: bool = False, terms: int = 1
) -> tuple[Tensor, Tensor | None]:
    """log det g, real [...], and where g is degenerate, bool [...]; None where a look found none.

    On a CPU, and outside of torch.func's and torch.compile's transforms, one look is taken.
    Where g is degenerate the value is ``if_degenerate``, and where g is not finite it is NaN.

    Args:
        g: matrices [..., n, n].
        if_degenerate: the value there.
        units: g has been brought to units in which its rounding errors are ε, which is not to be
            read off the diagonal; the mean of that is one.
        terms: of how many products each entry of g is a sum.

    A cotangent w of log det g becomes w g⁻¹ at g; further derivatives follow from
    ∂g⁻¹ = -g⁻¹ ∂g g⁻¹.  Where g is degenerate there is no gradient, and it is NaN; but 0 where
    w = 0, so that a mask keeps such matrices out of a loss.

    Source: the kernels ``log_det_pullback`` and ``log_det_pullback_d`` of ``hermitian_geometry``.
    """
    differentiated = g.requires_grad and torch.is_grad_enabled()
    if differentiated and torch.compiler.is_compiling():
        value, degenerate = _TracedLogDet.apply(g, if_degenerate, units, terms)
    elif _is_transformed(g):
        value, _, degenerate = _LogDet.apply(g, if_degenerate, units, terms)
    elif differentiated:
        value, _, degenerate = _PlainLogDet.apply(g, if_degenerate, units, terms)
    else:
        value, _, degenerate = _eliminated(g, if_degenerate, units, terms, inverse=False)
    return value, degenerate


class _LogDet(torch.autograd.Function):
    """(log det g, P = g⁻¹, whether degenerate); cotangents w and V become w P - P V P.

    P is an output, and so what is saved for the backward pass is differentiable itself, to every
    order.  Where g is degenerate P is 0.
    """

    @staticmethod
    def forward(
        g: Tensor, if_degenerate: float, units: bool, terms: int
    ) -> tuple[Tensor, Tensor, Tensor]:
        """Values of all three; forward mode wants no views of other tensors."""
        value, inverse, degenerate = _eliminated(g, if_degenerate, units, terms, inverse=True)
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
    def backward(ctx: Any, *cotangents: Tensor | None) -> tuple[Tensor | None, None, None, None]:
        """The cotangent of g."""
        w, v, _ = cotangents
        g, inverse, degenerate = ctx.saved_tensors
        out = None if v is None else _inverse_along(v, g)
        if w is not None:
            first = _scaled(inverse, degenerate, w)
            out = first if out is None else first + out
        return out, None, None, None

    @staticmethod
    def jvp(ctx: Any, along: Tensor, *_: None) -> tuple[Tensor, Tensor, None]:
        """Tr(P V) and -P V P."""
        g, inverse, degenerate = ctx.saved_tensors
        slope = (inverse.mT * along).sum((-2, -1)).real
        return torch.where(degenerate, torch.nan, slope), _inverse_along(along, g), None

    @staticmethod
    def vmap(_: Any, in_dims: tuple[Any, ...], g: Tensor, *others: Any) -> Any:
        """All of this is batched already."""
        return _LogDet.apply(g.movedim(in_dims[0], 0), *others), (0, 0, 0)


class _PlainLogDet(torch.autograd.Function):
    """The same outside of torch.func, where calls need not bind a signature: half the overhead."""

    @staticmethod
    def forward(
        ctx: Any, g: Tensor, if_degenerate: float, units: bool, terms: int
    ) -> tuple[Tensor, Tensor, Tensor | None]:
        """Values, and what derivatives need."""
        output = _eliminated(g, if_degenerate, units, terms, inverse=True)
        _LogDet.setup_context(ctx, (g,), output)
        return output

    backward = _LogDet.backward


class _TracedLogDet(torch.autograd.Function):
    """(log det g, whether degenerate) for torch.compile, which knows first derivatives alone."""

    @staticmethod
    def forward(
        ctx: Any, g: Tensor, if_degenerate: float, units: bool, terms: int
    ) -> tuple[Tensor, Tensor | None]:
        """Values, and what the derivative needs."""
        value, inverse, degenerate = _eliminated(g, if_degenerate, units, terms, inverse=True)
        ctx.mark_non_differentiable(degenerate)
        ctx.save_for_backward(inverse, degenerate)
        return value, degenerate

    @staticmethod
    def backward(ctx: Any, w: Tensor, _: Tensor) -> tuple[Tensor, None, None, None]:
        """The cotangent of g."""
        inverse, degenerate = ctx.saved_tensors
        return _scaled(inverse, degenerate, w), None, None, None


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


def _diagonal(g: Tensor) -> Tensor:
    return g.detach().diagonal(dim1=-2, dim2=-1).real


def _are_positive(pivots: Tensor, axis: int) -> Tensor:
    """Which no NaN is, nor what has lost digits to underflow."""
    floor = pivots.shape[axis] * torch.finfo(pivots.dtype).smallest_normal
    return (pivots > floor).all(axis)


def _are_large(pivots: Tensor, scale: Tensor, terms: int, axis: int) -> Tensor:
    """Of which matrices the pivots alone say that they are not degenerate."""
    pivots = pivots.detach()
    least = math.e * limit(pivots.shape[axis], pivots.dtype, terms)
    return ((pivots / scale).prod(axis) > least) & _are_positive(pivots, axis)


def _can_look(x: Tensor) -> bool:
    """No where that would keep a GPU waiting, or values cannot be had."""
    hidden = torch.compiler.is_compiling() or torch._C._functorch.is_functorch_wrapped_tensor(x)
    return x.is_cpu and not hidden


def _all(flags: Tensor) -> bool:
    """Whether a look finds all set."""
    return _can_look(flags) and bool(flags.all())


@dataclass(frozen=True)
class _Closer:
    """A closer look at some matrices [b, n, n], in double precision and in units of their own.

    Attributes:
        sound: which are not degenerate.
        lower: L of the matrices in their units; the identity where there is none.
    """

    sound: Tensor
    lower: Tensor

    @classmethod
    def of(cls, g: Tensor, scale: Tensor, terms: int) -> _Closer:
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


# ------------------------------------------------------------------ elimination


def _eliminated(
    g: Tensor, if_degenerate: float, units: bool, terms: int, *, inverse: bool
) -> tuple[Tensor, Tensor, Tensor | None]:
    """(log det g, g⁻¹ or an empty tensor if not asked for, where g is degenerate or None)."""
    n, batch = g.shape[-1], g.shape[:-2]
    rows = g if g.ndim == 3 else g.reshape(math.prod(batch), n, n)
    chunk = max(1, CHUNK // (n * n * g.element_size()))
    looks = _can_look(g)
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
    scale = pivots.new_ones(()).expand(len(rows), n) if units else _diagonal(rows)
    sound = _are_large(pivots, scale.t(), terms, 0)
    degenerate = None
    if not looks:
        trace = (scale * _diagonal(out)).sum(-1)
        degenerate = ~(_are_positive(pivots, 0) & (trace * limit(n, g.dtype, terms) < 1))
    elif not bool(sound.all()):
        few = (~sound).nonzero()[:, 0]
        closer = _Closer.of(rows[few], scale[few], terms)
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


def _by_library(g: Tensor, inverse: bool) -> tuple[Tensor, Tensor]:
    """Pivots of g [B, n, n], real [n, B], and g⁻¹ if it is asked for."""
    factor, pivots = _cholesky(g)
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
