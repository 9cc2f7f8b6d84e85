"""The command ``diagnose``: how Kähler, degenerate and curved a decoder is."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from kahler_verify.cli.consoles import beside, say
from kahler_verify.errors import InputError
from kahler_verify.files import require_writable, write_text


def diagnose(
    checkpoint: Annotated[Path, typer.Argument(help="A checkpoint.")],
    data: Annotated[
        Path | None, typer.Option(help="Held-out data of a checkpoint trained on a file.")
    ] = None,
    points: Annotated[int, typer.Option(help="How many encoded test samples to look at.")] = 32,
    curvature: Annotated[bool, typer.Option(help="Evaluate curvatures, which cost most.")] = True,
    draws: Annotated[
        int, typer.Option(help="For log p(x) of all held-out samples, draws for each; 0: none.")
    ] = 0,
    json: Annotated[Path | None, typer.Option(help="Write the diagnosis as JSON.")] = None,
) -> None:
    """How Kähler, how degenerate and how curved a trained decoder is, at encoded data."""
    from json import dumps

    from kahler_verify.evidence.description import diagnosis_table
    from kahler_verify.geometry import FisherMetric
    from kahler_verify.geometry import diagnose as measure
    from kahler_verify.geometry.fisher_rao import FisherRaoMetric
    from kahler_verify.models import load_checkpoint, marginal_log_likelihood
    from kahler_verify.models.data import held_out_samples

    require_writable("json", json)
    if points < 1:
        raise InputError(f"points: expected at least 1, got {points}")
    if draws < 0:
        raise InputError(f"draws: expected 0 or more, got {draws}")
    loaded = load_checkpoint(checkpoint)
    model = loaded.model.double()
    samples = held_out_samples(loaded.config.data, loaded.config.seed, data)
    if samples is None:
        raise InputError(
            f"data: expected --data with the file that {checkpoint} was trained on, as its data "
            f"have no name but {loaded.config.data!r}, which is not followed"
        )
    z = model.encoder(samples[:points])[0].detach()
    metric = (FisherMetric if z.is_complex() else FisherRaoMetric)(model.decoder)
    result = measure(metric, z, curvature=curvature)
    title = f"{checkpoint.name}: {result.points} encoded points, d = {result.dimension}"
    beside(json).print(diagnosis_table(title, result))
    found = {"checkpoint": checkpoint.name, **result.to_json()}
    if draws:
        marginal = marginal_log_likelihood(model, samples, draws)
        found["log_marginal_likelihood"] = marginal.to_json()
        thin = f"; {marginal.doubtful} samples rest on few draws" if marginal.doubtful else ""
        say(
            f"log p(x) {marginal.mean:.2f} ± {marginal.error:.2g} nats by {draws} draws each"
            f"{thin}, ± {marginal.spread:.2g} by the choice of {len(samples)} samples; ELBO "
            f"{model.elbo(samples, seed=loaded.config.seed):.2f}",
            to=beside(json),
        )
    if json is not None:
        text = dumps(found, indent=1, allow_nan=False)
        write_text(json, text)
