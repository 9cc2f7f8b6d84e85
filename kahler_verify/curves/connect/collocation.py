"""SciPy's collocation of the geodesic equation, pair after pair: for comparison."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from kahler_verify.curves.connect.solver import Found, Solver
from kahler_verify.curves.connect.spectral import resampled, straight
from kahler_verify.curves.elements import Mesh
from kahler_verify.curves.energy import energy_of
from kahler_verify.curves.newton import descend
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

    def solve(self, metric: RiemannianMetric, a: Tensor, b: Tensor, start: Tensor | None) -> Found:
        """See :class:`Solver`."""
        coarse = Mesh(16, 1)
        nodes = straight(a, b, coarse) if start is None else resampled(start, a, b, coarse)
        out = straight(a, b, self.mesh)
        status = torch.zeros(len(a), dtype=torch.long, device=a.device)
        iterations, evaluations = status.clone(), status.clone()
        for row in range(len(a)):
            out[row], found, iterations[row], evaluations[row] = self._one(
                metric, nodes[row], coarse
            )
            status[row] = Status.MINIMUM if found else Status.NOT_CONVERGED
        finer = Mesh(2 * self.mesh.elements, self.mesh.degree)
        finite = out.isfinite().all(-1).all(-1)
        gap = out.new_full((len(a),), torch.inf)
        if bool(finite.any()):
            check = descend(
                energy_of(metric),
                self.mesh.refined(out[finite], finer),
                finer,
                tolerance=0.0,
                most_iterations=1,
                enough=out.new_full((int(finite.sum()),), torch.inf),
            )
            gap[finite] = check.gap
        # no minimum nearby, whatever SciPy says of the equation
        status[(status == Status.MINIMUM) & ~gap.isfinite()] = int(Status.SADDLE)
        index = torch.where(status == Status.MINIMUM, 0, -1)
        level = torch.zeros_like(status)
        return Found((self.mesh,), out, level, status, gap, index, iterations, evaluations)

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
