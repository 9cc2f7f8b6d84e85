"""What autoencoders at complex and at real latents have in common."""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor, nn
from torch.distributions import Independent, Normal

from kahler_verify.errors import InputError
from kahler_verify.torch_state import alone

__all__ = ["Autoencoder", "initial_weights", "normal_log_prob", "standard_units"]


class Autoencoder(nn.Module):
    """The evidence lower bound of a model that draws latents and knows their likelihood.

    Attributes:
        encoder: from x [n, D] to mean and log variances, [n, d] each, of q(z|x): real or circular
            complex normals, independent over the d latents.  The prior is the standard normal.
    """

    encoder: Any

    @abstractmethod
    def draw_latents(
        self, x: Tensor, *, generator: torch.Generator | None = None
    ) -> tuple[Tensor, Tensor]:
        """Latents z ~ q(z|x) [n, d], differentiable in the encoder, and KL(q(z|x) ‖ p) [n]."""

    @abstractmethod
    def log_likelihood(self, z: Tensor, x: Tensor) -> Tensor:
        """log p(x|z) of each sample, [n]."""

    def elbo_terms(
        self, x: Tensor, *, generator: torch.Generator | None = None
    ) -> tuple[Tensor, Tensor]:
        """One-sample estimates, per sample [n]: log p(x|z) at z ~ q(z|x), and KL(q(z|x) ‖ p)."""
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


@contextmanager
def initial_weights(seed: int) -> Iterator[None]:
    """Weights drawn inside are the same for any default device, and no generator is moved.

    They are drawn on the CPU, or nowhere where the default device is meta.
    """
    meta = torch.get_default_device().type == "meta"
    device = torch.device("meta" if meta else "cpu")
    with alone(), torch.random.fork_rng(devices=[]), device:
        torch.default_generator.manual_seed(seed)
        yield


def normal_log_prob(law: Independent, x: Tensor, unit: Tensor) -> Tensor:
    """log p(x) [n] of independent normals, in units in which squares do not underflow."""
    normal = law.base_dist
    law = Independent(Normal(normal.loc / unit, normal.scale / unit, validate_args=False), 1)
    return law.log_prob(x / unit) - x.shape[-1] * unit.log()


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
