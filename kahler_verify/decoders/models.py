"""Complex variational autoencoders: a circular complex latent, and two families of decoders.

The encoder gives q(z|x) = CN(m, diag(s²)); the prior is CN(0, I); the decoder gives a Gaussian
with mean μ(z) and variances exp φ(z). A *holomorphic* decoder is a chain of complex linear layers
and holomorphic activations, so that μ is holomorphic away from the activations' poles, and φ is the
real part of an affine map of the last hidden layer, so that φ is pluriharmonic. The *split* and
*modulus* decoders have the same shape with activations that are not holomorphic.

Complex weights are stored as pairs of real numbers (a trailing axis of length 2), so that
``.to(torch.float64)`` and ``.double()`` mean what they say: torch would cast a complex parameter to
a real one and drop its imaginary part.
"""

import copy
import math
from collections.abc import Mapping
from dataclasses import asdict, dataclass, fields
from itertools import pairwise
from typing import Any, Literal, NamedTuple, get_args

import torch
from torch import Tensor, nn
from torch.distributions import Distribution, Independent, Normal

from kahler_verify.decoders.activations import ActivationLayer, get_activation
from kahler_verify.distributions import ComplexNormal, log_excess
from kahler_verify.errors import InputError
from kahler_verify.torch_state import alone, outside_autocast

__all__ = [
    "ComplexLinear",
    "ComplexVAE",
    "Decoder",
    "DecoderFields",
    "Encoder",
    "Residual",
    "VAEConfig",
]

DecoderFamily = Literal["holomorphic", "split", "modulus"]
Covariance = Literal["constant", "scalar", "diagonal"]
Likelihood = Literal["complex", "real"]

# Entire, not meromorphic: near a pole |μ| grows like 1/r, so E|x-μ|² diverges under any posterior
# with a density, and the evidence lower bound of a holomorphic tanh decoder is -∞ (seen as rare,
# enormous held-out losses).
_DEFAULT_ACTIVATION = {
    "holomorphic": "cubic",
    "split": "split_tanh",
    "modulus": "modulus_sigmoid",
}
_LARGEST_WIDTH = 1 << 20  # a checkpoint must not make us allocate without end


@dataclass(frozen=True, kw_only=True)
class VAEConfig:
    """Everything that fixes a model's shape and its initial weights.

    Attributes:
        data: the source that ``load_data`` takes ("digits", "digits-images" or a path); for the
            record, so that a checkpoint can say what it was trained on.
        data_dim: the dimension D of the data.
        latent_dim: the dimension d of the latent space.
        hidden: widths of the decoder's hidden layers; the encoder has the same, reversed, doubled.
        decoder: the family of the decoder.
        activation: a key of ``ACTIVATIONS``; "" takes the family's default. Those with poles are
            admitted for a holomorphic decoder, but its expected loss is infinite in theory and
            erratic in practice.
        covariance: Σ is a constant diagonal matrix, a scalar function of z times I, or a diagonal
            function of z.
        likelihood: CN(μ, Σ) on C^D, or N(μ, Σ) on R^D (which a holomorphic mean cannot serve: a
            real holomorphic function is constant).
        beta: the weight of the KL term in the training loss; held-out ELBOs always take 1.
        noise: standard deviation, in units of the data's root mean square deviation, of the noise
            that is added to training samples. It bounds the learnt variances from below, as
            quantised data (and pixels that are always 0) would send them to 0.
        seed: of the initial weights, the batches and the noise.
    """

    data: str = "digits"
    data_dim: int = 32
    latent_dim: int = 4
    hidden: tuple[int, ...] = (64, 64)
    decoder: DecoderFamily = "holomorphic"
    activation: str = ""
    covariance: Covariance = "diagonal"
    likelihood: Likelihood = "complex"
    beta: float = 1.0
    noise: float = 0.1
    seed: int = 0

    def __post_init__(self) -> None:
        for name in ("data_dim", "latent_dim"):
            _require_width(name, getattr(self, name))
        if not isinstance(self.hidden, tuple) or not 1 <= len(self.hidden) <= 64:
            raise InputError(
                f"expected hidden to be a tuple of 1 to 64 widths, but got {self.hidden!r}"
            )
        for width in self.hidden:
            _require_width("hidden", width)
        for name, kind in (
            ("decoder", DecoderFamily),
            ("covariance", Covariance),
            ("likelihood", Likelihood),
        ):
            if getattr(self, name) not in get_args(kind):
                raise InputError(
                    f"expected {name} among {', '.join(get_args(kind))}, "
                    f"but got {getattr(self, name)!r}"
                )
        for name in ("beta", "noise"):
            value = getattr(self, name)
            if not isinstance(value, int | float) or not 0 <= value < math.inf:
                raise InputError(f"expected {name} to be finite and ≥ 0, but got {value!r}")
        if type(self.seed) is not int or not 0 <= self.seed < 2**31:
            raise InputError(f"expected seed to be in [0, 2^31), but got {self.seed!r}")
        if not isinstance(self.data, str) or not isinstance(self.activation, str):
            raise InputError("expected data and activation to be strings")
        if self.decoder == "holomorphic" and self.likelihood == "real":
            raise InputError(
                "a holomorphic decoder cannot serve a real likelihood: a real-valued holomorphic "
                "function is constant. Take decoder='split' or 'modulus', or complex data"
            )
        if not self.activation:
            object.__setattr__(self, "activation", _DEFAULT_ACTIVATION[self.decoder])
        get_activation(self.activation, holomorphic=self.decoder == "holomorphic")
        if self.decoder != "holomorphic" and not self.activation.startswith(self.decoder):
            raise InputError(
                f"expected decoder={self.decoder!r} to have a {self.decoder}_… activation, "
                f"but got {self.activation!r}"
            )

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


def _require_width(name: str, value: object) -> None:
    if type(value) is not int or not 1 <= value <= _LARGEST_WIDTH:
        raise InputError(
            f"expected {name} to be a whole number from 1 to {_LARGEST_WIDTH}, but got {value!r}"
        )


class ComplexLinear(nn.Module):
    """z ↦ z Wᵀ + b, with W [out, in] and b [out] complex, stored as real pairs."""

    def __init__(self, in_features: int, out_features: int, *, gain: float = 1.0) -> None:
        super().__init__()
        self.in_features, self.out_features = in_features, out_features
        deviation = gain / math.sqrt(2 * in_features)
        self.weight_pairs = nn.Parameter(torch.randn(out_features, in_features, 2) * deviation)
        self.bias_pairs = nn.Parameter(torch.zeros(out_features, 2))

    @property
    def weight(self) -> Tensor:
        """W as a complex tensor [out, in]."""
        return torch.view_as_complex(self.weight_pairs)

    @property
    def bias(self) -> Tensor:
        """b as a complex tensor [out]."""
        return torch.view_as_complex(self.bias_pairs)

    def forward(self, z: Tensor) -> Tensor:
        """[..., in] to [..., out]."""
        return nn.functional.linear(z, self.weight, self.bias)

    def extra_repr(self) -> str:
        """What ``print`` shows between the brackets."""
        return f"in_features={self.in_features}, out_features={self.out_features}"


class Residual(nn.Module):
    """h ↦ h + f(h) for layers f that keep the width."""

    def __init__(self, body: nn.Module) -> None:
        super().__init__()
        self.body = body

    def forward(self, h: Tensor) -> Tensor:
        """[..., n] to [..., n]."""
        out: Tensor = h + self.body(h)
        return out


class DecoderFields(NamedTuple):
    """What a decoder says of x at z: the mean [..., D] and the log variances φ.

    φ is [..., D], or [...] for one variance that all coordinates share.
    """

    mean: Tensor
    log_variance: Tensor


class Decoder(nn.Module):
    """z [..., d] complex to a Gaussian on C^D (or R^D), in the shape that ``VAEConfig`` describes.

    Attributes:
        layers: ComplexLinear and ActivationLayer in turn, giving the hidden features h(z); may be
            replaced by others of the same width, Residual among them.
        mean_head: ComplexLinear; μ = location + scale · head(h), of which a real likelihood takes
            the real part.
        log_variance_head: ComplexLinear to 1 or D outputs, φ = Re head(h) + 2 log scale; or None
            for a constant covariance, which is the parameter ``constant_log_variance`` instead.
        location, scale: the data's mean (real pairs for complex data) and root mean square
            deviation, fixed before training.
    """

    location: Tensor
    scale: Tensor

    def __init__(self, config: VAEConfig) -> None:
        super().__init__()
        self.config = config
        widths = (config.latent_dim, *config.hidden)
        layers: list[nn.Module] = []
        for inner, outer in pairwise(widths):
            # Half the usual gain keeps clear of poles and of fast growth at the start.
            gain = 0.5 if config.decoder == "holomorphic" else 1.0
            layers += [
                ComplexLinear(inner, outer, gain=gain),
                ActivationLayer(config.activation, outer),
            ]
        self.layers = nn.Sequential(*layers)
        self.mean_head = ComplexLinear(widths[-1], config.data_dim)
        self.log_variance_head: ComplexLinear | None = None
        self.constant_log_variance: nn.Parameter | None = None
        if config.covariance == "constant":
            self.constant_log_variance = nn.Parameter(torch.zeros(config.data_dim))
        else:
            outputs = 1 if config.covariance == "scalar" else config.data_dim
            self.log_variance_head = ComplexLinear(widths[-1], outputs, gain=0.1)
        pair = (2,) if config.likelihood == "complex" else ()
        self.register_buffer("location", torch.zeros(config.data_dim, *pair))
        self.register_buffer("scale", torch.ones(()))

    @property
    def is_holomorphic(self) -> bool:
        """Whether the mean is holomorphic in z, away from poles."""
        return self.config.decoder == "holomorphic"

    @outside_autocast()
    def parameters_at(self, z: Tensor) -> DecoderFields:
        """The mean and the log variances at z [..., d]."""
        self._check(z)
        h = self.layers(z)
        mean = self.mean_head(h) * self.scale
        if self.config.likelihood == "complex":
            mean = mean + torch.view_as_complex(self.location)
        else:
            mean = mean.real + self.location
        if self.log_variance_head is not None:
            log_variance = self.log_variance_head(h).real
        else:
            assert self.constant_log_variance is not None
            log_variance = self.constant_log_variance
        log_variance = log_variance + 2 * self.scale.log()
        if self.config.covariance == "scalar":
            return DecoderFields(mean, log_variance[..., 0])
        return DecoderFields(mean, log_variance.expand(mean.shape))

    def forward(self, z: Tensor) -> Distribution:
        """The likelihood p(x|z): a ``ComplexNormal``, or independent real normals."""
        mean, log_variance = self.parameters_at(z)
        deviation = (log_variance / 2).exp()
        scalar = self.config.covariance == "scalar"
        if self.config.likelihood == "real":
            normal = Normal(
                mean, deviation[..., None] if scalar else deviation, validate_args=False
            )
            return Independent(normal, 1, validate_args=False)
        if scalar:
            return ComplexNormal(mean, scale=deviation, validate_args=False)
        return ComplexNormal(mean, scale_diag=deviation, validate_args=False)

    @outside_autocast()
    def pole_distance(self, z: Tensor) -> Tensor:
        """The least distance [...] from a unit's input to a pole of its activation, or infinity."""
        self._check(z)
        distances = [torch.full(z.shape[:-1], math.inf, dtype=z.real.dtype, device=z.device)]

        def look(layer: nn.Module, inputs: tuple[Tensor, ...]) -> None:
            assert isinstance(layer, ActivationLayer)
            if layer.activation.pole_distance is not None:
                distances.append(layer.activation.pole_distance(inputs[0]).amin(-1))

        # hooks go to modules of this call's own, of the same weights: others may be at work here
        weights = (*self.layers.parameters(), *self.layers.buffers())
        layers = copy.deepcopy(self.layers, {id(x): x for x in weights})
        for unit in layers.modules():
            if isinstance(unit, ActivationLayer):
                unit.register_forward_pre_hook(look)
        layers(z)
        return torch.stack(distances).amin(0)

    def _check(self, z: Tensor) -> None:
        expected = self.scale.dtype.to_complex()
        if z.ndim == 0 or z.shape[-1] != self.config.latent_dim or z.dtype != expected:
            raise InputError(
                f"expected z to be {expected} of shape [..., {self.config.latent_dim}] (the "
                f"decoder's weights are {self.scale.dtype}, its latents complex and not real), but "
                f"got {z.dtype} of shape {tuple(z.shape)}"
            )


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


def initial_device() -> torch.device:
    """Where initial weights are drawn: on the CPU, the same for all devices, or nowhere on meta."""
    meta = torch.get_default_device().type == "meta"
    return torch.device("meta" if meta else "cpu")


def standard_units(x: Tensor, dtype: torch.dtype) -> tuple[Tensor, Tensor]:
    """The mean [D] and the root mean square deviation of samples x [n, D], in double precision.

    Raises:
        InputError: they are all equal, or ``dtype`` cannot hold their deviation.
    """
    wide = x.to(torch.complex128 if x.is_complex() else torch.float64)
    location = wide.mean(0)
    apart = (wide - location).abs()
    largest = apart.amax()
    if not bool(largest > 0):
        raise InputError("the training samples are all equal: there is nothing to learn")
    scale = largest * (apart / largest).square().mean().sqrt()
    own = torch.finfo(dtype)
    if not own.smallest_normal <= scale.item() <= own.max:
        raise InputError(
            f"expected training samples whose spread {own.dtype} can hold, "
            f"but got {scale.item():.2g}: change their units"
        )
    return location, scale


class ComplexVAE(nn.Module):
    """Encoder, decoder and the evidence lower bound; ``config.seed`` fixes the initial weights."""

    def __init__(self, config: VAEConfig) -> None:
        super().__init__()
        self.config = config
        # the same weights for any default device, and no generator left elsewhere than it was
        with alone(), torch.random.fork_rng(devices=[]), initial_device():
            torch.default_generator.manual_seed(config.seed)
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
        # torch's normal squares deviations: of 1e-24 that is 0 in single precision
        unit, normal = self.decoder.scale, law.base_dist
        law = Independent(Normal(normal.loc / unit, normal.scale / unit, validate_args=False), 1)
        return law.log_prob(x / unit) - self.config.data_dim * unit.log()

    def elbo_terms(
        self, x: Tensor, *, generator: torch.Generator | None = None
    ) -> tuple[Tensor, Tensor]:
        """One-sample estimates, per sample [n]: log p(x|z) at z ~ q(z|x), and KL(q(z|x) ‖ CN(0,I)).

        See `draw_latents`.
        """
        z, divergence = self.draw_latents(x, generator=generator)
        return self.log_likelihood(z, x), divergence

    @torch.no_grad()
    def elbo(self, x: Tensor, *, samples: int = 16, seed: int = 0) -> float:
        """The evidence lower bound of x [n, D] in nats per sample, over posterior draws."""
        generator = torch.Generator(x.device).manual_seed(seed)
        total = 0.0
        for _ in range(samples):
            likelihood, divergence = self.elbo_terms(x, generator=generator)
            total += float((likelihood - divergence).double().mean())
        return total / samples

    @torch.no_grad()
    def sample_means(self, count: int, *, seed: int = 0) -> Tensor:
        """The decoder's means [count, D] at latents drawn from the prior."""
        generator = torch.Generator().manual_seed(seed)
        pairs = torch.randn(count, self.config.latent_dim, 2, generator=generator)
        pairs = pairs.to(self.decoder.scale) * math.sqrt(0.5)
        return self.decoder.parameters_at(torch.view_as_complex(pairs)).mean
