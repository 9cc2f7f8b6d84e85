"""Closed-form jets of decoders: of the layers, and of the heads behind them."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import replace
from typing import Any, TypeGuard

import torch
from torch import Tensor, nn

from kahler_verify.jets.layers import (
    are_known,
    exponential,
    is_holomorphic,
    propagate,
    real_affine,
    real_part,
)
from kahler_verify.jets.recognition import is_propagated, is_recognised
from kahler_verify.jets.stacked import VALUE, Jets, Type, closure, coordinates
from kahler_verify.linear_algebra.heads import AffineHeads
from kahler_verify.networks.decoder import ComplexLinear, Decoder, Residual


def _real_head(head: nn.Module, hidden: Jets) -> Jets:
    if isinstance(head, ComplexLinear | nn.Linear) and is_recognised(head):
        return real_affine(hidden, head.weight, head.bias)
    return real_part(propagate(head, hidden))


def routes(decoder: Any) -> dict[str, str]:
    """Which route the jets take through each layer of a decoder: "closed form" or "autograd"."""
    if not is_propagated(decoder):
        return {type(decoder).__name__: "autograd"}
    found = dict(_layer_routes("layers", decoder.layers))
    for name in ("mean_head", "log_variance_head"):
        head = getattr(decoder, name)
        if head is not None:
            found |= dict(_layer_routes(name, head))
    return found


def _layer_routes(name: str, module: nn.Module) -> Iterable[tuple[str, str]]:
    if is_recognised(module) and isinstance(module, nn.Sequential | Residual):
        for child_name, child in module.named_children():
            yield from _layer_routes(f"{name}.{child_name}", child)
    else:
        yield name, "closed form" if is_recognised(module) else "autograd"


def hidden_jets(decoder: Decoder, z: Tensor, types: Iterable[Type]) -> Jets:
    """The jets of the last hidden layer at z [B, d]."""
    decoder._check(z)
    wanted = closure(types, holomorphic=is_holomorphic(decoder.layers))
    return propagate(decoder.layers, coordinates(z, wanted))


def has_linear_heads(decoder: Any) -> TypeGuard[Decoder]:
    """Is it a decoder whose mean and log variance are affine in the last hidden layer?"""
    if not is_propagated(decoder):
        return False
    heads = (decoder.mean_head, decoder.log_variance_head)
    return all(h is None or (type(h) is ComplexLinear and is_recognised(h)) for h in heads)


def affine_heads(decoder: Any) -> AffineHeads | None:
    """The heads of a decoder that has affine ones, which it hands over; None of all others."""
    return decoder.heads() if has_linear_heads(decoder) else None


def is_closed_form(decoder: Any) -> bool:
    """Are all of its layers, and its heads?"""
    return has_linear_heads(decoder) and are_known(decoder.layers)


def mean_jets(decoder: Decoder, hidden: Jets) -> Jets:
    """μ = location + scale · head(h), or its real part."""
    real = decoder.config.likelihood == "real"
    head = decoder.mean_head
    jets = _real_head(head, hidden) if real else propagate(head, hidden)
    location = decoder.location if real else torch.view_as_complex(decoder.location)
    parts = {t: part * decoder.scale for t, part in jets.parts.items()}
    return replace(jets, value=jets.value * decoder.scale + location, parts=parts)


def log_variance_jets(decoder: Decoder, hidden: Jets) -> Jets:
    """φ = Re head(h) + 2 log scale, [B, D] or [B, 1]; without derivatives where Σ is constant."""
    shift = 2 * decoder.scale.log()
    if decoder.log_variance_head is None:
        assert decoder.constant_log_variance is not None
        value = (decoder.constant_log_variance + shift).expand(len(hidden.value), -1)
        return replace(hidden, value=value, parts={})
    jets = _real_head(decoder.log_variance_head, hidden)
    return replace(jets, value=jets.value + shift)


def decoder_field_jets(
    decoder: Decoder, z: Tensor, wanted: Mapping[str, tuple[str, Type]]
) -> dict[str, Tensor]:
    """The named jets at z [B, d]: name to field ("mu", "Sigma" or "factor") and type."""
    hidden = hidden_jets(decoder, z, {t for _, t in wanted.values()})
    fields = {field for field, _ in wanted.values()}
    out = {}
    scalar = decoder.config.covariance == "scalar"
    mean = mean_jets(decoder, hidden) if "mu" in fields else None
    log_variance = log_variance_jets(decoder, hidden) if fields - {"mu"} else None
    types = [t for field, t in wanted.values() if field == "Sigma"]
    sigma = exponential(log_variance, types) if log_variance is not None and types else None
    for name, (field, each) in wanted.items():
        if field == "factor":
            assert log_variance is not None
            jet = (log_variance.value / 2).exp()
        else:
            jets = mean if field == "mu" else sigma
            assert jets is not None
            jet = jets.value if each == VALUE else jets.dense(each)
        out[name] = jet[..., 0] if scalar and field != "mu" else jet
    return out
