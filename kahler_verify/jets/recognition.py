"""Which modules the closed form may stand in for: those whose call is what it computes.

A call of a module runs more than the forward that its class was written with: a subclass, the
instance or someone's patch of the class may have another forward; forward hooks and pre-hooks, the
module's own or global ones, may change what goes in and what comes out (``weight_norm`` and
``spectral_norm`` of torch.nn.utils are such hooks); a parametrization makes another class. Every
such module goes the opaque way, through autograd of its call.
"""

from __future__ import annotations

from typing import Any, TypeGuard

from torch import nn
from torch.nn.modules import module as torch_module

from kahler_verify.networks.activations import ActivationLayer
from kahler_verify.networks.decoder import ComplexLinear, Decoder, Residual

__all__ = ["is_propagated", "is_recognised", "runs_its_own_forward"]

# What a call goes through, as it was when the closed form was written for it.
_CALLED = ("forward", "__call__", "_call_impl")
_METHODS: dict[type[nn.Module], tuple[tuple[str, Any], ...]] = {
    kind: tuple((name, getattr(kind, name)) for name in names)
    for kind, names in (
        (ComplexLinear, (*_CALLED, "weight", "bias")),
        (ActivationLayer, _CALLED),
        (Residual, _CALLED),
        (nn.Identity, _CALLED),
        (nn.Flatten, _CALLED),
        (nn.Linear, _CALLED),
        (nn.Sequential, _CALLED),
        (Decoder, (*_CALLED, "parameters_at")),
    )
}
_GLOBAL_HOOKS = (
    torch_module._global_forward_hooks,
    torch_module._global_forward_pre_hooks,
)


def runs_its_own_forward(module: nn.Module) -> bool:
    """Does a call of it run exactly the forward that the closed form knows?"""
    known = _METHODS.get(type(module))
    if known is None or module._forward_hooks or module._forward_pre_hooks:
        return False
    if _GLOBAL_HOOKS[0] or _GLOBAL_HOOKS[1]:
        return False
    kind, own = type(module), vars(module)
    return all(getattr(kind, name) is method and name not in own for name, method in known)


def is_recognised(module: nn.Module) -> bool:
    """Does the closed form know what a call of this module computes?"""
    if not runs_its_own_forward(module) or type(module) is Decoder:
        return False
    if isinstance(module, nn.Flatten):  # of one point's features, which are one row already
        return module.start_dim in (1, -1) and module.end_dim in (1, -1)
    if isinstance(module, nn.Linear):
        return bool(module.weight.is_complex())
    return True


def is_propagated(decoder: Any) -> TypeGuard[Decoder]:
    """Is the decoder one whose heads are known, whatever its layers are?"""
    return type(decoder) is Decoder and runs_its_own_forward(decoder)
