"""The command ``prove``: the ledger of claims."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from kahler_verify.cli.consoles import beside, errors, say
from kahler_verify.files import require_writable


def prove(
    what: Annotated[
        list[str] | None, typer.Argument(help="Claim ids or derivation files; without, all.")
    ] = None,
    json: Annotated[Path | None, typer.Option(help="Write the ledger as JSON.")] = None,
    evidence: Annotated[
        Path | None, typer.Option(help="Write witnesses and region proofs for the re-checker.")
    ] = None,
    profile: Annotated[str, typer.Option(help="default or thorough.")] = "default",
    cache: Annotated[bool, typer.Option(help="Reuse verdicts whose inputs did not change.")] = True,
    processes: Annotated[
        int | None,
        typer.Option(min=1, help="How many judge all that is shipped; by default, cores."),
    ] = None,
) -> None:
    """Judge claims: print the ledger of verdicts with their evidence."""
    from kahler_verify.evidence.ledger.proving import prove as judge
    from kahler_verify.evidence.ledger.writing import write_evidence, write_ledger
    from kahler_verify.evidence.listing import print_ledger
    from kahler_verify.evidence.working import MOST_PROCESSES
    from kahler_verify.processes import cores

    for name, output in (("json", json), ("evidence", evidence)):
        require_writable(name, output)
    ledger = judge(
        what or [],
        profile=profile,
        use_cache=cache,
        console=errors,
        processes=processes or min(cores(), MOST_PROCESSES),
    )
    to = beside(json, evidence)
    print_ledger(to, ledger)
    if json is not None:
        write_ledger(ledger, json)
    if evidence is not None:
        count = write_evidence(ledger, evidence)
        say(f"{evidence}: {count} items that can be re-checked", to=to)
        if count:
            say(f"  python -m kahler_verify.evidence.recheck {evidence}", to=to)
    if not ledger.passed:
        raise typer.Exit(1)
