"""k-means with geodesic distances and Karcher means."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, NamedTuple, Self

import numpy as np
import torch
from sklearn.base import BaseEstimator, ClusterMixin, TransformerMixin
from sklearn.utils import check_random_state
from sklearn.utils.validation import check_is_fitted
from torch import Tensor

from kahler_verify.curves import Curve, Solver, Starts, connect, mean
from kahler_verify.curves.mean import moved
from kahler_verify.errors import CurveError, InputError
from kahler_verify.geometry.riemannian import RiemannianMetric
from kahler_verify.statistics.estimators import count, points, real_metric


class RiemannianKMeans(ClusterMixin, TransformerMixin, BaseEstimator):
    """k-means on a Riemannian metric, by Lloyd's steps: nearest centres, then Karcher means.

    Args:
        metric: on real latents.
        n_clusters: K.
        n_init: runs from other first centres (k-means++ in geodesic distance); the best is kept.
        max_iter: steps of a run.
        tol: of the means, see :func:`kahler_verify.curves.mean`.
        random_state: seed or NumPy's generator of the first centres.
        solver: of curves, see :func:`kahler_verify.curves.connect`.
        starts: of curves that have none before them.
        progress: told run, step and inertia after each step.

    Attributes:
        cluster_centers_: [K, d].
        labels_: of the data, [N].
        inertia_: Σ d²(x, its centre).
        n_iter_: steps of the best run.
        converged_: whether its labels had settled.

    Source: Arvanitidis, Hansen, Hauberg, Latent space oddity, arXiv 1710.11379, section 4; first
    centres: Arthur, Vassilvitskii, SODA 2007.
    """

    def __init__(
        self,
        metric: RiemannianMetric,
        n_clusters: int = 8,
        *,
        n_init: int = 1,
        max_iter: int = 50,
        tol: float = 1e-6,
        random_state: Any = None,
        solver: Solver | None = None,
        starts: Starts | None = None,
        progress: Callable[[int, int, float], None] | None = None,
    ):
        self.metric = metric
        self.n_clusters = n_clusters
        self.n_init = n_init
        self.max_iter = max_iter
        self.tol = tol
        self.random_state = random_state
        self.solver = solver
        self.starts = starts
        self.progress = progress

    def fit(self, X: Any, y: None = None) -> Self:  # noqa: ARG002
        """Find centres of X [N, d].

        Raises:
            InputError: a parameter or X is malformed, or there are fewer points than clusters.
            CurveError: from some point no centre was reached, or a mean was not found.
        """
        metric = real_metric(self.metric)
        clusters = count("n_clusters", self.n_clusters)
        x = points(metric, X, least=clusters)
        runs, steps = count("n_init", self.n_init), count("max_iter", self.max_iter)
        random = check_random_state(self.random_state)
        with torch.no_grad():
            found = [self._run(x, clusters, steps, random, run) for run in range(runs)]
        best = min(found, key=lambda run: run.inertia)
        self.cluster_centers_ = best.centres.cpu().numpy()
        self.labels_ = best.labels.cpu().numpy()
        self.inertia_, self.n_iter_, self.converged_ = best.inertia, best.steps, best.settled
        self.n_features_in_ = x.shape[1]
        return self

    def transform(self, X: Any) -> np.ndarray:
        """Distances to the centres, [N, K]; NaN where no geodesic was found."""
        check_is_fitted(self)
        metric = real_metric(self.metric)
        x = points(metric, X)
        centres = torch.from_numpy(self.cluster_centers_).to(x)
        with torch.no_grad():
            columns = [_lengths(self._curves(centre.expand_as(x), x, None)) for centre in centres]
        lengths = torch.stack(columns, -1)
        return torch.where(lengths == torch.inf, torch.nan, lengths).cpu().numpy()

    def predict(self, X: Any) -> np.ndarray:
        """The nearest centre of each point, [N].

        Raises:
            CurveError: from some point no centre was reached.
        """
        lengths = torch.from_numpy(self.transform(X)).nan_to_num(nan=torch.inf)
        return _nearest(lengths)[0].numpy()

    def _run(
        self, x: Tensor, clusters: int, steps: int, random: np.random.RandomState, run: int
    ) -> _Run:
        centres, curves = self._first(x, clusters, random)
        labels = torch.full((len(x),), -1)
        for step in range(1, steps + 1):
            before = labels
            labels, lengths = _nearest(torch.stack([_lengths(c) for c in curves], -1))
            inertia = float((lengths**2).sum())
            if self.progress is not None:
                self.progress(run, step, inertia)
            if bool((labels == before).all()):
                return _Run(centres, labels, inertia, step, settled=True)
            if step < steps:
                centres = self._means(x, labels, lengths, centres)
                curves = [
                    self._curves(centre.expand_as(x), x, old)
                    for centre, old in zip(centres, curves, strict=True)
                ]
        return _Run(centres, labels, inertia, steps, settled=False)

    def _first(
        self, x: Tensor, clusters: int, random: np.random.RandomState
    ) -> tuple[Tensor, list[Curve]]:
        """Points, each drawn in proportion to the squared distance from those before."""
        rows: list[int] = []
        curves: list[Curve] = []
        nearest = x.new_ones(len(x))
        for _ in range(clusters):
            unreached = nearest.isinf()  # sure to be drawn, so that each gets a chance of its own
            weights = (
                (unreached if bool(unreached.any()) else nearest.square()).cpu().double().numpy()
            )
            if not weights.sum() > 0:  # all points are centres' repetitions
                raise InputError(
                    f"n_clusters: expected at most the {len(rows)} distinct points of X, got "
                    f"{clusters}"
                )
            rows.append(int(random.choice(len(x), p=weights / weights.sum())))
            curves.append(self._curves(x[rows[-1]].expand_as(x), x, None))
            length = _lengths(curves[-1])
            length[rows[-1]] = 0
            nearest = length if len(rows) == 1 else torch.minimum(nearest, length)
        return x[rows], curves

    def _means(self, x: Tensor, labels: Tensor, lengths: Tensor, centres: Tensor) -> Tensor:
        """The mean of each cluster; an empty one moves to the point that is farthest from its own.

        A mean is searched from the centre before.
        """
        out = []
        far = lengths.clone()
        for k, centre in enumerate(centres):
            own = x[labels == k]
            if len(own) == 0:
                row = int(far.argmax())
                far[row] = -1
                out.append(x[row])
                continue
            found = mean(
                self.metric,
                own,
                start=centre,
                tolerance=self.tol,
                solver=self.solver,
                starts=self.starts,
            )
            out.append(found.point)
        return torch.stack(out)

    def _curves(self, a: Tensor, b: Tensor, before: Curve | None) -> Curve:
        start = None if before is None else moved(before, a, b)
        return connect(
            self.metric,
            a,
            b,
            solver=self.solver,
            start=start,
            starts=self.starts if start is None else None,
            raise_on_failure=False,
        )


class _Run(NamedTuple):
    centres: Tensor
    labels: Tensor
    inertia: float
    steps: int
    settled: bool


def _lengths(curves: Curve) -> Tensor:
    """[N]; infinite where none was found."""
    report = curves.report
    assert report is not None
    return torch.where(report.converged, report.length, torch.inf)


def _nearest(lengths: Tensor) -> tuple[Tensor, Tensor]:
    """Label and distance of each row of [N, K]."""
    distance, label = lengths.min(-1)
    lost = distance.isinf().nonzero().flatten().tolist()
    if lost:
        raise CurveError(
            f"{len(lost)} points reached no centre by a geodesic, first row {lost[0]} (outside the "
            "domain, or too far?)"
        )
    return label, distance
