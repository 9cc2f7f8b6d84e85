"""Geodesics in latent spaces of hundreds of dimensions and more, without any matrix.

A polygon's energy is that of its chords in the space of the law's parameters, and its gradient one
backward pass.  Quasi-Newton steps go in coordinates in which a straight space's Hessian is nearly
the identity: in sines along the curve, and in units of a sketch of g half way.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from scipy.interpolate import CubicSpline
from scipy.optimize import minimize
from torch import Tensor

from kahler_verify.errors import CurveError, InputError
from kahler_verify.geometry.fisher import FisherMetric
from kahler_verify.geometry.latent_shapes import is_shaped
from kahler_verify.geometry.matrix_free import MatrixFreeMetric
from kahler_verify.geometry.riemannian import RiemannianMetric
from kahler_verify.linear_algebra.krylov import nystrom

__all__ = ["LargeGeodesic", "connect_large"]

_MEMORY = 20  # steps that L-BFGS remembers


@dataclass(frozen=True)
class LargeGeodesic:
    """A curve between two latents that is as short as any near it, by its nodes.

    Attributes:
        nodes: [n + 1, d], or [n + 1, *latent shape], at equal times.
        length: of a cubic spline through them, by twice as many chords.
        straight: the length of the straight line, so.
        gap: estimated, relative: how far chords of half the length change the length.
        residual: the gradient's norm in the sketch's units, over L √n: √ of the relative excess of
            energy if the sketch's Hessian were right, which is too small where g is ill-conditioned
            or changes much along the curve.
        iterations: of L-BFGS.
        passes: through the decoder, of values and of cotangents.
        converged: is the residual within the tolerance?
    """

    nodes: Tensor
    length: float
    straight: float
    gap: float
    residual: float
    iterations: int
    passes: int
    converged: bool

    def __repr__(self) -> str:
        end = "" if self.converged else ", not converged"
        return (
            f"LargeGeodesic(length {self.length:.6g} ± {self.gap:.1e} of it, straight line "
            f"{self.straight:.6g}, residual {self.residual:.1e}{end}; {self.iterations} steps, "
            f"{self.passes} passes)"
        )


def connect_large(
    metric: RiemannianMetric | FisherMetric,
    a: Tensor,
    b: Tensor,
    *,
    segments: int = 16,
    tolerance: float = 1e-2,
    rank: int = 32,
    most: int = 500,
    raise_on_failure: bool = True,
) -> LargeGeodesic:
    """A geodesic from a to b, one point [d] each or in the metric's latent shape, from a line.

    It is a minimum among nearby curves; whether a shorter one exists elsewhere is not looked at.
    For small d, :func:`kahler_verify.curves.connect` is exact to many digits and does look.
    A residual of 1e-2 left about 1% of the length of a random image decoder's at d = 256.

    Args:
        metric: of a decoder.
        a: where it begins.
        b: where it ends.
        segments: of the polygon.
        tolerance: of the residual.
        rank: of the sketch of g, which costs three passes each; 0 for none.
        most: steps of L-BFGS.
        raise_on_failure: with False, a curve that was not found says so in ``converged``.

    Raises:
        InputError: an argument is malformed, or the metric is of no decoder.
        CurveError: the tolerance was not reached.
    """
    found = metric.on_real_latents if isinstance(metric, FisherMetric) else metric
    if not isinstance(found, MatrixFreeMetric):
        raise InputError(f"metric: expected one of a decoder, got {type(metric).__name__}")
    if not isinstance(segments, int) or segments < 2:
        raise InputError(f"segments: expected at least 2, got {segments!r}")
    shape = found.latent_shape
    ends = [x.flatten() if is_shaped(x, shape) else x for x in (a, b)]
    for name, x in zip("ab", ends, strict=True):
        found.space.check(name, x)
        if x.ndim != 1 or not bool(torch.isfinite(x).all()) or x.shape != ends[0].shape:
            raise InputError(f"{name}: expected one finite point [d], got {list(x.shape)}")
    energy = _Energy(found, ends[0].detach(), ends[1].detach(), segments, rank)
    start = np.zeros((segments - 1) * len(ends[0]))
    value, _ = energy(start)
    unit = (2 * value * segments) ** 0.5  # L √n

    def stop(intermediate_result: Any) -> None:
        del intermediate_result  # by the name scipy asks for
        energy.stop_within(tolerance * unit)

    options: dict[str, Any] = {"maxcor": _MEMORY, "maxiter": most, "maxfun": 4 * most, "ftol": 0}
    out = minimize(
        energy,
        start,
        jac=True,
        method="L-BFGS-B",
        options={**options, "gtol": 0},
        callback=stop,
    )
    slope = energy.slope_at(out.x)
    residual = float(np.linalg.norm(slope)) / unit if unit > 0 else 0.0
    nodes = energy.nodes(out.x)
    length, straight = energy.refined(nodes), energy.refined(energy.nodes(start))
    gap = abs(energy.length(nodes) - length) / length if length > 0 else 0.0
    converged = residual <= tolerance
    if not converged and raise_on_failure:
        raise CurveError(
            f"the residual was brought to {residual:.1e} in {out.nit} steps, and not to "
            f"{tolerance:g}; more steps, a larger tolerance or double precision may help"
        )
    shaped = nodes if not is_shaped(a, shape) else nodes.unflatten(-1, shape)
    return LargeGeodesic(
        shaped, length, straight, gap, residual, int(out.nit), energy.passes, converged
    )


class _Energy:
    """E = n/2 Σ |chord|² of a polygon, by coordinates c along sines."""

    def __init__(self, metric: MatrixFreeMetric, a: Tensor, b: Tensor, segments: int, rank: int):
        self.metric, self.segments, self.passes = metric, segments, 0
        times = torch.linspace(0, 1, segments + 1, dtype=torch.float64)[:, None]
        self.line = (1 - times) * a.double().cpu() + times * b.double().cpu()  # as L-BFGS is
        k = torch.arange(1, segments, dtype=torch.float64)
        sines = (torch.pi * k[:, None] * k / segments).sin() * (2 / segments) ** 0.5
        stiffness = 2 - 2 * (torch.pi * k / segments).cos()
        # c ↦ nodes, such that Σ |z_{i+1} - z_i|² = |c|², but for g
        self.along = sines / stiffness.sqrt()
        self.like = a
        self.values, self.vectors = self._sketch((a + b) / 2, rank)
        self._last: tuple[np.ndarray, np.ndarray] | None = None

    def _sketch(self, z: Tensor, rank: int) -> tuple[Tensor, Tensor]:
        """The largest eigenvalues of g, about, with their directions, and one of the others."""
        if rank == 0:
            return torch.ones(1, dtype=torch.float64), self.line.new_zeros(1, len(z))
        operator = self.metric.operator(z, method="matrix-free")
        found = nystrom(operator._multiplied, self.line[0], rank)
        self.passes += operator.passes
        return found.values.clamp_min(1e-6 * found.values[0]), found.vectors

    def _in_units(self, rows: Tensor) -> Tensor:
        """Rows times g^{-1/2}, as far as the sketch knows g; no direction counts for less."""
        floor = self.values[-1].rsqrt()
        inside = (rows @ self.vectors.mT) * (self.values.rsqrt() - floor)
        return floor * rows + inside @ self.vectors

    def nodes(self, c: np.ndarray) -> Tensor:
        """[n + 1, d], in the precision of the latents."""
        rows = self._in_units(torch.from_numpy(c).reshape(self.segments - 1, -1))
        moved = self.along @ rows
        inside = self.line[1:-1] + moved
        return torch.cat([self.line[:1], inside, self.line[-1:]]).to(self.like)

    def __call__(self, c: np.ndarray) -> tuple[float, np.ndarray]:
        """E and its gradient by c."""
        z = self.nodes(c).requires_grad_()
        with torch.enable_grad():
            value = self.metric._chords(z).sum() * (self.segments / 2)
            (slope,) = torch.autograd.grad(value, z)
        self.passes += 2 * len(z)
        along = self._in_units(self.along.mT @ slope[1:-1].double().cpu())
        self._last = c.copy(), along.reshape(-1).numpy()
        return float(value), self._last[1]

    def slope_at(self, c: np.ndarray) -> np.ndarray:
        """The gradient, which is mostly known."""
        if self._last is None or not np.array_equal(self._last[0], c):
            self(c)
        assert self._last is not None
        return self._last[1]

    def stop_within(self, norm: float) -> None:
        """End the search as soon as the gradient is so small."""
        assert self._last is not None
        if float(np.linalg.norm(self._last[1])) <= norm:
            raise StopIteration

    @torch.no_grad()
    def length(self, nodes: Tensor) -> float:
        """Of the chords."""
        self.passes += len(nodes)
        return float(self.metric._chords(nodes).clamp_min(0).sqrt().sum())

    def refined(self, nodes: Tensor) -> float:
        """Of twice as many chords, of a cubic spline through the nodes."""
        times = np.linspace(0, 1, len(nodes))
        spline = CubicSpline(times, nodes.double().cpu().numpy())
        finer = spline(np.linspace(0, 1, 2 * len(nodes) - 1))
        return self.length(torch.from_numpy(finer).to(nodes))
