"""Densities from geodesic distances to nearest neighbours."""

from __future__ import annotations

import math
from typing import Any, Self

import numpy as np
import torch
from sklearn.base import BaseEstimator
from sklearn.utils.validation import check_is_fitted

from kahler_verify.curves import Solver, Starts, distances
from kahler_verify.errors import InputError
from kahler_verify.geometry.riemannian import RiemannianMetric
from kahler_verify.statistics.estimators import count, points, real_metric


class NearestNeighbourDensity(BaseEstimator):
    """log k - log N - log ω_d r^d of the geodesic distance r to the k-th neighbour.

    The ball's volume is that of flat space: its first correction is Scal r²/(6(d + 2)), relative.
    Each evaluation finds N geodesics.

    Args:
        metric: on real latents.
        n_neighbors: k.
        solver: of curves, see :func:`kahler_verify.curves.connect`.
        starts: of curves, see there.

    Source: Loftsgaarden, Quesenberry, Ann. Math. Statist. 36, 1965; on manifolds Pelletier,
    Statist. Probab. Lett. 73, 2005.
    """

    def __init__(
        self,
        metric: RiemannianMetric,
        n_neighbors: int = 10,
        *,
        solver: Solver | None = None,
        starts: Starts | None = None,
    ):
        self.metric = metric
        self.n_neighbors = n_neighbors
        self.solver = solver
        self.starts = starts

    def fit(self, X: Any, y: None = None) -> Self:  # noqa: ARG002
        """Keep X [N, d].

        Raises:
            InputError: X is malformed, or has no more than ``n_neighbors`` points.
        """
        metric = real_metric(self.metric)
        k = count("n_neighbors", self.n_neighbors)
        self.data_ = points(metric, X, least=k).cpu().numpy()
        self.n_features_in_ = self.data_.shape[1]
        return self

    def log_prob_riemannian(self, X: Any) -> np.ndarray:
        """The log density by the metric's own volume, [M].

        Raises:
            InputError: X is malformed, or a point repeats ``n_neighbors`` data points.
            CurveError: a distance was not found.
        """
        check_is_fitted(self)
        metric = real_metric(self.metric)
        x = points(metric, X)
        data, d = torch.from_numpy(self.data_).to(x), x.shape[1]
        with torch.no_grad():
            lengths = distances(metric, x, data, solver=self.solver, starts=self.starts).lengths
        k = self.n_neighbors
        radius = lengths.kthvalue(k, -1).values
        if bool((radius == 0).any()):
            row = int((radius == 0).nonzero()[0])
            raise InputError(
                f"X: row {row} coincides with {k} data points: its density is infinite"
            )
        ball = math.log(math.pi) * d / 2 - math.lgamma(d / 2 + 1)
        density = math.log(k / len(data)) - ball - d * radius.log()
        out: np.ndarray = density.cpu().numpy()
        return out

    def score_samples(self, X: Any) -> np.ndarray:
        """The log density by the chart's Lebesgue measure: that by volume, and log √det g more."""
        density = self.log_prob_riemannian(X)
        metric = real_metric(self.metric)
        with torch.no_grad():
            volume = metric.log_volume(points(metric, X))
        return density + volume.cpu().numpy()
