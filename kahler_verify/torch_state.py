"""What torch keeps for a whole thread or a whole process, and how calls here stay clear of it.

Autocast belongs to a thread, and casts inside of whatever is called.  Forward-mode levels, and the
default of ``torch.distributions`` for validation, belong to the process: two threads that use them
at one time meet each other's tangents, or raise.
"""

from __future__ import annotations

import os
import threading
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager

import torch
from torch import Tensor
from torch.distributions import Distribution

from kahler_verify.errors import InputError
from kahler_verify.linear_algebra.products import is_transformed

__all__ = [
    "alone",
    "in_autocast",
    "outside_autocast",
    "plain_torch",
    "refuse_autocast_in_backward",
    "without_validation",
]

_AUTOCAST_DEVICES = ("cpu", "cuda", "xpu", "mps")
_lock = threading.RLock()
if hasattr(os, "register_at_fork"):  # a child has only the thread that forked
    os.register_at_fork(after_in_child=_lock._at_fork_reinit)  # type: ignore[attr-defined]


@contextmanager
def outside_autocast() -> Iterator[None]:
    """No product inside is cast to another precision than that of its factors."""
    enabled = [device for device in _AUTOCAST_DEVICES if torch.is_autocast_enabled(device)]
    if not enabled:
        yield
        return
    with ExitStack() as stack:
        for device in enabled:
            stack.enter_context(torch.autocast(device, enabled=False))
        yield


@contextmanager
def plain_torch() -> Iterator[None]:
    """Neither autocast nor inference mode is at work inside; what is recorded stays as it was."""
    with outside_autocast():
        if not torch.is_inference_mode_enabled():
            yield
            return
        with torch.inference_mode(mode=False), torch.no_grad():
            yield


def in_autocast(device: torch.device) -> bool:
    """Are products there cast?"""
    return device.type in _AUTOCAST_DEVICES and torch.is_autocast_enabled(device.type)


def refuse_autocast_in_backward(out: Tensor) -> None:
    """Make the backward pass of ``out`` an error under autocast, which casts its products, too.

    Autocast is the caller's there, and cannot be left from inside: torch sets it anew for every
    node of the graph.
    """
    if out.grad_fn is not None and not is_transformed(out):
        out.grad_fn.register_prehook(_refuse_autocast)


def _refuse_autocast(cotangents: tuple[Tensor, ...]) -> None:
    for device in {cotangent.device.type for cotangent in cotangents if cotangent is not None}:
        if device in _AUTOCAST_DEVICES and torch.is_autocast_enabled(device):
            raise InputError(
                "backward: expected a backward pass outside of autocast, which would round its "
                "products to half precision; leave torch.autocast before loss.backward(), as torch "
                "advises"
            )


@contextmanager
def alone() -> Iterator[None]:
    """While torch's forward mode is at work, or other state of the process is changed.

    One thread at a time; others that come here wait.
    """
    with _lock:
        yield


@contextmanager
def without_validation() -> Iterator[None]:
    """Torch's distributions read values to check them, which vmap does not allow."""
    with alone():
        before = Distribution._validate_args
        Distribution.set_default_validate_args(False)
        try:
            yield
        finally:
            Distribution.set_default_validate_args(before)
