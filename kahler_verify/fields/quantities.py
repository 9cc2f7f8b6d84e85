"""What can be evaluated at every point: a table, one line for each quantity."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from kahler_verify.errors import InputError
from kahler_verify.geometry.base import Metric
from kahler_verify.geometry.diagnosis import closedness_defect
from kahler_verify.spaces import Space

Value = Callable[..., Tensor]  # of a metric, points z [n, d], and a plane's vectors [d] or nothing
BOTH, COMPLEX_ONLY = (False, True), (True,)


@dataclass(frozen=True)
class Quantity:
    """One quantity.

    Attributes:
        name: as users say it.
        meaning: in words.
        units: of what it is.
        value: [n, ...] at points [n, d], complex ones at complex latents.
        latents: whether it is of real ones (False), of complex ones (True).
        vectors: how many vectors it is told, in real coordinates.
        matrix: whether it is [n, d, d].
    """

    name: str
    meaning: str
    units: str
    value: Value
    latents: tuple[bool, ...] = BOTH
    vectors: int = 0
    matrix: bool = False


def _det(metric: Any, z: Tensor) -> Tensor:
    return (metric.log_det_hermitian(z) if z.is_complex() else 2 * metric.log_volume(z)).exp()


def _condition(metric: Any, z: Tensor) -> Tensor:
    eigenvalues = torch.linalg.eigvalsh(metric.metric_matrix(z))
    ratio = eigenvalues[:, -1] / eigenvalues[:, 0]
    return torch.where(eigenvalues[:, 0] <= 0, torch.inf, ratio)


def _kahler_defect(metric: Any, z: Tensor) -> Tensor:
    factor, info = torch.linalg.cholesky_ex(metric.metric_matrix(z))
    defect = closedness_defect(metric, z, factor)
    return torch.where(info > 0, torch.nan, defect)


def _sectional(metric: Any, z: Tensor, u: Tensor, v: Tensor) -> Tensor:
    x = torch.cat([z.real, z.imag], -1) if z.is_complex() else z
    real = metric.riemannian() if z.is_complex() else metric
    found: Tensor = real.sectional_curvature(x, u.expand_as(x), v.expand_as(x))
    return found


QUANTITIES = {
    quantity.name: quantity
    for quantity in (
        Quantity(
            "log_volume", "log √det g of the real metric", "nat", lambda m, z: m.log_volume(z)
        ),
        Quantity("det", "det g, of the Hermitian part at complex latents", "1", _det),
        Quantity("condition", "largest over smallest eigenvalue of g", "1", _condition),
        Quantity(
            "kahler_defect",
            "largest |∂_c g_{ab̄} - ∂_a g_{cb̄}| in a g-orthonormal frame; 0 where Kähler",
            "1",
            _kahler_defect,
            COMPLEX_ONLY,
        ),
        Quantity(
            "scalar_curvature",
            "Levi-Civita's, and Chern's g^{cē} Ric_{cē} at complex latents",
            "1",
            lambda m, z: m.scalar_curvature(z),
        ),
        Quantity(
            "sectional_curvature", "K of a plane, of the real metric", "1", _sectional, vectors=2
        ),
        Quantity("metric", "g_ab, or g_{ab̄}", "1", lambda m, z: m.metric_matrix(z), matrix=True),
    )
}


def quantity(name: str, space: Space, plane: list[list[float]]) -> Quantity:
    """A quantity by its name.

    Raises:
        InputError: there is none, it is not of such latents, or it is of a plane and none is given.
    """
    if name not in QUANTITIES:
        raise InputError(f"quantity: expected one of {', '.join(QUANTITIES)}, got {name!r}")
    found = QUANTITIES[name]
    if space.complex not in found.latents:
        raise InputError(f"quantity: {name} is defined at complex latents alone, these are real")
    if len(plane) != found.vectors:
        raise InputError(
            f"plane: expected {found.vectors or 'no'} vectors with {name}, got {len(plane)}"
        )
    return found


# ------------------------------------------------------------- evaluation
def values_at(
    wanted: Quantity, metric: Metric, z: Tensor, vectors: list[Tensor], piece: int
) -> tuple[Tensor, list[str]]:
    """A quantity at points [n, d], so many at a time; NaN where it cannot be had, with the reason.

    Returns:
        Values [n, ...], and a line for those points where it is NaN.

    Raises:
        MemoryError: a piece does not fit the memory.
    """
    found, reasons = [], []
    for part in z.split(piece):
        values, reason = _of(wanted, metric, part, vectors)
        found.append(values)
        reasons += reason
    values = torch.cat(found) if len(found) != 1 else found[0]
    lost = values.isnan().reshape(len(values), -1).any(1)
    count = int(lost.sum())
    if not count:
        return values, []
    first = int(lost.nonzero()[0])
    why = f" ({reasons[0]})" if reasons else ""
    where = ", ".join(f"{x:.6g}" for x in z[first].tolist())
    return values, [f"{count} of {len(z)} points are NaN, the first is z = ({where}){why}"]


def _of(
    wanted: Quantity, metric: Metric, z: Tensor, vectors: list[Tensor]
) -> tuple[Tensor, list[str]]:
    """Values, by halves where some points spoil a call for all."""
    try:
        return wanted.value(metric, z, *vectors), []
    except Exception as error:
        if is_of_memory(error):
            raise MemoryError(str(error)) from error
        reason = f"{type(error).__name__}: {' '.join(str(error).split())[:160]}"
    try:
        with _unvalidated(metric) as lax:
            values = wanted.value(lax, z, *vectors)
        values[~z.isfinite().all(-1)] = torch.nan  # which a saturated network forgets
        return values, [reason]
    except Exception as error:
        if is_of_memory(error):
            raise MemoryError(str(error)) from error
    if len(z) == 1:
        d = z.shape[-1]
        kind = z.dtype if wanted.matrix else z.real.dtype
        return torch.full((1, d, d) if wanted.matrix else (1,), torch.nan, dtype=kind), [reason]
    halves = [_of(wanted, metric, half, vectors) for half in z.split(-(-len(z) // 2))]
    return torch.cat([half[0] for half in halves]), [line for half in halves for line in half[1]]


class _unvalidated:
    """A metric that gives NaN in place of errors, for as long as the block lasts."""

    def __init__(self, metric: Metric):
        self.metric, self.before = metric, metric.validate_args

    def __enter__(self) -> Metric:
        self.metric.validate_args = False
        return self.metric

    def __exit__(self, *_: object) -> None:
        self.metric.validate_args = self.before


def is_of_memory(error: BaseException) -> bool:
    """Whether memory was refused; torch has no class for that on a CPU."""
    refused = ("can't allocate memory", "not enough memory", "bad_alloc")
    return isinstance(error, (MemoryError, torch.OutOfMemoryError)) or (
        isinstance(error, RuntimeError) and any(words in str(error) for words in refused)
    )
