"""What every solver of the boundary value problem gives, and how the best of several is kept."""

from __future__ import annotations

from abc import ABC, abstractmethod
from typing import NamedTuple

import torch
from torch import Tensor

from kahler_verify.curves.certify import morse_index
from kahler_verify.curves.connect.starts import Guesses
from kahler_verify.curves.elements import Mesh
from kahler_verify.curves.energy import Energy, energy_of
from kahler_verify.curves.newton import descend
from kahler_verify.curves.report import Status
from kahler_verify.geometry.riemannian import RiemannianMetric

SAME = 1e-4  # relative, that energies of what counts as the same minimum differ by at most


class Found(NamedTuple):
    """What a solver found for pairs [B].

    Attributes:
        meshes: that curves were found on; the nodes are on the last, which the others' curves fit.
        nodes: [B, n, d].
        level: which of the meshes a curve was found on.
        status: a :class:`~kahler_verify.curves.report.Status` for each.
        gap: estimated, relative, of length; infinite where there is no estimate.
        morse_index: -1 where unknown.
        agreeing: how many starts led to a curve of this energy.
        starts: how many starts there were.
        iterations: the solver's own, of all starts.
        evaluations: points at which the metric was asked for.
    """

    meshes: tuple[Mesh, ...]
    nodes: Tensor
    level: Tensor
    status: Tensor
    gap: Tensor
    morse_index: Tensor
    agreeing: Tensor
    starts: Tensor
    iterations: Tensor
    evaluations: Tensor

    def on(self, meshes: tuple[Mesh, ...]) -> Found:
        """The same on more meshes."""
        nodes = self.meshes[-1].refined(self.nodes, meshes[-1])
        return self._replace(meshes=meshes, nodes=nodes)


class Solver(ABC):
    """A way to find geodesics between points."""

    def solve(self, metric: RiemannianMetric, guesses: Guesses) -> Found:
        """Geodesics from several first guesses: for each pair, of those found the shortest.

        Args:
            metric: of the latent space; it answers NaN where it is not defined.
            guesses: with end points that differ.
        """
        points, discrete = guesses.points, energy_of(metric)
        best = self.follow(metric, points[0])
        lowest = self._energies(discrete, best)
        seen = [lowest]
        for guess in points[1:]:
            rows = guess.isfinite().all(-1).all(-1).nonzero().squeeze(-1)
            if len(rows) == 0:
                continue
            again = self.follow(metric, guess[rows])
            energy = torch.full_like(lowest, torch.inf)
            energy[rows] = self._energies(discrete, again)
            seen.append(energy)
            best = with_better(best, again, rows, (energy < lowest)[rows])
            lowest = torch.minimum(lowest, energy)
        values = torch.stack(seen)
        agreeing = ((values <= lowest * (1 + SAME)) & lowest.isfinite()).sum(0)
        starts = points.isfinite().all(-1).all(-1).sum(0)
        return best._replace(agreeing=agreeing, starts=starts)

    @abstractmethod
    def follow(self, metric: RiemannianMetric, guess: Tensor) -> Found:
        """Geodesics from one guess [B, T, d]."""

    @staticmethod
    def _energies(energy: Energy, found: Found) -> Tensor:
        """Energies [B] of minima that were found; infinite for the rest."""
        values = energy.value(found.nodes, found.meshes[-1])
        known = (found.status == Status.MINIMUM) & values.isfinite()
        return torch.where(known, values, torch.inf)


def with_better(found: Found, again: Found, rows: Tensor, better: Tensor) -> Found:
    """What was found, and for some ``rows`` a second search, which is kept where it is better."""
    meshes = max(found.meshes, again.meshes, key=len)
    found, again = found.on(meshes), again.on(meshes)
    for total, more in zip(found[-2:], again[-2:], strict=True):  # iterations, evaluations
        total[rows] += more
    for kept, new in zip(found[1:-4], again[1:-4], strict=True):
        kept[rows[better]] = new[better]
    return found


def judged(
    metric: RiemannianMetric,
    mesh: Mesh,
    nodes: Tensor,
    status: Tensor,
    iterations: Tensor,
    evaluations: Tensor,
    *,
    tolerance: float = torch.inf,
) -> Found:
    """What a solver found by other means than Newton's, with gaps, and saddles told from minima.

    Curves with a gap above the tolerance count as not converged.
    """
    finer = Mesh(2 * mesh.elements, mesh.degree)
    status, index = status.clone(), torch.full_like(status, -1)
    gap = nodes.new_full((len(nodes),), torch.inf)
    rows = ((status == Status.MINIMUM) & nodes.isfinite().all(-1).all(-1)).nonzero().squeeze(-1)
    if len(rows):
        energy = energy_of(metric)
        start = mesh.refined(nodes[rows], finer)
        check = descend(energy, start, finer, tolerance=0.0, most_iterations=1)
        gap[rows] = check.gap
        index[rows] = morse_index(energy, start, finer)
        evaluations = evaluations.clone()
        evaluations[rows] += finer.size
        # no minimum is nearby, whatever the solver says of its equation
        status[rows] = torch.where(check.gap.isfinite(), status[rows], int(Status.SADDLE))
        lost = check.gap.isfinite() & (check.gap > tolerance)
        status[rows[lost]] = int(Status.NOT_CONVERGED)
        status[rows[~check.inside]] = int(Status.LEFT_DOMAIN)
    one = torch.ones_like(status)
    level = torch.zeros_like(status)
    return Found((mesh,), nodes, level, status, gap, index, one, one, iterations, evaluations)
