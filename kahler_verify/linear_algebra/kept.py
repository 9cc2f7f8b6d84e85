"""What is made from weights, kept until these change."""

from __future__ import annotations

import ctypes
import sys
import threading
from collections.abc import Callable, Hashable, Iterator, Sequence
from contextlib import contextmanager
from typing import Any, TypeVar

import torch
from torch import Tensor, nn

from kahler_verify.linear_algebra.products import in_forward_mode

__all__ = ["ReducedHeads", "is_recorded"]

T = TypeVar("T")


class _Call(threading.local):
    """The present call of a thread: what it has made or looked up, and its points."""

    made: dict[tuple[str, bool, bool], Any] | None = None
    points = 0


class ReducedHeads:
    """What is made from weights, kept for as long as every bit of them stays the same.

    Torch has many ways to write weights (``.data``, shared or swapped storages, numpy's views,
    fused optimisers, other processes that map the same file), and no version counter sees all of
    them.  So a copy of the weights is kept beside what is made of it, and each call compares the
    two once, as memory: 20 µs for a megabyte.  While autograd records the weights, and on a GPU,
    where a comparison would wait for all that runs there, things are made anew in each call.

    One instance serves any number of threads; a copy of it keeps nothing.
    """

    def __init__(self) -> None:
        # by name and by whether in inference mode, whose tensors autograd cannot take
        self._kept: dict[tuple[Hashable, bool], tuple[Sequence[Tensor], Any]] = {}
        # by name: the owner and its sources, their counts of writes, and what was made of them
        self._frozen: dict[Hashable, tuple[Any, Sequence[Tensor], list[int], Any]] = {}
        self._call = _Call()

    def __reduce__(self) -> tuple[type[ReducedHeads], tuple[()]]:
        return ReducedHeads, ()

    @property
    def points(self) -> int:
        """Of the present call."""
        return self._call.points

    def forget(self) -> None:
        """Drop everything."""
        self._kept.clear()
        self._frozen.clear()

    @contextmanager
    def call(self, points: int) -> Iterator[None]:
        """A call for so many points; within it, everything is made or compared once."""
        call = self._call
        outer = call.made, call.points
        call.made, call.points = {}, points
        try:
            yield
        finally:
            call.made, call.points = outer

    def get(self, name: str, sources: Sequence[Tensor], make: Callable[..., T]) -> T:
        """``make(*sources)``, or what it returned of the same values.

        What is kept is made of copies, so that it may go on to read them.
        """
        followed, inference = is_recorded(sources), torch.is_inference_mode_enabled()
        made = self._call.made
        if made is not None and (name, followed, inference) in made:
            found: T = made[name, followed, inference]
            return found
        out = make(*sources) if followed else self._look_up((name, inference), sources, make)
        if made is not None:
            made[name, followed, inference] = out
        return out

    def unrecorded(self, name: Hashable, sources: Sequence[Tensor], make: Callable[..., T]) -> T:
        """The same outside of any call, where :func:`is_recorded` is known not to hold."""
        return self._look_up((name, torch.is_inference_mode_enabled()), sources, make)

    def freeze(self, name: Hashable, owner: Any, sources: Sequence[Tensor], made: Any) -> None:
        """Keep what was made of an owner's sources for :meth:`frozen`."""
        self._frozen[name, torch.is_inference_mode_enabled()] = (
            owner,
            sources,
            _writes(sources),
            made,
        )

    def frozen(self, name: Hashable, owner: Any) -> tuple[Sequence[Tensor], Any] | None:
        """The sources, and what was made of them; no number of theirs is read.

        None where nothing is kept, or where torch has counted a write of a source since.  What it
        does not count (``.data``, numpy's views, other processes) and what has taken a source's
        place are not seen.
        """
        known = self._frozen.get((name, torch.is_inference_mode_enabled()))
        if known is None or known[0] is not owner or _writes(known[1]) != known[2]:
            return None
        return known[1], known[3]

    def _look_up(
        self, slot: tuple[Hashable, bool], sources: Sequence[Tensor], make: Callable[..., T]
    ) -> T:
        known = self._kept.get(slot)
        if known is None or not _are_same(known[0], sources):
            copies = [_plain(x).clone() for x in sources]
            known = self._kept[slot] = (copies, make(*copies))
        out: T = known[1]
        return out


_memcmp = (ctypes.cdll.msvcrt if sys.platform == "win32" else ctypes.CDLL(None)).memcmp
_memcmp.argtypes = [ctypes.c_void_p, ctypes.c_void_p, ctypes.c_size_t]


def _plain(x: Tensor) -> Tensor:
    """Its numbers as they stand in memory: no conjugate or negative views, no gaps."""
    if x.is_contiguous() and not x.is_conj() and not x.is_neg():
        return x.detach()
    return x.detach().resolve_conj().resolve_neg().contiguous()


def _are_same(copies: Sequence[Tensor], sources: Sequence[Tensor]) -> bool:
    """Do they agree in every bit, NaN included?  Seven times as fast as ``torch.equal``."""
    if len(copies) != len(sources):
        return False
    for copy, source in zip(copies, sources, strict=True):
        if copy.dtype != source.dtype or copy.shape != source.shape:
            return False
        now = _plain(source)
        if _memcmp(copy.data_ptr(), now.data_ptr(), copy.nbytes):
            return False
    return True


def _writes(sources: Sequence[Tensor]) -> list[int]:
    """How often each was written in place; tensors of inference mode have no count."""
    return [0 if x.is_inference() else x._version for x in sources]


def is_recorded(tensors: Sequence[Tensor]) -> bool:
    """Does autograd follow them, or is there no telling at once when they change?

    While torch.func is at work it wraps whatever is made, so that nothing can be kept; and a dual
    tensor of forward mode has the memory of its primal.
    """
    recording = torch.is_grad_enabled()
    for t in tensors:
        if (recording and t.requires_grad) or t.device.type != "cpu":
            return True
        if type(t) not in (Tensor, nn.Parameter):  # fake or distributed: without a memory to read
            return True
    at_work = torch._C._functorch.maybe_current_level() is not None
    return at_work or in_forward_mode() or torch.compiler.is_compiling()
