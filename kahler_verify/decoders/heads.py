"""Output layers that a Fisher metric may replace by smaller ones.

A metric sees an output layer W [D, h] only through Gram products such as (W J)ᴴ(W J), J being the
hidden tangents. With W = QR these are those of R, which has min(D, h) rows: the widest matrix
product of a decoder costs h × h instead of D × h. A head of which only the real part counts,
Re(W h) = (Re W, -Im W)(Re h; Im h), has a real QR decomposition with min(D, 2h) rows, which keeps
the products without conjugates, (W J)ᵀ(W J), as well.

While weights are trained no decomposition is worth its time, and the Gram matrix WᴴW itself takes
its place: see :class:`kahler_verify.pairs.Image`.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from typing import Any, TypeVar

import torch
from torch import Tensor

from kahler_verify.products import in_forward_mode

__all__ = ["ReducedHeads", "is_recorded", "reduced", "reduced_real"]

T = TypeVar("T")


def reduced(weight: Tensor) -> Tensor:
    """R [min(D, h), h] with RᴴR = WᴴW, for complex W [D, h]."""
    return torch.linalg.qr(weight)[1]


def reduced_real(weight: Tensor) -> Tensor:
    """C [min(D, 2h), h] complex with |Re(C v)| = |Re(W v)| for all v."""
    triangle = torch.linalg.qr(torch.cat([weight.real, -weight.imag], -1))[1]
    x, y = triangle.chunk(2, dim=-1)
    return torch.complex(x, -y)


class ReducedHeads:
    """What is made from weights, kept until a tensor that it was made from changes.

    Changes are seen by address and version, which optimisers, ``load_state_dict`` and in-place
    operations move; writing through ``.data`` does not, and needs :meth:`forget`. While autograd
    records the weights, a matrix is kept for one call only: see :meth:`call`.
    """

    def __init__(self) -> None:
        # name, and whether in inference mode, whose tensors autograd cannot take, to the key, the
        # sources (alive, so that no other tensor takes their address) and the result
        self._kept: dict[tuple[str, bool], tuple[Any, Sequence[Tensor], Any]] = {}
        self._of_call: dict[str, Any] | None = None
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

    def get(self, name: str, sources: Sequence[Tensor], make: Callable[[], T]) -> T:
        """``make()``, or what it returned while ``sources`` were the same."""
        if is_recorded(sources):
            if self._of_call is None:
                return make()
            if name not in self._of_call:
                self._of_call[name] = make()
            new: T = self._of_call[name]
            return new
        key = [(s.data_ptr(), s._version, s.shape, s.stride(), s.dtype, s.device) for s in sources]
        slot = name, torch.is_inference_mode_enabled()
        known = self._kept.get(slot)
        if known is None or known[0] != key:
            known = (key, sources, make())
            self._kept[slot] = known
        kept: T = known[2]
        return kept


def is_recorded(tensors: Sequence[Tensor]) -> bool:
    """Is there no telling when they change, or does autograd follow them?

    While torch.func is at work it wraps whatever is made, so that nothing can be kept; and a dual
    tensor of forward mode has the address of its primal.
    """
    recording = torch.is_grad_enabled()
    for t in tensors:
        if (recording and t.requires_grad) or t.is_inference():
            return True
    at_work = torch._C._functorch.maybe_current_level() is not None
    return at_work or in_forward_mode() or torch.compiler.is_compiling()
