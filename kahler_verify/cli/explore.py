"""The command ``explore``: a latent space in a browser, served on the loopback address alone."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from kahler_verify.cli.consoles import say
from kahler_verify.cli.user_models import LATENTS_HELP, MODULE_HELP, open_module, require_one

if TYPE_CHECKING:
    from kahler_verify.explorer.subject import Subject


def explore(
    checkpoint: Annotated[
        Path | None, typer.Argument(help="A checkpoint; none with --module.")
    ] = None,
    data: Annotated[
        Path | None, typer.Option(help="Held-out data of a checkpoint trained on a file.")
    ] = None,
    module: Annotated[str | None, typer.Option(help=MODULE_HELP)] = None,
    latents: Annotated[str | None, typer.Option(help=LATENTS_HELP)] = None,
    port: Annotated[int, typer.Option(help="To listen on; 0 for any that is free.")] = 0,
    browser: Annotated[bool, typer.Option(help="Open the page in the browser.")] = True,
) -> None:
    """Show a latent space in the browser: its geometry, geodesics, and what they decode to."""
    import sys
    import webbrowser

    require_one(checkpoint, module)
    from kahler_verify.explorer.server import serve
    from kahler_verify.explorer.session import Session

    if module is not None:
        subject = of_module(module, latents)
    else:
        assert checkpoint is not None
        subject = of_checkpoint(checkpoint, data)

    def ready(address: str) -> None:
        say(f"explorer of {subject.name}: {address}")
        say("Ctrl-C ends it")
        sys.stdout.flush()  # a pipe would keep it
        if browser:
            webbrowser.open(address)

    serve(Session(subject), port, ready)


def of_checkpoint(path: Path, data: Path | None) -> Subject:
    """A trained model, with the codes of the data that it was not trained on."""
    import torch

    from kahler_verify.explorer.subject import of_model
    from kahler_verify.models import ComplexVAE, load_checkpoint
    from kahler_verify.models.data import held_out_labels, held_out_samples

    loaded = load_checkpoint(path)
    model, config = loaded.model.double().requires_grad_(False), loaded.config
    samples = held_out_samples(config.data, config.seed, data)
    codes = labels = None
    if samples is not None:
        labels = held_out_labels(config.data, config.seed, data)
        with torch.no_grad():
            codes = model.encoder(samples)[0]
    kind = "FisherMetric" if isinstance(model, ComplexVAE) else "FisherRaoMetric"
    made = "FisherMetric(model.decoder).riemannian()"
    if kind == "FisherRaoMetric":
        made = f"FisherRaoMetric(model.decoder, {config.latent_dim})"
    room = "geometry" if kind == "FisherMetric" else "geometry.fisher_rao"
    source = (
        "",
        f"from kahler_verify.{room} import {kind}",
        "from kahler_verify.models import load_checkpoint",
        "",
        f"model = load_checkpoint({str(path)!r}).model.double().requires_grad_(False)",
        f"metric = {made}",
    )
    return of_model(model, path.name, codes, labels, source)


def of_module(module: str, latents: str | None) -> Subject:
    """A user's own model."""
    from kahler_verify.explorer.subject import of_metric

    user = open_module(module, latents)
    shape = "None" if latents is None else repr(latents)
    source = (
        "",
        "from kahler_verify.cli.user_models import open_module",
        "",
        f"metric = open_module({module!r}, {shape}).metric",
    )
    return of_metric(user.metric, user.name, user.shape, source)
