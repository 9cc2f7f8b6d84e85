"""Paired differences over seeds, their intervals, and the sentence that claim G8 comes down to."""

from __future__ import annotations

import math
from collections.abc import Sequence

import numpy as np

from experiments import paired
from experiments.kahler_vae.declaration import (
    ARMS,
    FURTHER,
    HEADLINE,
    MEASURES,
    OF_MODELS,
    PRIMARY,
)
from experiments.paired import LEVEL
from experiments.store import Json

STATEMENT = (
    "log-det regularisation and sampling in proportion to the volume element give smoother samples "
    "and fewer semantic outliers, at the price of variety"
)
RULE = (
    "An arm is called lower or higher than vanilla in a measure where the paired difference over "
    f"seeds has a Holm-adjusted p below {LEVEL:g} (two-sided t-test, adjusted over all comparisons "
    "of the cell); otherwise there is no clear change. The claim is read as: lower total "
    "variation, a lower rate of outliers, and lower coverage, recall or class entropy as the "
    "price. Its own arms are λ > 0, γ > 0 and both."
)
CLAIMED = ("regularised+", "weighted+", "regularised+weighted+")


def differences(cell: Json) -> list[Json]:
    """Every arm against vanilla, and further comparisons, wherever two arms can differ.

    Seeds at which a training failed are left out of its comparisons, and counted.
    """
    there = cell["values"]
    pairs = [(name, "vanilla") for name in there if name != "vanilla"]
    pairs += [(arm, against) for arm, against in FURTHER if arm in there and against in there]
    return paired.differences(
        there,
        [
            (arm, against, measure)
            for arm, against in pairs
            for measure in MEASURES  # of one and the same model some are exactly 0
            if not (ARMS[arm].training == ARMS[against].training and measure in OF_MODELS)
        ],
    )


def find(cell: Json, arm: str, measure: str, against: str = "vanilla") -> Json:
    """The comparison of two arms in a measure."""
    return next(
        row
        for row in cell["differences"]
        if (row["arm"], row["against"], row["measure"]) == (arm, against, measure)
    )


def direction(row: Json) -> str:
    """One of "lower", "higher" and "no clear change", by ``RULE``."""
    if row.get("p_holm") is None or row["p_holm"] >= LEVEL:
        return "no clear change"
    return "lower" if row["difference"] < 0 else "higher"


def mean_of(values: Sequence[float | None]) -> float:
    """The mean over the seeds at which there is a value; NaN if there is none."""
    found = [value for value in values if value is not None]
    return float(np.mean(found)) if found else math.nan


def with_interval(row: Json) -> str:
    """A difference with its interval, in the digits of its measure."""
    digits = MEASURES[row["measure"]][1]
    if row["difference"] is None:
        return "–"
    if row["low"] is None:
        return f"{row['difference']:+.{digits}f}"
    return (
        f"{row['difference']:+.{digits}f} ({row['low']:+.{digits}f} to {row['high']:+.{digits}f})"
    )


def claim(cell: Json) -> Json:
    """G8 as the ledger takes it."""
    arms = [*CLAIMED, *(n for n, a in ARMS.items() if a.kind != "reference" and n not in CLAIMED)]
    numbers = []
    for arm in arms:
        for measure in MEASURES:
            if measure in OF_MODELS and ARMS[arm].training == "plain":
                continue
            row = find(cell, arm, measure)
            title = MEASURES[measure][0]
            numbers.append(
                {
                    "what": f"{title}: {ARMS[arm].label} minus vanilla",
                    "arm": arm,
                    "measure": measure,
                    "baseline_mean": mean_of(cell["values"]["vanilla"][measure]),
                    **{k: row.get(k) for k in ("difference", "low", "high", "p_holm", "seeds")},
                }
            )
    return {
        "statement": STATEMENT,
        "verdict": "measured",
        "finding": finding(cell),
        "rule": RULE,
        "numbers": numbers,
        "cell": PRIMARY.title,
        "command": "python -m experiments.kahler_vae",
    }


def finding(cell: Json) -> str:
    """Two sentences, from the numbers by ``RULE``."""

    def count(measure: str) -> str:
        found = [direction(find(cell, arm, measure)) for arm in CLAIMED]
        low, high = found.count("lower"), found.count("higher")
        other = f" (and {high} higher)" if high else ""
        return f"{low} of {len(found)}{other}"

    smooth, clean, covered = (count(measure) for measure in HEADLINE)
    variety = f"coverage {covered}, recall {count('recall')}, entropy {count('class_entropy')}"
    both = "; ".join(
        f"{what}: {_word(cell, arm, 'outliers')}, {_word(cell, arm, 'coverage')}"
        for what, arm in (
            (f"the best of the three in outliers ({ARMS[_best(cell)].label})", _best(cell)),
            ("a Gaussian mixture fitted to encoded data, which needs no geometry", "mixture"),
        )
    )
    return (
        f"Of the claim's three arms (λ > 0; γ > 0; both), total variation was lower than vanilla's "
        f"in {smooth} and the rate of outliers in {clean}; the price in variety: {variety} lower "
        f"({len(cell['seeds'])} seeds). Differences to vanilla with 95% intervals: {both}."
    )


def _best(cell: Json) -> str:
    return min(CLAIMED, key=lambda arm: find(cell, arm, "outliers")["difference"])


def _word(cell: Json, arm: str, measure: str) -> str:
    row = find(cell, arm, measure)
    return f"{MEASURES[measure][0]} {direction(row)}, {with_interval(row)}"
