"""What to know about a metric of many dimensions: its spectrum, without curvature."""

from __future__ import annotations

import torch
from torch import Tensor

from kahler_verify.errors import InputError
from kahler_verify.geometry.diagnosis import Diagnosis, Quantity
from kahler_verify.geometry.riemannian import RiemannianMetric

__all__ = ["SMALL", "diagnose_spectrum"]

SMALL = 32  # a connection has d³ numbers; beyond this only g itself is looked at
_FEW = 10


@torch.no_grad()
def diagnose_spectrum(metric: RiemannianMetric, z: Tensor) -> Diagnosis:
    """Eigenvalues of g at points z [n, d], each by :class:`MetricOperator`.

    Where g is not made, what needs all of its eigenvalues is NaN.

    Raises:
        InputError: z is not [n, d] with n ≥ 1.
    """
    if z.ndim != 2 or not len(z):
        raise InputError(f"z: expected points [n, d] with n ≥ 1, got {list(z.shape)}")
    rows = torch.tensor([_at(metric, point) for point in z], dtype=torch.float64)
    names = (
        ("largest eigenvalue", "of g"),
        ("condition number", "of g"),
        ("log volume", "log √det g"),
        ("effective dimension", "(tr g)² / tr g²: how many directions share the change"),
        (f"share of the first {_FEW}", "of tr g"),
    )
    quantities = [Quantity(*name, rows[:, i]) for i, name in enumerate(names)]
    return Diagnosis(len(z), z.shape[-1], tuple(quantities))


def _at(metric: RiemannianMetric, z: Tensor) -> tuple[float, ...]:
    operator, nan = metric.operator(z), float("nan")
    if operator.dense:
        values = torch.linalg.eigvalsh(operator.matrix().double()).flip(0)
        least = values[-1]
        total = values.sum()
        condition = values[0] / least if least > 0 else nan * least
        volume = values.log().sum() / 2 if least > 0 else -torch.inf * values[0]
        parts = (values[0], condition, volume, total**2 / values.square().sum())
        return (*[float(x) for x in parts], float(values[:_FEW].sum() / total))
    top = operator.top(min(_FEW, operator.d), tolerance=1e-3)
    trace = operator.trace().value
    return float(top.values[0]), nan, nan, nan, float(top.values.sum() / trace)
