"""VQ-VAEs: latents that are rounded to the nearest of K codes, learned by moving averages.

The encoder's e(x) is cut into positions, each of which is rounded to a code c_k; the decoder sees
the codes.  Gradients go through the rounding as if it were the identity ("straight through"), and
‖e(x) - c‖² in the loss keeps the encoder near its codes.  Of each code, moving averages of how many
points fell to it and of their sum give it its place.  Source: van den Oord, Vinyals, Kavukcuoglu,
arXiv 1711.00937, and its appendix A.1.

Balls of radius s about the codes make a variational autoencoder of it: with the prior
(1/K) Σ_j N(c_j, s²I) and the posterior N(c_k, s²I),

    0 ≤ log K - KL ≤ Σ_{j≠k} exp(-|c_j - c_k|²/8s²),

so that for s → 0 its bound is E log p(x|c_k) - log K (``derivations/papers/points_to_spheres.py``).
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import NamedTuple

import torch
from torch import Tensor, nn

from kahler_verify.errors import InputError
from kahler_verify.models.autoencoder import initial_weights
from kahler_verify.models.real_vae import RealEncoder, RealVAE, RealVAEConfig
from kahler_verify.networks.config import Covariance
from kahler_verify.torch_state import outside_autocast

__all__ = ["BallDivergence", "Codebook", "QuantisedVAE", "QuantisedVAEConfig", "ball_divergence"]

DRAWS_AT_ONCE = 1 << 22  # numbers of squared distances


@dataclass(frozen=True, kw_only=True)
class QuantisedVAEConfig(RealVAEConfig):
    """Everything that fixes a VQ-VAE's shape and its initial weights.

    ``beta`` is the weight of the commitment ‖e(x) - c‖² in the training loss.

    Attributes:
        codes: K, in the codebook.
        positions: how many codes a latent is made of, each of latent_dim / positions dimensions.
        decay: of the moving averages, in a step.
        rare: a code to which fewer points fall in a step, in the average, is placed anew.
    """

    covariance: Covariance = "constant"
    beta: float = 0.25
    noise: float = 0.0
    codes: int = 64
    positions: int = 1
    decay: float = 0.99
    rare: float = 0.05

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.variance != "mlp":
            raise InputError(f"variance: expected 'mlp' of a VQ-VAE, got {self.variance!r}")
        if type(self.codes) is not int or not 2 <= self.codes <= 1 << 20:
            raise InputError(f"codes: expected from 2 to 1048576, got {self.codes!r}")
        if (
            type(self.positions) is not int
            or self.positions < 1
            or self.latent_dim % self.positions
        ):
            raise InputError(
                f"positions: expected a divisor of latent_dim {self.latent_dim}, got "
                f"{self.positions!r}"
            )
        if not isinstance(self.decay, int | float) or not 0 <= self.decay < 1:
            raise InputError(f"decay: expected in [0, 1), got {self.decay!r}")
        if not isinstance(self.rare, int | float) or not 0 <= self.rare < 1:
            raise InputError(f"rare: expected in [0, 1), got {self.rare!r}")

    def build(self) -> QuantisedVAE:
        """A new model."""
        return QuantisedVAE(self)


class Codebook(nn.Module):
    """K codes in R^n, and the moving averages that place them.

    Attributes:
        counts: N_k [K], of how many points fall to a code in a step.
        sums: m_k [K, n], of the sum of these points; the code is m_k / N_k.
    """

    counts: Tensor
    sums: Tensor

    def __init__(self, codes: int, width: int, decay: float, rare: float) -> None:
        super().__init__()
        self.decay, self.rare = decay, rare
        self.register_buffer("counts", torch.ones(codes))
        self.register_buffer("sums", torch.randn(codes, width))

    @property
    def codes(self) -> Tensor:
        """c_k, [K, n]."""
        return self.sums / self.counts[:, None]

    def nearest(self, points: Tensor) -> Tensor:
        """Numbers [...] of the codes nearest to points [..., n]."""
        flat = points.reshape(-1, points.shape[-1])
        parts = flat.split(max(1, DRAWS_AT_ONCE // len(self.counts)))
        found = [torch.cdist(part, self.codes).argmin(-1) for part in parts]
        return torch.cat(found).reshape(points.shape[:-1])

    @torch.no_grad()
    def update(
        self, points: Tensor, numbers: Tensor, generator: torch.Generator | None = None
    ) -> None:
        """N ← γN + (1 - γ)n and m ← γm + (1 - γ)Σe, for points [B, n] that fell to codes [B].

        A code whose N falls below ``rare`` is placed on one of the points, with the N of one point
        a step, so that it has time to gather its own.
        """
        ours = nn.functional.one_hot(numbers, len(self.counts)).to(points)
        self.counts.lerp_(ours.sum(0), 1 - self.decay)
        self.sums.lerp_(ours.mT @ points, 1 - self.decay)
        dead = (self.counts < self.rare).nonzero().squeeze(-1)
        if len(dead):
            rows = torch.randint(len(points), (len(dead),), generator=generator)
            self.counts[dead] = 1.0
            self.sums[dead] = points[rows]

    def perplexity(self, numbers: Tensor) -> float:
        """exp of the entropy of how often the codes occur among numbers [...]: 1 … K."""
        share = torch.bincount(numbers.flatten(), minlength=len(self.counts)).double()
        share = share / share.sum()
        return math.exp(float(torch.special.entr(share).sum()))


class QuantisedEncoder(RealEncoder):
    """x [..., D] to codes [..., d]: a posterior without radius, whose log variances are -∞."""

    def __init__(self, config: QuantisedVAEConfig) -> None:
        super().__init__(config)
        last = self.layers[-1]
        assert isinstance(last, nn.Linear)
        self.layers[-1] = nn.Linear(last.in_features, config.latent_dim)
        self.positions = config.positions
        width = config.latent_dim // config.positions
        self.codebook = Codebook(config.codes, width, config.decay, config.rare)

    def continuous(self, x: Tensor) -> Tensor:
        """e(x) before it is rounded, [..., d]."""
        self._check(x)
        out: Tensor = self.layers((x - self.location) / self.scale)
        return out

    def numbers(self, x: Tensor) -> Tensor:
        """Of the codes at each position, [..., positions]."""
        return self.codebook.nearest(self.continuous(x).unflatten(-1, (self.positions, -1)))

    def rounded(self, numbers: Tensor) -> Tensor:
        """Latents [..., d] of codes [..., positions]."""
        return self.codebook.codes[numbers].flatten(-2)

    @outside_autocast()
    def forward(self, x: Tensor) -> tuple[Tensor, Tensor]:
        """The code, and log variances of -∞."""
        z = self.rounded(self.numbers(x))
        return z, torch.full_like(z, -torch.inf)


class QuantisedVAE(RealVAE):
    """A VQ-VAE: encoder with codebook, and the decoder of an ordinary VAE at real latents."""

    config: QuantisedVAEConfig
    encoder: QuantisedEncoder

    def __init__(self, config: QuantisedVAEConfig) -> None:
        super().__init__(config)
        with initial_weights(config.seed):
            self.encoder = QuantisedEncoder(config)
        self.to(torch.get_default_device())

    def standardise(self, x: Tensor) -> None:
        """As for an ordinary VAE; and the first codes are encoded training samples.

        Raises:
            InputError: see :meth:`RealVAE.standardise`.
        """
        super().standardise(x)
        book = self.encoder.codebook
        generator = torch.Generator().manual_seed(self.config.seed)
        rows = torch.randint(len(x), (self.config.codes,), generator=generator)
        places = torch.randint(self.encoder.positions, (self.config.codes,), generator=generator)
        with torch.no_grad():
            pieces = self.encoder.continuous(x[rows]).unflatten(-1, (self.encoder.positions, -1))
        book.counts.fill_(1.0)
        book.sums.copy_(pieces[torch.arange(len(rows)), places])

    def draw_latents(
        self, x: Tensor, *, generator: torch.Generator | None = None
    ) -> tuple[Tensor, Tensor]:
        """Codes c [n, d], with the gradient of e(x), and ‖e(x) - c‖² [n], which moves e(x) alone.

        In training mode the codebook is moved as well.
        """
        encoder = self.encoder
        exact = encoder.continuous(x)
        pieces = exact.unflatten(-1, (encoder.positions, -1))
        numbers = encoder.codebook.nearest(pieces.detach())
        rounded = encoder.rounded(numbers).detach()
        if self.training:
            encoder.codebook.update(
                pieces.detach().flatten(0, -2), numbers.flatten(), generator=generator
            )
        return exact + (rounded - exact).detach(), (exact - rounded).square().sum(-1)

    def elbo_terms(
        self,
        x: Tensor,
        *,
        generator: torch.Generator | None = None,  # noqa: ARG002
    ) -> tuple[Tensor, Tensor]:
        """log p(x|c) [n] and log K at each position: KL(δ_c ‖ all codes, equally likely)."""
        z, _ = self.encoder(x)
        likelihood = self.log_likelihood(z, x)
        return likelihood, torch.full_like(
            likelihood, self.encoder.positions * math.log(self.config.codes)
        )

    def perplexity(self, x: Tensor) -> float:
        """How many codes are in use for x [n, D]: exp of their entropy, over all positions."""
        return self.encoder.codebook.perplexity(self.encoder.numbers(x))

    @torch.no_grad()
    def sample_means(self, count: int, *, seed: int = 0) -> Tensor:
        """The decoder's means [count, D] at codes drawn with equal chances."""
        generator = torch.Generator().manual_seed(seed)
        shape = (count, self.encoder.positions)
        numbers = torch.randint(self.config.codes, shape, generator=generator)
        return self.decoder.mean(self.encoder.rounded(numbers))


class BallDivergence(NamedTuple):
    """KL(N(c_k, s²I) ‖ (1/K) Σ_j N(c_j, s²I)) for each code, beside what is proved of it.

    Attributes:
        value: estimated, [K].
        error: its standard error, [K].
        gap: Σ_{j≠k} exp(-|c_j - c_k|²/8s²), [K]: the KL lies between log K less this, and log K.
        fixed: KL(N(c_k, s²I) ‖ N(0, I)), exact, [K]: it grows without bound as s → 0.
    """

    value: Tensor
    error: Tensor
    gap: Tensor
    fixed: Tensor


def ball_divergence(
    codes: Tensor, radius: float, *, draws: int = 256, generator: torch.Generator | None = None
) -> BallDivergence:
    """Balls of a radius s about codes [K, n], against the mixture of all and against N(0, I).

    Args:
        codes: c_k.
        radius: s, the standard deviation in each dimension.
        draws: for each code.
        generator: of the draws.

    Raises:
        InputError: codes are no matrix, or radius or draws are not positive.
    """
    if codes.ndim != 2 or not len(codes) or not bool(codes.isfinite().all()):
        raise InputError(f"codes: expected finite [K, n], got {list(codes.shape)}")
    if not 0 < radius < math.inf:
        raise InputError(f"radius: expected a positive number, got {radius!r}")
    if type(draws) is not int or draws < 2:
        raise InputError(f"draws: expected at least 2, got {draws!r}")
    codes = codes.double()
    count, n = codes.shape
    values = []
    for own in codes:
        noise = torch.randn(draws, n, dtype=codes.dtype, generator=generator)
        # log K + log N(z; c_k) - log Σ_j N(z; c_j), of which the last is at most log K below
        apart = (own - codes) / radius  # z - c_j = s (noise + apart_j)
        exponents = -(noise @ apart.mT) - apart.square().sum(-1) / 2
        values.append(math.log(count) - exponents.logsumexp(-1))
    found = torch.stack(values)
    squares = torch.cdist(codes, codes).square()
    overlap = (-squares / (8 * radius**2)).exp().fill_diagonal_(0)
    fixed = (n * radius**2 + codes.square().sum(-1) - n) / 2 - n * math.log(radius)
    return BallDivergence(found.mean(-1), found.std(-1) / math.sqrt(draws), overlap.sum(-1), fixed)
