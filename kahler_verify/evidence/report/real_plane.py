"""Pictures of a decoder at real latents: volume and curvature over two coordinates, and means."""

from __future__ import annotations

from typing import Any

import numpy as np
import torch
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure
from torch import Tensor

from kahler_verify.geometry.fisher_rao import FisherRaoMetric
from kahler_verify.models.data import to_images
from kahler_verify.models.real_vae import RealVAE

GRID = 61
TILES = 9


def latent_maps(model: RealVAE, held_out: Tensor | None) -> Figure:
    """Log volume and scalar curvature over the first two coordinates (one is a curve), others 0.

    ``model`` is in float64.
    """
    radius = 3.0 if held_out is None else max(2.0, 1.1 * float(held_out[:, :2].abs().max()))
    metric = FisherRaoMetric(model.decoder, validate_args=False)
    figure = Figure(figsize=(9.6, 4.3), dpi=110, layout="constrained")
    FigureCanvasAgg(figure)
    ticks = torch.linspace(-radius, radius, GRID, dtype=torch.float64)
    d = model.config.latent_dim
    if d == 1:
        axes = figure.add_subplot(1, 1, 1)
        with torch.no_grad():
            axes.plot(ticks.numpy(), metric.log_volume(ticks[:, None]).numpy())
        axes.set(xlabel="$z_1$", ylabel=r"$\log\sqrt{\det g}$  (nats)", title="Volume density")
        return figure
    z = _plane(ticks, d)
    with torch.no_grad():
        volume, curvature = metric.log_volume(z), metric.scalar_curvature(z)
    bound = float(np.nanquantile(curvature.abs().numpy(), 0.98)) or 1.0
    panels: tuple[tuple[str, str, Tensor, dict[str, Any]], ...] = (
        ("Volume density", r"$\log\sqrt{\det g}$  (nats)", volume, {"cmap": "cividis"}),
        (
            "Scalar curvature",
            "Levi-Civita; colours end at the 98% quantile",
            curvature,
            {"cmap": "RdBu_r", "vmin": -bound, "vmax": bound},
        ),
    )
    for n, (title, label, values, style) in enumerate(panels, start=1):
        axes = figure.add_subplot(1, 2, n)
        image = axes.imshow(
            np.ma.masked_invalid(values.numpy()),
            extent=(-radius, radius, -radius, radius),
            origin="lower",
            interpolation="nearest",
            **style,
        )
        if held_out is not None:
            x, y = held_out[:, 0].numpy(), held_out[:, 1].numpy()
            axes.scatter(x, y, s=5, c="white", edgecolors="black", linewidths=0.3, alpha=0.8)
            axes.set(xlim=(-radius, radius), ylim=(-radius, radius))
        axes.set_title(title, loc="left")
        axes.set(xlabel="$z_1$", ylabel="$z_2$")
        figure.colorbar(image, ax=axes, fraction=0.046, pad=0.03).set_label(label)
    return figure


def decoded_plane(model: RealVAE) -> Figure | None:
    """Means decoded over the first two coordinates; None where data are not images or d = 1."""
    if model.config.latent_dim < 2:
        return None
    z = _plane(torch.linspace(-2.0, 2.0, TILES, dtype=torch.float64), model.config.latent_dim)
    with torch.no_grad():
        images = to_images(model.decoder.mean(z.flip(0)), model.config.data)
    if images is None:
        return None
    figure = Figure(figsize=(4.8, 4.8), dpi=110, layout="constrained")
    FigureCanvasAgg(figure)
    axes = figure.add_subplot(1, 1, 1)
    tiles = torch.nn.functional.pad(images, (1, 1, 1, 1), value=0.0)
    mosaic = tiles.permute(0, 2, 1, 3).reshape(TILES * tiles.shape[-2], -1)
    edge = 2.0 * TILES / (TILES - 1)
    extent = (-edge, edge, -edge, edge)
    axes.imshow(mosaic.numpy(), cmap="gray", vmin=0, vmax=1, extent=extent)
    axes.set_title("Decoded means", loc="left")
    axes.set(xlabel="$z_1$", ylabel="$z_2$")
    return figure


def _plane(ticks: Tensor, d: int) -> Tensor:
    """Points [n, n, d]: rows go up the second coordinate."""
    y, x = torch.meshgrid(ticks, ticks, indexing="ij")
    z = torch.zeros(*x.shape, d, dtype=ticks.dtype)
    z[..., 0], z[..., 1] = x, y
    return z
