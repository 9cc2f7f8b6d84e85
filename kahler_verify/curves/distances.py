"""Distances between points and between sets of points."""

from __future__ import annotations

from collections.abc import Callable
from hashlib import sha256
from io import BytesIO
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import torch
from torch import Tensor

from kahler_verify.curves.connect import Solver, Starts, connect, end_points
from kahler_verify.curves.curve import Curve
from kahler_verify.curves.energy import energy_of
from kahler_verify.curves.pairs import PairSearch
from kahler_verify.curves.report import CurveReport, Status
from kahler_verify.errors import InputError
from kahler_verify.files import write_bytes
from kahler_verify.geometry.riemannian import RiemannianMetric

PAIRS_AT_ONCE = 2048


class Distances(NamedTuple):
    """Lengths of geodesics between all pairs, [N, M], and the reports of their searches."""

    lengths: Tensor
    report: CurveReport


def distance(
    metric: RiemannianMetric,
    a: Tensor,
    b: Tensor,
    *,
    solver: Solver | None = None,
    starts: Starts | None = None,
    raise_on_failure: bool = True,
) -> Tensor:
    """The length of a locally shortest geodesic from a to b [..., d], as [...].

    It has a gradient by the end points and by the metric's parameters: at a minimum the inner
    nodes do not contribute to it.  (Second derivatives would need them, and are not right.)

    Args:
        metric: of the latent space.
        a: where the geodesics begin.
        b: where they end.
        solver: see :func:`connect`.
        starts: see :func:`connect`.
        raise_on_failure: with False, NaN where no minimum was found.

    Raises:
        InputError: end points are malformed.
        CurveError: no minimum was found, and ``raise_on_failure``.
    """
    with torch.no_grad():
        curve = connect(
            metric, a, b, solver=solver, starts=starts, raise_on_failure=raise_on_failure
        )
    report = curve.report
    assert report is not None
    length = torch.where(report.converged, report.length, torch.nan)
    return _with_gradient(curve, length, *end_points(metric, a, b))


def _with_gradient(curve: Curve, length: Tensor, a: Tensor, b: Tensor) -> Tensor:
    """The same numbers, with the gradient of √2E by end points and parameters."""
    energy = energy_of(curve.metric)
    if not torch.is_grad_enabled():
        return length
    if not (a.requires_grad or b.requires_grad):
        probe = energy.value(curve.nodes.reshape(-1, *curve.nodes.shape[-2:])[:1], curve.mesh)
        if not probe.requires_grad:
            return length
    nodes = torch.cat([a.unsqueeze(-2), curve.nodes[..., 1:-1, :], b.unsqueeze(-2)], -2)
    value = energy.value(nodes.reshape(-1, *nodes.shape[-2:]), curve.mesh).reshape(length.shape)
    moved = value > 0  # at a point itself the distance has no derivative: 0 is given
    root = (2 * torch.where(moved, value, 1)).sqrt()
    return length + torch.where(moved, root - root.detach(), 0)


def distances(
    metric: RiemannianMetric,
    x: Tensor,
    y: Tensor | None = None,
    *,
    solver: Solver | None = None,
    starts: Starts | None = None,
    warm: bool = True,
    segments: int = 0,
    pairs_at_once: int = PAIRS_AT_ONCE,
    kept: Path | None = None,
    progress: Callable[[int, int], None] | None = None,
    raise_on_failure: bool = True,
) -> Distances:
    """Distances between all rows of x [N, d] and of y [M, d], or of x with itself.

    Pairs are searched along a tour, from the curve of a neighbouring pair; from several starts
    where neighbours are far or do not help, and one in six in any case.  Then those are searched
    again of which a neighbour's curve, or two curves together, promise a shorter one.

    Args:
        metric: of the latent space.
        x: points.
        y: points; without them, each pair of x is solved once.
        solver: see :func:`connect`.
        starts: see :func:`connect`; of pairs that no neighbour helps.
        warm: whether neighbours help at all; without, each pair is searched from all starts.
        segments: of curves, for bounds; see :func:`connect`.
        pairs_at_once: in a batch.
        kept: a file (.npz) where what is done is kept after each batch; a call of the same that
            was interrupted goes on from it.
        progress: told how many pairs are done, and of how many, after each batch.
        raise_on_failure: with False, NaN where no minimum was found.

    Raises:
        InputError: points are malformed, or the file was kept of other points, or of a metric that
            differs at the first of them.
        CurveError: no minimum was found for a pair, and ``raise_on_failure``.
    """
    other = x if y is None else y
    for name, points in (("x", x), ("y", other)):
        metric.space.check(name, points)
        if points.ndim != 2:
            raise InputError(f"{name}: expected points [N, d], got {list(points.shape)}")
        end_points(metric, points, points)
    search = PairSearch(metric, x, y, solver, starts, warm=warm, segments=segments)
    how = (solver, starts, warm, segments)
    mark = "" if kept is None else _mark(metric, x, other, how)
    if kept is not None and kept.exists():
        report, curves = _restored(kept, mark, x.dtype)
        search.reports, search.curves = [report], [curves]
    total = len(search.tour.rows)
    for cut in search.tour.batches(search.done, pairs_at_once):
        search.solve(cut)
        if kept is not None:
            _keep(kept, mark, search)
        if progress is not None:
            progress(cut.stop, total)
    if search.warm:
        search.mend()
    report = search.report()
    if raise_on_failure:
        report.require()
    lost = report.status != Status.MINIMUM
    return Distances(torch.where(lost, torch.nan, report.length), report)


def _mark(
    metric: RiemannianMetric,
    x: Tensor,
    y: Tensor,
    how: tuple[object, ...],
) -> str:
    """What a kept file is of: the points, the metric at some of them, and how curves are found."""
    with torch.no_grad():
        g = metric.metric_matrix(x[:8])
    parts = [t.detach().cpu().numpy().tobytes() for t in (x, y, g)]
    parts.append(repr((type(metric).__name__, *how)).encode())
    return sha256(b"|".join(parts)).hexdigest()


def _keep(path: Path, mark: str, search: PairSearch) -> None:
    archive = BytesIO()
    values: dict[str, Any] = {
        name: torch.cat([getattr(report, name) for report in search.reports]).cpu().numpy()
        for name in CurveReport.__dataclass_fields__
    }
    curves = torch.cat(search.curves).cpu().numpy()
    np.savez(archive, mark=np.array(mark), curves=curves, **values)
    write_bytes(path, archive.getvalue())


def _restored(path: Path, mark: str, dtype: torch.dtype) -> tuple[CurveReport, Tensor]:
    try:
        with np.load(path, allow_pickle=False) as archive:
            if str(archive["mark"]) != mark:
                raise InputError(
                    f"kept: expected what was kept of these points, metric and solver, but {path} "
                    "is of others; give another file, or remove it"
                )
            names = (*CurveReport.__dataclass_fields__, "curves")
            *parts, curves = [torch.from_numpy(archive[name]) for name in names]
    except (OSError, ValueError, KeyError) as error:
        if isinstance(error, InputError):
            raise
        raise InputError(f"kept: expected a file of distances, but {path}: {error}") from error
    report = CurveReport(*[p.to(dtype) if p.is_floating_point() else p for p in parts])
    return report, curves
