"""What every solver of the boundary value problem gives."""

from __future__ import annotations

from abc import ABC, abstractmethod
from typing import NamedTuple

from torch import Tensor

from kahler_verify.curves.elements import Mesh
from kahler_verify.geometry.riemannian import RiemannianMetric


class Found(NamedTuple):
    """What a solver found for pairs [B].

    Attributes:
        meshes: that curves were found on; the nodes are on the last, which the others' curves fit.
        nodes: [B, n, d].
        level: which of the meshes a curve was found on.
        status: a :class:`~kahler_verify.curves.report.Status` for each.
        gap: estimated, relative, of length; infinite where there is no estimate.
        morse_index: -1 where unknown.
        iterations: the solver's own.
        evaluations: points at which the metric was asked for.
    """

    meshes: tuple[Mesh, ...]
    nodes: Tensor
    level: Tensor
    status: Tensor
    gap: Tensor
    morse_index: Tensor
    iterations: Tensor
    evaluations: Tensor


class Solver(ABC):
    """A way to find geodesics between points."""

    @abstractmethod
    def solve(self, metric: RiemannianMetric, a: Tensor, b: Tensor, start: Tensor | None) -> Found:
        """Geodesics from a to b [B, d], all different.

        Args:
            metric: of the latent space; it answers NaN where it is not defined.
            a: where they begin.
            b: where they end.
            start: points [B, T, d] at equal times of a first guess; a solver's own by default.
        """
