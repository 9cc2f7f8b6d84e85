"""Normalisations over the entries of each point, and batch normalisation with fixed statistics.

With c = x - ⟨x⟩ (or x), y = r c and r = (⟨c²⟩ + ε)^{-½}, where ⟨·⟩ is the mean over an axis:
∂_i r = -r² m_i with m_i = ⟨y ∂_i c⟩, so that
∂_i y = r (∂_i c - m_i y),
∂_i∂_j y = r (∂_i∂_j c - m_i ∂_j y - m_j ∂_i y - (⟨∂_i y ∂_j c⟩ + ⟨y ∂_i∂_j c⟩) y).
torch's own second derivatives of layer, instance and batch normalisation are wrong in forward mode
(2.13); these are not its.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor

from kahler_verify.errors import InputError
from kahler_verify.rules.arithmetic import plus, times
from kahler_verify.rules.expansion import Expansion
from kahler_verify.rules.registry import rule


def normalised(x: Expansion, axes: tuple[int, ...], epsilon: float, *, centred: bool) -> Expansion:
    """Over the last axes, which are given as negative numbers."""
    c = centre(x, axes) if centred else x
    r = torch.rsqrt(_mean(c.value * c.value, axes) + epsilon)
    y = c.value * r
    first, second = c.rows
    if first is None:
        return x.constant(y)
    m = _mean(first * y, axes)
    dy = torch.addcmul(first, m, y, value=-1) * r
    if x.frame.order == 1:
        return Expansion(y, dy, None, x.frame)
    (m_i, m_j), (dy_i, dy_j) = x.frame.pair_up(m), x.frame.pair_up(dy)
    (_, c_j) = x.frame.pair_up(first)
    curvature = _mean(dy_i * c_j, axes)
    if second is not None:
        curvature = curvature + _mean(second * y, axes)
    ddy = -r * (m_i * dy_j + m_j * dy_i + curvature * y)
    return Expansion(y, dy, ddy if second is None else ddy + second * r, x.frame)


def centre(x: Expansion, axes: tuple[int, ...]) -> Expansion:
    """X - ⟨x⟩."""
    first, second = (None if t is None else t - _mean(t, axes) for t in x.rows)
    return Expansion(x.value - _mean(x.value, axes), first, second, x.frame)


def _mean(x: Tensor, axes: tuple[int, ...]) -> Tensor:
    return x.mean(axes, keepdim=True)


def _affine(x: Expansion, weight: Any, bias: Any, shape: Sequence[int] | None = None) -> Expansion:
    """Per entry, or per channel."""
    if weight is not None:
        x = times(x, weight if shape is None else weight.reshape(shape))
    return x if bias is None else plus(x, bias if shape is None else bias.reshape(shape))


@rule("layer_norm", holomorphic=False)
def layer_norm(
    call: Any,
    x: Expansion,
    normalized_shape: Sequence[int],
    weight: Tensor | None = None,
    bias: Tensor | None = None,
    eps: float = 1e-5,
    *rest: Any,
) -> Expansion:
    """Over the last axes."""
    axes = tuple(range(-len(normalized_shape), 0))
    return _affine(normalised(x, axes, eps, centred=True), weight, bias)


@rule("rms_norm", holomorphic=False)
def rms_norm(
    call: Any,
    x: Expansion,
    normalized_shape: Sequence[int],
    weight: Tensor | None = None,
    eps: float | None = None,
) -> Expansion:
    """Over the last axes, about 0."""
    axes = tuple(range(-len(normalized_shape), 0))
    eps = torch.finfo(x.value.dtype).eps if eps is None else eps
    return _affine(normalised(x, axes, eps, centred=False), weight, None)


@rule("group_norm", holomorphic=False)
def group_norm(
    call: Any,
    x: Expansion,
    groups: int,
    weight: Tensor | None = None,
    bias: Tensor | None = None,
    eps: float = 1e-5,
    *rest: Any,
) -> Expansion:
    """Over groups of channels and all places."""
    batch, *rest_of_shape = shape = x.value.shape
    grouped = _reshaped(x, (batch, groups, -1))
    out = _reshaped(normalised(grouped, (-1,), eps, centred=True), shape)
    return _affine(out, weight, bias, (-1, *[1] * (len(rest_of_shape) - 1)))


def _reshaped(x: Expansion, shape: Sequence[int]) -> Expansion:
    first, second = (None if t is None else t.reshape(len(t), *shape) for t in x.rows)
    return Expansion(x.value.reshape(shape), first, second, x.frame)


@rule("instance_norm", holomorphic=False)
def instance_norm(
    call: Any,
    x: Expansion,
    weight: Tensor | None,
    bias: Tensor | None,
    running_mean: Tensor | None,
    running_var: Tensor | None,
    use_input_stats: bool,
    momentum: float,
    eps: float,
    *rest: Any,
) -> Expansion:
    """Over all places of each channel; with stored statistics it is affine."""
    if not use_input_stats:
        value = call(x.value, weight, bias, running_mean, running_var, False, momentum, eps, *rest)
        return _scaled_channels(x, value, weight, running_var, eps)
    axes = tuple(range(2 - x.value.ndim, 0))
    shape = (-1, *[1] * len(axes))
    return _affine(normalised(x, axes, eps, centred=True), weight, bias, shape)


@rule("batch_norm", holomorphic=False)
def batch_norm(
    call: Any,
    x: Expansion,
    weight: Tensor | None,
    bias: Tensor | None,
    running_mean: Tensor | None,
    running_var: Tensor | None,
    training: bool,
    momentum: float,
    eps: float,
    *rest: Any,
) -> Expansion:
    """Affine, with the statistics that are stored."""
    if training or running_var is None:
        raise InputError(
            "expected every point to be decoded by itself, but batch normalisation in training "
            "mode mixes the points of a batch: call .eval() on the module"
        )
    value = call(x.value, weight, bias, running_mean, running_var, False, momentum, eps, *rest)
    return _scaled_channels(x, value, weight, running_var, eps)


def _scaled_channels(
    x: Expansion, value: Tensor, weight: Tensor | None, variance: Tensor | None, eps: float
) -> Expansion:
    assert variance is not None
    scale = torch.rsqrt(variance + eps)
    scale = (scale if weight is None else scale * weight).reshape(-1, *[1] * (value.ndim - 2))
    return times(x, scale).with_value(value)
