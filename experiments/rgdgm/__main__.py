"""Run the experiment: ``python -m experiments.rgdgm``.

What is done is kept under ``--out``; a second run does only what is missing there, and gives the
same numbers.
"""

from __future__ import annotations

from pathlib import Path

from experiments import cells
from experiments.generators import declaration as generators
from experiments.generators.measures import codes_of, flatness_of
from experiments.generators.models import model_of
from experiments.rgdgm import convolutional, declaration, measures
from experiments.rgdgm.declaration import Sizes
from experiments.store import Json
from kahler_verify.models import load_data


def compute(folder: Path, seed: int, cell: str, sizes: Sizes) -> Json:
    """A function of ``measures`` for each cell; S4's is that of the experiment on generators."""
    data = load_data("digits-images", seed)
    x = data.test.x.double()
    if cell == "convolutional":
        convolved = convolutional.model_of(folder, data, seed, sizes.epochs)
        return flatness_of(convolved, codes_of(convolved, x), sizes.lines, seed)
    model = model_of(folder, seed, "mlp", generators.Sizes(epochs=sizes.epochs))
    codes = codes_of(model, x)
    found: Json = getattr(measures, cell)(model, *measures.pairs(codes, sizes, seed), sizes)
    return found


EXPERIMENT = cells.Experiment(
    "rgdgm", str(__doc__), declaration, compute, "claims-on-generators.md", "rgdgm.json"
)

if __name__ == "__main__":
    EXPERIMENT.main()
