"""A torch network in evaluation mode as a function of JAX, layer by layer, with its weights."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from torch import Tensor, nn

from kahler_verify.errors import InputError

Function = Callable[[Any], Any]


def translated(net: nn.Sequential) -> Function:
    """Of arrays [B, ...]; the layers of :func:`benchmarks.models.conv28`.

    Raises:
        InputError: a layer is another.
    """
    layers = [_layer(layer) for layer in net]

    def run(x: Any) -> Any:
        for layer in layers:
            x = layer(x)
        return x

    return run


def array(x: Tensor) -> Any:
    """On JAX's side, in the same precision."""
    import jax.numpy as jnp

    return jnp.asarray(x.detach().numpy())


def _layer(layer: nn.Module) -> Function:
    import jax

    if isinstance(layer, nn.Linear):
        weight, bias = array(layer.weight), array(layer.bias)
        return lambda x: x @ weight.T + bias
    if isinstance(layer, nn.Unflatten):
        shape = tuple(layer.unflattened_size)
        return lambda x: x.reshape(x.shape[0], *shape)
    if isinstance(layer, nn.SiLU):
        return jax.nn.silu
    if isinstance(layer, nn.BatchNorm2d):
        assert layer.running_mean is not None
        assert layer.running_var is not None
        scale = layer.weight * (layer.running_var + layer.eps).rsqrt()
        slope = array(scale)[:, None, None]
        shift = array(layer.bias - scale * layer.running_mean)[:, None, None]
        return lambda x: x * slope + shift
    if isinstance(layer, nn.ConvTranspose2d):
        return _transposed(layer)
    raise InputError(f"net: expected layers that are known here, got {type(layer).__name__}")


def _transposed(layer: nn.ConvTranspose2d) -> Function:
    """A convolution of the input with zeros between its pixels, by the kernel turned around."""
    import jax

    assert layer.bias is not None
    kernel = array(layer.weight.flip(2, 3).transpose(0, 1).contiguous())
    bias = array(layer.bias)[:, None, None]
    (stride, _), (around, _) = layer.stride, layer.padding  # type: ignore[misc]
    margin = layer.kernel_size[0] - 1 - int(around)

    def run(x: Any) -> Any:
        out = jax.lax.conv_general_dilated(
            x, kernel, (1, 1), [(margin, margin)] * 2, lhs_dilation=(int(stride),) * 2
        )
        return out + bias

    return run
