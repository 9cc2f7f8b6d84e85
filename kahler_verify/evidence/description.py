"""A diagnosis as rows of text, for tables in the terminal and on a page."""

from __future__ import annotations

from rich.markup import escape
from rich.table import Table

from kahler_verify.geometry.diagnosis import Diagnosis

HEADINGS = ("quantity", "minimum", "median", "maximum", "meaning")


def rows(diagnosis: Diagnosis) -> list[tuple[str, str, str, str, str]]:
    """A row for each quantity, under HEADINGS."""
    out = []
    for quantity in diagnosis.quantities:
        low, middle, high = (
            f"{quantity.summary()[name]:.3g}" for name in ("minimum", "median", "maximum")
        )
        out.append((quantity.name, low, middle, high, quantity.meaning))
    return out


def diagnosis_table(title: str, diagnosis: Diagnosis) -> Table:
    """The table that ``diagnose`` and ``verify`` print."""
    table = Table(title=escape(title), title_justify="left", title_style="bold")
    for heading in HEADINGS:
        justify = "right" if heading in ("minimum", "median", "maximum") else "left"
        table.add_column(heading, overflow="fold", justify=justify)  # type: ignore[arg-type]
    for row in rows(diagnosis):
        table.add_row(*[escape(cell) for cell in row])
    return table
