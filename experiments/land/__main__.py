"""Run the experiment: ``python -m experiments.land``.

What is done is kept under ``--out``; a second run does only what is missing there, and gives the
same numbers.
"""

from __future__ import annotations

from functools import partial
from pathlib import Path

from experiments import cells
from experiments.land import declaration, densities
from experiments.land.declaration import ARMS, DATA, EQUAL, Sizes, as_json
from experiments.land.report import chosen
from experiments.store import Json, remembered


def compute(folder: Path, seed: int, cell: str, sizes: Sizes) -> Json:
    """Of all sets, whose fits serve both cells and are kept one by one."""
    rows = {}
    for name in DATA:
        depends = {"seed": seed, "declaration": as_json(sizes)}
        rows[name] = remembered(
            folder,
            f"{name}-{seed}",
            depends,
            partial(densities.compared, folder, name, seed, sizes),
        )
    arms = (ARMS[cell][0], *ARMS[cell][1])
    if cell == "equal":
        return {
            arm: {f"{name}_{k}": rows[name]["equal"][arm][i]
                  for name in DATA for i, k in enumerate(EQUAL)}
            for arm in arms
        }  # fmt: skip
    values: Json = {arm: {name: rows[name]["free"][arm] for name in DATA} for arm in arms}
    details = {
        name: {
            "chosen": row["chosen"],
            "unreached": sum(each["unreached"] for each in row["lands"].values()),
            "failed": sum("failure" in each for each in row["lands"].values()),
        }
        for name, row in rows.items()
    }
    return {**values, "details": details}


EXPERIMENT = cells.Experiment(
    "land",
    str(__doc__),
    declaration,
    compute,
    "land.md",
    "land_l6.json",
    more=lambda report: {"chosen": chosen(report)},
)

if __name__ == "__main__":
    EXPERIMENT.main()
