"""Markov chains with gradients: Pyro's no-U-turn sampler on R^{2d}, with R-hat over chains."""

from __future__ import annotations

import torch
from pyro.infer.mcmc import MCMC, NUTS
from pyro.ops.stats import effective_sample_size, split_gelman_rubin
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

    A region |z| < R is reached by z = R w/√(1 + |w|²), whose Jacobian is part of the density, so
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
    if samples < 10 or chains < 2 or warmup < 10:
        raise InputError(
            f"samples, chains, warmup: expected at least 10, 2, 10, got {samples}, {chains}, "
            f"{warmup}"
        )
    require_memory("samples", samples, 8 * 16 * target.dimension * chains)
    target.warn_if_improper()
    d = target.dimension

    def potential(parameters: dict[str, Tensor]) -> Tensor:
        return -_log_density(target, parameters["u"])

    drawn, acceptance = [], []
    for chain in range(chains):
        with torch.device("cpu"), torch.random.fork_rng(devices=[]):
            torch.manual_seed(seed * 1000 + chain)
            start = {"u": torch.randn(2 * d, dtype=torch.float64) / 2}
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
    u = torch.stack(drawn)
    z = _to_region(target, u)[0]
    # |z|² mixes more slowly than coordinates where tails are heavy, so it is watched as well
    watched = torch.cat([torch.view_as_real(z).flatten(-2), torch.log1p(_square(z))], -1)
    dtype, device = target.home
    return Draws(
        z.flatten(0, 1).to(device, dtype),
        effective_sample_size(watched).min().item(),
        sum(acceptance) / chains,
        split_gelman_rubin(watched).max().item(),
        {"chains": float(chains), "warmup": float(warmup)},
    )


def _square(z: Tensor) -> Tensor:
    return (z * z.conj()).real.sum(-1, keepdim=True)


def _log_density(target: VolumeTarget, u: Tensor) -> Tensor:
    z, log_jacobian = _to_region(target, u)
    return target.log_density(z) + log_jacobian


def _to_region(target: VolumeTarget, u: Tensor) -> tuple[Tensor, Tensor]:
    """From u in R^{2d} to z, and the log of the Jacobian up to a constant."""
    x, y = u.chunk(2, -1)
    w = torch.complex(x, y)
    square = (u * u).sum(-1)
    if target.radius is None:
        return w, torch.zeros_like(square)
    # r = R s/√(1 + s²): (r/s)^{2d-1} dr/ds = R^{2d} (1 + s²)^{-(d+1)}
    z = target.radius * w * torch.rsqrt(1 + square).unsqueeze(-1)
    return z, -(target.dimension + 1) * torch.log1p(square)
