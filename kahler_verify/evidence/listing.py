"""Tables of evidence for the terminal."""

from __future__ import annotations

from rich.console import Console
from rich.table import Table

from kahler_verify.evidence.ledger import Judgement, Ledger

STYLES = {
    "holds": "green",
    "holds under A": "yellow",
    "refuted": "red",
    "measured": "cyan",
    "open": "dim",
}


def print_ledger(console: Console, ledger: Ledger) -> None:
    """Print verdicts with their evidence, then the kernels."""
    table = Table("claim", "verdict", "statement and evidence", title="Claims", show_lines=True)
    for judgement in ledger.claims:
        style = STYLES[judgement.verdict]
        table.add_row(judgement.id, f"[{style}]{judgement.verdict}[/{style}]", _story(judgement))
    if ledger.claims:
        console.print(table)
    if ledger.kernels:
        kernels = Table(title="Kernels")
        for heading in ("checked", "outcome", "samples", "error below"):
            kernels.add_column(heading, overflow="fold")
        for item in ledger.kernels:
            style = "green" if item.passed else "bold red"
            bound = f"2^{item.error_log2:.0f}" if item.error_log2 is not None else ""
            outcome = f"[{style}]{item.outcome}[/{style}]"
            kernels.add_row(item.what, outcome, str(item.samples), bound)
        console.print(kernels)
    counts = {v: sum(j.verdict == v for j in ledger.claims) for v in STYLES}
    summary = ", ".join(f"{count} {verdict}" for verdict, count in counts.items() if count)
    wrong = sum(not item.passed for item in ledger.kernels)
    if ledger.kernels:
        summary += ("; " if summary else "") + f"{len(ledger.kernels) - wrong} checks of kernels passed"
        summary += f", {wrong} failed" if wrong else ""
    console.print(summary, highlight=False)


def _story(judgement: Judgement) -> str:
    lines = [judgement.statement.replace("[", r"\[")]
    if judgement.waits_for:
        lines.append(f"waits for: {judgement.waits_for}")
    if judgement.under:
        lines.append("under: " + "; ".join(judgement.under))
    witnesses = [i for i in judgement.evidence if i.route == "exact witness"]
    for item in witnesses:
        lines.append(f"witness {item.what}: {item.outcome}".replace("[", r"\["))
    routes: dict[str, int] = {}
    for item in judgement.evidence:
        if item.route != "exact witness" and item.passed:
            routes[item.route] = routes.get(item.route, 0) + item.samples
    bounds = [i.error_log2 for i in judgement.evidence if i.passed and i.error_log2 is not None]
    if routes:
        story = ", ".join(f"{route} ({n})" for route, n in routes.items())
        lines.append("evidence: " + story + (f", error < 2^{max(bounds):.0f}" if bounds else ""))
    return "\n".join(lines)
