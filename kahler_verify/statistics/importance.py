"""Self-normalised importance resampling: simple, and exact as proposals grow."""

from __future__ import annotations

import warnings

import torch
from torch import Tensor

from kahler_verify.errors import InputError
from kahler_verify.memory import require_memory
from kahler_verify.statistics.volume import Draws, VolumeTarget

CHUNK = 4096  # proposals for which the metric is evaluated at once
MOST = 2**24  # proposals that torch.multinomial can choose from
COPIES = 4  # of the proposals, held at one time while they are drawn


def importance_resample(
    target: VolumeTarget, count: int, *, proposals: int | None = None, seed: int = 0
) -> Draws:
    """Draw proposals from the prior, or uniformly from the ball, and resample by volume^γ.

    Args:
        target: with a prior, or with a radius.
        count: how many samples to return.
        proposals: how many to propose, 20 · count by default.
        seed: of proposals and resampling.

    Raises:
        InputError: count is not positive, there is neither a prior nor a radius to propose from, or
            a power of the volume is infinite.
    """
    if count < 1:
        raise InputError(f"count: expected a positive number, got {count}")
    if not target.prior and target.radius is None:
        raise InputError("target: importance resampling needs a prior or a radius to propose from")
    target.warn_if_improper()
    total = proposals if proposals is not None else 20 * count
    if total < count:
        raise InputError(f"proposals: expected at least count = {count}, got {total}")
    if total > MOST:
        raise InputError(
            f"proposals: expected at most {MOST}, got {total} for count = {count}; draw in several "
            "runs with other seeds"
        )
    require_memory("proposals", total, COPIES * 16 * target.dimension)
    with torch.device("cpu"), torch.no_grad():
        generator = torch.Generator().manual_seed(seed)
        z = propose(target, total, generator)
        log_weights = torch.cat([target.log_volume_power(part) for part in z.split(CHUNK)])
    if not bool((log_weights < torch.inf).all()) or not bool(torch.isfinite(log_weights).any()):
        raise InputError(
            "target: expected finite powers of the volume, got an infinite one or NaN (is the "
            "metric degenerate somewhere, with γ < 0?)"
        )
    weights = torch.softmax(log_weights, 0)
    effective = 1 / (weights * weights).sum().item()
    if effective < count / 10:
        warnings.warn(
            f"only {effective:.0f} of {total} proposals carry the weights: propose more, or "
            f"use chains",
            stacklevel=2,
        )
    chosen = torch.multinomial(weights, count, replacement=True, generator=generator)
    details = {"proposals": float(total), "largest_weight": weights.max().item()}
    dtype, device = target.home
    return Draws(z[chosen].to(device, dtype), effective, None, None, details)


def propose(target: VolumeTarget, count: int, generator: torch.Generator) -> Tensor:
    """Points of the standard normal law, or uniform ones in the ball, in double precision.

    With a prior and a radius, normal points outside of the ball are drawn again.
    """
    kept: list[Tensor] = []
    while sum(len(k) for k in kept) < count:
        z = target.space.normal(count, generator)
        square = (z * z.conj()).real.sum(-1, keepdim=True)
        if not target.prior:
            assert target.radius is not None
            u = torch.rand(count, 1, dtype=torch.float64, generator=generator)
            z = z / square.sqrt() * target.radius * u ** (1 / target.real_dimension)
        elif target.radius is not None:
            z = z[square[:, 0] < target.radius**2]
            if not len(z):
                raise InputError(f"radius: no prior sample falls into |z| < {target.radius}")
        kept.append(z)
    return torch.cat(kept)[:count]
