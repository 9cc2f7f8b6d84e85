"""Natural cubic splines, moved by Adam: what papers on latent spaces use; for comparison."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import torch
from scipy.interpolate import CubicSpline
from torch import Tensor

from kahler_verify.curves.connect.solver import Found, Solver, judged
from kahler_verify.curves.connect.starts import resampled
from kahler_verify.curves.elements import Mesh
from kahler_verify.curves.energy import energy_of
from kahler_verify.curves.report import Status
from kahler_verify.geometry.riemannian import RiemannianMetric


@dataclass(frozen=True)
class Spline(Solver):
    """The energy of a polygon on a natural cubic spline, minimised by Adam over its knots.

    Attributes:
        pieces: of the spline; pieces - 1 knots move.
        points: chords of the polygon.
        rate: Adam's, relative to the distance of the end points in coordinates.
        most_iterations: steps.
        tolerance: of the gap's estimate, above which a pair counts as not converged.

    Source: Yang, Arvanitidis, Fu, Li, Hauberg, arXiv 1809.04747; Kingma, Ba, arXiv 1412.6980.
    """

    pieces: int = 10
    points: int = 32
    rate: float = 1e-2
    most_iterations: int = 500
    tolerance: float = 1e-2

    def follow(self, metric: RiemannianMetric, guess: Tensor) -> Found:
        """See :class:`Solver`."""
        energy, chords = energy_of(metric), Mesh(self.points, 1)
        knots = torch.linspace(0, 1, self.pieces + 1, dtype=torch.float64)
        spline = CubicSpline(knots.numpy(), np.eye(len(knots)), bc_type="natural")
        at = torch.from_numpy(spline(chords.times.numpy())).to(guess)
        places = resampled(guess, knots)
        ends = places.detach().clone()
        inner = ends[:, 1:-1].clone().requires_grad_()
        size = (ends[:, -1] - ends[:, 0]).norm(dim=-1)[:, None, None]
        unknown = torch.zeros_like(inner, requires_grad=True)  # in units of each pair's size
        adam = torch.optim.Adam([unknown], lr=self.rate)

        def whole() -> Tensor:
            return torch.cat([ends[:, :1], inner.detach() + size * unknown, ends[:, -1:]], 1)

        with torch.enable_grad():
            for _ in range(self.most_iterations):
                adam.zero_grad()
                value = energy.value(at @ whole(), chords)
                (value / value.detach().clamp_min(torch.finfo(value.dtype).tiny)).sum().backward()
                adam.step()
        mesh = Mesh(self.pieces, 3)
        cubic = torch.from_numpy(spline(mesh.times.numpy())).to(guess)
        nodes = (cubic @ whole()).detach()
        nodes[:, 0], nodes[:, -1] = guess[:, 0], guess[:, -1]
        status = torch.full((len(guess),), int(Status.MINIMUM), device=guess.device)
        iterations = torch.full_like(status, self.most_iterations)
        spent = iterations * chords.size
        return judged(metric, mesh, nodes, status, iterations, spent, tolerance=self.tolerance)
