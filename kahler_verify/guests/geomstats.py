"""A metric as a RiemannianMetric of geomstats, so that its learners run on it.

geomstats' signatures and index order, and our exponential and logarithmic maps, distances,
transport and curvature: a geodesic that is not found raises ``CurveError``, and is never a line.
"""

from __future__ import annotations

from functools import cache
from typing import Any

import torch
from torch import Tensor

from kahler_verify.curves import Curve, connect, transport
from kahler_verify.errors import InputError
from kahler_verify.geometry.fisher import FisherMetric
from kahler_verify.geometry.metric import HermitianMetric
from kahler_verify.geometry.riemannian import RiemannianMetric

__all__ = ["to_geomstats"]


def to_geomstats(
    metric: RiemannianMetric | HermitianMetric,
    dimension: int | None = None,
    **options: Any,
) -> Any:
    """A geomstats ``RiemannianMetric`` of a metric, on a Euclidean space that it equips.

    ``FrechetMean(found.space)`` and the other learners take that space.  Points are of geomstats'
    backend, NumPy or torch (``GEOMSTATS_BACKEND=pytorch``).  geomstats 2.8 needs numpy < 2.4.

    Args:
        metric: at real latents; one at complex latents goes by its real form on R^{2d}.
        dimension: d, where the metric does not say it.
        options: of :func:`kahler_verify.curves.connect`, such as ``solver``.

    Returns:
        An object of a subclass of ``geomstats.geometry.riemannian_metric.RiemannianMetric``, with
        attributes ``space`` and ``metric``, the latter ours.

    Raises:
        InputError: geomstats is not installed, or d is not known.
    """
    if isinstance(metric, FisherMetric):
        known = metric.on_real_latents.space.dimension or dimension
        metric = metric.on_real_latents if known else metric
    elif isinstance(metric, HermitianMetric):
        metric = metric.riemannian()
    if not isinstance(metric, RiemannianMetric):
        raise InputError(
            f"metric: expected a metric with a known dimension, got {type(metric).__name__}; say "
            "dimension="
        )
    d = metric.space.dimension or dimension
    if d is None or dimension not in (None, d):
        raise InputError(
            f"dimension: expected the latents' dimension {d or ''}".rstrip() + f", got {dimension}"
        )
    return _class()(metric, d, options)


@cache
def _class() -> type:
    """The class, made when geomstats is wanted."""
    try:
        import geomstats.backend as gs
        from geomstats.geometry.euclidean import Euclidean
        from geomstats.geometry.riemannian_metric import RiemannianMetric as Theirs
    except ImportError as error:
        raise InputError(
            f"geomstats: expected it to be installed (pip install 'geomstats>=2.8' 'numpy<2.4'), "
            f"but {error}"
        ) from error

    def ours(x: Any) -> Tensor:
        return torch.as_tensor(x).double()

    def theirs(x: Tensor) -> Any:
        x = x.detach()
        return x if isinstance(gs.zeros(1), Tensor) else x.cpu().numpy()

    class LatentMetric(Theirs):
        """Ours, by their names."""

        def __init__(self, metric: RiemannianMetric, d: int, options: dict[str, Any]):
            space = Euclidean(d, equip=False)
            super().__init__(space)
            self.metric, self.space, self.options = metric, space, options
            space.metric = self

        def metric_matrix(self, base_point: Any = None) -> Any:
            return theirs(self.metric.metric_matrix(ours(base_point)))

        def christoffels(self, base_point: Any = None) -> Any:
            return theirs(self.metric.christoffels(ours(base_point)))

        def inner_product(self, tangent_vec_a: Any, tangent_vec_b: Any, base_point: Any) -> Any:
            u, v, z = ours(tangent_vec_a), ours(tangent_vec_b), ours(base_point)
            return theirs(self.metric.inner_product(u, v, z))

        def exp(self, tangent_vec: Any, base_point: Any) -> Any:
            return theirs(self.metric.exp(ours(base_point), ours(tangent_vec)))

        def log(self, point: Any, base_point: Any) -> Any:
            return theirs(self.metric.log(ours(base_point), ours(point), **self.options))

        def dist(self, point_a: Any, point_b: Any) -> Any:
            return theirs(self.metric.distance(ours(point_a), ours(point_b), **self.options))

        def squared_dist(self, point_a: Any, point_b: Any) -> Any:
            return self.dist(point_a, point_b) ** 2

        def _geodesic_bvp(self, initial_point: Any, end_point: Any) -> Any:
            found = connect(self.metric, ours(initial_point), ours(end_point), **self.options)
            return lambda t: theirs(found(_times(ours(t))))

        def parallel_transport(
            self,
            tangent_vec: Any,
            base_point: Any,
            direction: Any = None,
            end_point: Any = None,
        ) -> Any:
            if (direction is None) == (end_point is None):
                raise ValueError("Specify an end_point or a direction, and not both.")
            z = ours(base_point)
            if end_point is None:
                path = self._shot(z, ours(direction))
            else:
                path = connect(self.metric, z, ours(end_point), **self.options)
            return theirs(transport(path, ours(tangent_vec)).vector)

        def _shot(self, z: Tensor, v: Tensor) -> Curve:
            """The geodesic of a velocity, through its points at a mesh's times."""
            z, v = torch.broadcast_tensors(z, v)

            def at(times: Tensor) -> Tensor:
                return torch.stack([self.metric.exp(z, t * v) for t in times], -2)

            return Curve.through(self.metric, at, elements=4)

        def riemann_tensor(self, base_point: Any = None) -> Any:
            z = ours(base_point)
            lowered = self.metric.riemann_tensor(z)
            g = self.metric.metric_matrix(z)
            raised = torch.linalg.solve(g, lowered.flatten(-3)).reshape(lowered.shape)
            return theirs(raised.movedim(-4, -1))

        def ricci_tensor(self, base_point: Any = None) -> Any:
            return theirs(self.metric.ricci_tensor(ours(base_point)))

        def scalar_curvature(self, base_point: Any = None) -> Any:
            return theirs(self.metric.scalar_curvature(ours(base_point)))

        def sectional_curvature(
            self, tangent_vec_a: Any, tangent_vec_b: Any, base_point: Any = None
        ) -> Any:
            u, v, z = ours(tangent_vec_a), ours(tangent_vec_b), ours(base_point)
            return theirs(self.metric.sectional_curvature(z, u, v))

    return LatentMetric


def _times(t: Tensor) -> Tensor:
    return t.reshape(-1)
