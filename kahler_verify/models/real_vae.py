"""Ordinary variational autoencoders: real latents, and a likelihood of any family registered here.

The encoder gives q(z|x) = N(m, diag(s²)); the prior is N(0, I); the decoder gives independent
Gaussian, Bernoulli, Poisson or categorical outputs.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import asdict, dataclass, fields
from itertools import pairwise
from typing import Any, Literal, get_args

import torch
from torch import Tensor, nn
from torch.distributions import Bernoulli, Categorical, Distribution, Independent, Normal, Poisson

from kahler_verify.distributions import log_excess
from kahler_verify.errors import InputError
from kahler_verify.models.autoencoder import (
    Autoencoder,
    initial_weights,
    normal_log_prob,
    standard_units,
)
from kahler_verify.networks.config import Covariance, require_width
from kahler_verify.networks.precision import RadialPrecision
from kahler_verify.torch_state import outside_autocast

__all__ = ["RealDecoder", "RealEncoder", "RealVAE", "RealVAEConfig"]

RealLikelihood = Literal["gaussian", "bernoulli", "categorical", "poisson"]
Variance = Literal["mlp", "rbf"]
_LATER: Mapping[str, Any] = {
    "variance": "mlp",
    "centres": 0,
}  # fields that configurations of older files lack
Smooth = Literal["tanh", "softplus", "gelu", "silu"]
_ACTIVATIONS: Mapping[str, type[nn.Module]] = {
    "tanh": nn.Tanh,
    "softplus": nn.Softplus,
    "gelu": nn.GELU,
    "silu": nn.SiLU,
}


@dataclass(frozen=True, kw_only=True)
class RealVAEConfig:
    """Everything that fixes a model's shape and its initial weights.

    Attributes:
        data: the source that ``load_data`` takes, for the record.
        data_dim: the dimension D of the data.
        latent_dim: the dimension d of the latent space.
        hidden: widths of the decoder's hidden layers; the encoder has the same, reversed.
        activation: of the decoder, three times differentiable.
        likelihood: p(x|z), independent over the D outputs: Gaussian; Bernoulli (x in [0, 1]);
            Poisson, or categorical of ``categories`` classes (x whole numbers).
        covariance: of a Gaussian: a constant diagonal, one variance for all, or a diagonal of z.
        variance: where a Gaussian's covariance varies, what gives it: "mlp", a last layer beside
            the mean's, or "rbf", a precision of radial basis functions, which vanishes away from
            data.  The latter is fitted once the mean is trained, with a constant covariance.
        centres: how many radial basis functions there are; 0 for an "mlp".
        categories: how many classes a categorical output has; 0 for other likelihoods.
        beta: the weight of the KL term in the training loss; held-out ELBOs always take 1.
        noise: of Gaussian data, as for ``VAEConfig``; other likelihoods get none.
        seed: of the initial weights, the batches and the noise.
    """

    data: str = "digits-images"
    data_dim: int = 64
    latent_dim: int = 2
    hidden: tuple[int, ...] = (64, 64)
    activation: Smooth = "tanh"
    likelihood: RealLikelihood = "gaussian"
    covariance: Covariance = "diagonal"
    variance: Variance = "mlp"
    centres: int = 0
    categories: int = 0
    beta: float = 1.0
    noise: float = 0.1
    seed: int = 0

    def __post_init__(self) -> None:
        if not isinstance(self.hidden, tuple) or not 1 <= len(self.hidden) <= 64:
            raise InputError(
                f"expected hidden to be a tuple of 1 to 64 widths, but got {self.hidden!r}"
            )
        widths = [("data_dim", self.data_dim), ("latent_dim", self.latent_dim)]
        for name, value in widths + [("hidden", width) for width in self.hidden]:
            require_width(name, value)
        for name, kind in (
            ("activation", Smooth),
            ("likelihood", RealLikelihood),
            ("covariance", Covariance),
            ("variance", Variance),
        ):
            if getattr(self, name) not in get_args(kind):
                raise InputError(
                    f"expected {name} among {', '.join(get_args(kind))}, "
                    f"but got {getattr(self, name)!r}"
                )
        self._require_variance()
        categorical = self.likelihood == "categorical"
        least = 2 if categorical else 0
        if type(self.categories) is not int or not least <= self.categories <= (
            4096 if categorical else 0
        ):
            raise InputError(
                "expected categories to be from 2 to 4096 for a categorical likelihood and 0 for "
                f"others, but got {self.categories!r} for {self.likelihood}"
            )
        for name in ("beta", "noise"):
            value = getattr(self, name)
            if not isinstance(value, int | float) or not 0 <= value < math.inf:
                raise InputError(f"expected {name} to be finite and ≥ 0, but got {value!r}")
        if type(self.seed) is not int or not 0 <= self.seed < 2**31:
            raise InputError(f"expected seed to be in [0, 2^31), but got {self.seed!r}")
        if not isinstance(self.data, str):
            raise InputError("expected data to be a string")

    def _require_variance(self) -> None:
        radial = self.variance == "rbf"
        if radial and (self.likelihood != "gaussian" or self.covariance == "constant"):
            raise InputError(
                "variance: expected 'rbf' of a Gaussian likelihood with a diagonal or scalar "
                f"covariance, got {self.likelihood} with a {self.covariance} one"
            )
        most = 4096 if radial else 0
        if type(self.centres) is not int or not min(1, most) <= self.centres <= most:
            raise InputError(
                "expected centres to be from 1 to 4096 for an rbf variance and 0 for others, "
                f"but got {self.centres!r} for {self.variance}"
            )

    @property
    def data_kind(self) -> str:
        """What the data must be: "real"."""
        return "real"

    @property
    def training_noise(self) -> float:
        """The noise that training adds, in units of the data's spread."""
        return self.noise if self.likelihood == "gaussian" else 0.0

    def build(self) -> RealVAE:
        """A new model."""
        return RealVAE(self)

    def to_dict(self) -> dict[str, Any]:
        """Plain values, for JSON."""
        return {**asdict(self), "hidden": list(self.hidden)}

    @classmethod
    def from_dict(cls, values: Mapping[str, Any]) -> RealVAEConfig:
        """The inverse of ``to_dict``; every field must be there, and no other.

        Those that configurations of older files lack may be missing.
        """
        values = {**_LATER, **values}
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


class RealDecoder(nn.Module):
    """z [..., d] real to the law of x, in the shape that ``RealVAEConfig`` describes.

    Attributes:
        layers: linear layers and activations in turn, giving the hidden features h(z).
        head: linear; of a Gaussian the mean is location + scale · head(h); logits of a Bernoulli
            or categorical law, log rates of a Poisson law.
        log_variance_head: of a Gaussian, linear to 1 or D outputs, or None for a constant
            covariance, which is the parameter ``constant_log_variance`` instead, and for one that
            ``precision`` gives.
        precision: of a Gaussian with ``variance="rbf"``, z to 1 or D precisions, else None.
        location, scale: of Gaussian data, their mean and root mean square deviation.
    """

    location: Tensor
    scale: Tensor

    def __init__(self, config: RealVAEConfig) -> None:
        super().__init__()
        self.config = config
        widths = (config.latent_dim, *config.hidden)
        layers: list[nn.Module] = []
        for inner, outer in pairwise(widths):
            layers += [nn.Linear(inner, outer), _ACTIVATIONS[config.activation]()]
        self.layers = nn.Sequential(*layers)
        self.head = nn.Linear(widths[-1], config.data_dim * max(1, config.categories))
        self.log_variance_head: nn.Linear | None = None
        self.constant_log_variance: nn.Parameter | None = None
        self.precision: RadialPrecision | None = None
        outputs = 1 if config.covariance == "scalar" else config.data_dim
        if config.likelihood == "gaussian" and config.covariance == "constant":
            self.constant_log_variance = nn.Parameter(torch.zeros(config.data_dim))
        elif config.variance == "rbf":
            self.precision = RadialPrecision(config.latent_dim, outputs, config.centres)
        elif config.likelihood == "gaussian":
            self.log_variance_head = nn.Linear(widths[-1], outputs)
        self.register_buffer("location", torch.zeros(config.data_dim))
        self.register_buffer("scale", torch.ones(()))

    @outside_autocast()
    def forward(self, z: Tensor) -> Distribution:
        """The likelihood p(x|z), independent over the outputs."""
        self._check(z)
        h = self.layers(z)
        out = self.head(h)
        match self.config.likelihood:
            case "bernoulli":
                law: Distribution = Bernoulli(logits=out, validate_args=False)
            case "poisson":
                law = Poisson(out.exp(), validate_args=False)
            case "categorical":
                shape = (self.config.data_dim, self.config.categories)
                law = Categorical(logits=out.unflatten(-1, shape), validate_args=False)
            case _:
                mean, deviation = self.location + self.scale * out, self._deviation(z, h)
                law = Normal(mean, deviation.expand(mean.shape), validate_args=False)
        return Independent(law, 1, validate_args=False)

    def mean(self, z: Tensor) -> Tensor:
        """The mean of x at z, [..., D]; of categorical outputs the mean class."""
        law = self(z)
        if self.config.likelihood != "categorical":
            mean: Tensor = law.mean
            return mean
        classes = torch.arange(self.config.categories, dtype=z.dtype, device=z.device)
        return law.base_dist.probs @ classes

    def _deviation(self, z: Tensor, h: Tensor) -> Tensor:
        """The standard deviations of a Gaussian, [..., D], [..., 1] or [D]."""
        if self.precision is not None:
            return self.scale * self.precision(z).rsqrt()
        log_variance = (
            self.constant_log_variance
            if self.log_variance_head is None
            else self.log_variance_head(h)
        )
        assert log_variance is not None
        return self.scale * (log_variance / 2).exp()

    def _check(self, z: Tensor) -> None:
        if z.ndim == 0 or z.shape[-1] != self.config.latent_dim or z.dtype != self.scale.dtype:
            raise InputError(
                f"expected z to be {self.scale.dtype} of shape [..., {self.config.latent_dim}] "
                f"(real latents), but got {z.dtype} of shape {tuple(z.shape)}"
            )


class RealEncoder(nn.Module):
    """x [..., D] to mean and log variances, [..., d] each, of q(z|x) = N(m, diag(s²))."""

    location: Tensor
    scale: Tensor

    def __init__(self, config: RealVAEConfig) -> None:
        super().__init__()
        self.config = config
        widths = [config.data_dim, *reversed(config.hidden)]
        layers: list[nn.Module] = []
        for inner, outer in pairwise(widths):
            layers += [nn.Linear(inner, outer), nn.SiLU()]
        self.layers = nn.Sequential(*layers, nn.Linear(widths[-1], 2 * config.latent_dim))
        self.register_buffer("location", torch.zeros(config.data_dim))
        self.register_buffer("scale", torch.ones(()))

    @outside_autocast()
    def forward(self, x: Tensor) -> tuple[Tensor, Tensor]:
        """The posterior's mean and log variances."""
        self._check(x)
        mean, log_variance = self.layers((x - self.location) / self.scale).chunk(2, dim=-1)
        return mean, log_variance

    def _check(self, x: Tensor) -> None:
        if x.ndim == 0 or x.shape[-1] != self.config.data_dim or x.dtype != self.scale.dtype:
            raise InputError(
                f"expected x to be {self.scale.dtype} of shape [..., {self.config.data_dim}], "
                f"but got {x.dtype} of shape {tuple(x.shape)}"
            )


class RealVAE(Autoencoder):
    """Encoder, decoder and the evidence lower bound; ``config.seed`` fixes the initial weights."""

    def __init__(self, config: RealVAEConfig) -> None:
        super().__init__()
        self.config = config
        with initial_weights(config.seed):
            self.encoder = RealEncoder(config)
            self.decoder = RealDecoder(config)
        self.to(torch.get_default_device())

    def standardise(self, x: Tensor) -> None:
        """Check training data [n, D] against the likelihood, and fix location and scale.

        Raises:
            InputError: they are no data of this likelihood, all equal, or too few.
        """
        likelihood, whole = self.config.likelihood, bool((x == x.round()).all())
        if likelihood == "bernoulli" and not bool(((x >= 0) & (x <= 1)).all()):
            raise InputError("data: expected values in [0, 1] for a Bernoulli likelihood")
        if likelihood == "poisson" and not (whole and bool((x >= 0).all())):
            raise InputError("data: expected counts 0, 1, 2, … for a Poisson likelihood")
        if likelihood == "categorical" and not (
            whole and bool(((x >= 0) & (x < self.config.categories)).all())
        ):
            raise InputError(
                f"data: expected classes 0 … {self.config.categories - 1} for a categorical "
                "likelihood"
            )
        if len(x) < self.config.centres:
            raise InputError(
                f"centres: expected at most as many as training samples, {len(x)}, got "
                f"{self.config.centres}"
            )
        location, scale = standard_units(x, self.decoder.scale.dtype)
        self.encoder.location.copy_(location)
        self.encoder.scale.copy_(scale)
        if likelihood == "gaussian":
            self.decoder.location.copy_(location)
            self.decoder.scale.copy_(scale)
        elif likelihood == "poisson":  # begin with rates of the right size
            with torch.no_grad():
                self.decoder.head.bias.copy_((location + 0.1 * scale).clamp_min(1e-3).log())

    def draw_latents(
        self, x: Tensor, *, generator: torch.Generator | None = None
    ) -> tuple[Tensor, Tensor]:
        """Latents z ~ q(z|x) [n, d], differentiable in the encoder, and KL(q(z|x) ‖ N(0, I)) [n].

        The KL is ½ Σ m² + s² - 1 - log s².
        """
        mean, log_variance = self.encoder(x)
        noise = torch.randn(mean.shape, generator=generator, dtype=mean.dtype, device=mean.device)
        excess = log_excess(log_variance.expm1(), log_variance)
        return mean + noise * (log_variance / 2).exp(), (mean.square() + excess).sum(-1) / 2

    def log_likelihood(self, z: Tensor, x: Tensor) -> Tensor:
        """log p(x|z) of each sample, [n]."""
        law = self.decoder(z)
        if self.config.likelihood == "gaussian":
            return normal_log_prob(law, x, self.decoder.scale)
        return law.log_prob(x)

    @torch.no_grad()
    def sample_means(self, count: int, *, seed: int = 0) -> Tensor:
        """The decoder's means [count, D] at latents drawn from the prior."""
        generator = torch.Generator().manual_seed(seed)
        z = torch.randn(count, self.config.latent_dim, generator=generator)
        return self.decoder.mean(z.to(self.decoder.scale))
