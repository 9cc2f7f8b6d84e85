"""Run the experiment: ``python -m experiments.rgdgm``.

What is done is kept under ``--out``; a second run does only what is missing there, and gives the
same numbers.
"""

from __future__ import annotations

from pathlib import Path

from experiments import cells
from experiments.generators import declaration as generators
from experiments.generators.measures import codes_of
from experiments.generators.models import model_of
from experiments.rgdgm import declaration, measures
from experiments.rgdgm.declaration import Sizes
from experiments.store import Json
from kahler_verify.models import load_data


def compute(folder: Path, seed: int, cell: str, sizes: Sizes) -> Json:
    """A function of ``measures`` for each cell."""
    model = model_of(folder, seed, "mlp", generators.Sizes(epochs=sizes.epochs))
    codes = codes_of(model, load_data("digits-images", seed).test.x.double())
    found: Json = getattr(measures, cell)(model, *measures.pairs(codes, sizes, seed), sizes)
    return found


EXPERIMENT = cells.Experiment(
    "rgdgm", str(__doc__), declaration, compute, "claims-on-generators.md", "rgdgm.json"
)

if __name__ == "__main__":
    EXPERIMENT.main()
