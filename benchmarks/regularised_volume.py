"""What the regularizers do to the true volume: ``python -m benchmarks.regularised_volume``.

Decoders of digits in k-space (d = 4, D = 32, h = 64, diagonal Σ) trained for 40 epochs with λ of
both signs, by the decoder's own log volume and by that of its closed-form mixture.  What is shown
is the decoder's own log volume at encoded test data, and the held-out ELBO: means over seeds, with
least and greatest.
"""

from __future__ import annotations

import argparse
import tempfile
from collections.abc import Sequence
from pathlib import Path
from statistics import mean

import torch

from kahler_verify.geometry import FisherMetric
from kahler_verify.models import TrainingOptions, VAEConfig, load_data, train

ARMS = (("none", 0.0), ("fisher", 0.3), ("mixture", 0.3), ("fisher", -0.3), ("mixture", -0.3))
EPOCHS = 40


def measure(metric: str, weight: float, seed: int) -> tuple[float, float, float]:
    """The log volume's mean and standard deviation over test data, and the held-out ELBO."""
    data = load_data("digits", seed)
    chosen = {"metric": metric, "regularizer": "log-volume", "weight": weight} if weight else {}
    options = TrainingOptions(epochs=EPOCHS, **chosen)  # type: ignore[arg-type]
    with tempfile.TemporaryDirectory() as folder:
        trained = train(VAEConfig(seed=seed), data, Path(folder) / "model", options=options)
    model = trained.model.double()
    with torch.no_grad():
        z = model.encoder(data.test.x.to(torch.complex128))[0]
        volume = FisherMetric(model.decoder).log_volume(z)
    return float(volume.mean()), float(volume.std()), trained.report["test_elbo"]


def _range(values: Sequence[float]) -> str:
    return f"{mean(values):.2f} ({min(values):.2f} to {max(values):.2f})"


def main() -> None:
    """Print the table."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--seeds", type=int, default=3)
    seeds = range(parser.parse_args().seeds)
    torch.set_num_threads(1)
    print("| metric | λ | log volume, mean | log volume, spread | held-out ELBO, nats |")
    print("|---|---|---|---|---|")
    for metric, weight in ARMS:
        columns = zip(*[measure(metric, weight, seed) for seed in seeds], strict=True)
        cells = " | ".join(_range(column) for column in columns)
        print(f"| {metric} | {weight:g} | {cells} |", flush=True)


if __name__ == "__main__":
    main()
