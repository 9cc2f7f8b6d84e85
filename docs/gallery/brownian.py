"""Brownian motion on a sphere, and what steps without drift do instead."""

import torch
from matplotlib.figure import Figure

from kahler_verify import RiemannianMetric
from kahler_verify.plots import Plane, plot_field
from kahler_verify.statistics import brownian_motion


def sphere(z):  # in colatitude θ and longitude φ
    return torch.diag_embed(torch.stack([torch.ones_like(z[:, 0]), z[:, 0].sin() ** 2], -1))


metric = RiemannianMetric.from_function(sphere)
start = torch.tensor([1.0, 0.0], dtype=torch.float64).expand(2000, 2)
time, steps = 0.4, 40
figure = Figure(figsize=(11, 3.8), layout="constrained")
left, right = figure.subplots(1, 2, width_ratios=[1.2, 1])
plane = Plane(*torch.tensor([[0, 0], [1, 0], [0, 1.0]]).double(), (0.15, 3, -2, 2), ("θ", "φ"))
plot_field(metric, axes=left, plane=plane, cmap="Greys_r")
for scheme, color in {"retraction": "#d55e00", "without_drift": "#0072b2"}.items():
    torch.manual_seed(0)
    path = brownian_motion(metric, start, time, steps=steps, scheme=scheme)
    left.plot(*path[:6].permute(2, 1, 0), color=color, linewidth=0.9, alpha=0.9)
    height = path[..., 0].cos().mean(0)
    right.plot(torch.linspace(0, time, steps + 1), height, color=color, label=scheme, linewidth=2)
t = torch.linspace(0, time, 50)
exact = torch.cos(torch.tensor(1.0)) * torch.exp(-t)
right.plot(t, exact, "--", color="#222222", label="exact: cos θ₀ e⁻ᵗ")
right.set(xlabel="time", ylabel="mean of cos θ over 2000 paths", title="The mean height")
right.legend()
left.set(title="Six paths of each, over the chart", aspect="auto")
figure.savefig("brownian.png", dpi=110)
