"""Pictures of a decoder at real latents: volume and curvature over two coordinates, and means."""

from __future__ import annotations

import torch
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure
from torch import Tensor

from kahler_verify.geometry.fisher_rao import FisherRaoMetric
from kahler_verify.models.data import to_images
from kahler_verify.models.real_vae import RealVAE
from kahler_verify.plots import Plane, plot_codes, plot_field

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
    plane = Plane.coordinates(d, extent=radius)
    panels = {
        "log_volume": "Volume density",
        "scalar_curvature": "Scalar curvature (Levi-Civita)",
    }
    for n, (quantity, title) in enumerate(panels.items(), start=1):
        axes = figure.add_subplot(1, 2, n)
        plot_field(metric, quantity, axes=axes, plane=plane, resolution=GRID)
        if held_out is not None:
            plot_codes(held_out, axes=axes, plane=plane, s=5)
        axes.set_title(title, loc="left")
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
