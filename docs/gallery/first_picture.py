"""The picture on the first page: a latent plane, and two ways between two digits."""

from pathlib import Path
from tempfile import mkdtemp

import matplotlib as mpl
import torch
from matplotlib.colors import LinearSegmentedColormap
from matplotlib.figure import Figure
from matplotlib.patheffects import withStroke

from kahler_verify import FisherMetric
from kahler_verify.curves import Curve
from kahler_verify.models import RealVAEConfig, TrainingOptions, load_data, train
from kahler_verify.plots import Plane, plot_codes, plot_field, plot_frames, plot_geodesics

FOUR, TWO = 104, 157  # held-out images
SEA = LinearSegmentedColormap.from_list("sea", ["#f4f7fa", "#a9c1d9", "#4a6f96", "#1f3a5c"])
MODES = {  # colours of text, of frames, of the geodesic and of the line
    "light": ("#1f2933", "Greys", "#d55e00", "#0072b2"),
    "dark": ("#e6edf3", "gray", "#f58a3c", "#56b4e9"),
}

data = load_data("digits-images")
config = RealVAEConfig(likelihood="bernoulli", latent_dim=2)
options = TrainingOptions(epochs=150)
trained = train(config, data, Path(mkdtemp()) / "vae.safetensors", options=options)
model = trained.model.double().requires_grad_(False)

codes = model.encoder(data.test.x.double())[0]
metric = FisherMetric(model.decoder).on_real_latents
plane = Plane.of(codes)
a, b = codes[FOUR], codes[TWO]
geodesic = metric.geodesic(a, b)
line = Curve.through(metric, lambda t: a + t[:, None] * (b - a))
curves = {
    f"geodesic, length {float(geodesic.length):.1f}": (geodesic, "-"),
    f"straight line, length {float(line.length):.1f}": (line, "--"),
}


def draw(frames: str, *colours: str) -> Figure:
    """The map on the left; frames and speeds on the right."""
    figure = Figure(figsize=(13, 5.6), layout="constrained")
    axes = figure.subplot_mosaic(
        [["map", "0"], ["map", "1"], ["map", "speed"]],
        width_ratios=[1, 1.25],
        height_ratios=[1, 1, 1.4],
    )
    label = "log √det g (nats): how much images change"
    plot_field(metric, axes=axes["map"], plane=plane, resolution=161, cmap=SEA, label=label)
    glow = [withStroke(linewidth=2.4, foreground="white")]
    style = {"names": True, "legend": False, "s": 46, "linewidths": 0, "path_effects": glow}
    plot_codes(codes, data.test.labels, axes=axes["map"], plane=plane, **style)
    for row, (name, (curve, linestyle)) in enumerate(curves.items()):
        look = {"color": colours[row], "linestyle": linestyle}
        wide = {"linewidth": 3, "path_effects": [withStroke(linewidth=5, foreground="white")]}
        plot_geodesics(curve, axes=axes["map"], plane=plane, label=name, **wide, **look)
        strip = plot_frames(curve, model.decoder.mean, axes=axes[str(row)], count=9, cmap=frames)
        strip.set_title(name, loc="left", color=colours[row], fontweight="bold")
        speed, _ = curve.speed()
        time = torch.linspace(0, 1, speed.shape[-1])
        axes["speed"].plot(time, speed, linewidth=2.4, **look)
    axes["map"].set_title("Encoded digits over the volume of the metric", loc="left")
    axes["speed"].set_title("How fast the image changes on the way: areas are lengths", loc="left")
    axes["speed"].set(xlabel="from the 4 to the 2", ylabel="speed under g", xlim=(0, 1))
    axes["speed"].set_ylim(bottom=0)
    axes["speed"].spines[["top", "right"]].set_visible(False)
    return figure


for mode, (ink, *colours) in MODES.items():
    coloured = ("text.color", "axes.labelcolor", "xtick.color", "ytick.color", "axes.edgecolor")
    style = dict.fromkeys(coloured, ink) | {"axes.facecolor": "none"}
    with mpl.rc_context(style | {"font.size": 11}):
        draw(*colours).savefig(f"first_picture-{mode}.png", dpi=110, transparent=True)
