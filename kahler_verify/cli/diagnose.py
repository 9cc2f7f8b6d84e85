"""The command ``diagnose``: how Kähler, degenerate and curved a decoder is."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from kahler_verify.cli.consoles import beside, say
from kahler_verify.cli.user_models import LATENTS_HELP, MODULE_HELP, open_module, require_one
from kahler_verify.errors import InputError
from kahler_verify.files import require_writable, write_text

if TYPE_CHECKING:
    from kahler_verify.geometry.diagnosis import Diagnosis
    from kahler_verify.models import MarginalLikelihood


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
    draws: Annotated[
        int, typer.Option(help="For log p(x) of all held-out samples, draws for each; 0: none.")
    ] = 0,
    json: Annotated[Path | None, typer.Option(help="Write the diagnosis as JSON.")] = None,
) -> None:
    """How Kähler, degenerate and curved a decoder is at encoded data; its posteriors as balls."""
    from json import dumps

    from kahler_verify.evidence.description import diagnosis_table

    require_writable("json", json)
    if points < 1:
        raise InputError(f"points: expected at least 1, got {points}")
    if draws < 0:
        raise InputError(f"draws: expected 0 or more, got {draws}")
    require_one(checkpoint, module)
    if module is not None:
        if draws:
            raise InputError("draws: expected none with --module, which has no data")
        name, where = module, "points drawn from N(0, I)"
        result, marginal, balls = _of_module(module, latents, points, curvature), None, None
    else:
        assert checkpoint is not None
        name, where = checkpoint.name, "encoded points"
        result, marginal, balls = _of_checkpoint(checkpoint, data, points, curvature, draws)
    out = beside(json)
    out.print(diagnosis_table(f"{name}: {result.points} {where}, d = {result.dimension}", result))
    found = {"checkpoint": name, **result.to_json()}
    if balls is not None:
        found["balls"] = balls.to_json()
        title = f"{name}: posteriors of {balls.points} held-out samples as balls"
        out.print(diagnosis_table(title, balls))
    if marginal is not None:
        found["log_marginal_likelihood"] = marginal.to_json()
        thin = f"; {marginal.doubtful} samples rest on few draws" if marginal.doubtful else ""
        say(
            f"log p(x) {marginal.mean:.2f} ± {marginal.error:.2g} nats by {draws} draws each"
            f"{thin}, ± {marginal.spread:.2g} by the choice of {len(marginal.each)} samples",
            to=out,
        )
    if json is not None:
        write_text(json, dumps(found, indent=1, allow_nan=False))


def _of_module(module: str, latents: str | None, points: int, curvature: bool) -> Diagnosis:
    from kahler_verify.geometry import diagnose as measure
    from kahler_verify.geometry.large_diagnosis import SMALL, diagnose_spectrum

    user = open_module(module, latents)
    z = user.draws(points)
    if user.dimension > SMALL:
        return diagnose_spectrum(user.metric, z)
    return measure(user.metric, z, curvature=curvature)


def _of_checkpoint(
    checkpoint: Path, data: Path | None, points: int, curvature: bool, draws: int
) -> tuple[Diagnosis, MarginalLikelihood | None, Diagnosis | None]:
    from kahler_verify.geometry import FisherMetric
    from kahler_verify.geometry import diagnose as measure
    from kahler_verify.geometry.fisher_rao import FisherRaoMetric
    from kahler_verify.models import diagnose_balls, load_checkpoint, marginal_log_likelihood
    from kahler_verify.models.data import held_out_samples

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
    marginal = marginal_log_likelihood(model, samples, draws) if draws else None
    return result, marginal, diagnose_balls(model, samples) if len(samples) > 1 else None
