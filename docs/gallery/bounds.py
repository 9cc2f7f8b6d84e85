"""Geodesics and their bounds: how far a length can be trusted, for a decoder of known layers."""

import torch
from matplotlib.figure import Figure
from torch import nn

from kahler_verify import PulledBackMetric
from kahler_verify.curves import Curve, bounds
from kahler_verify.plots import Plane, plot_geodesics, plot_indicatrices

torch.manual_seed(5)
layers = nn.Linear(2, 24), nn.Tanh(), nn.Linear(24, 16), nn.Tanh(), nn.Linear(16, 8)
decoder = nn.Sequential(*layers).double().requires_grad_(False)
for layer in layers[::2]:
    layer.weight *= 1.8
metric = PulledBackMetric(decoder)

angle = torch.linspace(0, torch.pi, 6, dtype=torch.float64)[:-1]
ends = 1.5 * torch.stack([angle.cos(), angle.sin()], -1)
path = metric.geodesic(-ends, ends)
line = Curve.through(metric, lambda t: ends[:, None] * (2 * t[:, None] - 1))
found = bounds(path, segments=128, arithmetic="floats", cells=128)  # both sides are proved
print("upper bound above the length:", (found.upper / path.length - 1).max())

figure = Figure(figsize=(10, 4.4), layout="constrained")
left, right = figure.subplots(1, 2)
plane = Plane.coordinates(2, extent=2.0)
plot_indicatrices(metric, 15, axes=left, plane=plane, radius=0.12, edgecolors="#9aa5b1")
plot_geodesics(path, axes=left, plane=plane, label="geodesics", color="#d55e00", linewidth=2)
left.legend(fontsize=8, loc="upper right")
row = torch.arange(len(ends))
middle, half = (found.upper + found.inside) / 2, (found.upper - found.inside) / 2
right.errorbar(row, middle, half, fmt="none", capsize=9, color="#222222", label="proved bounds")
right.plot(row, path.length, "o", color="#d55e00", label="geodesic")
right.plot(row, line.length, "s", color="#0072b2", label="straight line")
right.set(xlabel="pair", ylabel="length", xticks=row, ylim=(0, 4.2), title="Distances, enclosed")
right.legend(fontsize=8, loc="lower right")
figure.savefig("bounds.png", dpi=110)
