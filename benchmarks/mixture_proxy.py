"""How rough a proxy the mixture potential is: ``python -m benchmarks.mixture_proxy``.

Decoders trained on the digits' k-space (d = 4, D = 32, h = 64) for a few epochs, and mixtures
fitted to their Fisher metrics at encoded training data.  Judged at encoded test data, and at twice
those latents.  A number is the mean over seeds (of data, decoder and fit), with least and greatest.
"""

from __future__ import annotations

import argparse
import tempfile
from collections.abc import Sequence
from functools import partial
from pathlib import Path
from statistics import mean

import torch
from torch import Tensor

from benchmarks.timing import interleave
from kahler_verify.geometry import FisherMetric, HermitianMetric
from kahler_verify.models import TrainingOptions, VAEConfig, load_data, train
from kahler_verify.statistics.proxy import Agreement, agreement, fit_mixture

COMPONENTS = (8, 32)
EPOCHS = 40
STEPS = 500


def _trained(covariance: str, seed: int) -> tuple[FisherMetric, Tensor, Tensor]:
    """A decoder's metric, and encoded training and test data."""
    data = load_data("digits", seed)
    config = VAEConfig(covariance=covariance, seed=seed)  # type: ignore[arg-type]
    with tempfile.TemporaryDirectory() as folder:
        options = TrainingOptions(epochs=EPOCHS)
        model = train(config, data, Path(folder) / "model", options=options).model.double()
    with torch.no_grad():
        encoded = [model.encoder(x.to(torch.complex128))[0] for x in (data.train.x, data.test.x)]
    for parameter in model.parameters():
        parameter.requires_grad_(False)
    return FisherMetric(model.decoder, validate_args=False), encoded[0], encoded[1]


def _range(values: Sequence[float], digits: int = 2) -> str:
    low, middle, high = min(values), mean(values), max(values)
    return f"{middle:.{digits}f} ({low:.{digits}f} to {high:.{digits}f})"


def _row(covariance: str, name: str, where: str, found: list[Agreement]) -> str:
    correlations = [a.log_volume_correlation for a in found if a.log_volume_correlation is not None]
    ratios = [a.eigenvalue_ratios for a in found]
    low, high = min(r[0] for r in ratios), max(r[2] for r in ratios)
    return (
        f"| {covariance} | {name} | {where} | {_range([a.relative_error for a in found])} | "
        f"{_range(correlations) if correlations else 'none'} | {low:.1g} to {high:.2g} |"
    )


def main() -> None:
    """Print the tables."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--seeds", type=int, default=3)
    seeds = range(parser.parse_args().seeds)
    torch.set_num_threads(1)
    print("| Σ | metric | where | relative error | log-volume correlation | eigenvalues of g⁻¹h |")
    print("|---|---|---|---|---|---|", flush=True)
    speed: dict[str, list[float]] = {}
    for covariance in ("constant", "diagonal"):
        rows: dict[tuple[str, str], list[Agreement]] = {}
        for seed in seeds:
            target, fitted, test = _trained(covariance, seed)
            for components in COMPONENTS:
                fit = fit_mixture(target, fitted, components=components, steps=STEPS, seed=seed)
                metrics: dict[str, HermitianMetric] = {f"fitted, K = {components}": fit.metric}
                if components == COMPONENTS[0]:
                    metrics[f"closed form, K = {components}"] = fit.initial
                    metrics["mean of g"] = fit.mean
                    metrics["best constant"] = fit.constant
                for name, metric in metrics.items():
                    for where, z in (("near", test), ("away", 2 * test)):
                        rows.setdefault((name, where), []).append(agreement(metric, target, z))
                fit.metric.validate_args = False
                pairs = interleave(
                    partial(fit.metric.metric_matrix, test),
                    {"decoder": partial(target.metric_matrix, test)},
                    seconds=1,
                )
                speed.setdefault(f"{covariance} Σ, K = {components}", []).append(
                    pairs["decoder"].ratio
                )
        for (name, where), found in sorted(rows.items(), key=lambda row: row[0][1], reverse=True):
            print(_row(covariance, name, where, found), flush=True)
    for name, ratios in speed.items():
        print(f"decoder's time over the mixture's, g at {len(test)} points, {name}: ", end="")
        print(_range(ratios))


if __name__ == "__main__":
    main()
