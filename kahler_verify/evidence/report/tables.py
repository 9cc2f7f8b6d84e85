"""What the cross-check found, for the terminal."""

from __future__ import annotations

import math
from collections.abc import Sequence

import torch
from rich.box import HEAVY_HEAD, SIMPLE_HEAD
from rich.console import Console
from rich.markup import escape
from rich.table import Table
from rich.text import Text

from kahler_verify.evidence.crosscheck import CrossCheck
from kahler_verify.evidence.description import diagnosis_table
from kahler_verify.evidence.finding import Finding
from kahler_verify.evidence.report.summary import (
    ROUTE_NAMES,
    Cell,
    Line,
    bounds_in_words,
    diagnosis_title,
    kernels_and_decoder,
    routes_of,
    shown_error,
)

WIDE = 112  # columns of a terminal, from which tables have lines


def print_table(console: Console, result: CrossCheck, *, every: bool = False) -> None:
    """Print the summary, what failed, and the verdict; ``every`` prints each row too."""
    kernels, decoder = kernels_and_decoder(result)
    width = console.width
    if kernels or not decoder:
        console.print(_table("Kernels against independent routes", "derivation", kernels, width))
    if decoder:
        name = f"The decoder of {result.checkpoint}, on held-out and on random latents"
        console.print(_table(name, "quantity", decoder, width))
    if result.diagnosis is not None:
        console.print(diagnosis_table(diagnosis_title(result), result.diagnosis))
    if every:
        console.print(_rows_table("Every comparison", result.rows, width))
    if result.failed:
        console.print(_rows_table("What fell short", result.failed, width))
    for words in (*result.missing, *result.notes):
        console.print(escape(words))
    for words in bounds_in_words(result):
        console.print(f"[dim]{escape(words)}[/dim]")
    present = sum(fault.present for fault in result.faults)
    console.print(
        f"[dim]Self-test: torch {escape(torch.__version__)} has {present} of the "
        f"{len(result.faults)} known silent autograd faults; no route relies on them.[/dim]"
    )
    verdict = "[bold green]passed" if result.passed else "[bold red]FAILED"
    points = sum(row.points for row in result.rows)
    console.print(
        f"{verdict}[/]: {len(result.rows)} comparisons at {points} points, "
        f"{len(result.failed)} fell short, {result.seconds:.0f} s"
    )


def _table(title: str, subject: str, lines: Sequence[Line], width: int) -> Table:
    routes = routes_of(lines)
    table = _narrow_table(title, width)
    table.add_column(subject, overflow="fold", min_width=10)
    columns = {"points": [str(line.points) for line in lines]}
    for route in routes:
        shown = [_coloured(line.cells.get(route)) for line in lines]
        columns[ROUTE_NAMES.get(route, escape(route))] = shown
    for heading, cells in columns.items():
        _add_numbers(table, heading, cells)
    names = [escape(x.subject) + (f" ({x.size})" if x.size > 1 else "") for x in lines]
    for row in zip(names, *columns.values(), strict=True):
        table.add_row(*row)
    return table


def _narrow_table(title: str, width: int) -> Table:
    """Without vertical lines where there is little room for them."""
    narrow = width < WIDE
    return Table(
        title=escape(title),
        title_justify="left",
        title_style="bold",
        box=SIMPLE_HEAD if narrow else HEAVY_HEAD,
        padding=(0, 0) if narrow else (0, 1),
        pad_edge=not narrow,
    )


def _add_numbers(table: Table, heading: str, cells: Sequence[str]) -> None:
    """A column whose entries are never cut; its heading may take several lines."""
    words = [*heading.split(), *[Text.from_markup(cell).plain for cell in cells]]
    table.add_column(heading, justify="right", min_width=max(map(len, words)), overflow="fold")


def _coloured(cell: Cell | None) -> str:
    if cell is None:
        return ""
    text = escape(cell.text)
    return f"[green]{text}[/]" if cell.passed else f"[bold red]✗ {text}[/]"


def _rows_table(title: str, rows: Sequence[Finding], width: int) -> Table:
    table = _narrow_table(title, width)
    columns = {
        "kernel": [escape(row.what) for row in rows],
        "route": [escape(row.route) for row in rows],
        "where": [escape(row.where) for row in rows],
    }
    numbers = {
        "points": [str(row.points) for row in rows],
        "error": [
            shown_error(row) if row.passed else f"[bold red]✗ {shown_error(row)}[/]" for row in rows
        ],
        "bound": [f"{row.bound:.1e}" for row in rows],
        "cond(g)": ["" if math.isnan(row.condition) else f"{row.condition:.1f}" for row in rows],
    }
    for heading in columns:
        table.add_column(heading, overflow="fold")
    for heading, cells in numbers.items():
        _add_numbers(table, heading, cells)
    table.add_column("note", overflow="fold")
    notes = [escape(row.story) for row in rows]
    for row in zip(*columns.values(), *numbers.values(), notes, strict=True):
        table.add_row(*row)
    return table
