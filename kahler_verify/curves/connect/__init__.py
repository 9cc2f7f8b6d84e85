"""Geodesics between points: one function, and a solver a file."""

from __future__ import annotations

import torch
from torch import Tensor

from kahler_verify.curves.certify import measure
from kahler_verify.curves.connect.collocation import Collocation
from kahler_verify.curves.connect.solver import Found, Solver
from kahler_verify.curves.connect.spectral import Spectral
from kahler_verify.curves.curve import Curve
from kahler_verify.curves.energy import unchecked
from kahler_verify.curves.report import CurveReport, Status
from kahler_verify.errors import InputError
from kahler_verify.geometry.riemannian import RiemannianMetric

__all__ = ["Collocation", "Found", "Solver", "Spectral", "connect"]


def connect(
    metric: RiemannianMetric,
    a: Tensor,
    b: Tensor,
    *,
    solver: Solver | None = None,
    start: Curve | Tensor | None = None,
    raise_on_failure: bool = True,
) -> Curve:
    """Geodesics from a to b, [..., d] each, as a :class:`Curve` with a report.

    A minimum is a minimum among nearby curves: that no shorter curve exists elsewhere is not
    proved.

    Args:
        metric: of the latent space.
        a: where they begin.
        b: where they end.
        solver: :class:`Spectral` by default.
        start: a first guess, of the same batch: curves, or points [..., T, d] at equal times;
            lines by default.
        raise_on_failure: with False, a curve that was not found has NaN for nodes, length and
            energy, and the report says why; a saddle keeps them.

    Raises:
        InputError: end points are malformed.
        CurveError: a pair's search did not end at a minimum, and ``raise_on_failure``.
    """
    a, b = end_points(metric, a, b)
    batch, d = a.shape[:-1], a.shape[-1]
    first, last = a.detach().reshape(-1, d), b.detach().reshape(-1, d)
    points = None
    if start is not None:
        points = start(torch.linspace(0, 1, 65)) if isinstance(start, Curve) else start
        if points.ndim < 2 or points.shape[:-2] != batch or points.shape[-1] != d:
            raise InputError(f"start: expected points {[*batch, 'T', d]}, got {list(points.shape)}")
        points = points.detach().reshape(-1, *points.shape[-2:])
    with torch.no_grad():
        found = _solved(unchecked(metric), solver or Spectral(), first, last, points)
        curve, report = _judged(metric, found)
    curve = Curve(
        metric,
        curve.mesh,
        curve.nodes.reshape(*batch, *curve.nodes.shape[1:]),
        report.reshape(*batch),
    )
    if raise_on_failure:
        report.require()
    return curve


def end_points(metric: RiemannianMetric, a: Tensor, b: Tensor) -> tuple[Tensor, Tensor]:
    """a and b of one batch, if they are finite points of the metric's space."""
    a = metric.space.check("a", a)
    b = metric.space.check("b", b)
    if a.dtype not in (torch.float32, torch.float64):
        raise InputError(f"a: expected float32 or float64 for curves, got {a.dtype}")
    metric._check_vectors(a, b=b)
    for name, x in (("a", a), ("b", b)):
        if metric.validate_args and not bool(x.isfinite().all()):
            raise InputError(f"{name}: expected finite points, got NaN or infinities")
    try:
        a, b = torch.broadcast_tensors(a, b)
    except RuntimeError as error:
        raise InputError(
            f"a, b: expected batches that broadcast, got {list(a.shape)} and {list(b.shape)}"
        ) from error
    return a, b


def _solved(
    metric: RiemannianMetric, solver: Solver, a: Tensor, b: Tensor, start: Tensor | None
) -> Found:
    """The solver's answer; equal end points, and such where there is no metric, it never sees."""
    g = torch.stack([metric.metric_matrix(a), metric.metric_matrix(b)])
    inside = ((torch.linalg.cholesky_ex(g)[1] == 0) & g.isfinite().all(-1).all(-1)).all(0)
    proper = inside & (a != b).any(-1)
    if bool(proper.any()):
        own = None if start is None else start[proper]
        part = solver.solve(metric, a[proper], b[proper], own)
    else:
        mesh = Spectral().levels[0]
        none = proper.new_zeros(0, dtype=torch.long)
        nodes = a.new_zeros(0, mesh.size, a.shape[-1])
        part = Found((mesh,), nodes, none, none, a[:0, 0], none, none, none)
    if bool(proper.all()):
        return part
    status = torch.where(inside, int(Status.MINIMUM), int(Status.LEFT_DOMAIN))
    zeros = torch.zeros_like(status)
    gap = torch.where(inside, 0.0, torch.inf).to(a.dtype)
    still = a[:, None].expand(-1, part.meshes[-1].size, -1)
    parts, trivial = [], (still, zeros, status, gap, zeros, zeros, zeros + 2)
    for whole, some in zip(trivial, part[1:], strict=True):
        whole = whole.clone()
        whole[proper] = some
        parts.append(whole)
    return Found(part.meshes, *parts)


def _judged(metric: RiemannianMetric, found: Found) -> tuple[Curve, CurveReport]:
    """The curves, NaN where they were not found, with their reports."""
    mesh = found.meshes[-1]
    measures = [found.nodes.new_empty(len(found.nodes)) for _ in range(4)]
    inside = torch.ones_like(found.status, dtype=torch.bool)
    for level, own in enumerate(found.meshes):  # each by the points of the mesh it was found on
        rows = (found.level == level).nonzero().squeeze(-1)
        if len(rows):
            own_measures = measure(Curve(metric, own, mesh.refined(found.nodes[rows], own)))
            for whole, some in zip((*measures, inside), own_measures, strict=True):
                whole[rows] = some
    lost = found.status == Status.NOT_CONVERGED
    status = torch.where(inside | lost, found.status, int(Status.LEFT_DOMAIN))
    report = CurveReport(
        status,
        measures[0],
        measures[1],
        found.gap,
        measures[2],
        measures[3],
        found.morse_index,
        found.iterations,
        found.evaluations,
    ).with_status(status)
    missing = (status >= Status.NOT_CONVERGED)[:, None, None]
    return Curve(metric, mesh, torch.where(missing, torch.nan, found.nodes)), report
