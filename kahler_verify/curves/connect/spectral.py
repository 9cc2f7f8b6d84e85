"""Spectral elements and Newton's method: the energy minimised level after level."""

from __future__ import annotations

from dataclasses import dataclass
from typing import NamedTuple

import torch
from torch import Tensor

from kahler_verify.curves.certify import morse_index
from kahler_verify.curves.connect.solver import SAME, Found, Solver, with_better
from kahler_verify.curves.connect.starts import Guesses, resampled
from kahler_verify.curves.elements import Mesh
from kahler_verify.curves.energy import Energy, energy_of
from kahler_verify.curves.newton import Descent, descend, escape
from kahler_verify.curves.report import Status
from kahler_verify.geometry.riemannian import RiemannianMetric

COARSE = 1e-4  # decrement, relative to the energy, at which a level hands over to the next
LEVELS = (Mesh(8, 2), Mesh(8, 4), Mesh(8, 8), Mesh(16, 8), Mesh(32, 8), Mesh(64, 8))
ALWAYS = 3  # levels that every pair goes through
UNRESOLVED = -1  # converged on its mesh, with a gap above the tolerance
SADDLES = 3  # saddles in a row that a pair may be led away from
RIVAL = 1.05  # energy on the coarsest mesh, over the lowest, up to which a start is followed


@dataclass(frozen=True)
class Spectral(Solver):
    """Newton's method on spectral elements, from coarse meshes to fine ones.

    All first guesses are followed on the coarsest mesh.  The one of lowest energy there goes on,
    and so do others that ended elsewhere at an energy not much higher, or, until a minimum is
    found, at any.

    Attributes:
        tolerance: the estimated gap of length, relative, at which a pair is done; pairs that are
            not go to finer meshes, and count as not converged on the last.
        levels: meshes, each finer than the one before; elements are halved, or the degree rises.
        most_iterations: Newton steps of a pair on a level.
        pairs_at_once: at most; the metric's memory budget may allow fewer.
        early: times the tolerance, the gap with which a pair is done before it went through the
            first levels.

    Source: Canuto et al., Spectral Methods, 2006; static condensation after Wilson 1974.
    """

    tolerance: float = 1e-8
    levels: tuple[Mesh, ...] = LEVELS
    most_iterations: int = 60
    pairs_at_once: int = 128
    early: float = 1e-10

    def solve(self, metric: RiemannianMetric, guesses: Guesses) -> Found:
        """See :class:`Solver`."""
        energy = energy_of(metric)
        field = self._candidates(energy, guesses)
        known = field.values.isfinite()
        every = torch.arange(known.shape[1], device=known.device)
        order = field.values.argsort(dim=0, stable=True)
        best = self._levels(energy, field.nodes[order[0], every], field.status[order[0], every])
        ends = torch.full_like(field.values, torch.inf)  # energies that followed candidates reach
        ends[order[0], every] = self._energies(energy, best)
        for which in order[1:]:
            rival = field.values[which, every] <= RIVAL * field.values.amin(0)
            wanted = rival | (best.status != Status.MINIMUM)
            rows = (wanted & known[which, every]).nonzero().squeeze(-1)
            if len(rows) == 0:
                continue
            chosen = which[rows]
            found = self._levels(energy, field.nodes[chosen, rows], field.status[chosen, rows])
            reached = self._energies(energy, found)
            lost = best.status[rows] >= Status.NOT_CONVERGED
            better = (reached < ends.amin(0)[rows]) | (lost & (found.status == Status.SADDLE))
            best = with_better(best, found, rows, better)
            ends[chosen, rows] = reached
        for total, more in zip(best[-2:], field.spent, strict=True):
            total += more
        starts = guesses.points.isfinite().all(-1).all(-1).sum(0)
        return best._replace(
            agreeing=_agreeing(field.groups, ends, len(guesses.points)), starts=starts
        )

    def follow(self, metric: RiemannianMetric, guess: Tensor) -> Found:
        """See :class:`Solver`."""
        none = torch.zeros(len(guess), dtype=torch.long, device=guess.device)
        return self.solve(metric, Guesses(guess[None], 0, none))

    def _candidates(self, energy: Energy, guesses: Guesses) -> _Candidates:
        """What may be followed to finer meshes: minima on the coarsest, one of each energy.

        Shortest paths compete as they are as well, if nothing shorter comes of them; so do all
        guesses where that mesh does not resolve the metric, and its minima mean little.
        """
        mesh, points = self.levels[0], guesses.points
        known = points.isfinite().all(-1).all(-1)  # [S, B]
        count, pairs = known.shape
        spent = torch.zeros(2, pairs, dtype=torch.long, device=points.device)
        if len(self.levels) == 1:
            nodes = resampled(points, mesh.times)
            values = self._values(energy, nodes, mesh, known, spent)
            status = torch.full_like(known, int(Status.NOT_CONVERGED), dtype=torch.long)
            return _Candidates(nodes, values, values, status, spent)
        finer = self.levels[1]
        nodes = resampled(points, mesh.times).flatten(0, 1)
        coarse = nodes.new_full((count * pairs,), torch.inf)
        status = torch.full_like(coarse, int(Status.NOT_CONVERGED), dtype=torch.long)
        rows = known.flatten().nonzero().squeeze(-1)
        for some in rows.split(min(self.pairs_at_once, energy.pairs_at_once(nodes))):
            descent = descend(
                energy, nodes[some], mesh, tolerance=COARSE, most_iterations=self.most_iterations
            )
            nodes[some], status[some] = descent.nodes, _status(descent)
            coarse[some] = descent.value
            for total, more in zip(spent, descent[-2:], strict=True):
                total.index_add_(0, some % pairs, more)
        minima = mesh.refined(nodes, finer).unflatten(0, (count, pairs))
        coarse, status = coarse.view(count, pairs), status.view(count, pairs)
        fresh = known.clone()  # the first of its energy
        for k in range(1, count):
            same = (coarse[:k] - coarse[k]).abs() <= SAME * coarse[k].abs()
            fresh[k] &= ~same.any(0)
        values = self._values(energy, minima, finer, fresh, spent)
        # not resolved: what the coarse mesh says is not what the finer one does
        lowest = values.amin(0)
        lost = ~(lowest <= RIVAL * torch.where(values == lowest, coarse, -torch.inf).amax(0))
        raw = resampled(points, finer.times)
        wanted = known & lost
        if guesses.paths:
            wanted[-guesses.paths :] = known[-guesses.paths :]
        own = self._values(energy, raw, finer, wanted, spent)
        # else only if nothing else is found
        own = torch.where(lost | (own < lowest), own, torch.maximum(own, 2 * RIVAL * lowest))
        return _Candidates(
            torch.cat([minima, raw]),
            torch.cat([values, own]),
            torch.cat([coarse, own]),
            torch.cat([status, torch.full_like(status, int(Status.NOT_CONVERGED))]),
            spent,
        )

    def _values(
        self, energy: Energy, nodes: Tensor, mesh: Mesh, wanted: Tensor, spent: Tensor
    ) -> Tensor:
        """Energies [S, B] of some of the nodes, infinite elsewhere and outside the domain."""
        out = nodes.new_full(wanted.shape, torch.inf)
        rows = wanted.flatten().nonzero().squeeze(-1)
        for some in rows.split(self.pairs_at_once) if len(rows) else ():
            out.view(-1)[some] = energy.value(nodes.flatten(0, 1)[some], mesh)
        spent[1] += mesh.size * wanted.sum(0)
        return torch.where(wanted & out.isnan(), torch.finfo(out.dtype).max, out)

    def _levels(self, energy: Energy, nodes: Tensor, status: Tensor, first: int = 1) -> Found:
        """The levels from the first to be gone through on, which the nodes are on."""
        first = min(first, len(self.levels) - 1)
        found = Found(
            self.levels[: first + 1],
            nodes,
            torch.full_like(status, first),
            status.clone(),
            nodes.new_full((len(nodes),), torch.inf),
            torch.full_like(status, -1),
            torch.ones_like(status),
            torch.ones_like(status),
            torch.zeros_like(status),
            torch.zeros_like(status),
        )
        finest = self.levels[-1]
        meshes = (*self.levels, Mesh(2 * finest.elements, finest.degree))  # the last: gaps alone
        active = torch.arange(len(nodes), device=nodes.device)
        for level in range(first, len(meshes)):
            if len(active) == 0:
                break
            found = found.on(meshes[: level + 1])
            size = min(self.pairs_at_once, energy.pairs_at_once(found.nodes))
            for rows in active.split(size):
                self._refine(energy, found, rows, level)
            going = found.status[active] == UNRESOLVED
            if level < min(ALWAYS, len(self.levels) - 1):  # a mesh may have been too coarse
                going |= found.status[active] != Status.MINIMUM
            active = active[going]
        found.status[found.status == UNRESOLVED] = int(Status.NOT_CONVERGED)
        return found.on(meshes[: int(found.level.max()) + 1])

    def _refine(self, energy: Energy, found: Found, rows: Tensor, level: int) -> None:
        """One level for some rows of what is found so far, in place."""
        mesh, nodes = found.meshes[-1], found.nodes[rows]
        always = min(ALWAYS, len(self.levels))
        tolerance = max(self.tolerance, 1e3 * torch.finfo(nodes.dtype).eps)
        # the last step, which is taken unseen, leaves about the square of it
        precision = min(tolerance, COARSE) if level >= always - 1 else COARSE
        enough = tolerance if level >= always - 1 else self.early * tolerance
        before = found.status[rows] == UNRESOLVED
        finished = level == len(self.levels)
        descent = descend(
            energy,
            nodes,
            mesh,
            tolerance=precision,
            most_iterations=1 if finished else self.most_iterations,
            enough=torch.where(before, enough, -1.0),
        )
        found.evaluations[rows] += descent.evaluations
        found.gap[rows] = torch.where(before, descent.gap, torch.inf)
        done = before & (descent.gap <= enough)
        found.status[rows[done]] = int(Status.MINIMUM)
        if finished:
            return
        for _ in range(SADDLES):
            own = descent.saddle.nonzero().squeeze(-1)
            if len(own) == 0:
                break
            again = descend(
                energy,
                escape(energy, descent.nodes[own], mesh),
                mesh,
                tolerance=precision,
                most_iterations=self.most_iterations,
            )
            found.evaluations[rows[own]] += again.evaluations
            descent.iterations[own] += again.iterations
            ended = again.converged | again.saddle  # else the saddle is the best that is known
            for name in ("nodes", "converged", "saddle"):
                getattr(descent, name)[own[ended]] = getattr(again, name)[ended]
            if not bool(ended.any()):
                break
        status = torch.where(done, int(Status.MINIMUM), _status(descent))
        index = torch.where(descent.converged, 0, -1)  # the last Hessian was positive definite
        if bool(descent.saddle.any()):
            index[descent.saddle] = morse_index(energy, descent.nodes[descent.saddle], mesh)
        found.nodes[rows] = descent.nodes
        found.iterations[rows] += descent.iterations
        found.status[rows] = status
        found.level[rows] = level
        found.morse_index[rows] = index


def _status(descent: Descent) -> Tensor:
    status = torch.where(descent.converged, UNRESOLVED, int(Status.NOT_CONVERGED))
    status[descent.saddle] = int(Status.SADDLE)
    status[~descent.inside] = int(Status.LEFT_DOMAIN)
    return status


class _Candidates(NamedTuple):
    """What may be followed to finer meshes.

    Attributes:
        nodes: [C, B, n, d], on the second mesh.
        values: energies there, [C, B]; infinite for what is not to be followed.
        groups: energies by which candidates count as the same.
        status: on the coarsest mesh, [C, B].
        spent: iterations and evaluations, [2, B].
    """

    nodes: Tensor
    values: Tensor
    groups: Tensor
    status: Tensor
    spent: Tensor


def _agreeing(groups: Tensor, ends: Tensor, starts: int) -> Tensor:
    """How many starts led to the lowest energy, by where their candidates [C, B] end."""
    lowest = ends.amin(0)
    winners = ends.isfinite() & (ends <= lowest * (1 + SAME))
    close = (groups[:, None] - groups[None]).abs() <= SAME * groups[None].abs()  # [C, C, B]
    agree = (close & groups.isfinite()[:, None] & winners[None]).any(1) | winners
    return agree.unflatten(0, (-1, starts)).any(0).sum(0)
