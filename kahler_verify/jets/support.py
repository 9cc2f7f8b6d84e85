"""Which torch functions the installed torch can differentiate, and what jets do about the others.

Nothing is assumed of any version: each function is called in the way that derivatives call it, and
what torch answers is written down.  A function with a rule needs nothing of torch but its value.
"""

from __future__ import annotations

import warnings
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor
from torch.func import jvp, vmap

from kahler_verify.errors import InputError
from kahler_verify.jets.propagation import propagate
from kahler_verify.torch_state import alone

__all__ = ["FUNCTIONS", "Support", "support"]

Function = Callable[[Tensor], Tensor]


@dataclass(frozen=True)
class Support:
    """What torch, and what jets, do with a function.

    Attributes:
        name: of the function.
        forward: has torch forward-mode derivatives of it?
        second: and derivatives of these, again by forward mode?
        batched: does ``vmap`` take its derivatives as one call, without a loop?
        first_by: how jets get first derivatives: "rule", "autograd", or "" where they refuse.
        second_by: the same of second derivatives.
    """

    name: str
    forward: bool
    second: bool
    batched: bool
    first_by: str
    second_by: str

    @property
    def complete(self) -> bool:
        """Does torch itself have all of it?"""
        return self.forward and self.second and self.batched


def _grid(x: Tensor) -> Tensor:
    places = torch.linspace(-0.7, 0.8, 6, dtype=x.dtype, device=x.device)
    grid = torch.stack(torch.meshgrid(places, places, indexing="ij"), -1)
    return grid.expand(len(x), 6, 6, 2)


_KERNEL = torch.linspace(-1, 1, 72, dtype=torch.float64).sin()
FUNCTIONS: dict[str, Function] = {
    "conv2d": lambda x: F.conv2d(x, _KERNEL.reshape(2, 4, 3, 3), padding=1),
    "conv_transpose2d": lambda x: F.conv_transpose2d(x, _KERNEL.reshape(4, 2, 3, 3), stride=2),
    "group_norm": lambda x: F.group_norm(x, 2),
    "layer_norm": lambda x: F.layer_norm(x, x.shape[-1:]),
    "instance_norm": lambda x: F.instance_norm(x),
    "rms_norm": lambda x: F.rms_norm(x, x.shape[-1:]),
    "local_response_norm": lambda x: F.local_response_norm(x, 2),
    "interpolate, nearest": lambda x: F.interpolate(x, scale_factor=2.0),
    "interpolate, bilinear": lambda x: F.interpolate(x, scale_factor=2.0, mode="bilinear"),
    "interpolate, bicubic": lambda x: F.interpolate(x, scale_factor=2.0, mode="bicubic"),
    "pixel_shuffle": lambda x: F.pixel_shuffle(x, 2),
    "fold": lambda x: F.fold(x.flatten(2)[..., :9], (4, 4), 2),
    "grid_sample": lambda x: F.grid_sample(x, _grid(x), align_corners=True),
    "avg_pool2d": lambda x: F.avg_pool2d(x, 2),
    "max_pool2d": lambda x: F.max_pool2d(x, 2),
    "adaptive_avg_pool2d": lambda x: F.adaptive_avg_pool2d(x, 2),
    "pad, reflect": lambda x: F.pad(x, (1, 1, 1, 1), mode="reflect"),
    "scaled_dot_product_attention": lambda x: F.scaled_dot_product_attention(x, x + 1, 2 * x),
    "silu": F.silu,
    "mish": F.mish,
    "gelu": F.gelu,
    "glu": lambda x: F.glu(x, 1),
    "elu": F.elu,
    "hardswish": F.hardswish,
    "softplus": F.softplus,
    "softmax": lambda x: x.softmax(1),
    "logsumexp": lambda x: x.logsumexp(1),
    "cumsum": lambda x: x.cumsum(1),
    "cdist": lambda x: torch.cdist(x, x.flip(-1) + 3),
    "erfcx": torch.special.erfcx,
    "i0e": torch.special.i0e,
    "fft": lambda x: torch.fft.rfft(x).abs(),
}
"""What decoders are made of, and what has been met, as functions of one tensor [B, 4, 4, 4]."""


def support(functions: dict[str, Function] | None = None) -> list[Support]:
    """Ask the installed torch, on the CPU; takes about a second.

    Args:
        functions: of a tensor [B, 4, 4, 4] in double precision; :data:`FUNCTIONS` by default.
    """
    functions = FUNCTIONS if functions is None else functions
    generator = torch.Generator("cpu").manual_seed(0)
    x = torch.randn(2, 4, 4, 4, dtype=torch.float64, device="cpu", generator=generator)
    with warnings.catch_warnings(), torch.inference_mode(False), torch.enable_grad(), alone():
        warnings.simplefilter("ignore")
        return [_asked(name, function, x) for name, function in functions.items()]


def _asked(name: str, function: Function, x: Tensor) -> Support:
    def slope(x: Tensor) -> Tensor:
        return jvp(function, (x,), (torch.ones_like(x),))[1]

    def along(t: Tensor) -> Tensor:
        return jvp(function, (x,), (t,))[1]

    forward = _works(lambda: slope(x))
    return Support(
        name,
        forward,
        forward and _works(lambda: jvp(slope, (x,), (torch.ones_like(x),))),
        forward and _without_loops(lambda: vmap(along)(torch.stack([x, 2 * x]))),
        _by(function, x, 1),
        _by(function, x, 2),
    )


def _works(call: Callable[[], object]) -> bool:
    try:
        call()
    except RuntimeError:  # NotImplementedError is one
        return False
    return True


def _without_loops(call: Callable[[], object]) -> bool:
    functorch: Any = torch._C._functorch
    before = functorch._is_vmap_fallback_enabled()
    functorch._set_vmap_fallback_enabled(False)
    try:
        return _works(call)
    finally:
        functorch._set_vmap_fallback_enabled(before)


def _by(function: Function, x: Tensor, order: int) -> str:
    try:
        jet = propagate(function, x[:1], order, directions=x[None, 1:2])
    except InputError:
        return ""
    return "autograd" if jet.record.autograd else "rule"
