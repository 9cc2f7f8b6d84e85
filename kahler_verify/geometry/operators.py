"""A metric at one point as a linear operator: what large latents want of it, without its matrix.

The unit of cost is a pass through the decoder, of a value, of a tangent or of a cotangent: each has
the multiplications of one decoding.  An answer says what it took, and how far it may be off.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from functools import partial
from typing import Any, Literal

import torch
from torch import Tensor

from kahler_verify.errors import InputError
from kahler_verify.geometry.latent_shapes import is_shaped
from kahler_verify.geometry.linearised import Linearised, NoBackwardPassError
from kahler_verify.geometry.matrix_free import MatrixFreeMetric
from kahler_verify.geometry.operator_curvature import sectional_curvature
from kahler_verify.geometry.operator_results import Measured, Solved, TopDirections
from kahler_verify.geometry.riemannian import RiemannianMetric
from kahler_verify.linear_algebra.krylov import (
    conjugate_gradients,
    largest_eigenpairs,
    nystrom,
)
from kahler_verify.linear_algebra.quadrature import log_det, trace
from kahler_verify.spaces import Space
from kahler_verify.torch_state import plain_torch

__all__ = ["DENSE_UP_TO", "Method", "MetricOperator"]

Method = Literal["auto", "dense", "matrix-free"]
# Stochastic quadrature of a log determinant is off by tens of nats where a matrix has some hundred
# rows, so that the matrix itself is made as long as that is possible at all.
DENSE_UP_TO = 4096
_HELD = 4  # copies of g, or of J, at one time


class MetricOperator:
    """g at one point z: products, top directions, solutions, trace and volume.

    Args:
        metric: on real latents.
        z: one point [d], or in the metric's latent shape; complex [d] of a metric on R^{2d}, whose
            coordinates are (x, y): vectors are complex then.
        method: make g, or never make it; by default g is made where d is at most 4096 and the
            metric's memory budget holds it, but not for a few top directions that cost less
            without.

    Raises:
        InputError: z is not one point, or an argument is malformed.
    """

    def __init__(self, metric: RiemannianMetric, z: Tensor, *, method: Method = "auto"):
        if method not in ("auto", "dense", "matrix-free"):
            raise InputError(f"method: expected 'auto', 'dense' or 'matrix-free', got {method!r}")
        self.metric, self.method = metric, method
        shape = getattr(metric, "latent_shape", None)
        self.latent_shape: tuple[int, ...] | None = shape if is_shaped(z, shape) else None
        self._space = Space(z.is_complex())
        if z.is_complex():  # of a metric's real form
            z = self._space.to_real(z)
        z = metric.space.check("z", z.flatten() if is_shaped(z, shape) else z)
        if z.ndim != 1 or not bool(torch.isfinite(z).all()):
            raise InputError(f"z: expected one finite point [d], got {list(z.shape)}")
        self.z, self.d = z.detach(), len(z)
        self._other_passes = 0
        self._linear = Linearised(metric, z[None]) if isinstance(metric, MatrixFreeMetric) else None
        self._matrix: Tensor | None = None

    # ------------------------------------------------------------- the plan
    @property
    def passes(self) -> int:
        """Through the decoder, so far; of a metric without one, evaluations."""
        return self._other_passes if self._linear is None else self._linear.passes

    @property
    def dense(self) -> bool:
        """Is g made where all of it is wanted?"""
        if self.method != "auto":
            return self.method == "dense"
        held = _HELD * self.d**2 * self.z.element_size()
        fits = self.d <= DENSE_UP_TO and held <= self.metric.memory_budget
        return self._linear is None or fits

    @property
    def dense_passes(self) -> int:
        """What making g takes, at most."""
        if self._linear is None:
            return 1
        pushed = self.d + math.ceil(self.d / self._linear.at_once)
        return pushed if self._jacobian_fits else pushed + self.d

    @property
    def _jacobian_fits(self) -> bool:
        assert self._linear is not None
        held = _HELD * self.d * self._linear.outputs * self.z.element_size()
        return held <= self.metric.memory_budget

    def __repr__(self) -> str:
        size = self.d**2 * self.z.element_size() / 2**20
        made = "made" if self._matrix is not None else f"{self.dense_passes} passes"
        plan = f"dense ({made}, {size:.3g} MiB)" if self.dense else "matrix-free"
        outputs = "" if self._linear is None else f", {self._linear.outputs} outputs"
        latents = "" if self.latent_shape is None else f" = {list(self.latent_shape)}"
        return (
            f"MetricOperator(d = {self.d}{latents}{outputs}, {plan}, {self.passes} passes so far)"
        )

    # ------------------------------------------------------------- products and the matrix
    def product(self, u: Tensor) -> Tensor:
        """G u, of u [..., d] or in the latent shape."""
        rows, shape = self._rows("u", u)
        return self._shaped(self._multiplied(rows), shape)

    @plain_torch()
    def _multiplied(self, rows: Tensor) -> Tensor:
        """Of any number of rows [r, d], in their own precision and place."""
        if not len(rows):
            return rows.clone()
        if self._matrix is not None or self._linear is None:
            return rows @ self.matrix().to(rows)
        linear = self._linear
        try:
            pieces = [linear.product(some) for some in rows.to(self.z).split(linear.at_once)]
        except NoBackwardPassError:
            if self.method == "matrix-free" or not self.dense:
                raise
            return rows @ self.matrix().to(rows)
        return torch.cat(pieces).to(rows)

    def matrix(self) -> Tensor:
        """g [d, d], made once."""
        if self._matrix is None:
            self._matrix = self._made()
        return self._matrix

    @plain_torch()
    def _made(self) -> Tensor:
        linear = self._linear
        if linear is None:
            self._other_passes += 1
            with torch.no_grad():
                return self.metric.metric_matrix(self.z)
        axes = torch.eye(self.d, dtype=self.z.dtype, device=self.z.device).split(linear.at_once)
        if self._jacobian_fits:
            pieces = [linear.push(some) for some in axes]
            J = {name: torch.cat([piece[name] for piece in pieces]) for name in pieces[0]}
            FJ = linear.lower(J)
            g = sum(
                (J[name].reshape(self.d, -1) @ FJ[name].reshape(self.d, -1).mT for name in J),
                start=self.z.new_zeros(self.d, self.d),
            )
        else:
            g = torch.cat([linear.product(some) for some in axes])
        return (g + g.mT) / 2

    def _shaped(self, rows: Tensor, shape: Sequence[int]) -> Tensor:
        return self._space.from_real(rows).reshape(shape)

    def _rows(self, name: str, u: Tensor) -> tuple[Tensor, torch.Size]:
        shape = u.shape
        if self._space.complex:
            u = self._space.to_real(self._space.check(name, u))
        given: tuple[int, ...] | None = getattr(self.metric, "latent_shape", None)
        rows = u.reshape(-1, self.d) if is_shaped(u, given) else u
        self.metric._check_vectors(self.z, **{name: rows})
        return rows.reshape(-1, self.d).detach(), shape

    # ------------------------------------------------------------- what is made of them
    @plain_torch()
    def top(
        self, k: int, *, tolerance: float = 1e-3, steps: int | None = None, seed: int = 0
    ) -> TopDirections:
        """The k directions in which the law changes most, and their eigenvalues of g.

        Args:
            k: how many, at most d.
            tolerance: of the eigenvalues' estimated errors, relative.
            steps: of Lanczos' method at most; 5k + 30 by default.
            seed: of its start.
        """
        if not isinstance(k, int) or not 1 <= k <= self.d:
            raise InputError(f"k: expected 1 … {self.d}, got {k!r}")
        before = self.passes
        most = min(self.d, 5 * k + 30 if steps is None else steps)
        few = self.method == "auto" and self._matrix is None and 3 * most < self.dense_passes
        if self.dense and not few:
            values, vectors = torch.linalg.eigh(self.matrix().double())
            found, directions = values.flip(0)[:k], vectors.flip(1)[:, :k].mT
            errors = torch.full_like(found, self._rounding(values[-1].item()))
            converged, how = True, "dense"
        else:
            out = largest_eigenpairs(
                self._multiplied, self.z.double(), k, tolerance=tolerance, steps=steps, seed=seed
            )
            found, directions, errors, converged = (
                out.values, out.vectors, out.errors, out.converged
            )  # fmt: skip
            how = f"Lanczos, {out.products} steps"
        directions = self._space.from_real(directions.to(self.z.dtype))
        directions = directions.reshape(k, *(self.latent_shape or directions.shape[1:]))
        return TopDirections(found, directions, errors, converged, self.passes - before, how)

    def _rounding(self, largest: float) -> float:
        return math.sqrt(self.d) * torch.finfo(self.z.dtype).eps * abs(largest)

    @plain_torch()
    def solve(
        self,
        b: Tensor,
        *,
        ridge: float = 0.0,
        tolerance: float = 1e-6,
        rank: int = 0,
        steps: int | None = None,
        seed: int = 0,
    ) -> Solved:
        """(g + ridge)⁻¹ b, of covectors b [..., d] or in the latent shape.

        Without the matrix it takes conjugate gradients, whose steps are about the root of g's
        condition number: a ridge of a hundredth of the largest eigenvalue needs some thirty.

        Args:
            b: right-hand sides.
            ridge: what is added to g, none by default; the answer is that of the ridge.
            tolerance: of the residual, relative.
            rank: of a Nyström preconditioner, which costs as many products; 0 for none.
            steps: of conjugate gradients at most.
            seed: of the preconditioner's sketch.

        Raises:
            InputError: ridge is negative, or g with it is not positive definite.
        """
        if not (isinstance(ridge, int | float) and ridge >= 0 and math.isfinite(ridge)):
            raise InputError(f"ridge: expected a finite number ≥ 0, got {ridge!r}")
        rows, shape = self._rows("b", b)
        before, wide = self.passes, rows.double()
        if self.dense:
            g = self.matrix().double()
            shifted = g + ridge * torch.eye(self.d, dtype=g.dtype, device=g.device)
            factor, info = torch.linalg.cholesky_ex(shifted)
            if bool(info > 0):
                raise InputError(
                    "ridge: g is not positive definite to working precision: state a larger one"
                )
            x = torch.cholesky_solve(wide.mT, factor).mT
            sizes = wide.norm(dim=-1).clamp_min(torch.finfo(wide.dtype).tiny)
            residual = (wide - x @ shifted).norm(dim=-1) / sizes
            converged, how = True, "dense, Cholesky"
        else:
            preconditioner, how = None, "conjugate gradients"
            if rank:
                sketch = nystrom(self._multiplied, self.z.double(), rank, seed=seed)
                preconditioner = sketch.preconditioner(ridge)
                how += f", Nyström of rank {len(sketch.values)}"
            out = conjugate_gradients(
                self._multiplied,
                wide,
                ridge=ridge,
                tolerance=tolerance,
                most=steps,
                preconditioner=preconditioner,
            )
            x, residual, converged = out.x, out.residual, out.converged
        x = self._shaped(x.to(self.z.dtype), shape)
        return Solved(x, residual.max().item(), ridge, converged, self.passes - before, how)

    @plain_torch()
    def trace(self, *, probes: int = 18, seed: int = 0) -> Measured:
        """Tr g: with coordinates of unit variance, how much the law changes in all."""
        before = self.passes
        if self.dense:
            value = self.matrix().double().diagonal().sum().item()
            error = self._rounding(value)
            return Measured("trace", value, error, self.passes - before, "dense")
        out = trace(self._multiplied, self.z.double(), probes=probes, seed=seed)
        how = f"Hutch++, {probes} probes"
        return Measured("trace", out.value, out.error, self.passes - before, how)

    @plain_torch()
    def log_volume(
        self,
        *,
        ridge: float = 0.0,
        smallest: float | None = None,
        probes: int = 8,
        steps: int = 30,
        seed: int = 0,
    ) -> Measured:
        """log √det (g + ridge).

        Without the matrix it takes stochastic Lanczos quadrature, whose error of tens of nats is
        said; differences of two points by common probes (``a.minus(b)``) are several times better.

        Args:
            ridge: added to g; with it the bias has a bound, without it an estimate.
            smallest: a lower bound of g's eigenvalues, if one is known; 0 with a ridge.
            probes: random vectors, at least 2.
            steps: of Lanczos' method for each.
            seed: of the probes; points that are to be compared have the same.

        Raises:
            InputError: g + ridge is not positive definite to working precision.
        """
        before = self.passes
        if self.dense:
            values = torch.linalg.eigvalsh(self.matrix().double()) + ridge
            if not bool(values[0] > 0):
                raise InputError(
                    "z: log_volume needs a positive definite metric, but its smallest eigenvalue "
                    f"is {values[0].item():.3g}: state a ridge"
                )
            error = self._rounding(values[-1].item()) * (1 / values).sum().item() / 2
            value = values.log().sum().item() / 2
            return Measured("log volume", value, error, self.passes - before, "dense")
        lowest = 0.0 if smallest is None and ridge > 0 else smallest
        out = log_det(
            self._multiplied,
            self.z.double(),
            ridge=ridge,
            smallest=lowest,
            probes=probes,
            steps=steps,
            seed=seed,
        )
        how = f"stochastic Lanczos quadrature, {probes} probes of {steps} steps"
        passes = self.passes - before
        return Measured("log volume", out.value / 2, out.error / 2, passes, how, out)

    def sectional_curvature(self, u: Tensor, v: Tensor, **options: Any) -> Measured:
        """K of the plane that u and v span, [d] each or in the latent shape, by Gauss' equation.

        Args:
            u: a vector.
            v: another.
            options: of :meth:`solve`, such as ``tolerance``.

        Raises:
            InputError: the law is no Gaussian with a constant covariance, or u and v span no plane.
        """
        rows = [self._rows(name, x)[0] for name, x in (("u", u), ("v", v))]
        if any(len(x) != 1 for x in rows):
            raise InputError("u, v: expected one vector each")
        if self._linear is None:
            raise InputError("metric: expected one of a decoder; see metric.sectional_curvature")
        before, solve = self.passes, partial(self.solve, **options)
        value, error, how = sectional_curvature(self._linear, solve, rows[0][0], rows[1][0])
        return Measured("sectional curvature", value, error, self.passes - before, how)
