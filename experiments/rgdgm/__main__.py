"""Run the experiment: ``python -m experiments.rgdgm``.

What is done is kept under ``--out``; a second run does only what is missing there, and gives the
same numbers.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path

from experiments import cells
from experiments.generators import declaration as generators
from experiments.generators.__main__ import model_of
from experiments.generators.measures import codes_of
from experiments.rgdgm import measures
from experiments.rgdgm.declaration import (
    ARMS,
    FULL,
    MEASURES,
    QUICK,
    SEEDS,
    TITLES,
    Sizes,
    as_json,
)
from experiments.rgdgm.report import blocks
from experiments.store import Json
from kahler_verify.models import load_data


def run(folder: Path, seeds: Sequence[int], sizes: Sizes, say: Callable[[str], None]) -> Json:
    """The whole report, from disk as far as it was computed before."""

    def compute(cell: str, seed: int) -> Json:
        model = model_of(folder, seed, "mlp", generators.Sizes(epochs=sizes.epochs))
        codes = codes_of(model, load_data("digits-images", seed).test.x.double())
        found: Json = getattr(measures, cell)(model, *measures.pairs(codes, sizes, seed), sizes)
        return found

    return cells.report(folder, seeds, as_json(sizes), compute, ARMS, MEASURES, TITLES, say)


EXPERIMENT = cells.Experiment(
    name="rgdgm",
    doc=str(__doc__),
    seeds=SEEDS,
    full=FULL,
    quick=QUICK,
    run=run,
    blocks=blocks,
    page="claims-on-generators.md",
    results="rgdgm.json",
)

if __name__ == "__main__":
    EXPERIMENT.main()
