"""Polygons, moved by L-BFGS: pair after pair; for comparison."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import torch
from scipy.optimize import minimize
from torch import Tensor

from kahler_verify.curves.connect.solver import Found, Solver, judged
from kahler_verify.curves.connect.starts import resampled
from kahler_verify.curves.elements import Mesh
from kahler_verify.curves.energy import energy_of
from kahler_verify.curves.report import Status
from kahler_verify.geometry.riemannian import RiemannianMetric


@dataclass(frozen=True)
class Polygon(Solver):
    """The energy of a polygon, minimised by SciPy's L-BFGS over its inner nodes.

    Attributes:
        chords: of the polygon.
        most_iterations: of L-BFGS.
        tolerance: of the gap's estimate, above which a pair counts as not converged.

    Source: Liu, Nocedal, Mathematical Programming 45, 1989.
    """

    chords: int = 64
    most_iterations: int = 1000
    tolerance: float = 1e-2

    def follow(self, metric: RiemannianMetric, guess: Tensor) -> Found:
        """See :class:`Solver`."""
        mesh, energy = Mesh(self.chords, 1), energy_of(metric)
        nodes = resampled(guess, mesh.times)
        status = torch.full((len(guess),), int(Status.MINIMUM), device=guess.device)
        iterations, spent = torch.zeros_like(status), torch.zeros_like(status)
        for row in range(len(nodes)):
            own = nodes[row].detach().clone()
            scale = max(float(energy.value(own[None], mesh)), torch.finfo(own.dtype).tiny)

            def value(
                x: np.ndarray, own: Tensor = own, scale: float = scale
            ) -> tuple[float, object]:
                inner = torch.from_numpy(x).to(own).reshape(own[1:-1].shape).requires_grad_()
                with torch.enable_grad():
                    whole = torch.cat([own[:1], inner, own[-1:]])
                    out = energy.value(whole[None], mesh)[0] / scale
                    slope = torch.autograd.grad(out, inner)[0]
                return float(out), slope.double().cpu().numpy().ravel()

            answer = minimize(
                value,
                own[1:-1].double().cpu().numpy().ravel(),
                jac=True,
                method="L-BFGS-B",
                options={
                    "maxiter": self.most_iterations,
                    "ftol": 1e-12,
                    "gtol": 1e-7,
                    "maxcor": 30,
                },
            )
            nodes[row, 1:-1] = torch.from_numpy(answer.x).to(own).reshape(own[1:-1].shape)
            iterations[row], spent[row] = answer.nit, answer.nfev * mesh.size
            if not np.isfinite(answer.fun) or answer.nit >= self.most_iterations:
                status[row] = int(Status.NOT_CONVERGED)
        return judged(metric, mesh, nodes, status, iterations, spent, tolerance=self.tolerance)
