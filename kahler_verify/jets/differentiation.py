"""Nested differentiation by torch.func, in each mode that some decoder needs.

Forward mode is the fastest by far. It has no rule for some of torch's functions and a wrong one for
others: those of ``written_out`` are evaluated in elementary operations then. Where that does not
help, forward over reverse, or reverse mode does, which has a rule for nearly everything; and
reverse mode one output at a time where a reverse rule is wrong for several at once.
"""

from __future__ import annotations

import re
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager, nullcontext
from functools import partial
from typing import Any, Literal, get_args

import torch
from torch import Tensor
from torch.func import jacfwd, jacrev
from torch.nn.attention import SDPBackend, sdpa_kernel

from kahler_verify.errors import InputError
from kahler_verify.jets.written_out import WrittenOut

__all__ = ["MODES", "Mode", "Value", "differentiate", "nested", "refusal"]

Mode = Literal[
    "forward", "forward, written out", "forward over reverse", "reverse", "reverse by output"
]
MODES: tuple[Mode, ...] = get_args(Mode)
"""In the order in which they are tried."""

# From u [m] to the tensors that are to be differentiated, and to what is only handed on.
Value = Callable[[Tensor], tuple[tuple[Tensor, ...], Any]]
# The same tensors' derivatives of one order, [*field, m, ..., m].
Derivatives = tuple[Tensor, ...]
_OUTPUTS_AT_ONCE = 64  # of reverse mode, whose memory grows with them


def nested(
    value: Value, order: int, mode: Mode
) -> Callable[[Tensor], tuple[tuple[Derivatives, ...], Any]]:
    """From u [m] to the derivatives of ``value`` of orders 0 … ``order``, and what is handed on."""

    def level(u: Tensor) -> tuple[Derivatives, tuple[tuple[Derivatives, ...], Any]]:
        with WrittenOut() if mode == "forward, written out" else nullcontext():
            tensors, other = value(u)
        return tensors, ((tensors,), other)

    def next_level(inner: Callable[..., Any], jacobian: Callable[..., Any]) -> Callable[..., Any]:
        def outer(u: Tensor) -> Any:
            highest, (lower, other) = jacobian(inner, has_aux=True)(u)
            return highest, ((*lower, highest), other)

        return outer

    function: Callable[..., Any] = level
    for number in range(order):
        function = next_level(function, _jacobian(mode, innermost=number == 0))
    return lambda u: function(u)[1]


def _jacobian(mode: Mode, *, innermost: bool) -> Callable[..., Any]:
    if mode.startswith("forward") and not (mode == "forward over reverse" and innermost):
        return jacfwd
    return partial(jacrev, chunk_size=1 if mode == "reverse by output" else _OUTPUTS_AT_ONCE)


def differentiate(compute: Callable[[], Any]) -> Any:
    """``compute()``, a nested derivative, in the state that torch's rules need.

    - The forward rules of SiLU, Mish and group_norm can be differentiated again only while autograd
      records, and those of fused attention not at all: where torch has no rule, a second try
      records, and takes attention apart. Where the caller does not record, neither does the result.
    - In inference mode nothing can be differentiated: it is left, and nothing recorded.

    Raises:
        NotImplementedError, RuntimeError: torch's own, of the second try.
    """
    recording = torch.is_grad_enabled() and not torch.is_inference_mode_enabled()
    with torch.inference_mode(False), torch.set_grad_enabled(recording):
        try:
            return compute()
        except (NotImplementedError, RuntimeError) as error:
            if not _lacks_a_rule(error):
                raise
        with torch.enable_grad(), _attention_taken_apart():
            found = compute()
        return found if recording else _detached(found)


def _lacks_a_rule(error: Exception) -> bool:
    return isinstance(error, NotImplementedError) or "is not implemented" in str(error)


def _detached(found: Any) -> Any:
    if isinstance(found, Tensor):
        return found.detach()
    if isinstance(found, tuple | list):
        return type(found)(_detached(each) for each in found)
    return found


class _Attention:
    """How many calls have torch's attention taken apart: its switches are the whole process's."""

    lock = threading.Lock()
    calls = 0
    kernels: Any = None
    fast_path = True


@contextmanager
def _attention_taken_apart() -> Iterator[None]:
    """Attention as matrix products and a softmax; other threads' attention too, meanwhile."""
    with _Attention.lock:
        if _Attention.calls == 0:
            _Attention.fast_path = torch.backends.mha.get_fastpath_enabled()
            torch.backends.mha.set_fastpath_enabled(False)
            _Attention.kernels = sdpa_kernel(SDPBackend.MATH)
            _Attention.kernels.__enter__()
        _Attention.calls += 1
    try:
        yield
    finally:
        with _Attention.lock:
            _Attention.calls -= 1
            if _Attention.calls == 0:
                _Attention.kernels.__exit__(None, None, None)
                torch.backends.mha.set_fastpath_enabled(_Attention.fast_path)


_OPERATION = re.compile(
    r"forward AD with (?:aten::)?(\w+)|derivative for '?(?:aten::)?(\w+)|(?:aten|prims)::(\w+)"
)


def _operation_of(error: Exception) -> str:
    """The operation that torch's error names, or the error's kind."""
    found = _OPERATION.search(str(error))
    if found is None:
        return type(error).__name__
    return next(name for name in found.groups() if name)


def refusal(error: Exception, order: int) -> InputError:
    """What to tell a user of an error of torch's while it differentiated."""
    first_line = (str(error).strip() or type(error).__name__).splitlines()[0]
    return InputError(
        f"torch cannot differentiate this decoder to order {order}, because of "
        f"{_operation_of(error)}: {first_line}. Write that operation out in elementary ones, "
        "or ask for less: the metric needs first derivatives, the connection second ones and "
        "the curvature third ones"
    )
