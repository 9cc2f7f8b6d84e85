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

import threading
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from typing import Any, TypeVar

import torch
from torch import Tensor
from torch.optim.optimizer import Optimizer, register_optimizer_step_post_hook

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


class _FusedSteps:
    """How many steps fused optimisers have made: they alone write without a new version."""

    count = 0

    @classmethod
    def see(cls, optimizer: Optimizer, _args: Any, _kwargs: Any) -> None:
        """Called by torch after every optimiser's step."""
        cls.count += any(group.get("fused") for group in optimizer.param_groups)


register_optimizer_step_post_hook(_FusedSteps.see)


class _Call(threading.local):
    """The present call of a thread: what it has made of recorded weights, and its points."""

    made: dict[str, Any] | None = None
    points = 0


class ReducedHeads:
    """What is made from weights, kept until a tensor that it was made from changes.

    Changes are seen by address and version, which optimisers, ``load_state_dict`` and in-place
    operations move; writing through ``.data`` does not, and needs :meth:`forget`. While autograd
    records the weights, a matrix is kept for one call only: see :meth:`call`. A copy keeps nothing.
    """

    def __init__(self) -> None:
        # name, and whether in inference mode, whose tensors autograd cannot take, to the key, the
        # sources (alive, so that no other tensor takes their address) and the result
        self._kept: dict[tuple[str, bool], tuple[Any, Sequence[Tensor], Any]] = {}
        self._call = _Call()

    def __reduce__(self) -> tuple[type[ReducedHeads], tuple[()]]:
        return ReducedHeads, ()  # addresses mean nothing to a copy

    @property
    def points(self) -> int:
        """Of the present call."""
        return self._call.points

    def forget(self) -> None:
        """Drop everything."""
        self._kept.clear()

    @contextmanager
    def call(self, points: int) -> Iterator[None]:
        """A call for so many points; within it, what autograd records is made once."""
        call = self._call
        outer = call.made, call.points
        call.made, call.points = {}, points
        try:
            yield
        finally:
            call.made, call.points = outer

    def get(self, name: str, sources: Sequence[Tensor], make: Callable[[], T]) -> T:
        """``make()``, or what it returned while ``sources`` were the same."""
        if is_recorded(sources):
            made = self._call.made
            if made is None:
                return make()
            if name not in made:
                made[name] = make()
            new: T = made[name]
            return new
        key = [_FusedSteps.count, *map(_identity, sources)]
        slot = name, torch.is_inference_mode_enabled()
        known = self._kept.get(slot)
        if known is None or known[0] != key:
            known = (key, sources, make())
            self._kept[slot] = known
        kept: T = known[2]
        return kept


def _identity(x: Tensor) -> tuple[Any, ...]:
    signs = x.is_conj(), x.is_neg()
    return x.data_ptr(), x._version, x.shape, x.stride(), x.dtype, x.device, *signs


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
