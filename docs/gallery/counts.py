"""Fisher–Rao of a decoder of counts: what is noise, and what is a difference."""

from pathlib import Path
from tempfile import mkdtemp

from matplotlib.figure import Figure

from kahler_verify import FisherMetric, PulledBackMetric
from kahler_verify.models import RealVAEConfig, TrainingOptions, load_data, train
from kahler_verify.plots import Plane, plot_codes, plot_field, plot_geodesics

data = load_data("digits-counts")  # whole numbers from 0 to 16
config = RealVAEConfig(data="digits-counts", likelihood="poisson", latent_dim=2)
options = TrainingOptions(epochs=60)
trained = train(config, data, Path(mkdtemp()) / "vae.safetensors", options=options)
model = trained.model.double().requires_grad_(False)
codes = model.encoder(data.test.x.double())[0]
plane = Plane.of(codes)
a, b = codes[[104, 30]]

metrics = {  # 10 counts and 11 are alike, 0 and 1 are not; plain distances of means do not know it
    "Fisher–Rao of Poisson counts": FisherMetric(model.decoder).on_real_latents,
    "plain distance of means": PulledBackMetric(model.decoder.mean),
}
geodesics = {name: metric.geodesic(a, b) for name, metric in metrics.items()}
figure = Figure(figsize=(10, 4.2), layout="constrained")
for axes, (shown, metric) in zip(figure.subplots(1, 2), metrics.items(), strict=True):
    plot_field(metric, axes=axes, plane=plane, cmap="Greys_r")
    plot_codes(codes, axes=axes, plane=plane)
    for (name, path), color in zip(geodesics.items(), ("#d55e00", "#56b4e9"), strict=True):
        plot_geodesics(path, axes=axes, plane=plane, label=name, color=color, linewidth=2.5)
    axes.set_title(f"{shown}: volume", loc="left")
axes.legend(fontsize=8, loc="lower left")
figure.savefig("counts.png", dpi=110)
