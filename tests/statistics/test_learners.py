"""Estimators on metrics in scikit-learn's manner: known answers, clones, and bad input."""

import math
from typing import Any

import numpy as np
import pytest
import torch
from sklearn.base import clone
from sklearn.cluster import KMeans, SpectralClustering
from sklearn.datasets import make_blobs
from sklearn.decomposition import PCA
from sklearn.exceptions import NotFittedError
from sklearn.neighbors import NearestNeighbors
from torch import Tensor

from kahler_verify.curves import analogy, distances
from kahler_verify.errors import CurveError, InputError
from kahler_verify.geometry.pulled_back import PulledBackMetric
from kahler_verify.geometry.riemannian import RiemannianMetric
from kahler_verify.statistics import NearestNeighbourDensity, RiemannianKMeans, TangentPCA
from tests.manifolds import DOUBLE, SPHERE, project

FLAT = PulledBackMetric(lambda z: z @ torch.tensor([[2.0, 0.0], [0.0, 0.25]], dtype=z.dtype))
SCALES = np.array([2.0, 0.25])  # FLAT is flat in z * SCALES


X, TRUTH = make_blobs(30, centers=[[0, 0], [4, 0], [2, 12]], cluster_std=0.5, random_state=0)


def same_partition(a: np.ndarray, b: np.ndarray) -> bool:
    return len({*zip(a.tolist(), b.tolist(), strict=True)}) == len(set(a.tolist()))


def test_k_means_of_flat_space_is_k_means() -> None:
    seen: list[tuple[int, int, float]] = []
    found = RiemannianKMeans(FLAT, 3, random_state=0, progress=lambda *a: seen.append(a)).fit(X)
    expected = KMeans(3, n_init=10, random_state=0).fit(X * SCALES)
    assert same_partition(found.labels_, expected.labels_)
    assert math.isclose(found.inertia_, expected.inertia_, rel_tol=1e-8)
    assert found.converged_
    inertias = [inertia for _, _, inertia in seen]
    assert inertias == sorted(inertias, reverse=True)
    assert (found.predict(X) == found.labels_).all()
    exact = np.linalg.norm((X[:, None] - found.cluster_centers_) * SCALES, axis=-1)
    assert np.allclose(found.transform(X), exact, rtol=1e-8)


def test_k_means_sees_the_metric() -> None:
    """In the hyperbolic half-plane heights count by their ratios."""

    def half_plane(z: Tensor) -> Tensor:
        return torch.eye(2, dtype=z.dtype) / z[..., 1, None, None] ** 2

    heights = 2.0 ** np.array([-7, -6, -5, -2, -1, 0])
    x = np.stack([0.003 * np.arange(6) % 0.007, heights], -1)
    metric = RiemannianMetric.from_function(half_plane)
    found = RiemannianKMeans(metric, 2, random_state=0, n_init=2).fit(x)
    assert same_partition(found.labels_, np.repeat([0, 1], 3))
    assert same_partition(KMeans(2, n_init=10, random_state=0).fit(x).labels_, heights > 0.3)
    gap = ((x[:, None] - found.cluster_centers_) ** 2).sum(-1)
    exact = np.arccosh(1 + gap / (2 * heights[:, None] * found.cluster_centers_[:, 1]))
    assert np.allclose(found.transform(x), exact, rtol=1e-7)


def test_tangent_pca_of_flat_space_is_pca() -> None:
    found = TangentPCA(FLAT).fit(X)
    expected = PCA().fit(X * SCALES)
    assert np.allclose(found.mean_ * SCALES, expected.mean_, atol=1e-6)
    n = len(X)
    assert np.allclose(found.explained_variance_, expected.explained_variance_ * (n - 1) / n)
    assert np.allclose(found.explained_variance_ratio_, expected.explained_variance_ratio_)
    signs = np.sign((found.components_ * SCALES * expected.components_).sum(-1))
    assert np.allclose(found.components_ * SCALES, signs[:, None] * expected.components_)
    assert np.allclose(found.transform(X), signs * expected.transform(X * SCALES), atol=1e-6)


def test_tangent_pca_on_the_sphere() -> None:
    """Points on one great circle have one principal geodesic; exp returns them."""
    angle = torch.tensor([-0.7, -0.2, 0.1, 0.3, 0.5], dtype=DOUBLE)
    x = project(torch.stack([angle.sin(), 0.6 * angle.cos(), -0.8 * angle.cos()], -1))
    found = TangentPCA(SPHERE, 1).fit(x)
    centred = angle - angle.mean()
    assert math.isclose(found.explained_variance_[0], (centred**2).mean(), rel_tol=1e-6)
    assert math.isclose(found.explained_variance_ratio_[0], 1, rel_tol=1e-9)
    scores = found.transform(x)
    assert np.allclose(np.abs(scores[:, 0]), centred.abs(), atol=1e-6)
    assert np.allclose(found.inverse_transform(scores), x, atol=1e-6)
    g = SPHERE.metric_matrix(torch.from_numpy(found.mean_))
    size = torch.from_numpy(found.components_[0])
    assert math.isclose(size @ g @ size, 1, rel_tol=1e-12)


def test_the_neighbours_density_of_flat_space() -> None:
    found = NearestNeighbourDensity(FLAT, 4).fit(X)
    places = X[:5] + 0.1
    radius = NearestNeighbors(n_neighbors=4).fit(X * SCALES).kneighbors(places * SCALES)[0][:, -1]
    exact = np.log(4 / len(X) / (math.pi * radius**2))
    assert np.allclose(found.log_prob_riemannian(places), exact)
    assert np.allclose(found.score_samples(places), exact + np.log(SCALES.prod()))


def test_distances_serve_other_learners() -> None:
    d = distances(FLAT, torch.from_numpy(X)).lengths.numpy()
    affinity = np.exp(-(d**2) / (2 * np.median(d) ** 2))
    found = SpectralClustering(3, affinity="precomputed", random_state=0).fit(affinity)
    assert same_partition(
        found.labels_, KMeans(3, n_init=4, random_state=0).fit_predict(X * SCALES)
    )


def test_analogies() -> None:
    a, b, c = torch.from_numpy(X[:12].reshape(3, 4, 2))
    assert torch.allclose(analogy(FLAT, a, b, c).point, c + b - a, atol=1e-8)
    # on a sphere, transport along the equator keeps the angle with it
    angles = torch.tensor([0.0, 0.8], dtype=DOUBLE)
    equator = torch.stack([angles.cos(), angles.sin(), 0 * angles], -1)
    up = torch.tensor([0.0, 0.0, 1.0], dtype=DOUBLE)
    a, c = project(equator)
    b = project(math.cos(0.5) * equator[0] - math.sin(0.5) * up)
    answer = analogy(SPHERE, a, b, c)
    expected = project(math.cos(0.5) * equator[1] - math.sin(0.5) * up)
    assert torch.allclose(answer.point, expected, atol=1e-8)
    assert torch.allclose(answer.across.length, angles[1])
    assert torch.allclose(SPHERE.norm(answer.velocity, c), answer.first.length)


@pytest.mark.parametrize("kind", [RiemannianKMeans, TangentPCA, NearestNeighbourDensity])
def test_manners(kind: Any) -> None:
    learner = kind(FLAT)
    again = clone(learner)
    assert type(again) is kind
    assert again.get_params().keys() == learner.get_params().keys()
    with pytest.raises(NotFittedError):
        (getattr(learner, "transform", None) or learner.score_samples)(X)
    cases: list[tuple[Any, str]] = [
        (X[0], "X: expected points"),
        (
            np.full((30, 2), np.nan),
            "X: expected finite points, got NaN or infinities in 30 of 30 rows",
        ),
        (X + 0j, "X: expected real points"),
        ([["a", "b"]], "X: expected real points"),
        (X[:0], "X: expected points"),
    ]
    for x, message in cases:
        with pytest.raises(InputError, match=message):
            learner.fit(x)
    with pytest.raises(InputError, match="metric: expected a metric at real latents"):
        kind("euclidean").fit(X)


@pytest.mark.parametrize(
    ("learner", "message"),
    [
        (RiemannianKMeans(FLAT, 0), "n_clusters: expected a whole number, 1 or more, got 0"),
        (RiemannianKMeans(FLAT, 31), "X: expected points .* with N ≥ 31"),
        (RiemannianKMeans(FLAT, 2, n_init=1.5), "n_init: expected a whole number"),  # type: ignore[arg-type]
        (RiemannianKMeans(FLAT, 2, max_iter=True), "max_iter: expected a whole number"),
        (TangentPCA(FLAT, 3), "n_components: expected a whole number, 1 to 2, got 3"),
        (NearestNeighbourDensity(FLAT, 31), "X: expected points .* with N ≥ 31"),
    ],
)
def test_bad_parameters(learner: Any, message: str) -> None:
    with pytest.raises(InputError, match=message):
        learner.fit(X)


def test_repeated_points() -> None:
    repeated = np.tile(X[:2], (4, 1))
    with pytest.raises(InputError, match="at most the 2 distinct points"):
        RiemannianKMeans(FLAT, 3, random_state=0).fit(repeated)
    assert RiemannianKMeans(FLAT, 2, random_state=0).fit(repeated).inertia_ == 0
    with pytest.raises(InputError, match="row 0 coincides with 4 data points"):
        NearestNeighbourDensity(FLAT, 4).fit(repeated).score_samples(repeated)
    assert TangentPCA(FLAT).fit(np.tile(X[:1], (3, 1))).explained_variance_ratio_.sum() == 0


def test_points_that_no_curve_reaches() -> None:
    """A disc, flat inside; one point lies beyond its edge."""

    def disc(z: Tensor) -> Tensor:
        inside = ((z * z).sum(-1) < 4)[..., None, None]
        return torch.where(inside, 1.0, torch.nan).to(z) * torch.eye(2, dtype=z.dtype)

    x = np.array([[0.0, 0.1], [0.2, 0.0], [1.0, 1.0], [3.0, 0.0]])
    with pytest.raises(CurveError, match=r"reached no centre|no geodesic was found"):
        RiemannianKMeans(RiemannianMetric.from_function(disc), 2, random_state=0).fit(x)
