"""The page's tables, from the report."""

from __future__ import annotations

from collections import Counter

from experiments.cells import machine_words
from experiments.land.declaration import ARMS, DATA, MEASURES
from experiments.page import table
from experiments.store import Json


def blocks(report: Json) -> dict[str, str]:
    """A table for each cell, what was declared, what was chosen, and where it ran."""
    found = {
        name: table(cell, *ARMS[name], MEASURES[name]) for name, cell in report["cells"].items()
    }
    declared = report["declaration"]
    sizes = declared["sizes"]
    most = ", ".join(f"{row[1]} ({name})" for name, row in declared["data"].items())
    found["declared"] = (
        f"{sizes['train']} points to fit to, {sizes['validation']} to validate with, "
        f"{sizes['test']} to test with; {len(report['cells']['free']['seeds'])} seeds. Gaussian "
        f"mixtures have up to {sizes['gaussians']} components, each of {sizes['starts']} starts. "
        f"LANDs have up to {most} in the data metric, σ {declared['factor']:g} times the mean "
        f"distance to the {declared['neighbour']}th neighbour, as a pilot chose on half a circle. "
        f"{sizes['rays']} geodesics in a fan; a fit ends where an iteration gains less than "
        f"{sizes['tolerance']:g} nats. A point that no geodesic reaches counts "
        f"{declared['floor']:g} nats. Intervals of {1 - declared['level']:.0%} by t; "
        "p of paired t-tests, by Holm over a cell's comparisons."
    )
    lines = [
        "| | K of LAND, seeds | K of the Gaussian mixture, seeds | not reached | failed fits |"
    ]
    lines.append("| --- | --- | --- | --- | --- |")
    for name, (words, _) in DATA.items():
        rows = report["chosen"][name]
        counts = [
            ", ".join(f"{k}: {n}" for k, n in sorted(Counter(row[kind] for row in rows).items()))
            for kind in ("land", "mixture")
        ]
        lines.append(
            f"| {words} | {counts[0]} | {counts[1]} | {report['unreached'][name]} | "
            f"{report['failed'][name]} |"
        )
    found["chosen"] = "\n".join(lines)
    found["machine"] = machine_words(report)
    return found
