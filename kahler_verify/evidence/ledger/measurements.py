"""Measured claims: what the results of this repository's own benchmarks and experiments say.

Nothing is measured here.  A results file is read, what it says of itself is computed again from its
raw numbers, and a file in which the two do not agree is refused.
"""

from __future__ import annotations

import json
import math
import statistics
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from scipy.special import stdtr, stdtrit

from kahler_verify.calculus.claims import Comparison, Measured, Speed
from kahler_verify.codegen.registry import PACKAGE
from kahler_verify.errors import EvidenceError
from kahler_verify.evidence.ledger.items import Item

Json = dict[str, Any]
RULE = (
    "lower or higher where the two-sided t-test of the paired differences over seeds has a p, "
    "adjusted over all comparisons of the cell (Holm), below the declared level"
)
TOLERANCE = 1e-6  # between a number in a file and the same computed again


def results_folders() -> tuple[Path, ...]:
    """Where results may stand: in the wheel, or in a checkout."""
    return PACKAGE / "_results", PACKAGE.parent / "benchmarks" / "results"


def results_path(name: str) -> Path | None:
    """The results file of this name, or None where this installation has none."""
    found = [folder / name for folder in results_folders() if (folder / name).is_file()]
    return found[0] if found else None


def measured(part: Measured) -> list[Item] | None:
    """What the results say, line by line; None where there are no results.

    Raises:
        EvidenceError: the file is malformed, or contradicts its own raw numbers.
    """
    path = results_path(part.results)
    if path is None:
        return None
    try:
        report = json.loads(path.read_text(encoding="utf-8"))
    except (ValueError, RecursionError) as error:
        raise EvidenceError(f"{path.name}: expected JSON, but {error}") from error
    try:
        items = _read(part, report)
    except (LookupError, TypeError, ValueError, AttributeError) as error:
        what = f"{type(error).__name__}: {error}"
        raise EvidenceError(
            f"{path.name}: expected what `{part.command}` writes, but it is malformed ({what})"
        ) from error
    except EvidenceError as error:
        raise EvidenceError(f"{path.name}: {error}") from error
    if not sum(item.samples for item in items):
        raise EvidenceError(f"{path.name}: expected measurements, but it has none")
    return items


def _read(part: Measured, report: Json) -> list[Item]:
    match part:
        case Speed():
            return speed(part, report)
        case Comparison():
            return comparison(part, report)
    raise EvidenceError(f"expected Speed or Comparison, got {type(part).__name__}")


def _expect(what: str, found: Any, computed: float) -> None:
    if not isinstance(found, int | float) or not math.isclose(
        found, computed, rel_tol=TOLERANCE, abs_tol=1e-12
    ):
        raise EvidenceError(
            f"expected {what} to be {computed:.6g}, as the file's raw numbers have it, got {found}"
        )


def _line(what: str, outcome: str, samples: int, data: Mapping[str, Any]) -> Item:
    return Item("measurement", what, outcome, True, samples, None, dict(data))


# ---------------------------------------------------------------- speed, growth, memory


def speed(part: Speed, report: Json) -> list[Item]:
    """How many times our time others take; how our time grows; how much memory it takes."""
    rows = []
    for n, row in enumerate(report["results"]):
        if row["ratio"] is None:
            continue  # it failed, took too long or gave other numbers: a ratio would mean nothing
        _expect(f"results[{n}].ratio", row["ratio"], row["rival_seconds"] / row["ours_seconds"])
        if not row["agrees"] or not row["ratio"] > 0:
            raise EvidenceError(f"expected results[{n}] to agree with ours, as it has a ratio")
        rows.append(row)
    machine = report["machine"]
    mode = "quick grid" if machine["quick"] else "full grid"
    where = f"{machine['processor']}, {machine['threads']} thread, torch {machine['torch']}, {mode}"
    defining = [row for row in rows if row["rival"].startswith(part.defining)]
    items = [
        _ratios(f"autograd of the definition over ours, {quantity}", own)
        for quantity, own in _by_quantity(defining).items()
    ]
    items.append(_ratios("every rival, hand-written ones too, over ours", rows))
    for row in report["growth"]:
        size, exponent, count = row["in"], row["exponent"], row["count_exponent"]
        outcome = f"{size}^{exponent:.2f}, where the operation count says {size}^{count:.2f}"
        what = f"growth of our time with {size}, {row['quantity']}"
        items.append(_line(what, outcome, len(row["values"]), row))
    memory = report["memory"]
    if memory is None:
        items.append(_line("memory", "not measured in this run", 0, {}))
    else:
        sizes = ", ".join(f"{k} = {v}" for k, v in memory["sizes"].items() if isinstance(v, int))
        peak, answer = memory["peak_mib"], memory["answer_mib"]
        outcome = f"{peak:.0f} MiB at its peak, of which the answer takes {answer:.0f} MiB"
        items.append(_line(f"memory at {sizes}", outcome, 1, memory))
    items.append(_line("measured on", where, 0, machine))
    return items


def _by_quantity(rows: Sequence[Json]) -> dict[str, list[Json]]:
    groups: dict[str, list[Json]] = {}
    for row in rows:
        groups.setdefault(row["quantity"], []).append(row)
    return groups


def _ratios(what: str, rows: Sequence[Json]) -> Item:
    """The range of ratios, and how often ours was faster."""
    ratios = [row["ratio"] for row in rows]
    middle, faster = statistics.median(ratios), sum(ratio > 1 for ratio in ratios)
    outcome = (
        f"{min(ratios):.2g} to {max(ratios):.2g} times, median {middle:.2g}; "
        f"ours is faster in {faster} of {len(ratios)} comparisons"
    )
    data = {"ratios": ratios, "median": middle, "faster": faster}
    return _line(what, outcome, len(ratios), data)


# ---------------------------------------------------------------- paired comparisons


def comparison(part: Comparison, report: Json) -> list[Item]:
    """Arms against a baseline, in each measure that the claim names."""
    cell, level = report["cells"][part.cell], report["declaration"]["level"]
    if not 0 < level < 1:
        raise EvidenceError(f"expected declaration.level between 0 and 1, got {level}")
    rows = _checked_differences(cell, level)
    items, counts = [], []
    for measure, words in part.measures:
        values = [v for v in cell["values"][part.baseline][measure] if v is not None]
        baseline = statistics.fmean(values)
        found = [_change(rows[arm, part.baseline, measure], level) for arm, _ in part.arms]
        counts.append(f"{words} in {found.count('lower')} of {len(found)} arms")
        for arm, what in (*part.arms, *part.references):
            row = {**rows[arm, part.baseline, measure], "baseline_mean": baseline}
            title = f"{words}? {measure} of {what} minus {part.baseline}"
            items.append(_line(title, _difference(row, level), row["seeds"], row))
    headline = _line("found", ", ".join(counts), 0, {"rule": RULE})
    return [headline, *items, _line("measured on", cell["title"], 0, {})]


def _change(row: Json, level: float) -> str:
    """By RULE."""
    if row["p_holm"] is None or row["p_holm"] >= level:
        return "no clear change"
    return "lower" if row["difference"] < 0 else "higher"


def _difference(row: Json, level: float) -> str:
    """A change in words, with its interval."""
    if row["p_holm"] is None:
        return f"not known from {row['seeds']} seeds"
    return (
        f"{_change(row, level)}, {row['difference']:+.3g} ({row['low']:+.3g} to "
        f"{row['high']:+.3g}, {1 - level:.0%}) from {row['baseline_mean']:.3g}, "
        f"{row['seeds']} seeds, adjusted p = {row['p_holm']:.2g}"
    )


def _checked_differences(cell: Json, level: float) -> dict[tuple[str, str, str], Json]:
    """The cell's table of differences by (arm, against, measure), computed again and compared."""
    rows: dict[tuple[str, str, str], Json] = {}
    for found in cell["differences"]:
        key = found["arm"], found["against"], found["measure"]
        ours, others = (cell["values"][name][key[2]] for name in key[:2])
        pairs = [
            a - b for a, b in zip(ours, others, strict=True) if a is not None and b is not None
        ]
        rows[key] = {**_paired(pairs, level), "seeds": len(pairs)}
    tested = [row for row in rows.values() if row["p"] is not None]
    for rank, row in enumerate(sorted(tested, key=lambda row: row["p"])):  # Holm's, step by step
        before = max((r["p_holm"] for r in tested if "p_holm" in r), default=0.0)
        row["p_holm"] = max(before, min(1.0, (len(tested) - rank) * row["p"]))
    for found in cell["differences"]:
        key = found["arm"], found["against"], found["measure"]
        for name in ("difference", "low", "high", "p", "p_holm", "seeds"):
            computed, what = rows[key].setdefault(name, None), f"{name} of {' / '.join(key)}"
            if computed is None and found.get(name) is not None:
                raise EvidenceError(f"expected no {what}, got {found[name]}")
            if computed is not None:
                _expect(what, found.get(name), computed)
    return rows


def _paired(differences: Sequence[float], level: float) -> Json:
    """The mean, its t-interval and the two-sided p of mean 0; None where there are too few."""
    n = len(differences)
    if n < 2:
        return {"difference": differences[0] if n else None, "low": None, "high": None, "p": None}
    mean = statistics.fmean(differences)
    error = statistics.stdev(differences) / math.sqrt(n)
    half = float(stdtrit(n - 1, 1 - level / 2)) * error
    if error == 0:
        p = 1.0 if mean == 0 else 0.0
    else:
        p = 2 * float(stdtr(n - 1, -abs(mean) / error))
    return {"difference": mean, "low": mean - half, "high": mean + half, "p": p}
