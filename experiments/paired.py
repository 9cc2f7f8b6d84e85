"""Paired differences over seeds, with intervals and Holm's adjustment: for every experiment."""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping, Sequence

import numpy as np
from scipy.stats import t as student

from experiments.store import Json

LEVEL = 0.05  # of Holm-adjusted tests, and 1 - LEVEL is that of the intervals

Values = Mapping[str, Mapping[str, Sequence[float | None]]]  # of each seed, by arm and measure


def interval(differences: Sequence[float]) -> tuple[float, float, float, float]:
    """The mean of paired differences, the ends of its t-interval, and the two-sided p of mean 0.

    mean ± t_{1-α/2, n-1} s/√n, with α = ``LEVEL``. Fewer than two differences give no interval:
    NaN.
    """
    n = len(differences)
    mean = float(np.mean(differences)) if n else math.nan
    if n < 2:
        return mean, math.nan, math.nan, math.nan
    error = float(np.std(differences, ddof=1)) / math.sqrt(n)
    if error == 0:
        return mean, mean, mean, 1.0 if mean == 0 else 0.0
    half = float(student.ppf(1 - LEVEL / 2, n - 1)) * error
    p = 2 * float(student.sf(abs(mean) / error, n - 1))
    return mean, mean - half, mean + half, p


def holm(p_values: Sequence[float]) -> list[float]:
    """Holm's step-down adjusted p-values, in the given order."""
    order = np.argsort(p_values)
    adjusted = [0.0] * len(p_values)
    running = 0.0
    for rank, index in enumerate(order):
        running = max(running, min(1.0, (len(p_values) - rank) * p_values[index]))
        adjusted[index] = running
    return adjusted


def differences(values: Values, comparisons: Iterable[tuple[str, str, str]]) -> list[Json]:
    """Of (arm, against, measure): the mean over seeds, its interval, and Holm's p over all.

    Seeds at which one of the two has no value are left out, and counted as failed.
    """
    rows: list[Json] = []
    for arm, against, measure in comparisons:
        pairs = list(zip(values[arm][measure], values[against][measure], strict=True))
        found = [a - b for a, b in pairs if a is not None and b is not None]
        mean, low, high, p = interval(found)
        rows.append(
            {
                "arm": arm,
                "against": against,
                "measure": measure,
                "difference": mean,
                "low": low,
                "high": high,
                "p": p,
                "seeds": len(found),
                "failed": len(pairs) - len(found),
            }
        )
    tested = [row for row in rows if not math.isnan(row["p"])]
    for row, adjusted in zip(tested, holm([row["p"] for row in tested]), strict=True):
        row["p_holm"] = adjusted
    return [{key: _number(value) for key, value in row.items()} for row in rows]


def _number(value: object) -> object:
    """JSON has no NaN."""
    return None if isinstance(value, float) and math.isnan(value) else value
