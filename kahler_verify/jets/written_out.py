"""Functions of torch whose fused forms cannot be differentiated rightly, in elementary ones.

Torch 2.13: the forward derivatives of layer_norm, instance_norm and batch_norm by a batch's own
statistics are wrong when differentiated again, and so are their third derivatives in every nesting;
glu has no second forward rule; cdist has no forward rule, and a reverse rule that is wrong under
vmap.
"""

# ruff: noqa: A002, ARG001 (the signatures are torch's)

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import torch
from torch import Tensor
from torch.nn import functional
from torch.overrides import TorchFunctionMode

__all__ = ["WrittenOut"]


def _standardised(x: Tensor, dims: list[int], eps: float) -> Tensor:
    centred = x - x.mean(dims, keepdim=True)
    return centred * torch.rsqrt((centred * centred).mean(dims, keepdim=True) + eps)


def _by_channel(x: Tensor, parameter: Tensor | None) -> Tensor | None:
    """A weight or bias [C] beside x [B, C, …]."""
    return None if parameter is None else parameter.reshape(-1, *[1] * (x.ndim - 2))


def _scaled(x: Tensor, weight: Tensor | None, bias: Tensor | None) -> Tensor:
    x = x if weight is None else x * weight
    return x if bias is None else x + bias


def layer_norm(
    input: Tensor,
    normalized_shape: Sequence[int],
    weight: Tensor | None = None,
    bias: Tensor | None = None,
    eps: float = 1e-5,
    *_: Any,
) -> Tensor:
    """As torch.nn.functional.layer_norm."""
    dims = range(-len(normalized_shape), 0)
    return _scaled(_standardised(input, list(dims), eps), weight, bias)


def instance_norm(
    input: Tensor,
    running_mean: Tensor | None = None,
    running_var: Tensor | None = None,
    weight: Tensor | None = None,
    bias: Tensor | None = None,
    use_input_stats: bool = True,
    momentum: float = 0.1,
    eps: float = 1e-5,
    *_: Any,
) -> Any:
    """As torch.nn.functional.instance_norm, by the input's own statistics."""
    if not use_input_stats:
        return NotImplemented
    x = _standardised(input, list(range(2, input.ndim)), eps)
    return _scaled(x, _by_channel(x, weight), _by_channel(x, bias))


def batch_norm(
    input: Tensor,
    running_mean: Tensor | None,
    running_var: Tensor | None,
    weight: Tensor | None = None,
    bias: Tensor | None = None,
    training: bool = False,
    momentum: float = 0.1,
    eps: float = 1e-5,
    *_: Any,
) -> Any:
    """As torch.nn.functional.batch_norm, by the input's own statistics."""
    if not training:
        return NotImplemented
    x = _standardised(input, [0, *range(2, input.ndim)], eps)
    return _scaled(x, _by_channel(x, weight), _by_channel(x, bias))


def glu(input: Tensor, dim: int = -1) -> Tensor:
    """As torch.nn.functional.glu."""
    value, gate = input.chunk(2, dim)
    return value * torch.sigmoid(gate)


def cdist(x1: Tensor, x2: Tensor, p: float = 2.0, compute_mode: str = "") -> Any:
    """As torch.cdist, of Euclidean distances."""
    if p != 2:
        return NotImplemented
    difference = x1.unsqueeze(-2) - x2.unsqueeze(-3)
    return (difference * difference).sum(-1).sqrt()


_FORMS: dict[Callable[..., Any], Callable[..., Any]] = {
    functional.layer_norm: layer_norm,
    torch.layer_norm: layer_norm,
    functional.instance_norm: instance_norm,
    functional.batch_norm: batch_norm,
    functional.glu: glu,
    torch.cdist: cdist,
}


class WrittenOut(TorchFunctionMode):
    """Within it these functions are evaluated by elementary operations.

    Attributes:
        replaced: the names of those that were.
    """

    def __init__(self) -> None:
        super().__init__()
        self.replaced: set[str] = set()

    def __torch_function__(
        self, func: Any, types: Any, args: tuple[Any, ...] = (), kwargs: Any = None
    ) -> Any:
        """Called by torch for each of its functions."""
        kwargs = kwargs or {}
        form = _FORMS.get(func)
        if form is not None:
            out = form(*args, **kwargs)
            if out is not NotImplemented:
                self.replaced.add(form.__name__)
                return out
        return func(*args, **kwargs)
