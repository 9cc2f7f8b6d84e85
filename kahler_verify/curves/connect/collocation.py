"""SciPy's collocation of the geodesic equation, pair after pair: for comparison."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from kahler_verify.curves.connect.solver import Found, Solver, judged
from kahler_verify.curves.connect.starts import resampled
from kahler_verify.curves.elements import Mesh
from kahler_verify.curves.report import Status
from kahler_verify.geometry.riemannian import RiemannianMetric

MESH = Mesh(16, 8)


@dataclass(frozen=True)
class Collocation(Solver):
    """``scipy.integrate.solve_bvp`` on z̈ = -Γ(ż, ż); curves are read off on a mesh.

    Attributes:
        tolerance: SciPy's, of the relative residual.
        mesh: that the curves are read off on.
        most_nodes: of SciPy's own mesh.

    Source: Kierzenka, Shampine, ACM Transactions on Mathematical Software 27, 2001.
    """

    tolerance: float = 1e-6
    mesh: Mesh = MESH
    most_nodes: int = 2000

    def follow(self, metric: RiemannianMetric, guess: Tensor) -> Found:
        """See :class:`Solver`."""
        coarse = Mesh(16, 1)
        nodes = resampled(guess, coarse.times)
        out = resampled(guess, self.mesh.times)
        status = torch.zeros(len(guess), dtype=torch.long, device=guess.device)
        iterations, evaluations = status.clone(), status.clone()
        for row in range(len(guess)):
            out[row], found, iterations[row], evaluations[row] = self._one(
                metric, nodes[row], coarse
            )
            status[row] = Status.MINIMUM if found else Status.NOT_CONVERGED
        return judged(metric, self.mesh, out, status, iterations, evaluations)

    def _one(
        self, metric: RiemannianMetric, nodes: Tensor, coarse: Mesh
    ) -> tuple[Tensor, bool, int, int]:
        from scipy.integrate import solve_bvp

        d, count = nodes.shape[-1], 0

        def slope(_: np.ndarray, y: np.ndarray) -> np.ndarray:
            nonlocal count
            z, v = torch.from_numpy(y.T.copy()).to(nodes).chunk(2, -1)
            count += len(z)
            rate = metric.geodesic_acceleration(z, v)
            return torch.cat([v, rate], -1).double().cpu().numpy().T

        first, last = (nodes[k].double().cpu().numpy() for k in (0, -1))

        def ends(at_a: np.ndarray, at_b: np.ndarray) -> np.ndarray:
            return np.concatenate([at_a[:d] - first, at_b[:d] - last])

        speed = (nodes[1:] - nodes[:-1]) * coarse.elements
        guess = torch.cat([nodes, torch.cat([speed, speed[-1:]])], -1).double().cpu().numpy().T
        times = coarse.times.numpy()
        with np.errstate(all="ignore"):
            answer = solve_bvp(
                slope, ends, times, guess, tol=self.tolerance, max_nodes=self.most_nodes
            )
        z = torch.from_numpy(answer.sol(self.mesh.times.numpy())[:d].T.copy()).to(nodes)
        z[0], z[-1] = nodes[0], nodes[-1]
        return z, bool(answer.success), int(answer.niter), count
