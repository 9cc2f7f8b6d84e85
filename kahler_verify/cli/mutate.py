"""The command ``mutate``: planted faults."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from kahler_verify.cli.consoles import beside, errors
from kahler_verify.files import require_writable


def mutate(
    json: Annotated[Path | None, typer.Option(help="Write the table as JSON.")] = None,
) -> None:
    """Plant faults in derivations, generator and kernels; the evidence must kill them all."""
    from kahler_verify.evidence.listing import print_mutants
    from kahler_verify.evidence.mutants.running import run_mutants
    from kahler_verify.evidence.mutants.verdicts import write_mutants

    require_writable("json", json)
    result = run_mutants(console=errors)
    print_mutants(beside(json), result)
    if json is not None:
        write_mutants(result, json)
    if not result.passed:
        raise typer.Exit(1)
