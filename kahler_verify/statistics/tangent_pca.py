"""Principal components in the tangent space of the mean: principal geodesics."""

from __future__ import annotations

from typing import Any, Self

import numpy as np
import torch
from sklearn.base import BaseEstimator, TransformerMixin
from sklearn.utils.validation import check_is_fitted
from torch import Tensor

from kahler_verify.curves import Solver, Starts, initial_velocity, mean, shoot
from kahler_verify.errors import InputError
from kahler_verify.geometry.riemannian import RiemannianMetric
from kahler_verify.statistics.estimators import count, points, real_metric


class TangentPCA(TransformerMixin, BaseEstimator):
    """Principal components of log x at the Karcher mean, orthonormal in the metric there.

    Args:
        metric: on real latents.
        n_components: all by default.
        tol: of the mean, see :func:`kahler_verify.curves.mean`.
        solver: of curves, see :func:`kahler_verify.curves.connect`.
        starts: of curves, see there.

    Attributes:
        mean_: [d].
        components_: tangent vectors at the mean, [n_components, d], g-orthonormal, largest first;
            the coordinate of largest size is positive.
        explained_variance_: of each, with divisor N, as squared geodesic lengths.
        explained_variance_ratio_: over all variance, which is the Karcher mean's.

    Source: Fletcher, Lu, Pizer, Joshi, Principal geodesic analysis, IEEE Trans. Medical Imaging 23,
    2004, whose tangent-space approximation this is.
    """

    def __init__(
        self,
        metric: RiemannianMetric,
        n_components: int | None = None,
        *,
        tol: float = 1e-7,
        solver: Solver | None = None,
        starts: Starts | None = None,
    ):
        self.metric = metric
        self.n_components = n_components
        self.tol = tol
        self.solver = solver
        self.starts = starts

    def fit(self, X: Any, y: None = None) -> Self:  # noqa: ARG002
        """Find mean and components of X [N, d].

        Raises:
            InputError: a parameter or X is malformed.
            CurveError: the mean was not found.
        """
        metric = real_metric(self.metric)
        x = points(metric, X, least=2)
        most = x.shape[1]
        kept = (
            most if self.n_components is None else count("n_components", self.n_components, 1, most)
        )
        found = mean(metric, x, tolerance=self.tol, solver=self.solver, starts=self.starts)
        factor = torch.linalg.cholesky(metric.metric_matrix(found.point))
        logs = initial_velocity(found.curves) @ factor  # in an orthonormal frame
        size, frame = torch.linalg.svd(logs, full_matrices=True)[1:]
        variances = x.new_zeros(most)
        variances[: len(size)] = size**2 / len(x)
        components = torch.linalg.solve_triangular(factor.mT, frame.mT, upper=True).mT
        largest = components.gather(1, components.abs().argmax(1, keepdim=True))
        components = components * largest.sign()
        self.mean_ = found.point.cpu().numpy()
        self.components_ = components[:kept].cpu().numpy()
        self.explained_variance_ = variances[:kept].cpu().numpy()
        total = variances.sum()
        ratio = variances[:kept] / torch.where(total > 0, total, 1)
        self.explained_variance_ratio_ = ratio.cpu().numpy()
        self.n_features_in_ = most
        return self

    def transform(self, X: Any) -> np.ndarray:
        """⟨log x, component⟩ at the mean, [N, n_components].

        Raises:
            CurveError: some point was not reached from the mean.
        """
        check_is_fitted(self)
        metric = real_metric(self.metric)
        x = points(metric, X)
        centre, components = self._fitted(x)
        with torch.no_grad():
            logs = metric.log(centre.expand_as(x), x, solver=self.solver, starts=self.starts)
            return (logs @ metric.metric_matrix(centre) @ components.mT).cpu().numpy()

    def inverse_transform(self, X: Any) -> np.ndarray:
        """exp of combinations of components, from coordinates [N, n_components], as [N, d].

        Raises:
            CurveError: a geodesic left the domain.
        """
        check_is_fitted(self)
        y = torch.as_tensor(np.array(X), dtype=torch.float64)
        wide = len(self.components_)
        if y.ndim != 2 or y.shape[1] != wide or not bool(y.isfinite().all()):
            raise InputError(f"X: expected finite coordinates [N, {wide}], got {list(y.shape)}")
        centre, components = self._fitted(torch.from_numpy(self.mean_))
        v = y.to(centre) @ components
        with torch.no_grad():
            return shoot(real_metric(self.metric), centre.expand_as(v), v).point.cpu().numpy()

    def _fitted(self, like: Tensor) -> tuple[Tensor, Tensor]:
        centre, components = (torch.from_numpy(x) for x in (self.mean_, self.components_))
        return centre.to(like), components.to(like)
