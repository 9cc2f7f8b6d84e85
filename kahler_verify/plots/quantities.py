"""What of a metric is drawn as a map: its values, its name with its unit, its colours."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Literal

import torch
from torch import Tensor

from kahler_verify.errors import InputError
from kahler_verify.geometry.metric import HermitianMetric
from kahler_verify.geometry.riemannian import RiemannianMetric

AnyMetric = HermitianMetric | RiemannianMetric
Scale = Literal["linear", "log", "signed"]
COLOURS: Mapping[Scale, str] = {"linear": "viridis", "log": "cividis", "signed": "RdBu_r"}


@dataclass(frozen=True)
class Drawn:
    """A quantity that is drawn.

    Attributes:
        values: from a metric and points [n, d] to real values [n]; not finite where undefined.
        label: its name and unit.
        scale: linear; log, for positive values; or signed, with white for 0.
    """

    values: Callable[[AnyMetric, Tensor], Tensor]
    label: str
    scale: Scale = "linear"


def condition(metric: AnyMetric, z: Tensor) -> Tensor:
    """Largest by smallest eigenvalue of the real metric's matrix; NaN where it is no metric."""
    g = real_matrix(metric, z)
    known = g.isfinite().all(-1).all(-1)  # of other matrices LAPACK gives an error for the batch
    one = torch.eye(g.shape[-1], dtype=g.dtype, device=g.device)
    eigenvalues = torch.linalg.eigvalsh(torch.where(known[..., None, None], g, one))
    least, largest = eigenvalues[..., 0], eigenvalues[..., -1]
    return torch.where(known & (least > 0), largest / least, torch.nan)


def kahler_defect(metric: AnyMetric, z: Tensor) -> Tensor:
    """(Σ |T|²)^½ of T = ∂_c g_{ab̄} - ∂_a g_{cb̄} in a g-orthonormal frame; no chart changes it."""
    if not isinstance(metric, HermitianMetric) or not z.is_complex():
        raise InputError("quantity: kahler_defect is defined of metrics at complex latents alone")
    g, defect = metric.metric_matrix(z), metric.kahler_defect(z)
    factor, info = torch.linalg.cholesky_ex(g)  # g[a, b] = Σ L[a, i] conj(L[b, i])
    inverse = torch.linalg.solve_triangular(
        factor, torch.eye(g.shape[-1], dtype=g.dtype, device=g.device).expand_as(g), upper=False
    )
    framed = torch.einsum(
        "...ic,...ja,...kb,...cab->...ijk", inverse, inverse, inverse.conj(), defect
    )
    norm = framed.abs().square().sum((-3, -2, -1)).sqrt()
    return torch.where(info > 0, torch.nan, norm)


def real_matrix(metric: AnyMetric, z: Tensor) -> Tensor:
    """The matrix of the real metric, in (x, y) at complex latents."""
    if isinstance(metric, HermitianMetric) and z.is_complex():
        return metric.real_metric_matrix(z)
    return metric.metric_matrix(z)


QUANTITIES: Mapping[str, Drawn] = {
    "log_volume": Drawn(lambda metric, z: metric.log_volume(z), "log √det g (nats)"),
    "condition": Drawn(condition, "condition number of g", "log"),
    "scalar_curvature": Drawn(
        lambda metric, z: metric.scalar_curvature(z), "scalar curvature", "signed"
    ),
    "kahler_defect": Drawn(kahler_defect, "distance from Kähler, |∂g − ∂g| under g"),
}
