"""All rows of a cross-check in a few lines: by derivation or quantity, and by route."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from kahler_verify.evidence.crosscheck import CrossCheck
from kahler_verify.evidence.finding import EPSILON, MODEST, Finding
from kahler_verify.evidence.routes.complex_decoder_checks import METRIC_FLOAT32, METRIC_FLOAT64
from kahler_verify.evidence.routes.gaussians import STANDARD_ERRORS

ROUTE_NAMES = {
    "autograd": "autograd",
    "mpmath": "50 digits",
    "exact": "exact",
    "componentwise": "by component",
    "torch_kl": "torch's KL",
    "monte_carlo": "samples",
    "known": "known",
}


@dataclass(frozen=True)
class Cell:
    """All rows of one subject and one route, in a few characters."""

    text: str
    passed: bool


@dataclass(frozen=True)
class Line:
    """One line of the summary: a derivation or a quantity of the decoder, and its routes."""

    subject: str
    size: int
    points: int
    cells: Mapping[str, Cell]


def summary(rows: Sequence[Finding]) -> list[Line]:
    """Kernels by derivation, decoders by quantity."""
    groups: dict[str, list[Finding]] = {}
    for row in rows:
        module, _, quantity = row.what.partition(".")
        groups.setdefault(quantity if module == "decoder" else module, []).append(row)
    lines = []
    for subject, own in groups.items():
        by_route: dict[str, list[Finding]] = {}
        for row in own:
            by_route.setdefault(row.route, []).append(row)
        cells = {route: Cell(_worst(found), all(r.passed for r in found))
                 for route, found in by_route.items()}  # fmt: skip
        size = len({row.what for row in own})
        lines.append(Line(subject, size, sum(row.points for row in own), cells))
    return lines


def _worst(rows: Sequence[Finding]) -> str:
    failed = [row for row in rows if not row.passed]
    worst = max(failed or rows, key=lambda row: math.inf if math.isnan(row.error) else row.error)
    return shown_error(worst)


def shown_error(row: Finding) -> str:
    """An error with its unit, as tables show it."""
    if row.points == 0:
        return "not run"
    if row.unit == "exact":
        return "equal" if row.error == 0 else "differs"
    if row.unit == "standard errors":
        return f"{row.error:.1f} s.e."
    return "0" if row.error == 0 else f"{row.error:.0e}"


def kernels_and_decoder(result: CrossCheck) -> tuple[list[Line], list[Line]]:
    """The summaries of both kinds of rows."""
    on_decoder = [row for row in result.rows if row.what.startswith("decoder.")]
    return summary([row for row in result.rows if row not in on_decoder]), summary(on_decoder)


def routes_of(lines: Sequence[Line]) -> list[str]:
    """The routes of some lines, in the order of ``ROUTE_NAMES``."""
    used = {route for line in lines for route in line.cells}
    return [route for route in ROUTE_NAMES if route in used] + sorted(used - set(ROUTE_NAMES))


def diagnosis_title(result: CrossCheck) -> str:
    """What the diagnosis is of."""
    if result.diagnosis is None:
        return ""
    return f"The decoder's geometry at {result.diagnosis.points} {result.diagnosed}"


def bounds_in_words(result: CrossCheck) -> list[str]:
    """What errors and bounds are, a sentence for each."""
    frame = (
        "Largest error over all points, in the g-frame: each lower latent index divided by √g_aa, "
        "relative to the largest entry or to 1."
    )
    bound = (
        f"Bound: C ε cond(g) with C = {MODEST:g} and ε = {EPSILON:.1e}; "
        f"the largest C seen is {result.constant:.2g}. "
        f"Samples: within {STANDARD_ERRORS:g} standard errors (s.e.)."
    )
    words = [frame, bound]
    if result.checkpoint is not None:
        words.append(
            f"On the decoder the metric must agree to {METRIC_FLOAT64:g} in float64 "
            f"and to {METRIC_FLOAT32:g} in float32."
        )
    return words
