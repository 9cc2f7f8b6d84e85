"""Run the experiment: ``python -m experiments.spheres``.

What is done is kept under ``--out``; a second run does only what is missing there, and gives the
same numbers.
"""

from __future__ import annotations

from pathlib import Path

from experiments import cells
from experiments.spheres import declaration, measures
from experiments.spheres.declaration import Sizes, config
from experiments.store import Json, fingerprint
from kahler_verify.models import (
    QuantisedVAE,
    TrainingOptions,
    load_checkpoint,
    load_data,
    train,
)


def model_of(folder: Path, seed: int, sizes: Sizes) -> QuantisedVAE:
    """A trained model in double precision, from disk if it was trained before."""
    own = config(seed, sizes)
    name = fingerprint({**own.to_dict(), "epochs": sizes.epochs})
    path = folder / "models" / f"{seed}-{name}.safetensors"
    if not path.exists():
        path.parent.mkdir(parents=True, exist_ok=True)
        options = TrainingOptions(epochs=sizes.epochs)
        train(own, load_data("digits-images", seed), path, options=options)
    model = load_checkpoint(path).model
    assert isinstance(model, QuantisedVAE)
    return model.double().requires_grad_(False)


def compute(folder: Path, seed: int, cell: str, sizes: Sizes) -> Json:  # noqa: ARG001
    """The one cell that there is."""
    x = load_data("digits-images", seed).test.x.double()
    return measures.limit(model_of(folder, seed, sizes), x, sizes)


EXPERIMENT = cells.Experiment(
    "spheres", str(__doc__), declaration, compute, "claims-on-generators.md", "spheres.json"
)

if __name__ == "__main__":
    EXPERIMENT.main()
