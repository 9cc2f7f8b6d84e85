"""Tables of evidence for the terminal."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager

from rich.console import Console
from rich.progress import BarColumn, Progress, TextColumn
from rich.table import Table

from kahler_verify.evidence.ledger.items import Item, Judgement, Ledger
from kahler_verify.evidence.mutants.verdicts import MutantResult
from kahler_verify.evidence.routes.torch_faults.self_test import FaultReport
from kahler_verify.jets.support import Support

STYLES = {
    "holds": "green",
    "holds under A": "yellow",
    "refuted": "red",
    "measured": "cyan",
    "open": "dim",
}


def print_ledger(console: Console, ledger: Ledger) -> None:
    """Print verdicts with their evidence, then the kernels."""
    table = Table(title="Claims", show_lines=True)
    for heading in ("claim", "verdict", "statement and evidence"):
        table.add_column(heading, overflow="fold")
    for judgement in ledger.claims:
        style = STYLES[judgement.verdict]
        table.add_row(judgement.id, f"[{style}]{judgement.verdict}[/{style}]", _story(judgement))
    if ledger.claims:
        console.print(table)
    if ledger.kernels:
        kernels = Table(title="Kernels and properties")
        for heading in ("checked", "outcome", "samples", "error below"):
            kernels.add_column(heading, overflow="fold")
        for item in [i for i in ledger.kernels if i not in ledger.methods]:
            style = "green" if item.passed else "bold red"
            bound = f"2^{item.error_log2:.0f}" if item.error_log2 is not None else ""
            outcome = f"[{style}]{item.outcome}[/{style}]"
            kernels.add_row(item.what, outcome, str(item.samples), bound)
        console.print(kernels)
    if ledger.methods:
        console.print(_methods_table(ledger.methods))
    counts = {v: sum(j.verdict == v for j in ledger.claims) for v in STYLES}
    summary = ", ".join(f"{count} {verdict}" for verdict, count in counts.items() if count)
    wrong = sum(not item.passed for item in ledger.kernels)
    if ledger.kernels:
        summary += (
            "; " if summary else ""
        ) + f"{len(ledger.kernels) - wrong} checks of kernels and properties passed"
        summary += f", {wrong} failed" if wrong else ""
    console.print(summary, highlight=False)


def _methods_table(methods: Sequence[Item]) -> Table:
    """Public methods with the same kernels on one line."""
    table = Table(title="Kernels behind the metrics' public methods, as their calls ran them")
    for heading in ("metric", "methods", "kernels"):
        table.add_column(heading, overflow="fold")
    for metric, names, kernels in behind(methods):
        table.add_row(metric, ", ".join(names), kernels)
    return table


def behind(methods: Sequence[Item]) -> list[tuple[str, list[str], str]]:
    """(metric, methods, kernels), of methods with the same kernels together."""
    rows: dict[tuple[str, str], list[str]] = {}
    for item in methods:
        metric, name = item.what.split(".")
        rows.setdefault((metric, _shortened(item)), []).append(name)
    return [(metric, names, kernels) for (metric, kernels), names in rows.items()]


def _shortened(item: Item) -> str:
    """``module: kernel, kernel``; modules with the same kernels together, activations as one."""
    if not item.passed:
        return item.outcome
    modules: dict[str, list[str]] = {}
    for name in item.data["kernels"]:
        module, kernel = name.split(".")
        modules.setdefault(module, []).append(kernel)
    if "activations" in modules:
        modules["activations"] = ["those of the layers"]
    same: dict[tuple[str, ...], list[str]] = {}
    for module, names in modules.items():
        same.setdefault(tuple(names), []).append(module)
    return "; ".join(f"{', '.join(m)}: {', '.join(names)}" for names, m in same.items())


def _story(judgement: Judgement) -> str:
    lines = [judgement.statement.replace("[", r"\[")]
    if judgement.waits_for:
        lines.append(f"waits for: {judgement.waits_for}")
    if judgement.under:
        lines.append("under: " + "; ".join(judgement.under))
    if judgement.command:
        found = [i for i in judgement.evidence if i.route == "measurement"]
        lines += [f"{i.what}: {i.outcome}".replace("[", r"\[") for i in found]
        again = f"to measure {'again' if found else 'it'}, in a checkout: "
        return "\n".join([*lines, again + judgement.command.replace("[", r"\[")])
    witnesses = [i for i in judgement.evidence if i.route == "exact witness"]
    lines += [f"witness {i.what}: {i.outcome}".replace("[", r"\[") for i in witnesses]
    routes: dict[str, int] = {}
    for item in judgement.evidence:
        if item.route != "exact witness" and item.passed:
            routes[item.route] = routes.get(item.route, 0) + item.samples
    bounds = [i.error_log2 for i in judgement.evidence if i.passed and i.error_log2 is not None]
    if routes:
        story = ", ".join(f"{route} ({n})" for route, n in routes.items())
        lines.append("evidence: " + story + (f", error < 2^{max(bounds):.0f}" if bounds else ""))
    return "\n".join(lines)


def print_mutants(console: Console, result: MutantResult) -> None:
    """Print mutants by fault: how many, what kills them first, what each route alone would miss."""
    table = Table("fault", "killed", "equal", title="Mutants, and what one route alone would miss")
    shown = ("d = 1", "holomorphic decoders", "Hermitian, positive", "exact", "autograd", "float64")
    for route in shown:
        table.add_column(route, justify="right")
    for fault, row in result.table.items():
        alive = row["survived"]
        killed = f"{row['mutants'] - alive}" + (f" [bold red]+ {alive} alive[/]" if alive else "")
        missed = [row["missed by alone"][route] for route in shown]
        cells = [f"{m} of {n}" if n else "–" for m, n in missed]
        table.add_row(fault, killed, str(row["equivalent"]), *cells)
    console.print(table)
    whole = result.table["all"]
    first = ", ".join(f"{route} {n}" for route, n in whole["killed first by"].items())
    console.print(f"killed first by: {first}", highlight=False)
    console.print(
        f"{len(result.mutants)} mutants: {whole['mutants']} differ from the original and run, "
        f"{whole['survived']} survive; {whole['equivalent']} are equal to it in exact arithmetic "
        f"({whole['equivalent, loses digits']} of them lose digits), "
        f"{whole['do not run']} do not run",
        highlight=False,
    )
    for mutant in result.survivors:
        console.print(f"alive: {mutant.id}: {mutant.description}", markup=False, style="red")


def print_faults(console: Console, reports: Sequence[FaultReport]) -> None:
    """Print the silent faults of the installed torch, and whether each is there."""
    table = Table(title=f"Silent faults, torch {reports[0].torch_version}")
    for heading in ("what one writes", "torch's error", "safe alternative", "its error"):
        table.add_column(heading, overflow="fold")
    for each in reports:
        error = f"{each.relative_error:.0e}" if each.present else "no fault here"
        table.add_row(
            each.name,
            f"[red]{error}[/red]" if each.present else f"[green]{error}[/green]",
            each.safe_alternative.replace("[", r"\["),
            f"{each.safe_relative_error:.0e}",
        )
    console.print(table)
    present = sum(each.present for each in reports)
    console.print(f"{present} of {len(reports)} faults are present", highlight=False)


def print_support(console: Console, found: Sequence[Support]) -> None:
    """Print which functions the installed torch does not differentiate, and the way round."""
    table = Table(title="Functions that torch has not all derivatives of")
    for heading in ("function", "forward mode", "twice", "vmap", "first derivatives", "second"):
        table.add_column(heading, overflow="fold")
    short = [each for each in found if not each.complete]
    for each in short:
        marks = ["yes" if x else "no" for x in (each.forward, each.second, each.batched)]
        ways = [x or "[red]refused[/red]" for x in (each.first_by, each.second_by)]
        table.add_row(each.name, *marks, *ways)
    console.print(table)
    ruled = sum(each.second_by == "rule" for each in found)
    console.print(
        f"of {len(found)} functions, torch has not all derivatives of {len(short)}; {ruled} go by "
        "rules of kahler_verify's own, which need none of torch's",
        highlight=False,
    )


@contextmanager
def checking_bar(console: Console) -> Iterator[Callable[[int, int, str], None]]:
    """A bar that the returned callback moves: done, total, what is being checked."""
    columns = (TextColumn("checking"), BarColumn(), TextColumn("{task.description}"))
    silent = not console.is_terminal  # else a blank line is left in a log
    with Progress(*columns, console=console, transient=True, disable=silent) as bar:
        task = bar.add_task("", total=None)

        def move(done: int, total: int, label: str) -> None:
            bar.update(task, completed=done, total=total, description=label)

        yield move
