"""Why a decoder's output does not follow its input: no_grad, inference_mode, detach."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any

import torch
from torch import Tensor, nn
from torch.autograd.grad_mode import inference_mode, no_grad

from kahler_verify.jets.gaussian_outputs import DecoderFunction, evaluate

__all__ = ["severed_by"]


def severed_by(decoder: DecoderFunction, z: Tensor) -> str:
    """What cuts autograd off between z [1, d] and the output; empty where nothing is known to."""
    decorated = [
        f"@torch.{context} around {where}" for where, context in _decorated_functions(decoder)
    ]
    if decorated:
        return f"{' and '.join(decorated)} switches derivatives off: take it away"
    with torch.enable_grad():
        try:
            fields = evaluate(decoder, z.clone().requires_grad_())
        except RuntimeError:
            return ""
    outputs = (fields.mu, fields.factor)
    if any(output.is_inference() for output in outputs):
        return "its output is made under torch.inference_mode: leave that away inside the decoder"
    if not any(output.requires_grad for output in outputs):
        return (
            "its output does not follow z in autograd: torch.no_grad, .detach(), .data, .item() or "
            "NumPy inside the decoder cuts it off"
        )
    return ""


def _decorated_functions(decoder: DecoderFunction) -> Iterator[tuple[str, str]]:
    """Where a decorator of torch's switches autograd off, and which."""
    functions: list[tuple[str, Any]] = [
        ("the decoder", decoder),
        ("its __call__", type(decoder).__call__),
    ]
    if isinstance(decoder, nn.Module):
        functions = [
            (f"{f'the forward of its layer {name!r}' if name else 'its forward'}", module.forward)
            for name, module in decoder.named_modules()
        ]
    for where, function in functions:
        context = _context_of(getattr(function, "__func__", function))
        if context:
            yield where, context


def _context_of(function: Callable[..., Any]) -> str:
    """The name of the context that torch's decorator has wrapped around a function."""
    while hasattr(function, "__wrapped__"):
        for cell in getattr(function, "__closure__", None) or ():
            factory = cell.cell_contents
            owner = getattr(factory, "__self__", None)  # the decorator's bound ``clone``
            for kind in (no_grad, inference_mode):
                if isinstance(owner, kind):
                    return kind.__name__
        function = function.__wrapped__
    return ""
