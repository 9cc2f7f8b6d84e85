"""The page's tables, from the report."""

from __future__ import annotations

from experiments.cells import machine_words
from experiments.page import table
from experiments.spheres.declaration import ARMS, MEASURES
from experiments.store import Json


def blocks(report: Json) -> dict[str, str]:
    """A table for each cell, what was declared, and where it ran."""
    found = {
        name: table(cell, *ARMS[name], MEASURES[name]) for name, cell in report["cells"].items()
    }
    declared = report["declaration"]
    sizes = declared["sizes"]
    found["declared"] = (
        f"Digits as images, one code of {sizes['codes']} in the plane for each, {sizes['epochs']} "
        f"epochs; {sizes['draws']} draws of each ball. Radii are in units of the median distance "
        f"of a code to the nearest other. {len(report['cells']['limit']['seeds'])} seeds; "
        f"intervals of {1 - declared['level']:.0%} by t; p of paired t-tests, by Holm over a "
        "cell's comparisons."
    )
    found["machine"] = machine_words(report)
    return found
