"""What the cross-check found as JSON, as pictures, and as one page that needs nothing else."""

from __future__ import annotations

import base64
import io
import json
import math
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from jinja2 import Environment, StrictUndefined
from matplotlib.figure import Figure
from torch import Tensor

from kahler_verify.errors import InputError
from kahler_verify.evidence.crosscheck import CrossCheck
from kahler_verify.evidence.description import HEADINGS
from kahler_verify.evidence.description import rows as described
from kahler_verify.evidence.report.complex_plane import (
    SUBSCRIPTS,
    decoded_samples,
    latent_plane,
    plane_maps,
)
from kahler_verify.evidence.report.histograms import error_histograms
from kahler_verify.evidence.report.real_plane import decoded_plane, latent_maps
from kahler_verify.evidence.report.summary import (
    ROUTE_NAMES,
    bounds_in_words,
    diagnosis_title,
    kernels_and_decoder,
    routes_of,
    shown_error,
)
from kahler_verify.evidence.routes.gaussians import STANDARD_ERRORS
from kahler_verify.evidence.routes.register import ROUTES
from kahler_verify.explorer.subject import of_model
from kahler_verify.explorer.twin import section
from kahler_verify.files import write_text
from kahler_verify.models.real_vae import RealVAE
from kahler_verify.models.vae import ComplexVAE


def write_json(result: CrossCheck, path: str | Path) -> None:
    """Write the result as JSON (the schema is that of ``CrossCheck.to_dict``)."""
    text = json.dumps(result.to_dict(), indent=1, allow_nan=False, ensure_ascii=False)
    write_text(path, text + "\n")


def _data_uri(figure: Figure) -> str:
    buffer = io.BytesIO()
    figure.savefig(buffer, format="png", metadata={"Software": None})
    return "data:image/png;base64," + base64.b64encode(buffer.getvalue()).decode("ascii")


@dataclass(frozen=True)
class Picture:
    """A figure of the page."""

    title: str
    uri: str
    alt: str
    caption: str


def _pictures_of_a_plane(model: ComplexVAE, held_out: Tensor | None) -> list[Picture]:
    pictures = []
    plane = latent_plane(model, held_out)
    j = str(plane.coordinate + 1).translate(SUBSCRIPTS)
    dots = (
        " Dots: held-out samples, by that coordinate of theirs."
        if plane.held_out is not None
        else ""
    )
    low, high = np.nanmin(plane.log_volume), np.nanmax(plane.log_volume)
    pictures.append(
        Picture(
            "The geometry of the decoder over a latent plane",
            _data_uri(plane_maps(plane)),
            f"Two maps over the plane of z{j}: log volume density from {low:.1f} to "
            f"{high:.1f} nats, and closedness defect up to {np.nanmax(plane.defect):.2g}.",
            f"The plane of z{j}, the latent coordinate that varies most; the others are 0."
            f"{dots} Left: the density of the Fisher volume, high where the decoder tells "
            "latents apart finely. Right: how far the Fisher metric is from Kähler, in a "
            "g-orthonormal frame. Grey: not defined.",
        )
    )
    samples = decoded_samples(model, plane)
    if samples is not None:
        pictures.append(
            Picture(
                "What it decodes",
                _data_uri(samples),
                "Two mosaics of decoded digits, from random latents and over the latent plane.",
                "Means of the likelihood as images: at latents drawn from the prior CN(0, I), "
                f"and over the plane of z{j} of the maps above.",
            )
        )
    return pictures


def _pictures_at_real_latents(model: RealVAE, held_out: Tensor | None) -> list[Picture]:
    dots = "" if held_out is None else " Dots: held-out samples."
    pictures = [
        Picture(
            "The geometry of the decoder over two latent coordinates",
            _data_uri(latent_maps(model, held_out)),
            "Maps of the log volume density and of the scalar curvature of the Fisher-Rao metric.",
            f"The first two latent coordinates; the others are 0.{dots} Left: the density of the "
            "Fisher-Rao volume, high where the decoder tells latents apart finely. Right: its "
            "scalar curvature, twice the Gauss curvature of a surface.",
        )
    ]
    decoded = decoded_plane(model)
    if decoded is not None:
        pictures.append(
            Picture(
                "What it decodes",
                _data_uri(decoded),
                "A mosaic of decoded digits over the latent plane.",
                "Means of the likelihood as images, over the first two latent coordinates.",
            )
        )
    return pictures


def _pictures(result: CrossCheck) -> list[Picture]:
    pictures = []
    if isinstance(result.model, RealVAE):
        pictures += _pictures_at_real_latents(result.model, result.held_out)
    elif result.model is not None:
        pictures += _pictures_of_a_plane(result.model, result.held_out)
    pictures.append(
        Picture(
            "How large the errors are",
            _data_uri(error_histograms(result.rows)),
            "Histograms of errors, one for each route; all lie near 1e-16, far below the bounds.",
            "One count for each point. The orange line is float64's ε = 2.2e-16, and for samples "
            f"the limit of {STANDARD_ERRORS:g} standard errors. Grey: no difference at all. The "
            "float32 check is left out.",
        )
    )
    return pictures


def _twin(result: CrossCheck) -> dict[str, Any] | None:
    """The section to look around in, of a checkpoint with a latent plane."""
    if result.model is None:
        return None
    try:
        subject = of_model(result.model, result.checkpoint or "", result.held_out, result.labels)
    except InputError:  # a line of latents has no plane
        return None
    return section(subject)


def save_picture(result: CrossCheck, path: str | Path) -> None:
    """Save the maps of the decoder's volume and closedness defect as a PNG.

    Raises:
        InputError: the cross-check had no checkpoint.
    """
    if result.model is None:
        raise InputError("result: expected a cross-check of a checkpoint, got one without")
    if isinstance(result.model, RealVAE):
        latent_maps(result.model, result.held_out).savefig(path, format="png")
        return
    plane_maps(latent_plane(result.model, result.held_out)).savefig(path, format="png")


def write_html(result: CrossCheck, path: str | Path) -> None:
    """Write one page that needs nothing else; every string in it is escaped."""
    environment = Environment(autoescape=True, undefined=StrictUndefined, trim_blocks=True)
    template = Path(__file__).with_name("page.html.j2").read_text(encoding="utf-8")
    kernels, decoder = kernels_and_decoder(result)
    config: dict[str, Any] = {} if result.model is None else result.model.config.to_dict()
    text = environment.from_string(template).render(
        result=result,
        tables=[
            ("Kernels", "derivation", kernels, routes_of(kernels)),
            ("The trained decoder", "quantity", decoder, routes_of(decoder)),
        ],
        route_names=ROUTE_NAMES,
        route_titles={name: route.title for name, route in ROUTES.items()},
        bounds=bounds_in_words(result),
        diagnosis_title=diagnosis_title(result),
        diagnosis_headings=HEADINGS,
        diagnosis_rows=[] if result.diagnosis is None else described(result.diagnosis),
        pictures=_pictures(result),
        twin=_twin(result),
        points=sum(row.points for row in result.rows),
        kernel_count=len({r.what for r in result.rows if not r.what.startswith("decoder.")}),
        config=config,
        elbo=result.report.get("test_elbo"),
        shown_error=shown_error,
        isnan=math.isnan,
    )
    write_text(path, text)
