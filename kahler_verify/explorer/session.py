"""What can be asked of a latent space, and the answers; nothing here knows of the web.

In a latent plane, what follows a pointer is computed on a table of the metric, whose error is
measured; what stays is computed on the metric itself.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from threading import Lock
from typing import Any

import torch
from torch import Tensor

from kahler_verify.curves import Curve
from kahler_verify.curves.energy import unchecked
from kahler_verify.errors import InputError
from kahler_verify.explorer import arrows, clusters, maps, paths, reading, recipes
from kahler_verify.explorer.layers import colour_table, layer_named, layers_of, legend
from kahler_verify.explorer.reading import plain, vector, whole
from kahler_verify.explorer.subject import Subject
from kahler_verify.explorer.tables import Table, table_of
from kahler_verify.explorer.work import Job, interruptible
from kahler_verify.geometry.riemannian import RiemannianMetric

ROOM = 0.35  # of the codes' box, that is looked at beyond it
PATIENCE = 8.0  # seconds of a map beyond three coordinates


class Session:
    """Answers about a subject, each a function of what the page sent and of a :class:`Job`."""

    def __init__(self, subject: Subject):
        self.subject = subject
        self._lock = Lock()
        self._last: Curve | None = None
        self._table: Table | None = None
        self._tabulated = False
        self.answers: dict[str, Callable[[dict[str, Any], Job], Any]] = {
            "map": self.map,
            "path": self.path,
            "tighten": self.tighten,
            "ball": self.ball,
            "exp": self.exp,
            "transport": self.transport,
            "analogy": self.analogy,
            "cluster": self.cluster,
            "frames": self.frames,
            "recipe": self.recipe,
        }

    def describe(self) -> dict[str, Any]:
        """All that a page needs to begin with."""
        subject = self.subject
        layers = {name: legend(layer) for name, layer in layers_of(subject).items()}
        bases: list[dict[str, Any]] = [{"name": "coordinates", "labels": subject.coordinates}]
        d = subject.dimension
        bases[0] |= {"centre": [0.0] * d, "axes": torch.eye(d).tolist()}
        if subject.codes is not None and len(subject.codes) > 1:
            centre = subject.codes.mean(0)
            axes = torch.linalg.svd(subject.codes - centre, full_matrices=False).Vh
            axes = axes * axes.sum(-1, keepdim=True).sign()
            if len(axes) == d:
                names = [f"direction {n + 1}" for n in range(len(axes))]
                more = {"labels": names, "centre": centre.tolist(), "axes": axes.tolist()}
                bases.append({"name": "principal", **more})
        return plain(
            {
                "name": subject.name,
                "dimension": d,
                "complex": subject.complex,
                "coordinates": subject.coordinates,
                "codes": subject.codes,
                "labels": subject.labels,
                "corners": None if subject.field is None else subject.field.points.aminmax(dim=0),
                "decodes": subject.decode is not None,
                "known": subject.known,
                "layers": layers,
                "colours": {x["colours"]: colour_table(x["colours"]) for x in layers.values()},
                "bases": bases,
            }
        )

    def prepare(self, job: Job | None = None) -> None:
        """Make the table, if that has not been done and the space is a plane."""
        with self._lock:
            if self._tabulated or self.subject.dimension != 2 or not self.subject.known:
                return
            found = table_of(self._metric(job), *self.box())
            if found is not None:
                # beyond the box: without this job's watch, and without complaints in a search
                found.metric.metric = unchecked(self.subject.metric)
            self._table = found
            self._tabulated = True

    def box(self) -> tuple[Tensor, Tensor]:
        """Corners [d] of what is looked at first: codes, a field, or the middle of the prior."""
        codes, d = self.subject.codes, self.subject.dimension
        if codes is None and self.subject.field is not None:
            codes = self.subject.field.points
        if codes is None or len(codes) < 2:
            return torch.full((d,), -3.0).double(), torch.full((d,), 3.0).double()
        low, high = codes.amin(0), codes.amax(0)
        room = ROOM * (high - low).max().clamp_min(1e-6)
        return low - room, high + room

    # ----------------------------------------------------------- answers
    def map(self, asked: dict[str, Any], job: Job) -> Any:
        """A layer over a plane: coarse first, which is told, and then as fine as time allows."""
        d = self.subject.dimension
        layer = layer_named(self.subject, asked.get("layer"))
        where = reading.plane(asked.get("plane"), d), reading.window(asked.get("window"))
        size = whole("size", asked.get("size", maps.FINE), 8, maps.FINEST)
        subject = maps.watched(self.subject, job.check)
        coarse, begun = min(maps.COARSE, size), time.perf_counter()
        job.tell(plain(maps.over(subject, layer, *where, coarse, job.check)))
        if d > paths.MANY:  # a curvature takes milliseconds at each point
            seconds = time.perf_counter() - begun
            size = max(coarse, min(size, int(coarse * (PATIENCE / seconds) ** 0.5)))
        if size == coarse:
            return job.news[-1]
        return plain(maps.over(subject, layer, *where, size, job.check))

    def path(self, asked: dict[str, Any], job: Job) -> Any:
        """The geodesic between a and b; while one of them moves, from what was found before."""
        a, b = (self._point(name, asked) for name in "ab")
        moving = bool(asked.get("moving"))
        quick, table = self._quick(job)
        error = {"moving": moving, "table": None if table is None else table.error}
        line = paths.line_between(self.subject, quick, a, b)
        last = self._last
        if moving or last is None or not paths.joins(last, a, b):
            rough = paths.follow(quick, a, b, last)
            found = paths.described(self.subject, rough, [], bounded=False)
            rough_answer = plain(found | {"line": line, "stage": "rough"} | error)
            self._keep(rough)
            if moving:
                return rough_answer
            job.tell(rough_answer)
        metric = self._metric(job)
        line = paths.line_between(self.subject, metric, a, b)
        best = paths.search(metric, None if table is None else quick, a, b, self._last)
        self._keep(best)
        found = paths.described(self.subject, best, [], bounded=True) | {"line": line}
        job.tell(plain(found | {"stage": "exact"} | error))
        others = paths.others_than(quick, best, a, b)
        return plain(found | {"others": paths.listed(others), "stage": "whole"} | error)

    def tighten(self, asked: dict[str, Any], job: Job) -> Any:
        """A better lower bound, in a latent plane."""
        if self.subject.dimension != 2:
            raise InputError("tighten: a latent plane is needed for this bound")
        curve = self._curve(asked, job)
        return plain(paths.tightened(self.subject, curve))

    def ball(self, asked: dict[str, Any], job: Job) -> Any:
        """Geodesic spheres about a point, in a plane."""
        metric, table = self._quick(job)
        centre = self._point("centre", asked)
        radius = reading.number("radius", asked.get("radius"), 1e-6, 1e6)
        where = reading.plane(asked.get("plane"), self.subject.dimension)
        return plain(arrows.ball(metric, centre, radius, where) | self._on(table))

    def exp(self, asked: dict[str, Any], job: Job) -> Any:
        """The geodesic that a vector begins."""
        metric, table = self._quick(job)
        z, v = self._point("a", asked), self._point("vector", asked)
        found = arrows.exponential(metric, z, v)
        return plain(found | {"frames": self.subject.frames(found["end"][None])} | self._on(table))

    def transport(self, asked: dict[str, Any], job: Job) -> Any:
        """A vector carried in parallel along the geodesic from a to b."""
        vector_ = self._point("vector", asked)
        return plain(arrows.carried(self._curve(asked, job), vector_))

    def analogy(self, asked: dict[str, Any], job: Job) -> Any:
        """A is to B as C is to what?"""
        metric, table = self._quick(job)
        corners = [self._point(name, asked) for name in "abc"]
        found = arrows.answered(metric, *corners)
        ends = [x for x in (found["answer"], found["arithmetic"]) if x is not None]
        shown = torch.stack([*corners, *ends])
        return plain(found | {"frames": self.subject.frames(shown)} | self._on(table))

    def cluster(self, asked: dict[str, Any], job: Job) -> Any:
        """Regions of k-means, or contours of locally adaptive normal laws, fitted to the codes."""
        count = whole("components", asked.get("components"), 1, clusters.MOST)
        kind = asked.get("kind")
        if kind not in clusters.KINDS:
            raise InputError(f"kind: expected one of {', '.join(clusters.KINDS)}, got {kind!r}")
        if self.subject.codes is None:
            raise InputError("cluster: there are no codes to fit")
        metric, table = self._quick(job)
        where = reading.window(asked.get("window"))
        fit = clusters.KINDS[kind]
        return plain(fit(metric, self.subject.codes, count, where, job) | self._on(table))

    def frames(self, asked: dict[str, Any], job: Job) -> Any:  # noqa: ARG002 - as the others
        """What a point decodes to."""
        return plain(self.subject.frames(self._point("z", asked)[None]))

    def recipe(self, asked: dict[str, Any], job: Job) -> Any:  # noqa: ARG002 - as the others
        """Lines of Python that do what the page shows."""
        points = {name: self._point(name, asked) for name in "abc" if asked.get(name) is not None}
        return {"lines": recipes.lines(self.subject, points, asked)}

    # ----------------------------------------------------------- within
    def _point(self, name: str, asked: dict[str, Any]) -> Tensor:
        return vector(name, asked.get(name), self.subject.dimension)

    def _metric(self, job: Job | None) -> RiemannianMetric:
        metric = self.subject.metric
        return metric if job is None else interruptible(metric, job.check)

    def _quick(self, job: Job) -> tuple[RiemannianMetric, Table | None]:
        """The table, watched, and itself; or the metric where there is none."""
        self.prepare(job)
        if self._table is None:
            return self._metric(job), None
        return interruptible(self._table.metric, job.check), self._table

    def _on(self, table: Table | None) -> dict[str, Any]:
        return {"table": None if table is None else table.error}

    def _curve(self, asked: dict[str, Any], job: Job) -> Curve:
        """The geodesic from a to b, the last one if it is that."""
        a, b = (self._point(name, asked) for name in "ab")
        last = self._last
        if last is not None and paths.joins(last, a, b):
            return Curve(self._metric(job), last.mesh, last.nodes, last.report)
        metric = self._metric(job)
        quick, table = self._quick(job)
        return paths.search(metric, None if table is None else quick, a, b, self._last)

    def _keep(self, curve: Curve) -> None:
        """What the next search begins from, without this one's watch."""
        if bool(curve.nodes.isfinite().all()):
            self._last = Curve(self.subject.metric, curve.mesh, curve.nodes, curve.report)
