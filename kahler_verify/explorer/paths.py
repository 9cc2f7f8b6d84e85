"""Geodesics between two points: followed while a point moves, searched for when it rests."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import torch
from torch import Tensor

from kahler_verify.curves import (
    STRAIGHT,
    Curve,
    Mesh,
    Nearby,
    Spectral,
    Starts,
    Status,
    bounds,
    connect,
)
from kahler_verify.curves.energy import unchecked
from kahler_verify.curves.mean import moved
from kahler_verify.explorer.subject import Subject
from kahler_verify.geometry.riemannian import RiemannianMetric

TIMES = 97  # of a curve that is drawn
FRAMES = 9  # that are decoded along it
ROUGH = Nearby(tolerance=1e-4, levels=(Mesh(8, 4), Mesh(8, 8), Mesh(16, 8)))
OTHERS = Nearby(tolerance=1e-5, levels=(Mesh(8, 4), Mesh(8, 8), Mesh(16, 8)), most_iterations=25)
SAME = 1e-4  # relative difference of lengths, and of places, of curves that count as one
SEGMENTS = 512  # of curves, for bounds
CELLS = 64  # of a grid for a lower bound in the plane

WORDS = {
    Status.MINIMUM: "Found: no curve close to it is shorter.",
    Status.SADDLE: "A geodesic, but not a shortest one: some curve close to it is shorter.",
    Status.NOT_CONVERGED: "Not found: the search did not converge. No line is drawn in its place.",
    Status.LEFT_DOMAIN: "Not found: it leaves the domain where the metric is positive definite.",
}


def follow(metric: RiemannianMetric, a: Tensor, b: Tensor, last: Curve | None) -> Curve:
    """A geodesic from the one before it, roughly; searched for if that does not lead to one."""
    if last is not None:
        curve = connect(
            metric, a, b, start=_shifted(last, a, b), solver=ROUGH, raise_on_failure=False
        )
        if bool(curve.report.converged):  # type: ignore[union-attr]
            return curve
    rough = Spectral(tolerance=1e-4)
    return connect(metric, a, b, solver=rough, starts=STRAIGHT, raise_on_failure=False)


def search(metric: RiemannianMetric, table: RiemannianMetric | None, a: Tensor, b: Tensor) -> Curve:
    """The shortest geodesic that is found from many first guesses.

    With a table of the metric the guesses are followed there, and what they lead to is then refined
    on the metric itself.
    """
    if table is not None:
        rough = table.geodesic(a, b, raise_on_failure=False)
        if _minimum(rough):
            fine = connect(metric, a, b, start=rough, solver=Nearby(), raise_on_failure=False)
            if _minimum(fine):
                first, report = rough.report, fine.report
                assert first is not None
                assert report is not None
                fine.report = replace(report, agreeing=first.agreeing, starts=first.starts)
                return fine
    return metric.geodesic(a, b, raise_on_failure=False)


def others_than(metric: RiemannianMetric, best: Curve, a: Tensor, b: Tensor) -> list[Curve]:
    """Geodesics that other first guesses lead to, the shortest first."""
    if bool((a == b).all()):
        return []
    guesses = Starts().guesses(unchecked(metric), a[None], b[None]).points[:, 0]
    guesses = guesses[guesses.isfinite().all(-1).all(-1)]
    ends = [x.expand(len(guesses), -1) for x in (a, b)]
    found = connect(metric, *ends, start=guesses, solver=OTHERS, raise_on_failure=False)
    return _different([_row(found, n) for n in range(len(guesses))], best)


def _shifted(last: Curve, a: Tensor, b: Tensor) -> Tensor:
    """A first guess [129, d] from a to b, from a curve that was between other points."""
    whole = Curve(last.metric, last.mesh, last.nodes[None])
    return moved(whole, a[None], b[None])[0]


def _row(curves: Curve, n: int) -> Curve:
    report = curves.report
    assert report is not None
    fields = {name: getattr(report, name)[n] for name in report.__dataclass_fields__}
    return Curve(curves.metric, curves.mesh, curves.nodes[n], type(report)(**fields))


def _known(curve: Curve) -> bool:
    return bool(curve.nodes.isfinite().all()) and bool(curve.length.isfinite())


def _minimum(curve: Curve) -> bool:
    return curve.report is not None and int(curve.report.status) == Status.MINIMUM


def _different(rows: list[Curve], best: Curve) -> list[Curve]:
    """Curves that are not the best one, each once, the shortest first."""
    known = [best] if _known(best) else []
    out: list[Curve] = []
    times = torch.linspace(0, 1, 17, dtype=torch.float64)
    for row in sorted(filter(_known, rows), key=lambda row: float(row.length)):
        place = row(times)
        extent = float((place.amax(0) - place.amin(0)).max())
        same = [
            abs(float(row.length / other.length) - 1) < 10 * SAME
            and float((place - other(times)).abs().max()) < 30 * SAME * extent
            for other in (*known, *out)
        ]
        if not any(same):
            out.append(row)
    return out


def joins(curve: Curve, a: Tensor, b: Tensor) -> bool:
    """Whether a curve is a minimum from a to b."""
    ends = bool((curve.nodes[0] == a).all()) and bool((curve.nodes[-1] == b).all())
    return ends and _minimum(curve) and float(curve.report.gap) < 1e-7  # type: ignore[union-attr]


def described(
    subject: Subject, curve: Curve, others: list[Curve], *, bounded: bool
) -> dict[str, Any]:
    """A curve with its lengths and bounds, how its search ended, and what is decoded along it."""
    report = curve.report
    assert report is not None
    status = Status(int(report.status))
    answer: dict[str, Any] = {
        "status": status.name,
        "words": WORDS[status],
        "length": float(report.length),
        "gap": float(report.gap),
        "agreeing": int(report.agreeing),
        "starts": int(report.starts),
        "morse_index": int(report.morse_index),
        "evaluations": int(report.evaluations),
        "points": None,
        "others": listed(others),
    }
    if _known(curve):
        answer["points"] = _points(curve)
        answer["frames"] = subject.frames(curve(_times(FRAMES)))
    if bounded and _known(curve):
        own = Curve(subject.metric, curve.mesh, curve.nodes)  # whose layers are known by its type
        found = bounds(own, segments=SEGMENTS, arithmetic="floats")
        answer["bounds"] = {
            "lower": float(found.lower),
            "upper": float(found.upper),
            "proved": found.proved,
        }
    return answer


def listed(others: list[Curve]) -> list[dict[str, Any]]:
    """Curves as a page lists them."""
    return [
        {
            "length": float(other.length),
            "status": Status(int(other.report.status)).name,  # type: ignore[union-attr]
            "points": _points(other),
        }
        for other in others
    ]


def line_between(
    subject: Subject, metric: RiemannianMetric, a: Tensor, b: Tensor
) -> dict[str, Any]:
    """The straight line in the chart's coordinates, its length, and what is decoded along it."""
    line = Curve.through(unchecked(metric), lambda t: a + t[:, None] * (b - a))
    with torch.no_grad():
        length = float(line.length)
    return {
        "length": length,
        "points": [a.tolist(), b.tolist()],
        "frames": subject.frames(line(_times(FRAMES))),
    }


def tightened(subject: Subject, curve: Curve) -> dict[str, Any]:
    """Bounds among all curves in a box about the end points and the codes."""
    seen = curve(_times(33))
    if subject.codes is not None:
        seen = torch.cat([seen, subject.codes])
    low, high = seen.amin(0), seen.amax(0)
    room = 0.1 * (high - low).max()
    box = torch.stack([low - room, high + room])
    own = Curve(subject.metric, curve.mesh, curve.nodes)
    found = bounds(own, segments=SEGMENTS, arithmetic="floats", cells=CELLS, box=box)
    assert found.inside is not None
    return {
        "inside": float(found.inside),
        "upper": float(found.upper),
        "proved": found.proved,
        "box": box.tolist(),
    }


def _points(curve: Curve) -> list[list[float]]:
    points: list[list[float]] = curve(_times(TIMES)).tolist()
    return points


def _times(count: int) -> Tensor:
    return torch.linspace(0, 1, count, dtype=torch.float64)
