"""The command ``diagnose``: how Kähler, degenerate and curved a decoder is."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from kahler_verify.cli.consoles import beside
from kahler_verify.cli.user_models import LATENTS_HELP, MODULE_HELP, open_module, require_one
from kahler_verify.errors import InputError
from kahler_verify.files import require_writable, write_text


def diagnose(
    checkpoint: Annotated[Path | None, typer.Argument(help="A checkpoint.")] = None,
    data: Annotated[
        Path | None, typer.Option(help="Held-out data of a checkpoint trained on a file.")
    ] = None,
    module: Annotated[str | None, typer.Option(help=MODULE_HELP)] = None,
    latents: Annotated[str | None, typer.Option(help=LATENTS_HELP)] = None,
    points: Annotated[
        int, typer.Option(help="Encoded test samples to look at; draws of N(0, I) of --module.")
    ] = 32,
    curvature: Annotated[bool, typer.Option(help="Evaluate curvatures, which cost most.")] = True,
    json: Annotated[Path | None, typer.Option(help="Write the diagnosis as JSON.")] = None,
) -> None:
    """How Kähler, how degenerate and how curved a trained decoder is, at encoded data."""
    from json import dumps

    from kahler_verify.evidence.description import diagnosis_table
    from kahler_verify.geometry import FisherMetric
    from kahler_verify.geometry import diagnose as measure
    from kahler_verify.geometry.fisher_rao import FisherRaoMetric
    from kahler_verify.geometry.large_diagnosis import SMALL, diagnose_spectrum
    from kahler_verify.models import load_checkpoint
    from kahler_verify.models.data import held_out_samples

    require_writable("json", json)
    if points < 1:
        raise InputError(f"points: expected at least 1, got {points}")
    require_one(checkpoint, module)
    if module is not None:
        name, where = module, "points drawn from N(0, I)"
        user = open_module(module, latents)
        z = user.draws(points)
        if user.dimension > SMALL:
            result = diagnose_spectrum(user.metric, z)
        else:
            result = measure(user.metric, z, curvature=curvature)
    else:
        assert checkpoint is not None
        name, where = checkpoint.name, "encoded points"
        loaded = load_checkpoint(checkpoint)
        model = loaded.model.double()
        samples = held_out_samples(loaded.config.data, loaded.config.seed, data)
        if samples is None:
            raise InputError(
                f"data: expected --data with the file that {checkpoint} was trained on, as its "
                f"data have no name but {loaded.config.data!r}, which is not followed"
            )
        z = model.encoder(samples[:points])[0].detach()
        metric = (FisherMetric if z.is_complex() else FisherRaoMetric)(model.decoder)
        result = measure(metric, z, curvature=curvature)
    title = f"{name}: {result.points} {where}, d = {result.dimension}"
    beside(json).print(diagnosis_table(title, result))
    if json is not None:
        text = dumps({"checkpoint": name, **result.to_json()}, indent=1, allow_nan=False)
        write_text(json, text)
