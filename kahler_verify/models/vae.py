"""Complex variational autoencoders: a circular complex latent, and two families of decoders.

The encoder gives q(z|x) = CN(m, diag(s²)); the prior is CN(0, I); the decoder gives a Gaussian
with mean μ(z) and variances exp φ(z). A *holomorphic* decoder is a chain of complex linear layers
and holomorphic activations, so that μ is holomorphic away from the activations' poles, and φ is the
real part of an affine map of the last hidden layer, so that φ is pluriharmonic. The *split* and
*modulus* decoders have the same shape with activations that are not holomorphic.
"""

import math
from collections.abc import Mapping
from dataclasses import asdict, dataclass, fields
from itertools import pairwise
from typing import Any

import torch
from torch import Tensor, nn

from kahler_verify.distributions import log_excess
from kahler_verify.errors import InputError
from kahler_verify.models.autoencoder import (
    Autoencoder,
    initial_weights,
    normal_log_prob,
    standard_units,
)
from kahler_verify.networks.config import DecoderConfig, Likelihood
from kahler_verify.networks.decoder import Decoder
from kahler_verify.torch_state import outside_autocast

__all__ = ["ComplexVAE", "Encoder", "VAEConfig"]


@dataclass(frozen=True, kw_only=True)
class VAEConfig(DecoderConfig):
    """Everything that fixes a model's shape and its initial weights.

    The encoder's hidden layers have the decoder's widths, reversed, doubled.

    Attributes:
        data: the source that ``load_data`` takes ("digits", "digits-images" or a path); for the
            record, so that a checkpoint can say what it was trained on.
        beta: the weight of the KL term in the training loss; held-out ELBOs always take 1.
        noise: standard deviation, in units of the data's root mean square deviation, of the noise
            that is added to training samples. It bounds the learnt variances from below, as
            quantised data (and pixels that are always 0) would send them to 0.
        seed: of the initial weights, the batches and the noise.
    """

    data: str = "digits"
    beta: float = 1.0
    noise: float = 0.1
    seed: int = 0

    def __post_init__(self) -> None:
        super().__post_init__()
        for name in ("beta", "noise"):
            value = getattr(self, name)
            if not isinstance(value, int | float) or not 0 <= value < math.inf:
                raise InputError(f"expected {name} to be finite and ≥ 0, but got {value!r}")
        if type(self.seed) is not int or not 0 <= self.seed < 2**31:
            raise InputError(f"expected seed to be in [0, 2^31), but got {self.seed!r}")
        if not isinstance(self.data, str):
            raise InputError("expected data to be a string")

    @property
    def data_kind(self) -> Likelihood:
        """What the data must be: "complex" or "real"."""
        return self.likelihood

    @property
    def training_noise(self) -> float:
        """The noise that training adds, in units of the data's spread."""
        return self.noise

    def build(self) -> "ComplexVAE":
        """A new model."""
        return ComplexVAE(self)

    def to_dict(self) -> dict[str, Any]:
        """Plain values, for JSON."""
        return {**asdict(self), "hidden": list(self.hidden)}

    @classmethod
    def from_dict(cls, values: Mapping[str, Any]) -> "VAEConfig":
        """The inverse of ``to_dict``; every field must be there, and no other."""
        expected = {field.name for field in fields(cls)}
        if set(values) != expected:
            missing, extra = sorted(expected - set(values)), sorted(set(values) - expected)
            raise InputError(
                f"expected the fields {sorted(expected)}; missing: {missing}, unknown: {extra}"
            )
        hidden = values["hidden"]
        if not isinstance(hidden, list | tuple):
            raise InputError(f"expected hidden to be a list of widths, but got {hidden!r}")
        return cls(**{**values, "hidden": tuple(hidden)})


class Encoder(nn.Module):
    """x [..., D] to mean and log variances, [..., d] each, of q(z|x) = CN(m, diag(s²))."""

    location: Tensor
    scale: Tensor

    def __init__(self, config: VAEConfig) -> None:
        super().__init__()
        self.config = config
        pairs = 2 if config.likelihood == "complex" else 1
        widths = [pairs * config.data_dim, *(2 * width for width in reversed(config.hidden))]
        layers: list[nn.Module] = []
        for inner, outer in pairwise(widths):
            layers += [nn.Linear(inner, outer), nn.SiLU()]
        self.layers = nn.Sequential(*layers, nn.Linear(widths[-1], 3 * config.latent_dim))
        pair = (2,) if config.likelihood == "complex" else ()
        self.register_buffer("location", torch.zeros(config.data_dim, *pair))
        self.register_buffer("scale", torch.ones(()))

    @outside_autocast()
    def forward(self, x: Tensor) -> tuple[Tensor, Tensor]:
        """The posterior's mean and log variances."""
        real = self.scale.dtype
        expected = real.to_complex() if self.config.likelihood == "complex" else real
        if x.ndim == 0 or x.shape[-1] != self.config.data_dim or x.dtype != expected:
            raise InputError(
                f"expected x to be {expected} of shape [..., {self.config.data_dim}], "
                f"but got {x.dtype} of shape {tuple(x.shape)}"
            )
        if self.config.likelihood == "complex":
            standard = (torch.view_as_real(x.resolve_conj()) - self.location).flatten(-2)
        else:
            standard = x - self.location
        out = self.layers(standard / self.scale)
        real_part, imaginary_part, log_variance = out.chunk(3, dim=-1)
        return torch.complex(real_part.contiguous(), imaginary_part.contiguous()), log_variance


class ComplexVAE(Autoencoder):
    """Encoder, decoder and the evidence lower bound; ``config.seed`` fixes the initial weights."""

    def __init__(self, config: VAEConfig) -> None:
        super().__init__()
        self.config = config
        with initial_weights(config.seed):
            self.encoder = Encoder(config)
            self.decoder = Decoder(config)
        self.to(torch.get_default_device())

    def standardise(self, x: Tensor) -> None:
        """Fix location and scale from training data [n, D], before training.

        In double precision, and of units in which squares are of the order of one.
        """
        location, scale = standard_units(x, self.decoder.scale.dtype)
        if x.is_complex():
            location = torch.view_as_real(location)
        for part in (self.encoder, self.decoder):
            part.location.copy_(location)
            part.scale.copy_(scale)

    def draw_latents(
        self, x: Tensor, *, generator: torch.Generator | None = None
    ) -> tuple[Tensor, Tensor]:
        """Latents z ~ q(z|x) [n, d], differentiable in the encoder, and KL(q(z|x) ‖ CN(0,I)) [n].

        The KL of circular Gaussians is Σ |m|² + s² - 1 - log s².
        """
        mean, log_variance = self.encoder(x)
        pair = torch.randn(
            (*mean.shape, 2), generator=generator, dtype=log_variance.dtype, device=mean.device
        )
        # The real and the imaginary part of a standard circular normal have variance ½.
        z = mean + torch.view_as_complex(pair) * ((log_variance - math.log(2)) / 2).exp()
        squared_mean = mean.real.square() + mean.imag.square()
        # s² - 1 - log s² is never negative, as rounding would have it where s² is nearly 1
        excess = log_excess(log_variance.expm1(), log_variance)
        return z, (squared_mean + excess).sum(-1)

    def log_likelihood(self, z: Tensor, x: Tensor) -> Tensor:
        """log p(x|z) of each sample, [n]."""
        law = self.decoder(z)
        if self.config.likelihood == "complex":
            return law.log_prob(x)
        return normal_log_prob(law, x, self.decoder.scale)

    @torch.no_grad()
    def sample_means(self, count: int, *, seed: int = 0) -> Tensor:
        """The decoder's means [count, D] at latents drawn from the prior."""
        generator = torch.Generator().manual_seed(seed)
        pairs = torch.randn(count, self.config.latent_dim, 2, generator=generator)
        pairs = pairs.to(self.decoder.scale) * math.sqrt(0.5)
        return self.decoder.mean(torch.view_as_complex(pairs))
