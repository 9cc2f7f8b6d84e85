"""Geodesics between points: one function, and a solver a file."""

from __future__ import annotations

from dataclasses import replace

import torch
from torch import Tensor

from kahler_verify.curves.certify import measure
from kahler_verify.curves.connect.collocation import Collocation
from kahler_verify.curves.connect.nearby import Nearby
from kahler_verify.curves.connect.polygon import Polygon
from kahler_verify.curves.connect.relaxation import Relaxation
from kahler_verify.curves.connect.solver import Found, Solver
from kahler_verify.curves.connect.spectral import Spectral
from kahler_verify.curves.connect.spline import Spline
from kahler_verify.curves.connect.starts import STRAIGHT, Guesses, Starts, moved
from kahler_verify.curves.curve import Curve
from kahler_verify.curves.energy import energy_of, unchecked
from kahler_verify.curves.implicit import attached, depends
from kahler_verify.curves.proved.bounds import bounds
from kahler_verify.curves.report import CurveReport, Status
from kahler_verify.curves.smoothness import warn_of_kinks
from kahler_verify.errors import InputError
from kahler_verify.geometry.riemannian import RiemannianMetric

__all__ = [
    "STRAIGHT",
    "Collocation",
    "Found",
    "Nearby",
    "Polygon",
    "Relaxation",
    "Solver",
    "Spectral",
    "Spline",
    "Starts",
    "connect",
]


def connect(
    metric: RiemannianMetric,
    a: Tensor,
    b: Tensor,
    *,
    solver: Solver | None = None,
    start: Curve | Tensor | None = None,
    starts: Starts | None = None,
    segments: int = 0,
    polish: bool = False,
    raise_on_failure: bool = True,
) -> Curve:
    """Geodesics from a to b, [..., d] each, as a :class:`Curve` with a report.

    A minimum is a minimum among nearby curves, and the shortest that any start led to: that no
    shorter curve exists elsewhere is not proved.  Curves have first derivatives by the end points
    and by the metric's parameters, implicitly: the search is not differentiated.

    Args:
        metric: of the latent space.
        a: where they begin.
        b: where they end.
        solver: :class:`Spectral` by default.
        start: the only first guess, of the same batch: curves, or points [..., T, d] at equal
            times.  Where it ends elsewhere, all of it is moved with its ends.
        starts: which first guesses to search from; :class:`Starts` by default.
        segments: that curves are cut into for the report's bounds, by intervals of floats; 0 for
            no bounds.
        polish: find curves in float32, and refine them in float64, which they come in.
        raise_on_failure: with False, a curve that was not found has NaN for nodes, length and
            energy, and the report says why; a saddle keeps them.

    Raises:
        InputError: end points are malformed, both ``start`` and ``starts`` are given, or what is to
            be polished is not float32.
        CurveError: a pair's search did not end at a minimum, and ``raise_on_failure``.
    """
    a, b = end_points(metric, a, b)
    if not isinstance(segments, int) or segments < 0:
        raise InputError(f"segments: expected a number of segments or 0, got {segments!r}")
    if polish:
        return _polished(metric, a, b, solver, start, starts, segments, raise_on_failure)
    warn_of_kinks(metric, a)
    batch, d = a.shape[:-1], a.shape[-1]
    first, last = a.detach().reshape(-1, d), b.detach().reshape(-1, d)
    points = None
    if start is not None:
        if starts is not None:
            raise InputError("start, starts: expected one of them, got both")
        points = start(torch.linspace(0, 1, 513)) if isinstance(start, Curve) else start
        if points.ndim < 2 or points.shape[:-2] != batch or points.shape[-1] != d:
            raise InputError(f"start: expected points {[*batch, 'T', d]}, got {list(points.shape)}")
        points = moved(points.detach().reshape(-1, *points.shape[-2:]), first, last)
    with torch.no_grad():
        quiet = unchecked(metric)
        found = _solved(quiet, solver or Spectral(), first, last, points, starts or Starts())
        report, nodes = _judged(quiet, found)
        curve = Curve(metric, found.meshes[-1], nodes)
        if segments:
            known = bounds(curve, segments=segments, arithmetic="floats")
            report = replace(report, lower=known.lower, upper=known.upper)
    if torch.is_grad_enabled() and depends(energy := energy_of(metric), nodes, curve.mesh, a, b):
        shift = (nodes[:, -1] - last).nan_to_num(0)  # by periods
        nodes = attached(energy, nodes, curve.mesh, a.reshape(-1, d), b.reshape(-1, d) + shift)
    nodes = nodes.reshape(*batch, *nodes.shape[1:])
    curve = Curve(metric, curve.mesh, nodes, report.reshape(*batch))
    if raise_on_failure:
        report.require()
    return curve


def _polished(
    metric: RiemannianMetric,
    a: Tensor,
    b: Tensor,
    solver: Solver | None,
    start: Curve | Tensor | None,
    starts: Starts | None,
    segments: int,
    raise_on_failure: bool,
) -> Curve:
    """Curves found in float32, and then in float64 from there."""
    if a.dtype != torch.float32:
        raise InputError(f"polish: expected end points in float32, got {a.dtype}")
    with torch.no_grad():
        rough = connect(
            metric, a, b, solver=solver, start=start, starts=starts, raise_on_failure=False
        )
    known, times = rough.nodes.isfinite().all(-1, keepdim=True), rough.mesh.times.to(a)[:, None]
    line = a[..., None, :] + times * (b - a)[..., None, :]
    nodes = torch.where(known.all(-2, keepdim=True), rough.nodes, line)
    tolerance = getattr(solver, "tolerance", Nearby.tolerance)
    curve = connect(
        metric.double(),
        a.double(),
        b.double(),
        solver=Nearby(tolerance=tolerance),
        start=Curve(metric.double(), rough.mesh, nodes.double()),
        segments=segments,
        raise_on_failure=raise_on_failure,
    )
    first, report = rough.report, curve.report
    assert first is not None
    assert report is not None
    curve.report = replace(
        report,
        agreeing=first.agreeing,
        starts=first.starts,
        iterations=first.iterations + report.iterations,
        evaluations=first.evaluations + report.evaluations,
        polished=torch.ones_like(report.polished),
    )
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
    metric: RiemannianMetric,
    solver: Solver,
    a: Tensor,
    b: Tensor,
    start: Tensor | None,
    starts: Starts,
) -> Found:
    """The solver's answer; equal end points, and such where there is no metric, it never sees."""
    g = metric.metric_matrix(torch.stack([a, b]))
    inside = ((torch.linalg.cholesky_ex(g)[1] == 0) & g.isfinite().all(-1).all(-1)).all(0)
    proper = inside & (a != b).any(-1)
    if bool(proper.any()):
        if start is None:
            guesses = starts.guesses(metric, a[proper], b[proper])
        else:
            none = torch.zeros_like(proper, dtype=torch.long)
            guesses = Guesses(start[None, proper], 1, none[proper])
        part = solver.solve(metric, guesses)
        part = part._replace(evaluations=part.evaluations + guesses.evaluations)
    else:
        mesh = Spectral().levels[0]
        none = proper.new_zeros(0, dtype=torch.long)
        nodes = a.new_zeros(0, mesh.size, a.shape[-1])
        part = Found((mesh,), nodes, none, none, a[:0, 0], *[none] * 5)
    if bool(proper.all()):
        return part
    status = torch.where(inside, int(Status.MINIMUM), int(Status.LEFT_DOMAIN))
    zeros = torch.zeros_like(status)
    gap = torch.where(inside, 0.0, torch.inf).to(a.dtype)
    still = a[:, None].expand(-1, part.meshes[-1].size, -1)
    parts, trivial = [], (still, zeros, status, gap, zeros, zeros + 1, zeros + 1, zeros, zeros + 2)
    for whole, some in zip(trivial, part[1:], strict=True):
        whole = whole.clone()
        whole[proper] = some
        parts.append(whole)
    return Found(part.meshes, *parts)


def _judged(metric: RiemannianMetric, found: Found) -> tuple[CurveReport, Tensor]:
    """Reports, and nodes on the finest mesh, NaN where curves were not found."""
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
        found.agreeing,
        found.starts,
        found.morse_index,
        found.iterations,
        found.evaluations,
        torch.full_like(found.gap, torch.nan),
        torch.full_like(found.gap, torch.nan),
        torch.zeros_like(inside),
    ).with_status(status)
    missing = (status >= Status.NOT_CONVERGED)[:, None, None]
    return report, torch.where(missing, torch.nan, found.nodes)
