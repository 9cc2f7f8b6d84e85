"""What to know about any decoder's geometry: how Kähler, how degenerate, how curved."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass

import torch
from torch import Tensor

from kahler_verify.errors import InputError
from kahler_verify.geometry.metric import HermitianMetric
from kahler_verify.geometry.riemannian import RiemannianMetric


@dataclass(frozen=True)
class Quantity:
    """One quantity over the points: what it means, and its quartiles and range."""

    name: str
    meaning: str
    values: Tensor  # [points]

    def summary(self) -> Mapping[str, float]:
        """Minimum, quartiles and maximum; NaN where the quantity is not defined."""
        names = ("minimum", "lower_quartile", "median", "upper_quartile", "maximum")
        at = torch.tensor([0, 0.25, 0.5, 0.75, 1], dtype=torch.float64)
        quantiles = torch.quantile(self.values.double(), at)
        return dict(zip(names, quantiles.tolist(), strict=True))


@dataclass(frozen=True)
class Diagnosis:
    """The quantities of :func:`diagnose`, in a fixed order."""

    points: int
    dimension: int
    quantities: tuple[Quantity, ...]

    def to_json(self) -> dict:
        """Plain values for JSON; numbers that are not finite become None."""
        return {
            "points": self.points,
            "dimension": self.dimension,
            "quantities": {
                q.name: {
                    "meaning": q.meaning,
                    **{k: v if math.isfinite(v) else None for k, v in q.summary().items()},
                }
                for q in self.quantities
            },
        }


@torch.no_grad()  # what autograd would record of all points does not fit any memory budget
def diagnose(
    metric: HermitianMetric | RiemannianMetric, z: Tensor, *, curvature: bool = True
) -> Diagnosis:
    """Measure a metric's geometry at points z [n, d].

    Relative quantities are taken in a g-orthonormal frame e = L⁻¹, g = L Lᴴ, in which they do not
    depend on the units of the latent coordinates.

    Args:
        metric: of a decoder or of a potential, at complex or at real latents.
        z: points [n, d], such as encoded data.
        curvature: whether to evaluate curvatures, which need third derivatives of a decoder.

    Raises:
        InputError: z is not [n, d] with n ≥ 1, or g is not positive definite at a point.
    """
    if z.ndim != 2 or not len(z):
        raise InputError(f"z: expected points [n, d] with n ≥ 1, got {list(z.shape)}")
    if isinstance(metric, RiemannianMetric):
        return _riemannian(metric, z, curvature)
    g, k = metric.metric_matrix(z), metric.complementary_part(z)
    factor, info = torch.linalg.cholesky_ex(g)
    if bool((info > 0).any()):
        raise InputError("z: expected points at which g is positive definite")
    d = z.shape[-1]
    solve = torch.linalg.solve_triangular
    # k in the frame: L⁻¹ k L⁻ᵀ, of norm at most one
    framed = solve(factor, solve(factor, k, upper=False).mT, upper=False).mT
    eigenvalues = torch.linalg.eigvalsh(g)
    real_eigenvalues = torch.linalg.eigvalsh(metric.real_metric_matrix(z)).clamp_min(0)
    eye = torch.eye(d, dtype=g.dtype, device=g.device).expand_as(g)
    augmented = torch.cat([torch.cat([eye, framed], -1), torch.cat([framed.conj(), eye], -1)], -2)
    log_det = metric.log_det_hermitian(z)
    quantities = [
        Quantity(
            "closedness defect",
            "|∂_c g_{ab̄} - ∂_a g_{cb̄}| in a g-orthonormal frame; 0 if and only if Kähler",
            closedness_defect(metric, z, factor),
        ),
        Quantity(
            "complementary part",
            "largest singular value of k relative to g; 0: the Hermitian part says all, 1: "
            "degenerate",
            torch.linalg.matrix_norm(framed, 2),
        ),
        Quantity(
            "identifiability",
            "smallest eigenvalue of [[g, k], [k̄, ḡ]] relative to g; 0: a real direction has "
            "no effect",
            torch.linalg.eigvalsh(augmented)[:, 0],
        ),
        Quantity("condition number", "of g", eigenvalues[:, -1] / eigenvalues[:, 0]),
        Quantity(
            "real condition number",
            "of the real metric, which k is part of; that of g if k = 0",
            real_eigenvalues[:, -1] / real_eigenvalues[:, 0],
        ),
        Quantity("log det g", "of the Hermitian part", log_det),
        Quantity(
            "log volume gap",
            "true log volume minus d log 2 + log det g; 0 if and only if k = 0",
            metric.log_volume(z) - log_det - d * math.log(2),
        ),
    ]
    if curvature:
        directions = solve(factor.mH, eye, upper=True).mT.conj()  # rows: a g-unitary frame
        sectional = torch.stack(
            [metric.holomorphic_sectional_curvature(z, v) for v in directions.unbind(1)], -1
        )
        quantities += [
            Quantity("scalar curvature", "Chern's, g^{cē} Ric_{cē}", metric.scalar_curvature(z)),
            Quantity(
                "holomorphic sectional curvature",
                "mean over a g-unitary frame",
                sectional.mean(-1),
            ),
        ]
    return Diagnosis(len(z), d, tuple(quantities))


def _riemannian(metric: RiemannianMetric, z: Tensor, curvature: bool) -> Diagnosis:
    g = metric.metric_matrix(z)
    if bool((torch.linalg.cholesky_ex(g)[1] > 0).any()):
        raise InputError("z: expected points at which g is positive definite")
    eigenvalues = torch.linalg.eigvalsh(g)
    drift = metric.brownian_drift(z)
    quantities = [
        Quantity("condition number", "of g", eigenvalues[:, -1] / eigenvalues[:, 0]),
        Quantity("log volume", "log √det g", metric.log_volume(z)),
        Quantity(
            "drift",
            "length of ½ g^{ab} Γ_ab under g: how far coordinates are from harmonic",
            metric.norm(drift, z),
        ),
    ]
    if curvature:
        scalar = metric.scalar_curvature(z)
        quantities.append(Quantity("scalar curvature", "Levi-Civita's, d(d-1) on a sphere", scalar))
    return Diagnosis(len(z), z.shape[-1], tuple(quantities))


def closedness_defect(metric: HermitianMetric, z: Tensor, factor: Tensor) -> Tensor:
    """The largest |∂_c g_{ab̄} - ∂_a g_{cb̄}| at z [n, d] in the frame of a factor L of g, [n]."""
    defect = metric.kahler_defect(z)
    for axis in (1, 2):
        defect = _framed(defect, factor, axis)
    return _framed(defect, factor.conj(), 3).abs().flatten(1).amax(1)


def _framed(x: Tensor, factor: Tensor, axis: int) -> Tensor:
    """L⁻¹ applied to one axis of a tensor [n, d, d, d]."""
    moved = x.movedim(axis, 1)
    flat = torch.linalg.solve_triangular(factor, moved.flatten(2), upper=False)
    return flat.reshape(moved.shape).movedim(1, axis)
