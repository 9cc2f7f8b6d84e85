"""What is looked at of a metric, point by point: a table, one row for each quantity.

Fields, the explorer, pictures and the report read it: a quantity more is a row more.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal

import torch
from torch import Tensor

from kahler_verify.errors import InputError
from kahler_verify.geometry.metric import HermitianMetric
from kahler_verify.geometry.riemannian import RiemannianMetric
from kahler_verify.spaces import Space

AnyMetric = HermitianMetric | RiemannianMetric
Scale = Literal["linear", "log", "signed"]
BOTH, COMPLEX_ONLY = (False, True), (True,)


@dataclass(frozen=True)
class Quantity:
    """One quantity.

    Attributes:
        name: as users say it, in commands, stores and addresses.
        title: of a picture.
        value: of a metric, points z [n, d] and as many vectors as it is told: values [n], or
            [n, d, d]; not finite where undefined.
        unit: in which the title's quantity is, in a legend's words.
        meaning: its definition, with conventions.
        units: as stores have it.
        scale: of colours: linear; log, for positive values; or signed, with white for 0.
        latents: whether it is of real ones (False), of complex ones (True).
        vectors: how many it is told, [d], in real coordinates.
        matrix: whether values are matrices.
        shown: whether maps of it tell what others do not.
    """

    name: str
    title: str
    value: Callable[..., Tensor]
    unit: str = ""
    meaning: str = ""
    units: str = "1"
    scale: Scale = "linear"
    latents: tuple[bool, ...] = BOTH
    vectors: int = 0
    matrix: bool = False
    shown: bool = True

    @property
    def label(self) -> str:
        """Of a legend."""
        return f"{self.title} ({self.unit})" if self.unit else self.title

    @property
    def mapped(self) -> bool:
        """Whether it is a number at a point, that a map can show."""
        return not (self.vectors or self.matrix)

    def require(self, space: Space, vectors: Sequence[Sequence[float]] = ()) -> None:
        """Make sure that it is of such latents, and is told what it needs.

        Raises:
            InputError: it is not, or it is of a plane and none is given.
        """
        if space.complex not in self.latents:
            raise InputError(
                f"quantity: {self.name} is defined at complex latents alone, these are real"
            )
        if len(vectors) != self.vectors:
            raise InputError(
                f"plane: expected {self.vectors or 'no'} vectors with {self.name}, got "
                f"{len(vectors)}"
            )


def quantity(name: str) -> Quantity:
    """A quantity by its name.

    Raises:
        InputError: there is none.
    """
    if name not in QUANTITIES:
        raise InputError(f"quantity: expected one of {', '.join(QUANTITIES)}, got {name!r}")
    return QUANTITIES[name]


def real_matrix(metric: AnyMetric, z: Tensor) -> Tensor:
    """The matrix of the real metric, in (x, y) at complex latents."""
    if isinstance(metric, HermitianMetric) and z.is_complex():
        return metric.real_metric_matrix(z)
    return metric.metric_matrix(z)


def _det(metric: Any, z: Tensor) -> Tensor:
    return (metric.log_det_hermitian(z) if z.is_complex() else 2 * metric.log_volume(z)).exp()


def _condition(metric: AnyMetric, z: Tensor) -> Tensor:
    g = real_matrix(metric, z)
    known = g.isfinite().all(-1).all(-1)  # of other matrices LAPACK gives an error for the batch
    one = torch.eye(g.shape[-1], dtype=g.dtype, device=g.device)
    eigenvalues = torch.linalg.eigvalsh(torch.where(known[..., None, None], g, one))
    least, largest = eigenvalues[..., 0], eigenvalues[..., -1]
    ratio = torch.where(least > 0, largest / least, torch.inf)
    return torch.where(known, ratio, torch.nan)


def _kahler_defect(metric: AnyMetric, z: Tensor) -> Tensor:
    if not isinstance(metric, HermitianMetric) or not z.is_complex():
        raise InputError("quantity: kahler_defect is defined at complex latents alone")
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


def _sectional(metric: Any, z: Tensor, u: Tensor, v: Tensor) -> Tensor:
    x = torch.cat([z.real, z.imag], -1) if z.is_complex() else z
    real = metric.riemannian() if z.is_complex() else metric
    found: Tensor = real.sectional_curvature(x, u.expand_as(x), v.expand_as(x))
    return found


QUANTITIES: Mapping[str, Quantity] = {
    each.name: each
    for each in (
        Quantity(
            "log_volume",
            "Log volume density",
            lambda metric, z: metric.log_volume(z),
            unit="log √det g, nats",
            meaning="log √det g of the real metric",
            units="nat",
        ),
        Quantity(
            "det",
            "Determinant of the metric",
            _det,
            meaning="det g, of the Hermitian part at complex latents",
            scale="log",
            shown=False,  # the logarithm of the volume is
        ),
        Quantity(
            "condition",
            "Condition of the metric",
            _condition,
            unit="largest/least eigenvalue",
            meaning="largest over smallest eigenvalue of the real metric, infinite where it is "
            "degenerate",
            scale="log",
        ),
        Quantity(
            "scalar_curvature",
            "Scalar curvature",
            lambda metric, z: metric.scalar_curvature(z),
            unit="1/length²",
            meaning="Levi-Civita's, and Chern's g^{cē} Ric_{cē} at complex latents",
            scale="signed",
        ),
        Quantity(
            "kahler_defect",
            "Kähler defect",
            _kahler_defect,
            unit="|∂g − ∂g|_g, 0 where Kähler",
            meaning="(Σ |T|²)^½ of T = ∂_c g_{ab̄} - ∂_a g_{cb̄} in a g-orthonormal frame, which "
            "no choice of frame or chart changes; 0 where Kähler",
            latents=COMPLEX_ONLY,
        ),
        Quantity(
            "sectional_curvature",
            "Sectional curvature",
            _sectional,
            unit="1/length²",
            meaning="K of a plane, of the real metric",
            scale="signed",
            vectors=2,
        ),
        Quantity(
            "metric",
            "Metric",
            lambda metric, z: metric.metric_matrix(z),
            meaning="g_ab, or g_{ab̄}",
            matrix=True,
        ),
    )
}
