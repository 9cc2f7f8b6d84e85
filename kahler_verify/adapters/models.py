"""Whole models of libraries: what of them is the decoder, how it is called, what it returns."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from typing import Any

from torch import Tensor, nn

from kahler_verify.adapters.outputs import Output
from kahler_verify.adapters.types import is_of
from kahler_verify.errors import InputError

__all__ = ["Part", "decoding_part"]


@dataclass(frozen=True)
class Part:
    """The decoding part of a model.

    Attributes:
        call: of the model and latents in their own shape.
        note: what is called, in words.
        output: which tensor of what is returned, and its law; None where the type of what is
            returned says so.
        latent_shape: where the model knows it.
    """

    call: Callable[[Any, Tensor], Any]
    note: str
    output: Output | None = None
    latent_shape: tuple[int, ...] | None = None


def decoding_part(model: Any) -> Part | None:
    """What to call of a library's whole model; None of anything else, which is called itself.

    Raises:
        InputError: the model's latents are quantised, and no geometry goes through that.
    """
    for find in (_diffusers, _pythae, _lightning):
        part = find(model)
        if part is not None:
            return part
    return None


def _diffusers(model: Any) -> Part | None:
    """An autoencoder's ``decode``; the law of images is N(sample, I)."""
    autoencoder = is_of(model, "diffusers.models.autoencoders") or is_of(model, "diffusers.models")
    if not (autoencoder and hasattr(model, "encode") and hasattr(model, "decode")):
        return None
    _refuse_quantised(model, "VQModel")
    config = getattr(model, "config", None)
    channels, size = (getattr(config, name, None) for name in ("latent_channels", "sample_size"))
    blocks = getattr(config, "block_out_channels", None)
    shape = None
    if isinstance(channels, int) and isinstance(size, int) and blocks:
        side = size // 2 ** (len(blocks) - 1)
        shape = (channels, side, side)
    return Part(partial(_by_name, "decode"), f"{type(model).__name__}.decode", None, shape)


def _pythae(model: Any) -> Part | None:
    """The decoder of an autoencoder, with the law that its loss is of."""
    if not is_of(model, "pythae", "BaseAE"):
        return None
    _refuse_quantised(model, "VQVAE")
    loss = getattr(getattr(model, "model_config", None), "reconstruction_loss", "mse")
    law = "bernoulli_probs" if loss == "bce" else "gaussian"
    dimension = getattr(model, "latent_dim", None)
    return Part(
        partial(_by_name, "decoder"),
        f"{type(model).__name__}.decoder",
        Output("reconstruction", law),
        (dimension,) if isinstance(dimension, int) else None,
    )


def _lightning(model: Any) -> Part | None:
    """``decode`` or ``decoder`` of a module that trains more than a decoder."""
    if not any(
        is_of(model, library, "LightningModule") for library in ("lightning", "pytorch_lightning")
    ):
        return None
    for name in ("decode", "decoder"):
        if callable(getattr(model, name, None)):
            return Part(partial(_by_name, name), f"{type(model).__name__}.{name}")
    return None  # it is a decoder itself


def _by_name(name: str, model: Any, z: Tensor) -> Any:
    return getattr(model, name)(z)


def _refuse_quantised(model: nn.Module, *names: str) -> None:
    if type(model).__name__ in names:
        raise InputError(
            f"decoder: {type(model).__name__} rounds its latents to a code book, so that its output"
            " has no derivatives by them; pass the decoder behind the code book"
        )
