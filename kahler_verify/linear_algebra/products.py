"""Products X Wᵀ of complex rows and weights, by what multiplies fastest on this machine.

In single precision on a CPU, oneDNN multiplies real matrices at least as fast as the BLAS that
torch's ``@`` calls: twice as fast on AMD processors, where that BLAS leaves half of the vector
units idle.  It has no complex product, and needs none: memory holds complex rows as interleaved
real pairs, and on those, W acts as the real matrix of its 2 × 2 blocks [[a, -b], [b, a]].

``torch.backends.mkldnn.flags(enabled=False)`` switches oneDNN off, here as everywhere in torch.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor

__all__ = [
    "by_onednn",
    "complex_product",
    "in_forward_mode",
    "interleaved",
    "is_transformed",
    "product",
    "real_product",
]

# oneDNN's call costs some microseconds: it is ahead of BLAS from here on.
ONEDNN_FROM = {"rows": 16, "multiplications": 2**18}
# Three real products instead of one complex one (four), by BLAS: 1.1 to 1.3 times as fast.
THREE_PRODUCTS_FROM = {"rows": 512, "width": 128}
# torch's own interface to oneDNN's matrix product, which torch.compile calls, too
_linear: Callable[..., Tensor] | None = getattr(torch.ops.mkldnn, "_linear_pointwise", None)


def is_transformed(*tensors: Tensor) -> bool:
    """Does torch.func, torch.compile or a batched backward pass follow them?

    While torch.func is at work even what it does not wrap may meet what it does.
    """
    func = torch._C._functorch
    if func.maybe_current_level() is not None or torch.compiler.is_compiling():
        return True
    return any(map(func.is_legacy_batchedtensor, tensors))


def in_forward_mode() -> bool:
    """Is there a level of forward-mode differentiation, torch.func's or forward_ad's?"""
    return torch.autograd.forward_ad._current_level >= 0


def product(rows: Tensor, weight: Tensor) -> Tensor:
    """X Wᵀ of real or complex X [..., n] and W [m, n]."""
    by = complex_product if rows.is_complex() else real_product
    return by(rows, weight) if rows.ndim == 2 else rows @ weight.mT


def complex_product(rows: Tensor, weight: Tensor) -> Tensor:
    """X Wᵀ of complex X [r, n] and W [m, n]; normwise as accurate in any of its ways."""
    if by_onednn(rows, weight, 4):
        if torch.is_grad_enabled() and (rows.requires_grad or weight.requires_grad):
            return _Product.apply(rows, weight)
        return _interleaved_product(rows, interleaved(weight))
    if rows.is_cuda or len(rows) < THREE_PRODUCTS_FROM["rows"]:
        return rows @ weight.mT
    if min(weight.shape) < THREE_PRODUCTS_FROM["width"]:
        return rows @ weight.mT
    x, y = rows.real.contiguous(), rows.imag.contiguous()
    a, b = weight.real, weight.imag
    xa, yb = x @ a.mT, y @ b.mT
    both = (x + y) @ (a + b).mT
    return torch.complex(xa - yb, both.sub_(xa).sub_(yb))


def real_product(rows: Tensor, weight: Tensor) -> Tensor:
    """X Wᵀ of real X [r, n] and W [m, n]."""
    if not by_onednn(rows, weight, 1):
        return rows @ weight.mT
    if torch.is_grad_enabled() and (rows.requires_grad or weight.requires_grad):
        return _Product.apply(rows, weight)
    return _onednn(rows, weight)


def interleaved(weight: Tensor) -> Tensor:
    """The real matrix [2m, 2n] by which W [m, n] acts on interleaved pairs (x_1, y_1, x_2, …)."""
    if weight.is_conj():
        return interleaved(weight.mH).mT
    a, b = weight.real, weight.imag
    blocks = torch.stack([torch.stack([a, -b], -1), torch.stack([b, a], -1)], 1)
    return blocks.reshape(2 * weight.shape[0], 2 * weight.shape[1])


def by_onednn(rows: Tensor, weight: Tensor, real_multiplications: int) -> bool:
    """Does oneDNN take the product X Wᵀ, of so many real multiplications for each of its own?"""
    count = rows.shape[0]
    return (
        count >= ONEDNN_FROM["rows"]
        and real_multiplications * count * weight.numel() >= ONEDNN_FROM["multiplications"]
        and rows.dtype in (torch.complex64, torch.float32)
        and weight.dtype == rows.dtype
        and rows.device.type == "cpu"
        and _linear is not None
        and torch.backends.mkldnn.is_available()
        and bool(torch.backends.mkldnn.enabled)
        and not is_transformed(rows, weight)
        and not in_forward_mode()  # oneDNN's product would drop tangents in silence
    )


def _onednn(rows: Tensor, weight: Tensor) -> Tensor:
    assert _linear is not None
    return _linear(rows, weight, None, "none", [], "")


def _interleaved_product(rows: Tensor, matrix: Tensor) -> Tensor:
    pairs = torch.view_as_real(rows.resolve_conj()).flatten(-2)
    out = _onednn(pairs, matrix)
    return torch.view_as_complex(out.unflatten(-1, (-1, 2)))


class _Product(torch.autograd.Function):
    """The product by oneDNN, which records nothing itself; its gradients are such products."""

    @staticmethod
    def forward(ctx: Any, rows: Tensor, weight: Tensor) -> Tensor:
        ctx.save_for_backward(rows, weight)
        return product(rows, weight)

    @staticmethod
    def backward(ctx: Any, by_out: Tensor) -> tuple[Tensor | None, Tensor | None]:
        rows, weight = ctx.saved_tensors
        needed = ctx.needs_input_grad
        by_rows = product(by_out, weight.mH) if needed[0] else None
        by_weight = product(by_out.mT, rows.mH) if needed[1] else None
        return by_rows, by_weight
