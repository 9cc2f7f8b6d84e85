"""geomstats' signatures and learners on our metrics; where geomstats is not installed, a message.

Run by hand with geomstats 2.8.0 and numpy 2.3.5, in both of its backends.
"""

import importlib.util
import math
import sys

import pytest
import torch
from torch import Tensor, nn

from kahler_verify import FisherMetric, FisherRaoMetric, RiemannianMetric
from kahler_verify.errors import CurveError, InputError
from kahler_verify.guests import to_geomstats

D = torch.float64
INSTALLED = importlib.util.find_spec("geomstats") is not None
needs_geomstats = pytest.mark.skipif(not INSTALLED, reason="geomstats is not installed")


def decoder() -> nn.Module:
    torch.manual_seed(0)
    net = nn.Sequential(nn.Linear(2, 12), nn.Tanh(), nn.Linear(12, 6)).to(D)
    return net.requires_grad_(False)


@pytest.fixture
def metric() -> FisherRaoMetric:
    return FisherRaoMetric(decoder(), 2)


@pytest.fixture
def points() -> Tensor:
    return 0.5 * torch.randn(5, 2, dtype=D, generator=torch.Generator().manual_seed(1))


def tensor(x) -> Tensor:
    return torch.as_tensor(x)


@pytest.mark.skipif(INSTALLED, reason="geomstats is installed")
def test_without_geomstats_it_is_said(metric: FisherRaoMetric) -> None:
    with pytest.raises(InputError, match="geomstats: expected it to be installed"):
        to_geomstats(metric)


def test_a_dimension_is_wanted() -> None:
    with pytest.raises(InputError, match="dimension"):
        to_geomstats(FisherRaoMetric(decoder()))
    with pytest.raises(InputError, match="dimension: expected the latents' dimension 2, got 3"):
        to_geomstats(FisherRaoMetric(decoder(), 2), 3)


def test_nothing_is_imported_before_it_is_asked_for() -> None:
    import kahler_verify.guests  # noqa: F401

    if not INSTALLED:
        assert "geomstats" not in sys.modules
    assert "lightning" not in sys.modules


@needs_geomstats
def test_tensors_in_their_index_order(metric: FisherRaoMetric, points: Tensor) -> None:
    """Against what geomstats itself derives of the metric matrix, by its autograd.

    Its Riemann tensor is derived of our Christoffel symbols: of its own, whose graph its Jacobian
    drops, it is wrong (geomstats 2.8 with torch).
    """
    import geomstats.backend as gs
    from geomstats.geometry.euclidean import Euclidean
    from geomstats.geometry.riemannian_metric import RiemannianMetric as Theirs

    if gs.__name__.endswith("numpy") or not isinstance(gs.zeros(1), Tensor):
        pytest.skip("their derivatives need the torch backend")

    class Plain(Theirs):
        def metric_matrix(self, base_point=None):
            return metric.metric_matrix(base_point)

    class Connected(Plain):
        def christoffels(self, base_point=None):
            return metric.christoffels(base_point)

    theirs, found = Plain(Euclidean(2, equip=False)), to_geomstats(metric)
    curved = Connected(Euclidean(2, equip=False))
    for z in points[:2]:
        torch.testing.assert_close(found.metric_matrix(z), theirs.metric_matrix(z))
        torch.testing.assert_close(found.christoffels(z), theirs.christoffels(z))
        torch.testing.assert_close(found.riemann_tensor(z), curved.riemann_tensor(z))
        torch.testing.assert_close(found.ricci_tensor(z), curved.ricci_tensor(z))
        torch.testing.assert_close(found.scalar_curvature(z), curved.scalar_curvature(z))
        u, v = points[2], points[3]
        torch.testing.assert_close(
            found.sectional_curvature(u, v, z), curved.sectional_curvature(u, v, z)
        )
        torch.testing.assert_close(found.inner_product(u, v, z), theirs.inner_product(u, v, z))


@needs_geomstats
def test_maps_geodesics_and_transport(metric: FisherRaoMetric, points: Tensor) -> None:
    import geomstats.backend as gs

    found, (a, b) = (
        to_geomstats(metric),
        (gs.array(points[0].tolist()), gs.array(points[1].tolist())),
    )
    v = found.log(b, a)
    torch.testing.assert_close(tensor(found.exp(v, a)), points[1], atol=1e-7, rtol=0)
    length = float(found.dist(a, b))
    assert math.isclose(length, float(found.norm(v, a)), rel_tol=1e-7)
    assert math.isclose(length**2, float(found.squared_dist(a, b)), rel_tol=1e-9)
    path = found.geodesic(a, b)
    times = gs.linspace(0.0, 1.0, 5)
    assert tensor(path(times)).shape == (5, 2)
    torch.testing.assert_close(tensor(path(times))[-1], points[1])
    shot = found.geodesic(a, initial_tangent_vec=v)
    torch.testing.assert_close(tensor(shot(times)), tensor(path(times)), atol=1e-6, rtol=0)
    w = gs.array([0.3, -0.2])
    one = found.parallel_transport(w, a, end_point=b)
    other = found.parallel_transport(w, a, direction=v)
    torch.testing.assert_close(tensor(one), tensor(other), atol=1e-6, rtol=0)
    assert math.isclose(float(found.norm(one, b)), float(found.norm(w, a)), rel_tol=1e-6)
    with pytest.raises(ValueError, match="not both"):
        found.parallel_transport(w, a)


@needs_geomstats
def test_their_learners_run(metric: FisherRaoMetric, points: Tensor) -> None:
    import geomstats.backend as gs
    from geomstats.learning.frechet_mean import FrechetMean
    from geomstats.learning.kmeans import RiemannianKMeans

    from kahler_verify.curves import mean

    found = to_geomstats(metric)
    data = gs.array(points.tolist())
    estimate = FrechetMean(found.space).fit(data).estimate_
    torch.testing.assert_close(tensor(estimate), mean(metric, points).point, atol=2e-3, rtol=0)
    apart = gs.array([*points.tolist(), *(points + 1.5).tolist()])
    learner = RiemannianKMeans(found.space, n_clusters=2, init="random", max_iter=5)
    gs.random.seed(0)
    labels = tensor(learner.fit(apart).labels_)
    assert len(labels[:5].unique()) == len(labels[5:].unique()) == 1
    assert labels[0] != labels[5]


@needs_geomstats
def test_complex_latents_go_by_their_real_form() -> None:
    from kahler_verify import PotentialMetric

    metric = PotentialMetric("fubini_study")
    found = to_geomstats(metric, 2)
    g = found.metric_matrix(torch.tensor([0.1, 0.2], dtype=D).numpy())
    torch.testing.assert_close(
        tensor(g), metric.real_metric_matrix(torch.tensor([0.1 + 0.2j], dtype=torch.complex128))
    )
    shaped = to_geomstats(FisherMetric(decoder(), latent_shape=(2,)))
    assert shaped.space.dim == 2


@needs_geomstats
def test_a_failed_solve_is_no_line() -> None:
    """Around a hill, with too few steps to get there."""
    from kahler_verify.curves import Spectral

    flat = RiemannianMetric.from_function(
        lambda z: torch.diag_embed((1 + 50 * z.square()).expand(len(z), 2)), check=False
    )
    found = to_geomstats(flat, 2, solver=Spectral(most_iterations=1))
    a, b = torch.tensor([-3.0, 1.0], dtype=D).numpy(), torch.tensor([3.0, 1.0], dtype=D).numpy()
    with pytest.raises(CurveError):
        found.log(b, a)
