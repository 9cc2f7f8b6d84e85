"""Newton's method from curves that are nearly right already, with the fewest evaluations."""

from __future__ import annotations

from dataclasses import dataclass

import torch

from kahler_verify.curves.connect.solver import Found
from kahler_verify.curves.connect.spectral import Spectral
from kahler_verify.curves.connect.starts import Guesses, resampled
from kahler_verify.curves.elements import Mesh
from kahler_verify.curves.energy import energy_of
from kahler_verify.curves.report import Status
from kahler_verify.geometry.riemannian import RiemannianMetric

LEVELS = (Mesh(8, 4), Mesh(8, 6), Mesh(8, 8), Mesh(16, 8), Mesh(32, 8), Mesh(64, 8))


@dataclass(frozen=True)
class Nearby(Spectral):
    """As :class:`Spectral`, from one guess that a converged curve nearby has given.

    No candidates are compared: the first guess is followed from the first level on, and is done
    as soon as a finer level finds its gap within the tolerance.
    """

    levels: tuple[Mesh, ...] = LEVELS
    early: float = 1.0

    def solve(self, metric: RiemannianMetric, guesses: Guesses) -> Found:
        """See :class:`Solver`."""
        points = guesses.points[0]
        status = torch.full((len(points),), int(Status.NOT_CONVERGED), device=points.device)
        nodes = resampled(points, self.levels[0].times)
        return self._levels(energy_of(metric), nodes, status, first=0)
