"""Spectral elements and Newton's method: the energy minimised level after level."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from kahler_verify.curves.certify import gap_estimate, morse_index
from kahler_verify.curves.connect.solver import Found, Solver
from kahler_verify.curves.elements import Mesh
from kahler_verify.curves.energy import Energy, energy_of
from kahler_verify.curves.newton import descend, escape
from kahler_verify.curves.report import Status
from kahler_verify.geometry.riemannian import RiemannianMetric

COARSE = 1e-4  # decrement, relative to the energy, at which a level hands over to the next
LEVELS = (Mesh(8, 2), Mesh(8, 4), Mesh(8, 8), Mesh(16, 8), Mesh(32, 8), Mesh(64, 8))
ALWAYS = 3  # levels that every pair goes through
UNRESOLVED = -1  # converged on its mesh, with a gap above the tolerance
SADDLES = 3  # saddles in a row that a pair may be led away from


@dataclass(frozen=True)
class Spectral(Solver):
    """Newton's method on spectral elements, from coarse meshes to fine ones.

    Attributes:
        tolerance: the estimated gap of length, relative, at which a pair is done; pairs that are
            not go to finer meshes, and count as not converged on the last.
        levels: meshes, each finer than the one before.
        most_iterations: Newton steps of a pair on a level.
        pairs_at_once: at most; the metric's memory budget may allow fewer.

    Source: Canuto et al., Spectral Methods, 2006; static condensation after Wilson 1974.
    """

    tolerance: float = 1e-8
    levels: tuple[Mesh, ...] = LEVELS
    most_iterations: int = 60
    pairs_at_once: int = 128

    def solve(self, metric: RiemannianMetric, a: Tensor, b: Tensor, start: Tensor | None) -> Found:
        """See :class:`Solver`."""
        energy, mesh = energy_of(metric), self.levels[0]
        nodes = straight(a, b, mesh) if start is None else _resampled(start, a, b, mesh)
        status = torch.full((len(a),), UNRESOLVED, device=a.device)
        found = Found(
            mesh,
            nodes,
            status,
            a.new_full((len(a),), torch.inf),
            torch.full_like(status, -1),
            torch.zeros_like(status),
            torch.zeros_like(status),
        )
        active = torch.arange(len(a), device=a.device)
        for level, finer in enumerate(self.levels):
            if len(active) == 0:
                break
            found = found._replace(mesh=finer, nodes=found.mesh.refined(found.nodes, finer))
            size = min(self.pairs_at_once, energy.pairs_at_once(found.nodes))
            for rows in active.split(size):
                self._refine(energy, found, rows, level)
            active = active[found.status[active] == UNRESOLVED]
        found.status[found.status == UNRESOLVED] = int(Status.NOT_CONVERGED)
        return found

    def _refine(self, energy: Energy, found: Found, rows: Tensor, level: int) -> None:
        """One level for some rows of what is found so far, in place."""
        mesh, last = found.mesh, level >= min(ALWAYS, len(self.levels)) - 1
        nodes = found.nodes[rows]
        for _ in range(SADDLES):
            descent = descend(
                energy,
                nodes,
                mesh,
                tolerance=1e-11 if last else COARSE,
                most_iterations=self.most_iterations,
            )
            found.iterations[rows] += descent.iterations
            found.evaluations[rows] += descent.evaluations
            nodes, saddle = descent.nodes, descent.saddle
            if not bool(saddle.any()):
                break
            nodes = nodes.clone()
            nodes[saddle] = escape(energy, nodes[saddle], mesh)
        found.nodes[rows] = nodes = descent.nodes
        if not last:
            return
        ahead = self.levels[level + 1 :] or (Mesh(2 * mesh.elements, mesh.degree),)
        found.gap[rows] = gap = gap_estimate(energy, nodes, mesh, ahead[0])
        found.evaluations[rows] += ahead[0].size
        found.morse_index[rows[descent.converged]] = 0  # the last Hessian was positive definite
        if bool(saddle.any()):
            found.morse_index[rows[saddle]] = morse_index(energy, nodes[saddle], mesh)
        tolerance = max(self.tolerance, 1e3 * torch.finfo(nodes.dtype).eps)
        status = torch.where(descent.converged, UNRESOLVED, int(Status.NOT_CONVERGED))
        status[saddle] = Status.SADDLE
        status[descent.converged & (gap <= tolerance)] = Status.MINIMUM
        status[~descent.energy.isfinite()] = Status.LEFT_DOMAIN
        found.status[rows] = status


def straight(a: Tensor, b: Tensor, mesh: Mesh) -> Tensor:
    """Nodes [B, n, d] of the lines from a to b."""
    t = mesh.times.to(a)[:, None]
    nodes = a[:, None] + t * (b - a)[:, None]
    nodes[:, -1] = b
    return nodes


def _resampled(points: Tensor, a: Tensor, b: Tensor, mesh: Mesh) -> Tensor:
    """Nodes of the polygons through points [B, T, d] at equal times."""
    position = mesh.times * (points.shape[1] - 1)
    before = position.floor().clamp(max=points.shape[1] - 2).long()
    part = (position - before).to(points)[:, None]
    nodes = (1 - part) * points[:, before] + part * points[:, before + 1]
    nodes[:, 0], nodes[:, -1] = a, b
    return nodes
