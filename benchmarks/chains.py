"""Vectorised chains beside Pyro's NUTS: ``python -m benchmarks.chains``.

Both draw latents of trained decoders in proportion to prior × (√det g)^γ, in turns, warm-up
counted; for γ > 0, where that may be improper, in the ball that has 70% of the prior.  A number is
the median over rounds, each with a seed of its own; time is CPU time of one thread.  Effective
samples are of the slowest of all coordinates and log(1 + |z|²).
"""

from __future__ import annotations

import argparse
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from statistics import median

import torch
from scipy.stats import chi2
from scipy.stats import gamma as gamma_law

from benchmarks.page import put
from kahler_verify.geometry import FisherMetric, Metric
from kahler_verify.geometry.fisher_rao import FisherRaoMetric
from kahler_verify.models import RealVAEConfig, TrainingOptions, VAEConfig, load_data, train
from kahler_verify.statistics import Draws, VolumeTarget, run_chains, vectorised_chains

EPOCHS = 40
DRAWS = WARMUP = 100
CHAINS, NUTS_CHAINS = 64, 2
PART = 0.7  # of the prior, in a ball


def metrics() -> dict[str, tuple[Metric, int]]:
    """Fisher metrics of digits' decoders, at complex and at real latents, with d."""
    out: dict[str, tuple[Metric, int]] = {}
    for name, source, config, kind in (
        ("C^4, k-space", "digits", VAEConfig(seed=0), FisherMetric),
        ("R^2, images", "digits-images", RealVAEConfig(data="digits-images"), FisherRaoMetric),
    ):
        with tempfile.TemporaryDirectory() as folder:
            options = TrainingOptions(epochs=EPOCHS)
            data = load_data(source, 0)
            model = train(config, data, Path(folder) / "model", options=options).model.double()
        decoder = model.decoder.requires_grad_(False)
        out[name] = (kind(decoder, validate_args=False), config.latent_dim)
    return out


def radius(metric: Metric, d: int, gamma: float) -> float | None:
    """Of the ball: |z|² is a χ² of d degrees on R^d, and a gamma variable of shape d on C^d."""
    if gamma <= 0:
        return None
    square = gamma_law.ppf(PART, d) if metric.space.complex else chi2.ppf(PART, d)
    return float(square**0.5)


def timed(run: Callable[[], Draws]) -> tuple[Draws, float]:
    """Draws, and their seconds of CPU time."""
    began = time.process_time()
    return run(), time.process_time() - began


def mean_log_square(draws: Draws) -> float:
    """E log(1 + |z|²)."""
    return float(torch.log1p((draws.z * draws.z.conj()).real.sum(-1)).mean())


def row(name: str, target: VolumeTarget, rounds: int) -> str:
    """Of the table: effective samples a second, and what both say of the law."""
    found: dict[str, list[tuple[Draws, float]]] = {"ours": [], "nuts": []}
    for seed in range(rounds):
        found["ours"].append(
            timed(
                lambda seed=seed: vectorised_chains(
                    target, DRAWS, chains=CHAINS, warmup=WARMUP, seed=seed
                )
            )
        )
        found["nuts"].append(
            timed(
                lambda seed=seed: run_chains(
                    target, DRAWS, chains=NUTS_CHAINS, warmup=WARMUP, seed=seed
                )
            )
        )
    rate = {k: median(d.effective_sample_size / t for d, t in v) for k, v in found.items()}
    means = {k: median(mean_log_square(d) for d, _ in v) for k, v in found.items()}
    worst = {k: max(d.r_hat or 0 for d, _ in v) for k, v in found.items()}
    gradients = median(d.details["gradients"] for d, _ in found["ours"])
    return (
        f"| {name} | {target.gamma:+.0f} | {rate['ours']:.0f} | {rate['nuts']:.1f} | "
        f"{rate['ours'] / rate['nuts']:.0f} | {gradients:.0f} | {worst['ours']:.2f}, "
        f"{worst['nuts']:.2f} | {means['ours']:.3f}, {means['nuts']:.3f} |"
    )


HEAD = """\
| latents | γ | vectorised | NUTS | ratio | gradients | R-hat at most | E log(1 + \\|z\\|²) |
|---|---|---|---|---|---|---|---|"""


def main() -> None:
    """Print the table, and put it into the page."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--rounds", type=int, default=1)
    parser.add_argument("--gamma", type=float, nargs="+", default=[-1.0, 1.0])
    parser.add_argument("--page", type=Path)
    options = parser.parse_args()
    torch.set_num_threads(1)
    rows = [
        row(name, VolumeTarget(metric, d, gamma, radius=radius(metric, d, gamma)), options.rounds)
        for name, (metric, d) in metrics().items()
        for gamma in options.gamma
    ]
    table = "\n".join([HEAD, *rows])
    print(table)
    if options.page is not None:
        put(options.page, {"table": table}, "chains")


if __name__ == "__main__":
    main()
