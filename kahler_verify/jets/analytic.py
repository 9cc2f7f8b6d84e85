"""Is a decoder analytic by what it is composed of? Then no kink need be looked for."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping
from typing import Any

import torch
from torch import Tensor
from torch.utils._python_dispatch import TorchDispatchMode

from kahler_verify.jets.gaussian_outputs import DecoderFunction, evaluate

__all__ = ["is_analytic", "is_composed_of_analytic"]

# Operations that are analytic in the real coordinates of what they are given, wherever they are
# finite. Roots are not: √x² is |x|. None writes into a tensor: others may hold what it was.
# fmt: off
_ANALYTIC = {
    "add", "sub", "rsub", "mul", "div", "neg", "reciprocal", "square", "addcmul", "addcdiv",
    "lerp", "mm", "addmm", "bmm", "baddbmm", "mv", "addmv", "dot", "vdot", "linear", "convolution",
    "_convolution", "einsum", "matmul", "exp", "expm1", "log", "log1p", "exp2", "sin", "cos",
    "sinh", "cosh", "tanh", "atan", "asinh", "sigmoid", "log_sigmoid", "erf", "silu", "gelu",
    "mish", "softplus", "log_sigmoid_forward", "_softmax", "_log_softmax", "softmax",
    "log_softmax", "logsumexp", "native_layer_norm", "native_group_norm", "native_batch_norm",
    "_native_batch_norm_legit_no_training", "cudnn_batch_norm", "sum", "mean", "cumsum",
    "upsample_nearest1d", "upsample_nearest2d", "upsample_nearest3d", "upsample_linear1d",
    "upsample_bilinear2d", "upsample_trilinear3d", "_upsample_nearest_exact2d", "avg_pool1d",
    "avg_pool2d", "avg_pool3d", "_adaptive_avg_pool2d", "adaptive_avg_pool1d", "pixel_shuffle",
    "pixel_unshuffle", "constant_pad_nd", "_scaled_dot_product_flash_attention_for_cpu", "complex",
    "real", "imag", "conj", "_conj", "_conj_physical", "resolve_conj", "resolve_neg", "_neg_view",
    "view_as_real", "view_as_complex", "view", "_unsafe_view", "reshape", "_reshape_alias",
    "permute", "transpose", "t", "unsqueeze", "squeeze", "expand", "expand_as", "slice", "select",
    "narrow", "split", "split_with_sizes", "unbind", "chunk", "cat", "stack", "clone",
    "contiguous", "alias", "diagonal", "diag_embed", "tril", "flatten", "unflatten", "movedim",
    "flip", "repeat", "index_select",
}
# fmt: on
# These look at shape and kind of what they are given, and at nothing else.
_BLIND = {"zeros_like", "ones_like", "full_like", "new_zeros", "new_ones", "new_full"}


class _Watch(TorchDispatchMode):
    """Follows what depends on the latents through every operation that torch is asked for."""

    def __init__(self, start: Tensor) -> None:
        super().__init__()
        self.varying = {id(start): start}  # kept, so that no other tensor gets its identity
        self.analytic = True

    def __torch_dispatch__(
        self,
        func: Any,
        types: Any,
        args: tuple[Any, ...] = (),
        kwargs: Mapping[str, Any] | None = None,
    ) -> Any:
        out = func(*args, **(kwargs or {}))
        name = func.overloadpacket.__name__
        varies = any(id(x) in self.varying for x in _tensors((args, kwargs or {})))
        if varies and name not in _BLIND:
            rounded = kwargs is not None and kwargs.get("rounding_mode") is not None
            self.analytic &= (name in _ANALYTIC and not rounded) or _is_power(name, args)
            self.varying.update((id(x), x) for x in _tensors(out))
        return out


def _is_power(name: str, args: tuple[Any, ...]) -> bool:
    """A whole power, and no other."""
    return name == "pow" and isinstance(args[1], int | float) and args[1] == int(args[1]) >= 0


def _tensors(x: Any) -> Iterator[Tensor]:
    if isinstance(x, Tensor):
        yield x
    elif isinstance(x, list | tuple):
        for each in x:
            yield from _tensors(each)
    elif isinstance(x, dict):
        yield from _tensors(list(x.values()))


def is_analytic(decoder: DecoderFunction, points: Tensor) -> bool:
    """Whether all that happens between z and the decoder's fields is analytic, at points [P, d].

    False says only that it is not known. What torch is not asked for (compiled code) leaves fields
    of which it is not seen that they depend on z; they must not change from point to point.
    """

    def fields(z: Tensor) -> tuple[Tensor, Tensor]:
        found = evaluate(decoder, z)
        return found.mu, found.factor

    return is_composed_of_analytic(fields, points)


def is_composed_of_analytic(function: Callable[[Tensor], Iterable[Tensor]], points: Tensor) -> bool:
    """The same of a function's outputs [P, ...]."""
    z = points.clone()
    with torch.no_grad(), _Watch(z) as watch:
        outputs = tuple(function(z))
        seen = [id(x) in watch.varying for x in outputs]
    constant = [bool((x == x[:1]).all()) for x in outputs]
    return watch.analytic and all(s or c for s, c in zip(seen, constant, strict=True))
