"""Decoders as practitioners have them, small and with random weights: built here, never loaded.

Those of libraries are look-alikes: of their layers, of what they return, and of the names of their
types, so that none of these libraries has to be installed.
"""

from __future__ import annotations

import dataclasses
from collections import OrderedDict
from types import SimpleNamespace
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

__all__ = [
    "AutoencoderKL",
    "BaseAE",
    "DecoderSCVI",
    "LightningModule",
    "ModelOutput",
    "dcgan",
    "prepared",
]


def prepared(module: Any, seed: int = 0) -> Any:
    """In evaluation mode, with statistics of batches that a training would have left."""
    torch.manual_seed(seed)
    for name, buffer in module.named_buffers():
        if name.endswith("running_var"):
            buffer.data = torch.rand_like(buffer) + 0.5
        elif name.endswith("running_mean"):
            buffer.data = 0.3 * torch.randn_like(buffer)
    return module.eval().requires_grad_(False)


def dcgan(latent: int = 16, width: int = 8, activation: type[nn.Module] = nn.ReLU) -> nn.Module:
    """Latents [d, 1, 1] to images [3, 32, 32], by transposed convolutions and batch norm."""
    torch.manual_seed(1)
    layers: list[nn.Module] = [nn.ConvTranspose2d(latent, 4 * width, 4, 1, 0, bias=False)]
    channels = 4 * width
    for _ in range(2):
        layers += [
            nn.BatchNorm2d(channels),
            activation(),
            nn.ConvTranspose2d(channels, channels // 2, 4, 2, 1, bias=False),
        ]
        channels //= 2
    layers += [nn.BatchNorm2d(channels), activation(), nn.ConvTranspose2d(channels, 3, 4, 2, 1)]
    return prepared(nn.Sequential(*layers, nn.Tanh()))


# As diffusers' AutoencoderKL decodes


def _norm(groups: int, channels: int) -> nn.GroupNorm:
    return nn.GroupNorm(groups, channels, eps=1e-6)


class ResnetBlock2D(nn.Module):
    """Group norms, SiLUs and convolutions beside a shortcut."""

    def __init__(self, inner: int, outer: int, groups: int) -> None:
        super().__init__()
        self.norm1, self.norm2 = _norm(groups, inner), _norm(groups, outer)
        self.conv1 = nn.Conv2d(inner, outer, 3, padding=1)
        self.conv2 = nn.Conv2d(outer, outer, 3, padding=1)
        self.dropout = nn.Dropout(0.1)
        self.conv_shortcut = nn.Conv2d(inner, outer, 1) if inner != outer else None

    def forward(self, x: Tensor) -> Tensor:
        """[B, inner, h, w] to [B, outer, h, w]."""
        h = self.conv1(F.silu(self.norm1(x)))
        h = self.conv2(self.dropout(F.silu(self.norm2(h))))
        return (x if self.conv_shortcut is None else self.conv_shortcut(x)) + h


class Attention(nn.Module):
    """One head over all places."""

    def __init__(self, channels: int, groups: int) -> None:
        super().__init__()
        self.group_norm = _norm(groups, channels)
        self.to_qkv, self.to_out = nn.Linear(channels, 3 * channels), nn.Linear(channels, channels)

    def forward(self, x: Tensor) -> Tensor:
        """[B, c, h, w] to the same."""
        rows = self.group_norm(x).flatten(2).mT
        q, k, v = (t.unsqueeze(1) for t in self.to_qkv(rows).chunk(3, -1))
        y = F.scaled_dot_product_attention(q, k, v).squeeze(1)
        return x + self.to_out(y).mT.reshape(x.shape)


class Upsample2D(nn.Module):
    """Twice as large, by copying and a convolution."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.conv = nn.Conv2d(channels, channels, 3, padding=1)

    def forward(self, x: Tensor) -> Tensor:
        """[B, c, h, w] to [B, c, 2h, 2w]."""
        return self.conv(F.interpolate(x, scale_factor=2.0, mode="nearest"))


@dataclasses.dataclass
class DecoderOutput:
    """As diffusers' own."""

    sample: Tensor


DecoderOutput.__module__ = "diffusers.models.autoencoders.vae"


class AutoencoderKL(nn.Module):
    """Latents [4, s, s] to images [3, 2ⁿ⁻¹ s, 2ⁿ⁻¹ s]; the encoder is none, as none is wanted.

    Args:
        channels: of the n blocks, as in a configuration of diffusers; c is (c, 2c).
        groups: of group norms.
        sample_size: of images.
        layers: residual blocks at each size, one less than diffusers' decoder has.
    """

    def __init__(
        self,
        channels: int | tuple[int, ...] = 16,
        groups: int = 4,
        sample_size: int = 8,
        layers: int = 1,
    ) -> None:
        super().__init__()
        torch.manual_seed(2)
        blocks = (channels, 2 * channels) if isinstance(channels, int) else channels
        self.config = SimpleNamespace(
            latent_channels=4, sample_size=sample_size, block_out_channels=blocks
        )
        wide = blocks[-1]
        parts = [
            nn.Conv2d(4, wide, 3, padding=1),
            ResnetBlock2D(wide, wide, groups),
            Attention(wide, groups),
            ResnetBlock2D(wide, wide, groups),
        ]
        for inner, outer in zip((wide, *blocks[:0:-1]), blocks[::-1], strict=True):
            parts += [ResnetBlock2D(inner, outer, groups)]
            parts += [ResnetBlock2D(outer, outer, groups) for _ in range(layers)]
            parts += [Upsample2D(outer)]
        end = [_norm(groups, blocks[0]), nn.SiLU(), nn.Conv2d(blocks[0], 3, 3, padding=1)]
        self.post_quant_conv = nn.Conv2d(4, 4, 1)
        self.decoder = nn.Sequential(*parts[:-1], *end)
        prepared(self)

    def encode(self, x: Tensor) -> Tensor:
        """There is no encoder here."""
        raise NotImplementedError

    def decode(self, z: Tensor) -> DecoderOutput:
        """[B, 4, s, s] to a structure with images."""
        return DecoderOutput(self.decoder(self.post_quant_conv(z)))


AutoencoderKL.__module__ = "diffusers.models.autoencoders.autoencoder_kl"


# As pythae's models are


class ModelOutput(OrderedDict):
    """As pythae's own: keys that are attributes."""

    def __getitem__(self, key: Any) -> Any:
        """By name or by place."""
        return dict(self.items())[key] if isinstance(key, str) else tuple(self.values())[key]

    def __setattr__(self, name: str, value: Any) -> None:
        super().__setitem__(name, value)
        super().__setattr__(name, value)

    def __setitem__(self, key: str, value: Any) -> None:
        super().__setitem__(key, value)
        super().__setattr__(key, value)


ModelOutput.__module__ = "pythae.models.base.base_utils"


class Decoder_AE_MLP(nn.Module):
    """Latents [d] to images in [0, 1]."""

    def __init__(self, latent: int, shape: tuple[int, ...]) -> None:
        super().__init__()
        self.shape = shape
        self.layers = nn.Sequential(
            nn.Linear(latent, 64), nn.Tanh(), nn.Linear(64, shape[0] * shape[1]), nn.Sigmoid()
        )

    def forward(self, z: Tensor) -> ModelOutput:
        """A structure with the reconstruction."""
        output = ModelOutput()
        output["reconstruction"] = self.layers(z).reshape(-1, *self.shape)
        return output


class BaseAE(nn.Module):
    """A model with an encoder, a decoder and a loss that says the law."""

    def __init__(self, latent: int = 8, reconstruction_loss: str = "mse") -> None:
        super().__init__()
        torch.manual_seed(3)
        self.latent_dim = latent
        self.model_config = SimpleNamespace(reconstruction_loss=reconstruction_loss)
        self.encoder, self.decoder = nn.Identity(), Decoder_AE_MLP(latent, (6, 6))
        prepared(self)

    def forward(self, inputs: Any) -> Any:
        """Of data, not of latents."""
        raise NotImplementedError


BaseAE.__module__ = "pythae.models.base.base_model"


# As scVI's decoder is


class DecoderSCVI(nn.Module):
    """Latents [d] and a library's size to rates of counts, and more."""

    def __init__(self, latent: int = 8, genes: int = 30) -> None:
        super().__init__()
        torch.manual_seed(4)
        self.px_decoder = nn.Sequential(
            nn.Linear(latent, 32), nn.BatchNorm1d(32, eps=1e-3), nn.ReLU(), nn.Dropout(0.1)
        )
        self.px_scale_decoder = nn.Sequential(nn.Linear(32, genes), nn.Softmax(-1))
        self.px_r_decoder, self.px_dropout_decoder = nn.Linear(32, genes), nn.Linear(32, genes)
        prepared(self)

    def forward(
        self, dispersion: str, z: Tensor, library: Tensor
    ) -> tuple[Tensor, Tensor | None, Tensor, Tensor]:
        """px_scale, px_r, px_rate and px_dropout."""
        h = self.px_decoder(z)
        scale = self.px_scale_decoder(h)
        px_r = self.px_r_decoder(h) if dispersion == "gene-cell" else None
        return scale, px_r, library.exp() * scale, self.px_dropout_decoder(h)


# As Lightning's modules are


class LightningModule(nn.Module):
    """What trains a model and carries it."""


LightningModule.__module__ = "lightning.pytorch.core.module"


class LitVAE(LightningModule):
    """A user's module, whose forward reconstructs data."""

    def __init__(self, latent: int = 8) -> None:
        super().__init__()
        torch.manual_seed(5)
        self.encoder = nn.Linear(40, 2 * latent)
        self.decoder = nn.Sequential(
            nn.Linear(latent, 64), nn.LayerNorm(64), nn.GELU(), nn.Linear(64, 40)
        )
        prepared(self)

    def forward(self, x: Tensor) -> Tensor:
        """[B, 40] to the same."""
        return self.decoder(self.encoder(x).chunk(2, -1)[0])
