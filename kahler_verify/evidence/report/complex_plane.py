"""Pictures of a decoder over a complex latent plane: volume, closedness defect, and means."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from matplotlib.figure import Figure
from torch import Tensor

from kahler_verify.evidence.report.histograms import empty_figure
from kahler_verify.geometry import FisherMetric
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
            defects.append(_norm_under(metric.metric_matrix(z), metric.kahler_defect(z)))
    shape = (GRID, GRID)
    own = None if held_out is None else held_out[:, j].numpy()
    volume, defect = torch.cat(volumes).reshape(shape), torch.cat(defects).reshape(shape)
    return Plane(j, radius, points, volume.numpy(), defect.numpy(), own)


def _norm_under(g: Tensor, defect: Tensor) -> Tensor:
    """(Σ |T|²)^½ of T_{cab̄} [..., c, a, b] in a g-orthonormal frame, the same in all charts."""
    factor, info = torch.linalg.cholesky_ex(g)  # g[a, b] = Σ L[a, i] conj(L[b, i])
    inverse = torch.linalg.solve_triangular(
        factor, torch.eye(g.shape[-1], dtype=g.dtype).expand_as(g), upper=False
    )
    whitened = torch.einsum(
        "...ic,...ja,...kb,...cab->...ijk", inverse, inverse, inverse.conj(), defect
    )
    norm = (whitened * whitened.conj()).real.sum((-3, -2, -1)).sqrt()
    return torch.where(info > 0, torch.nan, norm)


def plane_maps(plane: Plane) -> Figure:
    """The volume map and the closedness-defect map side by side."""
    figure = empty_figure(9.6, 4.3)
    axes = figure.add_subplot(1, 2, 1)
    _map(
        figure, axes, plane, plane.log_volume, "cividis", r"$\log\sqrt{\det g_\mathbb{R}}$  (nats)"
    )
    axes.set_title("Volume density", loc="left")
    axes = figure.add_subplot(1, 2, 2)
    largest = np.nanmax(plane.defect) if np.isfinite(plane.defect).any() else math.nan
    if largest < 1e-10:
        label = r"$\|\partial_c g_{a\bar b}-\partial_a g_{c\bar b}\|_g$, rounding errors"
        title = "Closedness defect: zero (Kähler)"
    else:
        label = r"$\|\partial_c g_{a\bar b}-\partial_a g_{c\bar b}\|_g$"
        title = "Closedness defect (0 where Kähler)"
    _map(figure, axes, plane, plane.defect, "magma", label)
    axes.set_title(title, loc="left")
    return figure


def _map(
    figure: Figure, axes: Any, plane: Plane, values: np.ndarray, colours: str, label: str
) -> None:
    r = plane.radius
    image = axes.imshow(
        np.ma.masked_invalid(values),
        extent=(-r, r, -r, r),
        origin="lower",
        cmap=colours,
        interpolation="nearest",
    )
    axes.set_facecolor("#d1d5db")  # where the metric is not defined
    if plane.held_out is not None:
        z = plane.held_out
        axes.scatter(z.real, z.imag, s=5, c="white", edgecolors="black", linewidths=0.3, alpha=0.8)
        axes.set_xlim(-r, r)
        axes.set_ylim(-r, r)
    name = f"z_{{{plane.coordinate + 1}}}"
    axes.set_xlabel(rf"$\mathrm{{Re}}\,{name}$")
    axes.set_ylabel(rf"$\mathrm{{Im}}\,{name}$")
    bar = figure.colorbar(image, ax=axes, fraction=0.046, pad=0.03)
    bar.set_label(label)


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
