"""The decoder that is timed, and the same network in real arithmetic for rivals."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, NamedTuple

import torch
from torch import Tensor

from kahler_verify.models.vae import VAEConfig
from kahler_verify.networks.decoder import Decoder

Named = dict[str, Tensor]


def build_decoder(sizes: Mapping[str, Any], dtype: torch.dtype, device: torch.device) -> Decoder:
    """A decoder d → h → h → D of the package with random weights, the same in every dtype.

    ``sizes``: d, D, h; family ("holomorphic", cubic activations, or "split", split tanh); sigma
    ("diagonal", "scalar" or "constant").
    """
    config = VAEConfig(
        data_dim=sizes["D"],
        latent_dim=sizes["d"],
        hidden=(sizes["h"], sizes["h"]),
        decoder=sizes["family"],
        covariance=sizes["sigma"],
    )
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        decoder = Decoder(config)
        with torch.no_grad():
            for name, weight in decoder.named_parameters():
                if "bias" in name or "constant" in name:
                    weight.normal_(0, 0.1)
    return decoder.to(device, dtype)


def latent_points(sizes: Mapping[str, Any], dtype: torch.dtype, device: torch.device) -> Tensor:
    """Points z [B, d], complex normal with E|z_a|² = ½."""
    generator = torch.Generator().manual_seed(1)
    x = torch.randn(sizes["B"], sizes["d"], 2, generator=generator, dtype=torch.float64) / 2
    return torch.view_as_complex(x).to(device, dtype.to_complex())


def as_real(z: Tensor) -> Tensor:
    """[..., d] complex to [..., 2d] = (x, y)."""
    return torch.cat([z.real, z.imag], -1)


class Shape(NamedTuple):
    """What a rival has to know of a network besides its weights.

    Attributes:
        holomorphic: cubic activations, or split tanh.
        outputs: D.
        sigma: "diagonal", "scalar" or "constant".
    """

    holomorphic: bool
    outputs: int
    sigma: str

    @property
    def multiplicity(self) -> int:
        """How many data coordinates share one variance."""
        return self.outputs if self.sigma == "scalar" else 1


def shape_of(sizes: Mapping[str, Any]) -> Shape:
    """The shape of the decoder that ``build_decoder`` makes."""
    return Shape(sizes["family"] == "holomorphic", sizes["D"], sizes["sigma"])


def weights_of(decoder: Decoder) -> Named:
    """The decoder's parameters by name: real pairs [..., 2], and a constant log variance."""
    return {name: weight.detach().clone() for name, weight in decoder.named_parameters()}


def real_layers(weights: Named) -> list[tuple[Tensor, Tensor]]:
    """Real block matrices and biases, each acting on (x, y); the last gives (Re μ, Im μ, φ)."""
    layers = [
        _block(weights[f"{name}.weight_pairs"], weights[f"{name}.bias_pairs"])
        for name in ("layers.0", "layers.2")
    ]
    matrix, bias = _block(weights["mean_head.weight_pairs"], weights["mean_head.bias_pairs"])
    if "log_variance_head.weight_pairs" in weights:
        rows, shift = _block(
            weights["log_variance_head.weight_pairs"], weights["log_variance_head.bias_pairs"]
        )
        count = rows.shape[0] // 2
        matrix, bias = torch.cat([matrix, rows[:count]]), torch.cat([bias, shift[:count]])
    return [*layers, (matrix, bias)]


def _block(weight: Tensor, bias: Tensor) -> tuple[Tensor, Tensor]:
    re, im = weight.unbind(-1)
    matrix = torch.cat([torch.cat([re, -im], 1), torch.cat([im, re], 1)])
    return matrix, torch.cat(bias.unbind(-1))


def activate(u: Tensor, holomorphic: bool) -> Tensor:
    """The activation on (x, y): z + z³/6, or tanh of each half."""
    if not holomorphic:
        return torch.tanh(u)
    x, y = u.chunk(2, -1)
    xx, yy = x * x, y * y
    # tensors first: torch.compile fails on a number times a tensor under jacfwd
    return torch.cat([x + x * (xx - yy * 3) / 6, y + y * (xx * 3 - yy) / 6], -1)


def forward(layers: list[tuple[Tensor, Tensor]], shape: Shape, x: Tensor) -> Tensor:
    """[..., 2d] to (Re μ, Im μ, φ) [..., 2D + V], V = D, 1 or 0 variances."""
    *hidden, (matrix, bias) = layers
    for w, b in hidden:
        x = activate(torch.nn.functional.linear(x, w, b), shape.holomorphic)
    return torch.nn.functional.linear(x, matrix, bias)


def hermitian_part(hessian: Tensor) -> Tensor:
    """∂_a∂_b̄ f [..., d, d] from the real Hessian [..., 2d, 2d] of f."""
    d = hessian.shape[-1] // 2
    xx, xy = hessian[..., :d, :d], hessian[..., :d, d:]
    yx, yy = hessian[..., d:, :d], hessian[..., d:, d:]
    return torch.complex((xx + yy) / 4, (xy - yx) / 4)
