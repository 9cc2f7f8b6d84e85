"""Spectral elements and Newton's method: the energy minimised level after level."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from kahler_verify.curves.certify import morse_index
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
EARLY = 1e-10  # times the tolerance: the gap with which a pair is done before it went through them
SADDLES = 3  # saddles in a row that a pair may be led away from


@dataclass(frozen=True)
class Spectral(Solver):
    """Newton's method on spectral elements, from coarse meshes to fine ones.

    Attributes:
        tolerance: the estimated gap of length, relative, at which a pair is done; pairs that are
            not go to finer meshes, and count as not converged on the last.
        levels: meshes, each finer than the one before; elements are halved, or the degree rises.
        bends: other starts, for pairs that none before led to a minimum: lines that go aside by
            these parts of their length.
        every_start: search from the bent lines for all pairs, and keep the shortest geodesics.
        most_iterations: Newton steps of a pair on a level.
        pairs_at_once: at most; the metric's memory budget may allow fewer.

    Source: Canuto et al., Spectral Methods, 2006; static condensation after Wilson 1974.
    """

    tolerance: float = 1e-8
    levels: tuple[Mesh, ...] = LEVELS
    bends: tuple[float, ...] = (0.3, -0.3)
    every_start: bool = False
    most_iterations: int = 60
    pairs_at_once: int = 128

    def solve(self, metric: RiemannianMetric, a: Tensor, b: Tensor, start: Tensor | None) -> Found:
        """See :class:`Solver`."""
        energy, mesh = energy_of(metric), self.levels[0]
        nodes = straight(a, b, mesh) if start is None else resampled(start, a, b, mesh)
        found = self._follow(energy, nodes)
        for bend in self.bends if a.shape[-1] > 1 else ():
            rows = (self.every_start | (found.status != Status.MINIMUM)).nonzero().squeeze(-1)
            if len(rows) == 0:
                break
            again = self._follow(energy, bent(a[rows], b[rows], mesh, bend))
            found = self._with_better(energy, found, rows, again)
        return found

    def _follow(self, energy: Energy, nodes: Tensor) -> Found:
        """The levels, from nodes on the coarsest."""
        mesh = self.levels[0]
        status = torch.full((len(nodes),), int(Status.NOT_CONVERGED), device=nodes.device)
        found = Found(
            (mesh,),
            nodes,
            torch.zeros_like(status),
            status,
            nodes.new_full((len(nodes),), torch.inf),
            torch.full_like(status, -1),
            torch.zeros_like(status),
            torch.zeros_like(status),
        )
        finest = self.levels[-1]
        meshes = (*self.levels, Mesh(2 * finest.elements, finest.degree))  # the last: gaps alone
        active = torch.arange(len(nodes), device=nodes.device)
        for level, finer in enumerate(meshes):
            if len(active) == 0:
                break
            nodes = found.meshes[-1].refined(found.nodes, finer)
            found = found._replace(meshes=meshes[: level + 1], nodes=nodes)
            size = min(self.pairs_at_once, energy.pairs_at_once(found.nodes))
            for rows in active.split(size):
                self._refine(energy, found, rows, level)
            going = found.status[active] == UNRESOLVED
            if level < min(ALWAYS, len(self.levels) - 1):  # a mesh may have been too coarse
                going |= found.status[active] != Status.MINIMUM
            active = active[going]
        found.status[found.status == UNRESOLVED] = int(Status.NOT_CONVERGED)
        used = meshes[: int(found.level.max()) + 1]
        return found._replace(meshes=used, nodes=found.meshes[-1].refined(found.nodes, used[-1]))

    def _with_better(self, energy: Energy, found: Found, rows: Tensor, again: Found) -> Found:
        """What was found, and for some rows a second search where that ended at a lower minimum."""
        meshes = max(found.meshes, again.meshes, key=len)
        whole = found._replace(
            meshes=meshes, nodes=found.meshes[-1].refined(found.nodes, meshes[-1])
        )
        again = again._replace(nodes=again.meshes[-1].refined(again.nodes, meshes[-1]))
        for total, more in zip(whole[-2:], again[-2:], strict=True):  # iterations, evaluations
            total[rows] += more
        first, second = (
            torch.cat([energy.value(x, meshes[-1]) for x in nodes.split(self.pairs_at_once)])
            for nodes in (whole.nodes[rows], again.nodes)
        )
        better = (whole.status[rows] != Status.MINIMUM) | (second < first * (1 - self.tolerance))
        better &= again.status == Status.MINIMUM
        for kept, new in zip(whole[1:-2], again[1:-2], strict=True):
            kept[rows[better]] = new[better]
        return whole

    def _refine(self, energy: Energy, found: Found, rows: Tensor, level: int) -> None:
        """One level for some rows of what is found so far, in place."""
        mesh, nodes = found.meshes[-1], found.nodes[rows]
        always = min(ALWAYS, len(self.levels))
        tolerance = max(self.tolerance, 1e3 * torch.finfo(nodes.dtype).eps)
        enough = tolerance if level >= always else EARLY * tolerance
        before = found.status[rows] == UNRESOLVED
        finished = level == len(self.levels)
        descent = descend(
            energy,
            nodes,
            mesh,
            tolerance=1e-11 if level >= always - 1 else COARSE,
            most_iterations=1 if finished else self.most_iterations,
            enough=torch.where(before, torch.inf if finished else enough, -1.0),
        )
        found.evaluations[rows] += descent.evaluations
        found.gap[rows] = torch.where(before, descent.gap, torch.inf)
        done = before & (descent.gap <= enough)
        found.status[rows[done]] = int(Status.MINIMUM)
        if finished:
            return
        iterations, nodes = descent.iterations, descent.nodes
        for _ in range(SADDLES):
            if not bool(descent.saddle.any()):
                break
            own = descent.saddle.nonzero().squeeze(-1)
            again = descend(
                energy,
                escape(energy, nodes[own], mesh),
                mesh,
                tolerance=1e-11 if level >= always - 1 else COARSE,
                most_iterations=self.most_iterations,
            )
            found.evaluations[rows[own]] += again.evaluations
            iterations[own] += again.iterations
            nodes[own] = again.nodes
            for whole, some in zip(
                (descent.inside, descent.converged, descent.saddle), again[1:4], strict=True
            ):
                whole[own] = some
        status = torch.where(descent.converged, UNRESOLVED, int(Status.NOT_CONVERGED))
        status[descent.saddle] = int(Status.SADDLE)
        status[~descent.inside] = int(Status.LEFT_DOMAIN)
        index = torch.where(descent.converged, 0, -1)  # the last Hessian was positive definite
        if bool(descent.saddle.any()):
            index[descent.saddle] = morse_index(energy, nodes[descent.saddle], mesh)
        new = ~done
        found.nodes[rows] = nodes
        found.iterations[rows] += iterations
        found.status[rows[new]] = status[new]
        found.level[rows[new]] = level
        found.morse_index[rows[new]] = index[new]


def straight(a: Tensor, b: Tensor, mesh: Mesh) -> Tensor:
    """Nodes [B, n, d] of the lines from a to b."""
    t = mesh.times.to(a)[:, None]
    nodes = a[:, None] + t * (b - a)[:, None]
    nodes[:, -1] = b
    return nodes


def bent(a: Tensor, b: Tensor, mesh: Mesh, bend: float) -> Tensor:
    """Lines [B, n, d] that go aside by ``bend`` times their length, half way."""
    along = b - a
    length = along.norm(dim=-1, keepdim=True)
    axis = torch.zeros_like(along).scatter_(-1, along.abs().argmin(-1, keepdim=True), 1.0)
    aside = axis - (axis * along).sum(-1, keepdim=True) * along / length**2
    aside = aside / aside.norm(dim=-1, keepdim=True) * length
    wave = (torch.pi * mesh.times).sin().to(a)[:, None]
    wave[-1] = 0
    return straight(a, b, mesh) + bend * wave * aside[:, None]


def resampled(points: Tensor, a: Tensor, b: Tensor, mesh: Mesh) -> Tensor:
    """Nodes of the polygons through points [B, T, d] at equal times."""
    position = mesh.times * (points.shape[1] - 1)
    before = position.floor().clamp(max=points.shape[1] - 2).long()
    part = (position - before).to(points)[:, None]
    nodes = (1 - part) * points[:, before] + part * points[:, before + 1]
    nodes[:, 0], nodes[:, -1] = a, b
    return nodes
