"""Run the experiment: ``python -m experiments.generators``.

What is done is kept under ``--out``; a second run does only what is missing there, and gives the
same numbers.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

import torch

from experiments import cells
from experiments.generators import declaration, measures
from experiments.generators.ablation import trained
from experiments.generators.declaration import ARMS, FULL, MEASURES, QUICK, SEEDS, TITLES, Sizes
from experiments.generators.report import blocks
from experiments.store import Json, fingerprint
from kahler_verify.models import (
    RealVAE,
    TrainingOptions,
    load_checkpoint,
    load_data,
    train,
    uniformity,
)

VARIANCES = ("mlp", "rbf", "constant")
ABLATIONS = {
    "neither": {"noise": False, "kl": False},
    "noise": {"noise": True, "kl": False},
    "kl": {"noise": False, "kl": True},
    "both": {"noise": True, "kl": True},
}


def model_of(folder: Path, seed: int, variance: str, sizes: Sizes) -> RealVAE:
    """A trained model in double precision, from disk if it was trained before."""
    config = declaration.config(seed, variance)
    options = TrainingOptions(epochs=sizes.epochs)
    name = fingerprint({**config.to_dict(), **asdict(options)})
    path = folder / "models" / f"{variance}-{seed}-{name}.safetensors"
    if not path.exists():
        path.parent.mkdir(parents=True, exist_ok=True)
        train(config, load_data("digits-images", seed), path, options=options)
    model: Any = load_checkpoint(path).model
    return model.double().requires_grad_(False)


class Seed:
    """What is measured at one seed: a method for each cell, from arm to measure to value."""

    def __init__(self, folder: Path, seed: int, sizes: Sizes) -> None:
        self.folder, self.seed, self.sizes = folder, seed, sizes
        self.data = load_data("digits-images", seed)
        self.test = self.data.test.x.double()

    def model(self, variance: str) -> RealVAE:
        """A trained model, from disk if it was trained before."""
        return model_of(self.folder, self.seed, variance, self.sizes)

    def variance(self) -> Json:
        """Likelihoods, and σ away from data."""
        values = {}
        for name in VARIANCES:
            model = self.model(name)
            values[name] = {
                **measures.log_likelihood(model, self.test, self.sizes),
                "rise": measures.rise(model, measures.codes_of(model, self.test)),
            }
        return values

    def flatness(self) -> Json:
        """Lengths and curvature, beside a flat manifold's."""
        model = self.model("rbf")
        codes = measures.codes_of(model, self.test)
        values = {
            name: measures.flatness(metric, codes, self.sizes, self.seed)
            for name, metric in measures.metrics(model).items()
        }
        return {**values, "flat": dict.fromkeys(MEASURES["flatness"], 0.0)}

    def clusters(self) -> Json:
        """Geodesic and Euclidean k-means."""
        model, other = self.model("rbf"), self.model("mlp")
        x, labels = measures.joined(self.data.validation, self.data.test)
        return measures.clustering(
            measures.metrics(model)["expected"],
            measures.codes_of(model, x),
            measures.codes_of(other, x),
            labels,
            self.sizes,
            self.seed,
        )

    def uniformity(self) -> Json:
        """Codes of autoencoders with noise, with KL, with both and with neither."""
        values = {}
        for name, parts in ABLATIONS.items():
            model = trained(self.data, self.seed, self.sizes, **parts).double()
            with torch.no_grad():
                mean, log_variance = model.encoder(self.data.train.x.double())
            deviation = float((log_variance / 2).exp().mean() / mean.std(0).mean())
            values[name] = {**uniformity(mean.numpy())._asdict(), "deviation": deviation}
        return values


def one(seed: int, cell: str, quick: bool = False) -> Json:
    """A cell at one seed, for ``kahler-verify sweep``: where the experiment looks for it later."""
    folder, sizes = cells.ROOT / "build" / "generators", QUICK if quick else FULL
    folder = folder / "quick" if quick else folder
    of = Seed(folder, seed, sizes)
    declared = declaration.as_json(sizes)
    return cells.measured(folder, cell, seed, declared, lambda cell, _: getattr(of, cell)())


def run(folder: Path, seeds: Sequence[int], sizes: Sizes, say: Callable[[str], None]) -> Json:
    """The whole report, from disk as far as it was computed before."""
    return cells.report(
        folder,
        seeds,
        declaration.as_json(sizes),
        lambda cell, seed: getattr(Seed(folder, seed, sizes), cell)(),
        ARMS,
        MEASURES,
        TITLES,
        say,
    )


EXPERIMENT = cells.Experiment(
    name="generators",
    doc=str(__doc__),
    seeds=SEEDS,
    full=FULL,
    quick=QUICK,
    run=run,
    blocks=blocks,
    page="claims-on-generators.md",
    results="generators.json",
)

if __name__ == "__main__":
    EXPERIMENT.main()
