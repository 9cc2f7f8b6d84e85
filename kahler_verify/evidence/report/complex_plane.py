"""Pictures of a decoder over a complex latent plane: volume, closedness defect, and means."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import torch
from matplotlib.figure import Figure
from torch import Tensor

from kahler_verify import plots
from kahler_verify.evidence.report.histograms import empty_figure
from kahler_verify.geometry import FisherMetric
from kahler_verify.geometry.quantities import QUANTITIES
from kahler_verify.models.data import to_images
from kahler_verify.models.vae import ComplexVAE

SUBSCRIPTS = str.maketrans("0123456789", "₀₁₂₃₄₅₆₇₈₉")
GRID = 41
BATCH = 256


@dataclass(frozen=True)
class Plane:
    """A latent plane: one complex coordinate varies, the others are 0."""

    coordinate: int
    radius: float
    points: Tensor  # complex [GRID, GRID, d]; rows go up the imaginary axis
    log_volume: np.ndarray  # log √det g_ℝ, in nats
    defect: np.ndarray  # the norm of ∂_c g_{ab̄} - ∂_a g_{cb̄} under g
    held_out: np.ndarray | None  # that coordinate of held-out latents


def latent_plane(model: ComplexVAE, held_out: Tensor | None) -> Plane:
    """Volume and closedness defect over the coordinate that varies most among held-out latents.

    ``model`` is in float64.
    """
    d = model.config.latent_dim
    j, radius = 0, 2.0
    if held_out is not None:
        spread = (held_out - held_out.mean(0)).abs().square().mean(0)
        j = int(spread.argmax())
        radius = max(radius, 1.1 * float(torch.quantile(held_out[:, j].abs(), 0.98)))
    ticks = torch.linspace(-radius, radius, GRID, dtype=torch.float64)
    y, x = torch.meshgrid(ticks, ticks, indexing="ij")
    points = torch.zeros(GRID, GRID, d, dtype=torch.complex128)
    points[..., j] = torch.complex(x, y)
    metric = FisherMetric(model.decoder, check=False, validate_args=False)
    volumes, defects = [], []
    with torch.no_grad():
        for z in points.reshape(-1, d).split(BATCH):
            volumes.append(metric.log_volume(z))
            defects.append(QUANTITIES["kahler_defect"].value(metric, z))
    shape = (GRID, GRID)
    own = None if held_out is None else held_out[:, j].numpy()
    volume, defect = torch.cat(volumes).reshape(shape), torch.cat(defects).reshape(shape)
    return Plane(j, radius, points, volume.numpy(), defect.numpy(), own)


def plane_maps(plane: Plane) -> Figure:
    """The volume map and the closedness-defect map side by side."""
    figure = empty_figure(9.6, 4.3)
    found = plane.defect[np.isfinite(plane.defect)]
    zero = bool(found.size) and found.max() < 1e-10
    name = r"$\|\partial_c g_{a\bar b}-\partial_a g_{c\bar b}\|_g$"
    panels = (
        (plane.log_volume, "Volume density", r"$\log\sqrt{\det g_\mathbb{R}}$  (nats)"),
        (
            plane.defect,
            "Closedness defect: zero (Kähler)" if zero else "Closedness defect (0 where Kähler)",
            f"{name}, rounding errors" if zero else name,
        ),
    )
    drawn = plots.Plane.complex_coordinate(
        plane.points.shape[-1], plane.coordinate, extent=plane.radius
    )
    for n, (values, title, label) in enumerate(panels, start=1):
        axes = figure.add_subplot(1, 2, n)
        axes.set_title(title, loc="left")
        if not np.isfinite(values).any():
            axes.text(0.5, 0.5, "not defined", ha="center", transform=axes.transAxes)
            continue
        field = torch.from_numpy(values)
        plots.plot_values(field, drawn, axes=axes, label=label)
        if plane.held_out is not None:
            z = torch.zeros(len(plane.held_out), drawn.dimension, dtype=torch.complex128)
            z[:, plane.coordinate] = torch.from_numpy(plane.held_out)
            plots.plot_codes(z, axes=axes, plane=drawn, s=5)
    return figure


def decoded_samples(model: ComplexVAE, plane: Plane, count: int = 7) -> Figure | None:
    """Means decoded from the prior, and over the latent plane; None where data are not images."""
    step = (GRID - 1) // (count - 1)
    grid = plane.points[::step, ::step].flip(0)  # the imaginary axis points up
    with torch.no_grad():
        drawn = to_images(model.sample_means(count * count), model.config.data)
        over = to_images(model.decoder.parameters_at(grid).mean, model.config.data)
    if drawn is None or over is None:
        return None
    figure = empty_figure(9.6, 5.3)
    name = f"z_{{{plane.coordinate + 1}}}"
    titles = ("Decoded from the prior", rf"Decoded over the plane of ${name}$")
    for n, (images, title) in enumerate(
        zip((drawn.unflatten(0, (count, count)), over), titles, strict=True)
    ):
        axes = figure.add_subplot(1, 2, n + 1)
        tiles = torch.nn.functional.pad(images, (1, 1, 1, 1), value=0.0)
        mosaic = tiles.permute(0, 2, 1, 3).reshape(count * tiles.shape[-2], -1)
        edge = plane.radius * count / (count - 1)  # tiles are centred on their latents
        extent = None if n == 0 else (-edge, edge, -edge, edge)
        axes.imshow(mosaic.numpy(), cmap="gray", vmin=0, vmax=1, extent=extent)
        axes.set_title(title, loc="left")
        if n == 0:
            axes.set_xticks([])
            axes.set_yticks([])
        else:
            axes.set_xlabel(rf"$\mathrm{{Re}}\,{name}$")
            axes.set_ylabel(rf"$\mathrm{{Im}}\,{name}$")
    return figure
