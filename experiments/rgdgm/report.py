"""The page's tables, from the report."""

from __future__ import annotations

from experiments.cells import machine_words
from experiments.page import table
from experiments.rgdgm.declaration import ARMS, MEASURES
from experiments.store import Json


def blocks(report: Json) -> dict[str, str]:
    """A table for each cell, what was declared, and where it ran."""
    found = {
        name: table(cell, *ARMS[name], MEASURES[name]) for name, cell in report["cells"].items()
    }
    declared = report["declaration"]
    sizes = declared["sizes"]
    found["declared"] = (
        f"The models of the experiment on generators, of MLP variance; their decoders' means. "
        f"{sizes['pairs']} pairs of held-out codes, {sizes['chords']} chords, at most "
        f"{sizes['sweeps']} sweeps from straight lines. "
        f"{len(report['cells']['paths']['seeds'])} seeds; intervals of {1 - declared['level']:.0%} "
        "by t; p of paired t-tests, by Holm over a cell's comparisons."
    )
    found["machine"] = machine_words(report)
    return found
