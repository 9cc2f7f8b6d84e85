"""Many Hamiltonian chains at once, a batch of latents in each step: ChEES-HMC.

Hoffman, Radul, Sountsov, *An adaptive-MCMC scheme for setting trajectory lengths in Hamiltonian
Monte Carlo* (AISTATS 2021).  All chains take the same number of steps, so that none waits for
another.  The trajectories' length climbs the expected squared change of |u - mean|², which is what
chains forget last.
"""

from __future__ import annotations

import math
from typing import NamedTuple

import torch
from torch import Tensor

from kahler_verify.errors import InputError
from kahler_verify.statistics.chains import State, anywhere, as_draws, check_sizes, state_at
from kahler_verify.statistics.volume import Draws, VolumeTarget

ACCEPTANCE = 0.8  # that the step is tuned to
FIRST_STEP, FIRST_LENGTH = 0.1, 1.0
MOST_STEPS = 512  # of a trajectory
DIVERGED = 1000.0  # lost of the log density: from there a trajectory stands still, and is refused
RATE, DECAY = 0.05, 0.95  # of Adam, for the log of the length
WINDOWS = (0.2, 0.5)  # parts of the warm-up behind which the coordinates' units are set anew


def vectorised_chains(
    target: VolumeTarget,
    samples: int,
    *,
    chains: int = 64,
    warmup: int = 200,
    seed: int = 0,
) -> Draws:
    """Run many chains at once, each from a start of its own, in the coordinates of ``run_chains``.

    Args:
        target: what to sample.
        samples: kept draws of each chain.
        chains: at least two; some dozens tune the sampler well, and cost little more than one.
        warmup: steps of each chain that tune the sampler and are dropped.
        seed: of starts and momenta.

    Raises:
        InputError: samples, chains or warmup are too few, or the density is 0 near the origin.
    """
    check_sizes(target, samples, chains, warmup)
    target.warn_if_improper()
    with torch.device("cpu"):
        generator = torch.Generator().manual_seed(seed)
        walk = _Walk(target, _start(target, chains, generator), generator)
        tuning = _Tuning(warmup)
        for n in range(1, warmup + 1):
            before = walk.state.u
            tuning.learn(n, before, walk.move(n, tuning.step, tuning.length), walk)
        step, length = tuning.settled
        kept = [walk.move(n, step, length) for n in range(warmup + 1, warmup + samples + 1)]
    rates = torch.stack([x.rate for x in kept], 1)
    diverging = torch.stack([x.diverged for x in kept], 1)
    statistics = {
        "lp": torch.stack([x.value for x in kept], 1),
        "acceptance_rate": rates,
        "diverging": diverging,
        "n_steps": torch.tensor([x.steps for x in kept]).expand(chains, -1),
    }
    details = {
        "warmup": float(warmup),
        "step": step,
        "length": length,
        "gradients": float(walk.gradients),
        "divergences": float(diverging.sum()),
    }
    u = torch.stack([x.u for x in kept], 1)
    return as_draws(target, u, rates.mean().item(), details, statistics)


class _Moved(NamedTuple):
    """A step of all chains: where they are, and what was proposed, how fast, with what success."""

    u: Tensor
    value: Tensor
    proposed: Tensor
    velocity: Tensor
    rate: Tensor
    diverged: Tensor
    walled: Tensor
    steps: int
    part: float


def _start(target: VolumeTarget, chains: int, generator: torch.Generator) -> State:
    """Normal points of deviation ½, drawn again where the density is 0."""
    shape, state = (chains, target.real_dimension), None
    for _ in range(100):
        new = state_at(target, torch.randn(shape, dtype=torch.float64, generator=generator) / 2)
        state = new if state is None else state.where(state.value.isfinite(), new)
        if bool(state.value.isfinite().all()):
            return state
    raise InputError("target: expected a positive and finite density near the origin, found none")


class _Walk:
    """Where all chains are; ``scale`` [m] are the units of the coordinates."""

    def __init__(self, target: VolumeTarget, state: State, generator: torch.Generator) -> None:
        self.target, self.state, self.generator = target, state, generator
        self.scale = torch.ones_like(state.u[0])
        self.gradients = 1  # of all chains at once

    def move(self, n: int, step: float, length: float) -> _Moved:
        """A leapfrog trajectory, taken or refused by each chain.

        It goes a part in (0, 2) of the length, the n-th number of van der Corput's sequence: with
        the same length always, chains could come back to where they were.
        """
        part = 2 * van_der_corput(n)
        steps = min(MOST_STEPS, max(1, math.ceil(part * length / step)))
        start = there = self.state
        p = torch.randn(start.u.shape, dtype=torch.float64, generator=self.generator)
        energy = start.value - p.square().sum(-1) / 2
        alive, gain = torch.ones_like(energy, dtype=torch.bool), torch.zeros_like(energy)
        walled = ~alive
        for _ in range(steps):
            half = p + step / 2 * self.scale * there.slope
            new = anywhere(
                self.target,
                torch.where(alive[:, None], there.u + step * self.scale * half, there.u),
            )
            q = half + step / 2 * self.scale * new.slope
            change = new.value - q.square().sum(-1) / 2 - energy
            change = torch.where(change < torch.inf, change, -torch.inf)  # NaN as well
            walled = walled | (alive & (new.value == -torch.inf))
            alive = alive & (change > -DIVERGED)
            there, p = new.where(alive, there), torch.where(alive[:, None], q, p)
            gain = torch.where(alive, change, gain)
        self.gradients += steps
        rate = torch.where(alive, gain.clamp(max=0).exp(), 0)
        taken = torch.rand(rate.shape, dtype=torch.float64, generator=self.generator) < rate
        self.state = there.where(taken, start)
        return _Moved(self.state.u, self.state.value, there.u, p, rate, ~alive, walled, steps, part)


def van_der_corput(n: int) -> float:
    """The digits of n in base two, mirrored at the point."""
    return int(f"{n:b}"[::-1], 2) / 2 ** n.bit_length()


class _Tuning:
    """The step by dual averaging, the length by Adam, the units by the chains' deviations.

    What is settled is the mean of both logs over the warm-up behind the last change of units.
    """

    def __init__(self, warmup: int) -> None:
        self.changes = [max(1, int(part * warmup)) for part in WINDOWS]
        self.log_length, self.square = math.log(FIRST_LENGTH), 0.0
        self.window: list[Tensor] = []
        self._restart(FIRST_STEP, aim=10 * FIRST_STEP)

    def _restart(self, step: float, aim: float) -> None:
        self.aim, self.log_step = math.log(aim), math.log(step)
        self.lack, self.count, self.sums = 0.0, 0, (0.0, 0.0)

    @property
    def step(self) -> float:
        return math.exp(self.log_step)

    @property
    def length(self) -> float:
        return math.exp(self.log_length)

    @property
    def settled(self) -> tuple[float, float]:
        """Step and length."""
        step, length = (math.exp(x / self.count) for x in self.sums)
        return step, length

    def learn(self, n: int, before: Tensor, moved: _Moved, walk: _Walk) -> None:
        """From the n-th step of the warm-up."""
        self._learn_length(n, before / walk.scale, moved, walk.scale)
        open_ = ~moved.walled  # no step is short enough for a wall
        self._learn_step(moved.rate[open_].mean().item() if 2 * open_.sum() > len(open_) else 0.0)
        self.sums = (self.sums[0] + self.log_step, self.sums[1] + self.log_length)
        self.window.append(moved.u)
        if n in self.changes:
            seen = torch.cat(self.window)
            walk.scale = seen.std(0).clamp_min(1e-6)
            self.window = []
            self._restart(self.step, aim=self.step)

    def _learn_step(self, rate: float) -> None:
        """Hoffman, Gelman, *The No-U-Turn Sampler* (JMLR 2014), with their constants."""
        self.count += 1
        self.lack += (ACCEPTANCE - rate - self.lack) / (self.count + 10)
        self.log_step = self.aim - math.sqrt(self.count) / 0.05 * self.lack

    def _learn_length(self, n: int, x: Tensor, moved: _Moved, scale: Tensor) -> None:
        """Up d/d(log T) of E(|x′ - mean|² - |x - mean|²)², as far as proposals are accepted."""
        y = torch.where(moved.diverged[:, None], x, moved.proposed / scale)
        x, y = x - x.mean(0), y - y.mean(0)
        change = y.square().sum(-1) - x.square().sum(-1)
        slope = moved.part * change * (y * moved.velocity).sum(-1)
        slope = (moved.rate * slope).sum() / moved.rate.sum().clamp_min(1e-12)
        g = slope.item()
        self.square = DECAY * self.square + (1 - DECAY) * g * g
        size = math.sqrt(self.square / (1 - DECAY**n))
        self.log_length += RATE * g / size if size > 0 else 0.0
        self.log_length = min(self.log_length, self.log_step + math.log(MOST_STEPS))
