"""A normal law that bends (LAND) against Gaussian mixtures, on held-out points."""

import torch
from matplotlib.figure import Figure
from sklearn.mixture import GaussianMixture

from kahler_verify.plots import Plane, plot_codes, plot_values
from kahler_verify.statistics import AdaptiveNormal, data_metric, portrait

torch.manual_seed(0)
angle = torch.pi * torch.rand(160, dtype=torch.float64)
noise = 0.08 * torch.randn(160, 2, dtype=torch.float64)
x, held_out = (torch.stack([angle.cos(), angle.sin()], -1) + noise).chunk(2)

metric = data_metric(x, sigma=0.2)
quick = {"rays": 32, "precision": 1e-5, "tolerance": 3e-3, "exact": False}
law = AdaptiveNormal(metric, **quick).fit(x).law_
figure = Figure(figsize=(11, 3.2), layout="constrained")
first, *others = figure.subplots(1, 3)
score = float(law.quick().log_prob(held_out).mean())
portrait(law, first, x, label=f"LAND: {score:.2f} nats a point")
plane = Plane.of(x)
grid = plane.grid(61)
for axes, k in zip(others, (1, 3), strict=True):
    mixture = GaussianMixture(k, random_state=0).fit(x)
    density = torch.from_numpy(mixture.score_samples(grid.reshape(-1, 2))).exp()
    plot_values(density.reshape(grid.shape[:2]), plane, axes=axes, cmap="Blues", legend=False)
    plot_codes(x, axes=axes, plane=plane, s=5)
    axes.set_title(f"Gaussians, K = {k}: {mixture.score(held_out):.2f} nats a point", fontsize=10)
figure.savefig("land.png", dpi=110)
