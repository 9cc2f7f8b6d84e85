"""The geodesic path of Shao, Kumar and Fletcher: its points go downhill, one after the other.

The energy (T/2) Σ|x_{i+1} - x_i|² of x_i = f(z_i) has the gradient -T Jᵀy_i, y_i = x_{i+1} - 2x_i +
x_{i-1}.  Their shortcut takes an encoder's Jacobian J_h in the place of Jᵀ: J_h y_i need not point
downhill, though h∘f = 1 (S2 in ``derivations/papers/deep_generative_models.py``), and where it
vanishes need be no geodesic.  For comparison.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor

from kahler_verify.curves.connect.solver import Found, Solver, judged
from kahler_verify.curves.connect.starts import resampled
from kahler_verify.curves.elements import Mesh
from kahler_verify.curves.report import Status
from kahler_verify.errors import InputError
from kahler_verify.geometry.pulled_back import PulledBackMetric
from kahler_verify.geometry.riemannian import RiemannianMetric
from kahler_verify.jets import propagate


@dataclass(frozen=True)
class Relaxation(Solver):
    """A polygon whose inner points go along Jᵀy, or along J_h y with an encoder.

    Attributes:
        chords: T.
        encoder: h, from outputs [B, n] to latents [B, d]; None for the gradient itself.
        step: of the gradient, in units of 1/(2T λ), λ the largest eigenvalue of JᵀJ on the first
            guess: 1 is the longest that cannot climb in a linear model.  With an encoder, of
            ½ J_h y, which in such a model goes to the middle of the neighbours.
        most_iterations: sweeps over the points.
        still: relative to the end points' distance in coordinates, by how much the points move in
            the last sweep.
        tolerance: of the gap's estimate, above which a pair counts as not converged.

    Source: Shao, Kumar, Fletcher, arXiv 1711.08014, algorithm 1.
    """

    chords: int = 16
    encoder: Callable[[Tensor], Tensor] | None = None
    step: float = 1.0
    most_iterations: int = 1000
    still: float = 1e-5
    tolerance: float = 1e-2

    def follow(self, metric: RiemannianMetric, guess: Tensor) -> Found:
        """See :class:`Solver`."""
        mesh = Mesh(self.chords, 1)
        nodes, sweeps = self.relaxed(metric, resampled(guess, mesh.times))
        arrived = (sweeps < self.most_iterations) & nodes.isfinite().all(-1).all(-1)
        status = torch.where(arrived, int(Status.MINIMUM), int(Status.NOT_CONVERGED))
        evaluations = sweeps * (mesh.size - 2)
        return judged(metric, mesh, nodes, status, sweeps, evaluations, tolerance=self.tolerance)

    def relaxed(self, metric: RiemannianMetric, nodes: Tensor) -> tuple[Tensor, Tensor]:
        """Where nodes [B, T + 1, d] come to rest, and after how many sweeps, [B].

        Whether what they come to is a geodesic, or shorter than where they began, is not asked.
        """
        if not isinstance(metric, PulledBackMetric):
            raise InputError(
                "metric: expected one that is pulled back from a data space, got a "
                f"{type(metric).__name__}"
            )
        nodes = nodes.detach().clone()
        size = (nodes[:, -1] - nodes[:, 0]).norm(dim=-1)
        rate = self._rate(metric, nodes)
        sweeps = torch.zeros(len(nodes), dtype=torch.long, device=nodes.device)
        active = torch.arange(len(nodes), device=nodes.device)
        for _ in range(self.most_iterations):
            if not len(active):
                break
            own, before = nodes[active], nodes[active]
            x = _embedded(metric, own)
            for i in range(1, own.shape[1] - 1):
                y = x[:, i + 1] - 2 * x[:, i] + x[:, i - 1]
                own[:, i] += rate[active, None] * self._direction(metric, own[:, i], x[:, i], y)
                x[:, i] = metric.embed(own[:, i])
            nodes[active] = own
            sweeps[active] += 1
            moved = (own - before).norm(dim=-1).amax(-1)
            active = active[(moved > self.still * size[active]) & moved.isfinite()]
        return nodes, sweeps

    def _rate(self, metric: PulledBackMetric, nodes: Tensor) -> Tensor:
        if self.encoder is not None:
            return nodes.new_full((len(nodes),), self.step / 2)
        g = metric.metric_matrix(nodes)
        return self.step / (2 * torch.linalg.eigvalsh(g)[..., -1].amax(-1))

    def _direction(self, metric: PulledBackMetric, z: Tensor, x: Tensor, y: Tensor) -> Tensor:
        """Jᵀy, or J_h y, [B, d]."""
        if self.encoder is None:
            slopes: Tensor = propagate(metric.embed, z, 1).d
            return (slopes @ y.unsqueeze(-1)).squeeze(-1)
        return pushed(self.encoder, x, y)


def pushed(encoder: Callable[[Tensor], Tensor], x: Tensor, y: Tensor) -> Tensor:
    """J_h y [B, d] of an encoder at outputs x [B, n]."""
    slope: Tensor = propagate(encoder, x, 1, y.unsqueeze(1)).d
    return slope.squeeze(1)


def _embedded(metric: PulledBackMetric, nodes: Tensor) -> Tensor:
    return metric.embed(nodes.flatten(0, 1)).unflatten(0, nodes.shape[:2])
