"""The page's tables, from the report."""

from __future__ import annotations

from experiments.cells import machine_words
from experiments.generators.declaration import ARMS, MEASURES
from experiments.page import table
from experiments.store import Json


def blocks(report: Json) -> dict[str, str]:
    """A table for each cell, what was declared, and where it ran."""
    found = {
        name: table(cell, *ARMS[name], MEASURES[name]) for name, cell in report["cells"].items()
    }
    sizes, declared = report["declaration"]["sizes"], report["declaration"]
    model = declared["model"]
    seeds = len(report["cells"]["variance"]["seeds"])
    found["declared"] = (
        f"Digits as images in [0, 1], 8 × 8; d = {model['latent_dim']}, hidden layers "
        f"{model['hidden']}, {model['activation']}, {sizes['epochs']} epochs; "
        f"{declared['centres']} centres. {sizes['draws']} draws for each of {sizes['held_out']} "
        f"held-out images; {sizes['pairs']} pairs; {sizes['points']} points of each class, triples "
        f"{', '.join(''.join(map(str, t)) for t in declared['triples'])}, {sizes['runs']} runs of "
        f"k-means. In the ablation σ² = {declared['variance']}. {seeds} seeds, each with its own "
        f"split; intervals of {1 - declared['level']:.0%} by t; p of paired t-tests, by Holm over "
        "a cell's comparisons."
    )
    found["machine"] = machine_words(report)
    return found
