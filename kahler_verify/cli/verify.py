"""The command ``verify``: every kernel, and a decoder, by independent routes."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from kahler_verify.cli.consoles import beside, console, errors, say
from kahler_verify.cli.user_models import LATENTS_HELP, MODULE_HELP, open_module, require_one
from kahler_verify.errors import InputError
from kahler_verify.files import require_writable


def verify(
    checkpoint: Annotated[
        Path | None, typer.Argument(help="A checkpoint; without it, kernels alone.")
    ] = None,
    data: Annotated[
        Path | None, typer.Option(help="Held-out data of a checkpoint trained on a file.")
    ] = None,
    module: Annotated[str | None, typer.Option(help=MODULE_HELP)] = None,
    latents: Annotated[str | None, typer.Option(help=LATENTS_HELP)] = None,
    points: Annotated[int, typer.Option(help="Random latents of --module to look at.")] = 3,
    kernels: Annotated[bool, typer.Option(help="Check kernels, not the decoder alone.")] = True,
    processes: Annotated[
        int | None,
        typer.Option(min=1, help="How many check kernels; by default, one for each core."),
    ] = None,
    json: Annotated[Path | None, typer.Option(help="Write the result as JSON.")] = None,
    html: Annotated[Path | None, typer.Option(help="Write a self-contained report.")] = None,
    self_test: Annotated[
        bool, typer.Option("--self-test", help="Show the silent faults of the installed torch.")
    ] = False,
) -> None:
    """Cross-check every kernel by independent routes, and a trained decoder's geometry."""
    from kahler_verify.codegen.registry import shipped
    from kahler_verify.evidence import report
    from kahler_verify.evidence.crosscheck import crosscheck
    from kahler_verify.evidence.listing import checking_bar, print_faults, print_support
    from kahler_verify.evidence.routes.users_decoders import UsersDecoder, require_metric
    from kahler_verify.evidence.working import MOST_PROCESSES
    from kahler_verify.processes import cores

    if self_test:
        from kahler_verify.evidence.routes.torch_faults.self_test import run_self_test
        from kahler_verify.jets.support import support

        print_faults(console, run_self_test())
        print_support(console, support())
        return
    if module is not None and checkpoint is not None:
        require_one(checkpoint, module)
    if checkpoint is None and module is None and not kernels:
        raise InputError("checkpoint: expected one where kernels are not checked, got none")
    for name, output in (("json", json), ("html", html)):
        require_writable(name, output)
    subject: Path | UsersDecoder | None = checkpoint
    if points < 1:
        raise InputError(f"points: expected at least 1, got {points}")
    if module is not None:
        user = open_module(module, latents)
        metric = require_metric(module, user.metric)
        subject = UsersDecoder(module, metric, user.draws(points))
    with checking_bar(errors) as progress:
        chosen = shipped() if kernels else {}
        result = crosscheck(
            subject,
            derivations=chosen,
            data=data,
            progress=progress,
            processes=processes or min(cores(), MOST_PROCESSES),
        )
    report.print_table(beside(json, html), result)
    if json is not None:
        report.write_json(result, json)
    if html is not None:
        report.write_html(result, html)
        say(f"report: {html}", to=beside(json, html))
    if not result.passed:
        raise typer.Exit(1)
