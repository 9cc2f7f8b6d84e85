"""The page's table of what validation chose."""

from __future__ import annotations

from collections import Counter

from experiments.land.declaration import DATA
from experiments.store import Json


def chosen(report: Json) -> str:
    """Numbers of components, and what was not found, over the seeds."""
    lines = [
        "| | K of LAND, seeds | K of the Gaussian mixture, seeds | not reached | failed fits |",
        "| --- | --- | --- | --- | --- |",
    ]
    for name, (words, _) in DATA.items():
        rows = [details[name] for details in report["cells"]["free"]["details"]]
        counts = []
        for kind in ("land", "mixture"):
            found = Counter(row["chosen"][kind] for row in rows)
            counts.append(", ".join(f"{k}: {n}" for k, n in sorted(found.items())))
        unreached, failed = (sum(row[what] for row in rows) for what in ("unreached", "failed"))
        lines.append(f"| {words} | {counts[0]} | {counts[1]} | {unreached} | {failed} |")
    return "\n".join(lines)
