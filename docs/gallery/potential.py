"""A potential from a paper: Eguchi and Hanson's gravitational instanton (1978), Ricci-flat."""

import torch
from matplotlib.figure import Figure
from sympy import log, sqrt

import kahler_verify
from kahler_verify import PotentialMetric
from kahler_verify.calculus import explicit_coordinates
from kahler_verify.plots import Plane, Quantity, plot_field

z1, z2 = explicit_coordinates("z1 z2")
u = z1 * z1.conjugate() + z2 * z2.conjugate()
root = sqrt(u**2 + 1)
metric = PotentialMetric(kahler_verify.compile(root + log(u / (1 + root)), coordinates=(z1, z2)))

z = torch.randn(1000, 2, dtype=torch.complex128)
print("largest entry of the Ricci tensor:", metric.ricci_tensor(z).abs().max())

first = torch.tensor([1, 0], dtype=torch.complex128)
sectional = Quantity(
    "along_z1",
    "Holomorphic sectional curvature along z₁",
    lambda metric, z: metric.holomorphic_sectional_curvature(z, first),
    scale="signed",
)
plane = Plane.complex_coordinate(2, 0, extent=1.5, origin=0.3 * first.flip(0))
figure = Figure(figsize=(9.5, 3.9), layout="constrained")
left, right = figure.subplots(1, 2)
plot_field(metric, "condition", axes=left, plane=plane)
plot_field(metric, sectional, axes=right, plane=plane)
figure.suptitle("Eguchi–Hanson: curved, and yet Ricci-flat (z₂ = 0.3)")
figure.savefig("potential.png", dpi=110)
