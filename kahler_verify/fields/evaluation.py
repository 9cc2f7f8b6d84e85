"""A quantity at many points: what one of them spoils is not lost of the others."""

from __future__ import annotations

import torch
from torch import Tensor

from kahler_verify.geometry.base import Metric
from kahler_verify.geometry.quantities import Quantity


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
