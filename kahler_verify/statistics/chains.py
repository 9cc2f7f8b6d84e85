"""Markov chains with gradients on R^m: Pyro's no-U-turn sampler, and what any chains share.

:mod:`kahler_verify.statistics.vectorised` runs many at once.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import NamedTuple

import torch
from torch import Tensor

from kahler_verify.errors import InputError
from kahler_verify.memory import require_memory
from kahler_verify.statistics.volume import Draws, VolumeTarget


def run_chains(
    target: VolumeTarget,
    samples: int,
    *,
    chains: int = 4,
    warmup: int = 300,
    seed: int = 0,
) -> Draws:
    """Run NUTS chains one after the other, each from a start of its own.

    ``vectorised_chains`` runs many at once, which costs much less for an effective sample.

    Chains run in the m real coordinates of latents, m = d on R^d and 2d on C^d.  A region |z| < R
    is reached by z = R w/√(1 + |w|²), whose Jacobian is part of the density, so
    that no chain meets a wall.

    Args:
        target: what to sample.
        samples: kept draws of each chain.
        chains: at least two, for R-hat.
        warmup: steps of each chain that tune the sampler and are dropped.
        seed: of starts and momenta.

    Raises:
        InputError: samples, chains or warmup are too few.
    """
    from pyro.infer.mcmc import MCMC, NUTS  # slow to import, and of chains alone

    check_sizes(target, samples, chains, warmup)
    target.warn_if_improper()
    m = target.real_dimension

    def potential(parameters: dict[str, Tensor]) -> Tensor:
        u = parameters["u"]
        there = anywhere(target, u.detach()[None])
        # NaN is a place that is never entered; a volume of 0 to a negative power is one, too
        value = torch.where(there.value[0] < torch.inf, there.value[0], torch.nan)
        return -(value + (there.slope[0] * (u - u.detach())).sum())

    drawn, acceptance = [], []
    for chain in range(chains):
        with torch.device("cpu"), torch.random.fork_rng(devices=[]):
            torch.manual_seed(seed * 1000 + chain)
            start = {"u": _start(target, m)}
            kernel = NUTS(potential_fn=potential)
            run = MCMC(
                kernel,
                num_samples=samples,
                warmup_steps=warmup,
                initial_params=start,
                disable_progbar=True,
            )
            run.run()
        drawn.append(run.get_samples()["u"])
        acceptance.append(run.diagnostics()["acceptance rate"]["chain 0"])
    rate, u = sum(acceptance) / chains, torch.stack(drawn)
    with torch.no_grad():
        statistics = {"lp": log_density(target, u.flatten(0, 1)).unflatten(0, u.shape[:2])}
    return as_draws(target, u, rate, {"warmup": float(warmup)}, statistics)


def _start(target: VolumeTarget, m: int) -> Tensor:
    """A normal point of deviation ½, drawn again where the density is 0 or the metric refuses."""
    for _ in range(100):
        u = torch.randn(m, dtype=torch.float64) / 2
        if bool(anywhere(target, u[None]).value.isfinite().all()):
            return u
    raise InputError("target: expected a positive and finite density near the origin, found none")


def check_sizes(target: VolumeTarget, samples: int, chains: int, warmup: int) -> None:
    """Refuse what is too little for diagnostics, or too much for memory."""
    if samples < 10 or chains < 2 or warmup < 10:
        raise InputError(
            f"samples, chains, warmup: expected at least 10, 2, 10, got {samples}, {chains}, "
            f"{warmup}"
        )
    require_memory("samples", samples, 8 * 16 * target.dimension * chains)


def as_draws(
    target: VolumeTarget,
    u: Tensor,
    acceptance: float,
    details: Mapping[str, float],
    statistics: Mapping[str, Tensor],
) -> Draws:
    """Chains u [chains, n, m] with their effective sample size and R-hat."""
    from pyro.ops.stats import effective_sample_size, split_gelman_rubin

    z = to_region(target, u)[0]
    # |z|² mixes more slowly than coordinates where tails are heavy, so it is watched as well
    watched = torch.cat([target.space.to_real(z), torch.log1p(_square(z))], -1)
    dtype, device = target.home
    return Draws(
        z.flatten(0, 1).to(device, dtype),
        effective_sample_size(watched).min().item(),
        acceptance,
        split_gelman_rubin(watched).max().item(),
        {"chains": float(len(u)), **details},
        statistics,
    )


def _square(z: Tensor) -> Tensor:
    return (z * z.conj()).real.sum(-1, keepdim=True)


def log_density(target: VolumeTarget, u: Tensor) -> Tensor:
    """Of u; a density of 0, as where the volume is 0 and γ > 0, has no gradient and is a wall."""
    z, log_jacobian = to_region(target, u)
    density = target.log_density(z)
    return torch.where(density == -torch.inf, -torch.inf, density) + log_jacobian


class State(NamedTuple):
    """u [C, m], its log density [C], and the gradient of that [C, m]."""

    u: Tensor
    value: Tensor
    slope: Tensor

    def where(self, chosen: Tensor, other: State) -> State:
        """The chosen chains [C] of this one, the rest of the other."""
        row = chosen[:, None]
        return State(
            torch.where(row, self.u, other.u),
            torch.where(chosen, self.value, other.value),
            torch.where(row, self.slope, other.slope),
        )


def state_at(target: VolumeTarget, u: Tensor) -> State:
    """At u [C, m]; a slope that is no number is 0."""
    with torch.enable_grad():
        u = u.detach().requires_grad_()
        value = log_density(target, u)
        (slope,) = torch.autograd.grad(value.sum(), u)
    return State(u.detach(), value.detach(), slope.nan_to_num(0, 0, 0))


def anywhere(target: VolumeTarget, u: Tensor) -> State:
    """The same, with NaN for what the metric refuses: a step that is too long may end anywhere."""
    try:
        return state_at(target, u)
    except InputError:
        if len(u) == 1:
            return State(u, torch.full_like(u[:, 0], torch.nan), torch.zeros_like(u))
    halves = [anywhere(target, half) for half in u.tensor_split(2)]
    return State(*(torch.cat(parts) for parts in zip(*halves, strict=True)))


def to_region(target: VolumeTarget, u: Tensor) -> tuple[Tensor, Tensor]:
    """From u in R^m to z, and the log of the Jacobian up to a constant."""
    square = (u * u).sum(-1)
    if target.radius is None:
        return target.space.from_real(u), torch.zeros_like(square)
    # r = R s/√(1 + s²): (r/s)^{m-1} dr/ds = R^m (1 + s²)^{-(m+2)/2}
    z = target.space.from_real(target.radius * u * torch.rsqrt(1 + square).unsqueeze(-1))
    return z, -(u.shape[-1] + 2) / 2 * torch.log1p(square)
