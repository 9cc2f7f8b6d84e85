"""Run the experiment: ``python -m experiments.spheres``.

What is done is kept under ``--out``; a second run does only what is missing there, and gives the
same numbers.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path

from experiments import cells
from experiments.spheres import measures
from experiments.spheres.declaration import (
    ARMS,
    FULL,
    MEASURES,
    QUICK,
    SEEDS,
    TITLES,
    Sizes,
    as_json,
    config,
)
from experiments.spheres.report import blocks
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


def run(folder: Path, seeds: Sequence[int], sizes: Sizes, say: Callable[[str], None]) -> Json:
    """The whole report, from disk as far as it was computed before."""

    def compute(_: str, seed: int) -> Json:
        x = load_data("digits-images", seed).test.x.double()
        return measures.limit(model_of(folder, seed, sizes), x, sizes)

    return cells.report(folder, seeds, as_json(sizes), compute, ARMS, MEASURES, TITLES, say)


EXPERIMENT = cells.Experiment(
    name="spheres",
    doc=str(__doc__),
    seeds=SEEDS,
    full=FULL,
    quick=QUICK,
    run=run,
    blocks=blocks,
    page="claims-on-generators.md",
    results="spheres.json",
)

if __name__ == "__main__":
    EXPERIMENT.main()
