"""The command ``explore``: a latent space in a browser, served on the loopback address alone."""

from __future__ import annotations

from math import prod
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from kahler_verify.cli.consoles import say
from kahler_verify.cli.user_models import (
    LATENTS_HELP,
    MODULE_HELP,
    module_source,
    open_module,
    require_one,
)
from kahler_verify.errors import InputError

if TYPE_CHECKING:
    from torch import Tensor

    from kahler_verify.explorer.subject import Subject

MOST_POINTS = 5_000_000  # of a field, that a search tree holds without waiting


def explore(
    checkpoint: Annotated[
        Path | None, typer.Argument(help="A checkpoint; none with --module or --field alone.")
    ] = None,
    data: Annotated[
        Path | None, typer.Option(help="Held-out data of a checkpoint trained on a file.")
    ] = None,
    module: Annotated[str | None, typer.Option(help=MODULE_HELP)] = None,
    latents: Annotated[str | None, typer.Option(help=LATENTS_HELP)] = None,
    field: Annotated[
        Path | None,
        typer.Option(help="A store of a field to colour by; alone, nothing but its colours."),
    ] = None,
    port: Annotated[int, typer.Option(help="To listen on; 0 for any that is free.")] = 0,
    browser: Annotated[bool, typer.Option(help="Open the page in the browser.")] = True,
) -> None:
    """Show a latent space in the browser: its geometry, geodesics, and what they decode to."""
    import sys
    import webbrowser

    if field is None and checkpoint is None and module is None:
        raise InputError("checkpoint: expected a checkpoint, --module or --field, got none")
    if field is None or module is not None:
        require_one(checkpoint, module)
    from kahler_verify.explorer.server import serve
    from kahler_verify.explorer.session import Session

    if module is not None:
        subject = of_module(module, latents)
    elif checkpoint is not None:
        subject = of_checkpoint(checkpoint, data)
    else:
        assert field is not None
        subject = of_field(field)
    if field is not None and subject.known:
        require_same_model(field, checkpoint, module, latents)
        subject = with_field(subject, field)

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


def require_same_model(
    store: Path, checkpoint: Path | None, module: str | None, latents: str | None
) -> None:
    """A field is shown over the metric that it is of.

    Raises:
        InputError: it is another model's.
    """
    from kahler_verify.fields import of_checkpoint as source_of
    from kahler_verify.fields import open_field
    from kahler_verify.fields.stores import differences

    field = open_field(store)
    if module is not None:
        source = module_source(module, latents)
    else:
        assert checkpoint is not None
        source = source_of(checkpoint)
    here = source.to_json(source.metric(field.plan.dtype), field.plan.dtype)
    apart = [
        line
        for name in ("latents", "probe")
        for line in differences(field.plan.model.get(name), here[name], name)
    ]
    if apart:
        raise InputError(
            f"field: expected one of {source.name}, but {store} is of "
            f"{field.attributes['model']}: {'; '.join(apart)}"
        )


def with_field(subject: Subject, store: Path) -> Subject:
    """The same with a store's values, [N], to colour by."""
    _, points, values, quantity = _stored(store)
    return subject.with_field(points, values, quantity)


def of_field(store: Path) -> Subject:
    """A store alone: its colours, and no geometry."""
    from kahler_verify.explorer.subject import of_field

    return of_field(store.name, *_stored(store))


def _stored(store: Path) -> tuple[bool, Tensor, Tensor, str]:
    """Whether latents are complex, points [N, d] in real coordinates, values [N], their name."""
    import torch

    from kahler_verify.fields import open_field

    field = open_field(store)
    if prod(field.shape) > MOST_POINTS:
        raise InputError(
            f"field: expected at most {MOST_POINTS} points to colour by, got {prod(field.shape)}"
        )
    points, values = (torch.from_numpy(x) for x in (field.points, field.values))
    is_complex = points.is_complex()
    if is_complex:
        points = torch.cat([points.real, points.imag], -1)
    if values.shape != field.shape:
        raise InputError(
            f"field: expected a number at each point of {store}, got {field.name}, "
            f"{list(values.shape)}"
        )
    return is_complex, points.double(), values.reshape(-1).double(), field.name


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
