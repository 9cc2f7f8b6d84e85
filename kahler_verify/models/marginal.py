"""Marginal likelihoods of autoencoders by importance sampling, with the error of the estimate.

log p(x) = log E[p(x|z) p(z) / r(z)] over z from a proposal r = (1-α) q + α p, with p the prior.  So
weights are at most p(x|z)/α: where p(x|z) is bounded they have a variance, however narrow q is, and
an error can be stated.  q begins as the encoder's posterior; rounds of draws move it to the mean
and variances that their weights say, and the estimate is of fresh draws alone.  It is too small on
average, by half of the square of its error.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any, NamedTuple

import torch
from torch import Tensor

from kahler_verify.errors import InputError
from kahler_verify.models.autoencoder import Autoencoder

__all__ = ["MarginalLikelihood", "marginal_log_likelihood"]

ROWS = 16_384  # samples times draws that go through the decoder at once
BLOCK = 1024  # samples whose weights are held at once
ENOUGH = 10.0  # draws that carry the weights, for q to be moved by them
INFLATION = 1.5  # of the variances of draws, since tails that are too light cost most


@dataclass(frozen=True)
class MarginalLikelihood:
    """Estimates of log p(x) in nats, double precision.

    Attributes:
        each: of each sample, [n].
        errors: their standard errors, by the draws, [n].
        effective: how many draws carry each sample's weights, (Σw)²/Σw², [n].  Where these are
            few, the stated error is too small.
        draws: for each sample, without those that moved the proposal.
    """

    each: Tensor
    errors: Tensor
    effective: Tensor
    draws: int

    @property
    def mean(self) -> float:
        """The mean of log p(x)."""
        return float(self.each.mean())

    @property
    def error(self) -> float:
        """The standard error of ``mean`` by the draws, for these samples."""
        return float(self.errors.square().sum().sqrt()) / len(self.each)

    @property
    def bias(self) -> float:
        """How much too small ``mean`` is on average, to leading order."""
        return float(self.errors.square().mean()) / 2

    @property
    def spread(self) -> float:
        """The standard error of ``mean`` by the choice of samples; NaN for a single one."""
        return float(self.each.std()) / math.sqrt(len(self.each))

    @property
    def doubtful(self) -> int:
        """How many samples' weights rest on fewer than ten draws."""
        return int((self.effective < ENOUGH).sum())

    def to_json(self) -> dict[str, Any]:
        """Plain values; a spread that does not exist is None."""
        return {
            "mean": self.mean,
            "error": self.error,
            "bias": self.bias,
            "spread": self.spread if len(self.each) > 1 else None,
            "doubtful": self.doubtful,
            "draws": self.draws,
            "samples": len(self.each),
        }


class _Normal(NamedTuple):
    """Normal laws of latents, independent over d, as an encoder gives them: [n, d] each."""

    mean: Tensor
    log_variance: Tensor


@torch.no_grad()
def marginal_log_likelihood(
    model: Autoencoder,
    x: Tensor,
    draws: int = 1000,
    *,
    rounds: int = 3,
    defensive: float = 0.1,
    seed: int = 0,
) -> MarginalLikelihood:
    """Log p(x) of each x [n, D], by importance sampling; the same numbers for the same seed.

    Args:
        model: of complex or real latents; its encoder gives means and log variances.
        x: data, as its encoder takes them.
        draws: for each x.
        rounds: of as many draws each, by which q is moved before; with 0 it is the encoder's.
        defensive: α, the part of the draws that comes from the prior.  With 0 all are from q, and
            the error can be infinite without being seen.
        seed: of the draws.

    Raises:
        InputError: x has no samples, there are less than 2 draws of a kind, or no draw has a
            positive likelihood.
    """
    if not isinstance(model, Autoencoder):
        raise InputError(f"model: expected an autoencoder, got {type(model).__name__}")
    if not isinstance(x, Tensor) or x.ndim != 2 or len(x) == 0:
        got = list(x.shape) if isinstance(x, Tensor) else type(x).__name__
        raise InputError(f"x: expected samples [n, D] with n ≥ 1, got {got}")
    if not bool(torch.isfinite(x).all()):
        raise InputError("x: expected finite values, got NaN or infinities")
    for name, value, least in (("draws", draws, 2), ("rounds", rounds, 0)):
        if type(value) is not int or value < least:
            raise InputError(f"{name}: expected a whole number from {least}, got {value!r}")
    if not isinstance(defensive, int | float) or not 0 <= defensive < 1:
        raise InputError(f"defensive: expected a number in [0, 1), got {defensive!r}")
    wide = max(2, math.ceil(defensive * draws)) if defensive else 0
    if draws - wide < 2:
        raise InputError(
            f"draws: expected at least 2 from prior and proposal each, got {draws} with "
            f"defensive = {defensive}"
        )
    if not bool(model.encoder(x[:1])[1].isfinite().all()):
        raise InputError(
            "model: expected a posterior with a density, got log variances that are not finite "
            f"({type(model).__name__})"
        )
    generator = torch.Generator(x.device).manual_seed(seed)
    parts = []
    for some in x.split(BLOCK):
        q = _Normal(*model.encoder(some))
        for _ in range(rounds):
            q = _moved(*_weighted(model, some, q, draws, wide, generator))
        parts.append(_estimates(_weighted(model, some, q, draws, wide, generator)[1], wide))
    each, errors, effective = (torch.cat(part) for part in zip(*parts, strict=True))
    return MarginalLikelihood(each, errors, effective, draws)


def _weighted(
    model: Autoencoder, x: Tensor, q: _Normal, draws: int, wide: int, generator: torch.Generator
) -> tuple[Tensor, Tensor]:
    """Draws z [S, n, d] of q, and at last ``wide`` ones of the prior, with log weights [S, n]."""
    shape = (draws, *q.mean.shape)
    z = torch.randn(shape, dtype=q.mean.dtype, device=x.device, generator=generator)
    own = draws - wide
    z[:own] = q.mean + (q.log_variance / 2).exp() * z[:own]
    pieces = z.split(max(1, ROWS // len(x)))
    out = torch.cat([_log_weights(model, x, some, q, wide / draws) for some in pieces])
    if not bool(torch.isfinite(out.amax(0)).all()):
        raise InputError(
            "x: expected samples of positive likelihood, but p(x|z) is 0, infinite or NaN at every "
            "draw for one (is it no data of this likelihood, or did a variance collapse?)"
        )
    return z, out


def _log_weights(model: Autoencoder, x: Tensor, z: Tensor, q: _Normal, alpha: float) -> Tensor:
    """Log p(x|z) p(z)/((1-α) q(z) + α p(z)) at z [s, n, d], as [s, n] in double precision."""
    count = len(z)
    likelihood = model.log_likelihood(z.flatten(0, 1), x.repeat(count, 1)).unflatten(0, (count, -1))
    precision = (-q.log_variance.double()).exp()
    log_ratio = (_square(z) - _square(z - q.mean) * precision - q.log_variance).sum(-1)
    posterior = math.log1p(-alpha) + (log_ratio if z.is_complex() else log_ratio / 2)  # q/p
    if alpha == 0:
        return likelihood.double() - posterior
    return likelihood.double() - posterior.logaddexp(torch.full_like(posterior, math.log(alpha)))


def _square(z: Tensor) -> Tensor:
    z = z.to(torch.complex128 if z.is_complex() else torch.float64)
    return (z * z.conj()).real


def _moved(z: Tensor, log_weights: Tensor) -> _Normal:
    """The mean and variances of draws by their weights, tempered until enough draws carry them."""
    t = torch.ones_like(log_weights[0])
    for _ in range(20):
        weights = torch.softmax(t * log_weights, 0)
        few = 1 / weights.square().sum(0) < min(ENOUGH, len(z) / 2)
        if not bool(few.any()):
            break
        t = torch.where(few, t / 2, t)
    weights = weights[..., None]
    mean = (weights * z).sum(0)
    variance = INFLATION * (weights * _square(z - mean)).sum(0)
    tiny = torch.finfo(variance.dtype).eps ** 2
    return _Normal(mean.to(z.dtype), variance.clamp_min(tiny).log().to(z.real.dtype))


def _estimates(log_weights: Tensor, wide: int) -> tuple[Tensor, Tensor, Tensor]:
    """Estimates, their errors and effective numbers of draws, [n] each."""
    largest = log_weights.amax(0)
    weights = (log_weights - largest).exp()
    own, prior = weights.split([len(weights) - wide, wide])
    variance = len(own) * own.var(0)
    if wide:
        variance = variance + wide * prior.var(0)
    total = weights.sum(0)
    value = largest + (total / len(weights)).log()
    return value, variance.sqrt() / total, total.square() / weights.square().sum(0)
