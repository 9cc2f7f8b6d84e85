"""Complex linear layers, and the decoders that are made of them.

Complex weights are stored as pairs of real numbers (a trailing axis of length 2), so that
``.to(torch.float64)`` and ``.double()`` mean what they say: torch would cast a complex parameter to
a real one and drop its imaginary part.
"""

from __future__ import annotations

import copy
import math
from itertools import pairwise
from typing import NamedTuple

import torch
from torch import Tensor, nn
from torch.distributions import Distribution, Independent, Normal

from kahler_verify.distributions import ComplexNormal
from kahler_verify.errors import InputError
from kahler_verify.linear_algebra.heads import AffineHeads
from kahler_verify.networks.activations import ActivationLayer
from kahler_verify.networks.config import DecoderConfig
from kahler_verify.torch_state import outside_autocast

__all__ = ["ComplexLinear", "Decoder", "DecoderFields", "Residual"]


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
    """z [..., d] complex to a Gaussian on C^D (or R^D), in the shape that its config describes.

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

    def __init__(self, config: DecoderConfig) -> None:
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

    def heads(self) -> AffineHeads:
        """The heads' matrices, as they are now: what a metric takes of a decoder behind h(z)."""
        head = self.log_variance_head
        return AffineHeads(
            mean=self.mean_head.weight,
            log_variance=None if head is None else head.weight,
            log_variance_bias=None if head is None else head.bias,
            constant=self.constant_log_variance,
            scale=self.scale,
            covariance=self.config.covariance,
            real=self.config.likelihood == "real",
            latent=self.config.latent_dim,
            widest=max(self.mean_head.out_features, *self.config.hidden),
        )

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

    def mean(self, z: Tensor) -> Tensor:
        """The mean of x at z, [..., D]."""
        return self.parameters_at(z).mean

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
