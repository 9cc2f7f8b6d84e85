"""Run the experiment: ``python -m experiments.generators``.

What is done is kept under ``--out``; a second run does only what is missing there, and gives the
same numbers.
"""

from __future__ import annotations

from pathlib import Path

import torch

from experiments import cells
from experiments.generators import declaration, measures, pictures
from experiments.generators.ablation import trained
from experiments.generators.declaration import Sizes
from experiments.generators.models import model_of
from experiments.store import Json
from kahler_verify.models import RealVAE, load_data, uniformity

VARIANCES = ("mlp", "rbf", "constant")
ABLATIONS = {
    "neither": {"noise": False, "kl": False},
    "noise": {"noise": True, "kl": False},
    "kl": {"noise": False, "kl": True},
    "both": {"noise": True, "kl": True},
}


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
        return measures.flatness_of(model, codes, self.sizes.pairs, self.seed)

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


def compute(folder: Path, seed: int, cell: str, sizes: Sizes) -> Json:
    """A method of :class:`Seed` for each cell."""
    found: Json = getattr(Seed(folder, seed, sizes), cell)()
    return found


EXPERIMENT = cells.Experiment(
    "generators",
    str(__doc__),
    declaration,
    compute,
    "claims-on-generators.md",
    "generators.json",
    pictures=pictures.draw,
)

if __name__ == "__main__":
    EXPERIMENT.main()
