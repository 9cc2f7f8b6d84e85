"""A curve in a latent space: a polynomial in time on each of a few elements."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor

from kahler_verify.curves.elements import Mesh, gauss
from kahler_verify.curves.energy import unchecked
from kahler_verify.curves.report import CurveReport
from kahler_verify.errors import InputError
from kahler_verify.geometry.riemannian import RiemannianMetric

if TYPE_CHECKING:
    from matplotlib.axes import Axes


class Curve:
    """Curves z(t), 0 ≤ t ≤ 1, one for each of a batch.

    Args:
        metric: of the latent space.
        mesh: elements and degree.
        nodes: z at the mesh's times, [..., n, d]; NaN for a curve that was not found.
        report: how they were found; None for curves that nobody searched.
    """

    def __init__(
        self,
        metric: RiemannianMetric,
        mesh: Mesh,
        nodes: Tensor,
        report: CurveReport | None = None,
    ):
        metric.space.check("nodes", nodes)
        if nodes.ndim < 2 or nodes.shape[-2] != mesh.size:
            raise InputError(f"nodes: expected [..., {mesh.size}, d], got {list(nodes.shape)}")
        self.metric, self.mesh, self.nodes = metric, mesh, nodes
        self.report = report

    @staticmethod
    def through(
        metric: RiemannianMetric,
        function: Callable[[Tensor], Tensor],
        *,
        elements: int = 16,
        degree: int = 8,
    ) -> Curve:
        """The interpolant of a function of times [T] in [0, 1] with values [..., T, d]."""
        mesh = Mesh(elements, degree)
        return Curve(metric, mesh, function(mesh.times))

    def __call__(self, t: float | Tensor) -> Tensor:
        """z(t): [..., d] for a number, [..., T, d] for times [T].

        Raises:
            InputError: t is not a number or a vector of times in [0, 1].
        """
        return self._at(t, 0)

    def velocity(self, t: float | Tensor) -> Tensor:
        """ż(t), as z(t)."""
        return self._at(t, 1)

    def _at(self, t: float | Tensor, derivative: int) -> Tensor:
        times = torch.as_tensor(t, dtype=torch.float64)
        if times.ndim > 1 or not bool(((times >= 0) & (times <= 1)).all()):
            raise InputError(f"t: expected a number or a vector of times in [0, 1], got {t!r}")
        out = self.mesh.evaluate(self.nodes, times.reshape(-1).cpu(), derivative)
        return out if times.ndim else out[..., 0, :]

    def quadrature(self, points: int | None = None) -> tuple[Tensor, Tensor, Tensor]:
        """z, ż [..., E m, d] at m Gauss points in each element, and their weights [E m]."""
        inside, weights = gauss(points or self.mesh.degree + 2)
        z, v = (self.mesh.local(self.nodes, inside, order).flatten(-3, -2) for order in (0, 1))
        return z, v, (weights / self.mesh.elements).repeat(self.mesh.elements).to(z)

    def speed(self, points: int | None = None) -> tuple[Tensor, Tensor]:
        """√g(ż, ż) [..., E m] at the points of :meth:`quadrature`, and their weights."""
        z, v, weights = self.quadrature(points)
        return unchecked(self.metric).norm(v, z), weights

    @property
    def length(self) -> Tensor:
        """∫ √g(ż, ż) dt, [...]; NaN for a curve that was not found."""
        if self.report is not None and not self.nodes.requires_grad:
            return self.report.length
        speed, weights = self.speed()
        length = (speed * weights).sum(-1)
        return length if self.report is None else length - (length - self.report.length).detach()

    @property
    def energy(self) -> Tensor:
        """½ ∫ g(ż, ż) dt, [...]; NaN for a curve that was not found."""
        if self.report is not None and not self.nodes.requires_grad:
            return self.report.energy
        speed, weights = self.speed()
        energy = (speed**2 * weights).sum(-1) / 2
        return energy if self.report is None else energy - (energy - self.report.energy).detach()

    def plot(self, axes: Axes | None = None, **options: Any) -> Axes:
        """Draw the curves; see :func:`kahler_verify.plots.plot_geodesics`."""
        from kahler_verify.plots import plot_geodesics

        return plot_geodesics(self, axes=axes, **options)

    def __repr__(self) -> str:
        batch, d = list(self.nodes.shape[:-2]), self.nodes.shape[-1]
        mesh = f"{self.mesh.elements} elements of degree {self.mesh.degree}"
        return f"Curve(batch {batch}, d = {d}, {mesh}, {type(self.metric).__name__})"
