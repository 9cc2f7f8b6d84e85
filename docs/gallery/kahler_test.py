"""Is this decoder's metric Kähler?  Two decoders of digits, trained alike."""

from pathlib import Path
from tempfile import mkdtemp

import torch
from matplotlib.figure import Figure

from kahler_verify import FisherMetric
from kahler_verify.models import TrainingOptions, VAEConfig, load_data, train
from kahler_verify.plots import Plane, plot_codes, plot_field

data = load_data("digits")  # k-space signals in C^32
figure = Figure(figsize=(10, 4.2), layout="constrained")
for axes, covariance in zip(figure.subplots(1, 2), ("constant", "diagonal"), strict=True):
    config = VAEConfig(latent_dim=2, covariance=covariance)  # a holomorphic mean in both
    options = TrainingOptions(epochs=40)
    trained = train(config, data, Path(mkdtemp()) / "vae.safetensors", options=options)
    model = trained.model.double().requires_grad_(False)
    codes = model.encoder(data.test.x.to(torch.complex128))[0]
    plane = Plane.complex_coordinate(2, 0).around(codes)
    style = {"cmap": "magma", "vmin": 0, "vmax": 0.15}
    plot_field(FisherMetric(model.decoder), "kahler_defect", axes=axes, plane=plane, **style)
    plot_codes(codes, axes=axes, plane=plane)
    axes.set_title(f"holomorphic mean, {covariance} covariance", loc="left")
figure.savefig("kahler_test.png", dpi=110)
