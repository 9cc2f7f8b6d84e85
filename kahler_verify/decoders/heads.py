"""Output layers that a Fisher metric may replace by smaller ones.

A metric sees an output layer W [D, h] only through Gram products such as (W J)ᴴ(W J), J being the
hidden tangents. With W = QR these are those of R, which has min(D, h) rows: the widest matrix
product of a decoder costs h × h instead of D × h. A head of which only the real part counts,
Re(W h) = (Re W, -Im W)(Re h; Im h), has a real QR decomposition with min(D, 2h) rows, which keeps
the products without conjugates, (W J)ᵀ(W J), as well.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor

from kahler_verify.errors import InputError
from kahler_verify.products import in_forward_mode, is_transformed

__all__ = ["ReducedHeads", "is_recorded", "reduced", "reduced_real"]


class _Triangular(torch.autograd.Function):
    """R and Q of W = QR, for what depends on RᴴR = WᴴW alone.

    There R may be taken as QᴴW with Q held fixed: since Q Qᴴ W = W, the first derivative of WᴴW is
    right, and no triangle has to be inverted. The second is not: a graph of it is refused.
    """

    generate_vmap_rule = True

    @staticmethod
    def forward(weight: Tensor) -> tuple[Tensor, Tensor]:
        q, r = torch.linalg.qr(weight)
        return r, q

    @staticmethod
    def setup_context(ctx: Any, _: tuple[Tensor], output: tuple[Tensor, Tensor]) -> None:
        q = output[1]
        ctx.mark_non_differentiable(q)
        ctx.save_for_backward(q)

    @staticmethod
    def backward(ctx: Any, by_r: Tensor, _: Tensor) -> Tensor:
        if torch.is_grad_enabled():  # create_graph=True
            raise InputError(
                "fold: expected 'never' where gradients are differentiated again; a reduced head "
                "has first derivatives only"
            )
        (q,) = ctx.saved_tensors
        return q @ by_r


def reduced(weight: Tensor) -> Tensor:
    """R [min(D, h), h] with RᴴR = WᴴW, for complex W [D, h]; differentiable once."""
    return _Triangular.apply(weight)[0]


def reduced_real(weight: Tensor) -> Tensor:
    """C [min(D, 2h), h] complex with |Re(C v)| = |Re(W v)| for all v; differentiable once."""
    triangle = _Triangular.apply(torch.cat([weight.real, -weight.imag], -1))[0]
    x, y = triangle.chunk(2, dim=-1)
    return torch.complex(x, -y)


class ReducedHeads:
    """Matrices made from weights, kept until a tensor that they were made from changes.

    Changes are seen by address and version, which optimisers, ``load_state_dict`` and in-place
    operations move; writing through ``.data`` does not, and needs :meth:`forget`. While autograd
    records the weights, a matrix is kept for one call only: see :meth:`call`.
    """

    def __init__(self) -> None:
        # name to the key, the sources (alive, so that no other tensor takes their address), result
        self._kept: dict[str, tuple[Any, Sequence[Tensor], Tensor]] = {}
        self._of_call: dict[str, Tensor] | None = None
        self.points = 0  # of the present call

    def forget(self) -> None:
        """Drop everything."""
        self._kept.clear()

    @contextmanager
    def call(self, points: int) -> Iterator[None]:
        """A call for so many points; within it, what autograd records is made once."""
        outer = self._of_call, self.points
        self._of_call, self.points = {}, points
        try:
            yield
        finally:
            self._of_call, self.points = outer

    def keep(self, what: str, weight: Tensor, make: Callable[[], Tensor]) -> Tensor:
        """What products make of a weight; see :func:`kahler_verify.products.complex_product`."""
        if is_recorded([weight]):  # and may have no address
            return make()
        return self.get(f"{what} {weight.data_ptr()} {tuple(weight.shape)}", [weight], make)

    def get(self, name: str, sources: Sequence[Tensor], make: Callable[[], Tensor]) -> Tensor:
        """``make()``, or what it returned while ``sources`` were the same."""
        if is_recorded(sources):
            if self._of_call is None:
                return make()
            if name not in self._of_call:
                self._of_call[name] = make()
            return self._of_call[name]
        key = [(s.data_ptr(), s._version, s.shape, s.stride(), s.dtype, s.device) for s in sources]
        known = self._kept.get(name)
        if known is None or known[0] != key:
            known = (key, sources, make())
            self._kept[name] = known
        return known[2]


def is_recorded(tensors: Sequence[Tensor]) -> bool:
    """Is there no telling when they change, or does autograd follow them?

    While torch.func is at work it wraps whatever is made, so that nothing can be kept; and a dual
    tensor of forward mode has the address of its primal.
    """
    if torch._C._functorch.maybe_current_level() is not None or in_forward_mode():
        return True
    return is_transformed(*tensors) or any(
        (torch.is_grad_enabled() and t.requires_grad) or t.is_inference() for t in tensors
    )
