"""Fans of geodesics: normalisers in closed form, Jacobi fields, cut loci, and logarithms."""

import math

import pytest
import torch
from torch import Tensor

from kahler_verify.geometry.riemannian import RiemannianMetric
from kahler_verify.statistics.adaptive.directions import spread
from kahler_verify.statistics.adaptive.fans import End, Fan, fan
from kahler_verify.statistics.adaptive.logs import logs
from kahler_verify.statistics.adaptive.precision import log_normaliser
from tests.statistics.adaptive.metrics import DOUBLE, Flat, Mercator, SpaceForm, sphere_exp

pytestmark = pytest.mark.xdist_group("fans")  # one worker makes what the tests share

EYE = torch.eye(2, dtype=DOUBLE)
MEAN = torch.tensor([0.3, 0.2], dtype=DOUBLE)
SPHERE, HYPERBOLIC = SpaceForm(1), SpaceForm(-1)


def relative_error(made: Fan, covariance: Tensor, exact: float) -> float:
    return abs(math.exp(float(normaliser(made, covariance))) / exact - 1)


def normaliser(made: Fan, covariance: Tensor) -> Tensor:
    return log_normaliser(made.v, made.weights, torch.linalg.inv(covariance))[0]


@pytest.fixture(scope="module")
def whole_sphere() -> Fan:
    """All of the unit sphere, off the chart's middle: some rays pass near the chart's infinity."""
    return fan(SPHERE, MEAN, 0.36 * EYE, 3.2)


@pytest.mark.parametrize(
    ("variance", "exact"),
    [
        (0.01, 0.062622831842842707),
        (0.09, 0.54882355297140472),
        (0.36, 2.0090902504983394907),
        (1.0, 4.5573180053326451),
        (4.0, 9.0218231547245485),
    ],
)
def test_normalisers_of_the_sphere(whole_sphere: Fan, variance: float, exact: float) -> None:
    """From one fan, small and large laws alike; 4 I has most of its mass at the cut."""
    made = whole_sphere if variance > 0.1 else fan(SPHERE, MEAN, variance * EYE, 8 * variance**0.5)
    assert relative_error(made, variance * EYE, exact) < 1e-9


def test_the_spheres_domain_ends_at_the_antipode(whole_sphere: Fan) -> None:
    assert whole_sphere.closed
    assert (whole_sphere.ends - math.pi).abs().max() < 1e-5
    area = whole_sphere.weights.sum()
    assert math.isclose(float(area), 4 * math.pi, rel_tol=1e-9)


def test_moments_of_the_sphere(whole_sphere: Fan) -> None:
    """E r², E cos r at .36 I, and those of an anisotropic law."""
    r = whole_sphere.v.norm(dim=-1)
    p = log_normaliser(whole_sphere.v, whole_sphere.weights, EYE / 0.36)[1]
    assert math.isclose(float(p @ r**2), 0.63570868263909793, rel_tol=1e-9)
    assert math.isclose(float(p @ r.cos()), 0.71358633697850469, rel_tol=1e-9)
    covariance = torch.diag(torch.tensor([0.5, 0.1], dtype=DOUBLE))
    assert relative_error(whole_sphere, covariance, 1.2741960271556850) < 1e-6
    own = fan(SPHERE, MEAN, covariance, 3.2)
    assert relative_error(own, covariance, 1.2741960271556850) < 1e-9
    _, p = log_normaliser(own.v, own.weights, torch.linalg.inv(covariance))
    moments = p @ own.v**2
    exact = torch.tensor([0.42156550518774419, 0.09660354485543037], dtype=DOUBLE)
    assert torch.allclose(moments, exact, rtol=1e-9)


@pytest.mark.thorough
def test_another_chart_and_other_spaces() -> None:
    """Longitude and latitude, the hyperbolic plane, and a sphere of three dimensions."""
    small = torch.diag(torch.tensor([0.09, 0.04], dtype=DOUBLE))
    here = fan(Mercator(), torch.tensor([0.4, 0.3], dtype=DOUBLE), small, 2.4)
    there = fan(SPHERE, MEAN, small, 2.4)
    assert math.isclose(
        float(normaliser(here, small)), float(normaliser(there, small)), rel_tol=1e-8
    )
    plane = fan(HYPERBOLIC, MEAN, 0.36 * EYE, 5.5, rays=32)
    assert relative_error(plane, 0.36 * EYE, 2.5539701715630620) < 1e-9
    eye = torch.eye(3, dtype=DOUBLE)
    ball = fan(
        SpaceForm(1, 3), torch.tensor([0.3, 0.2, 0.1], dtype=DOUBLE), 0.36 * eye, 4.8, rays=32
    )
    assert relative_error(ball, 0.36 * eye, 2.4250354987955680) < 1e-9
    # where two fields vanish together and the volume does not change its sign
    assert (ball.ends - math.pi).abs().max() < 1e-5
    assert math.isclose(float(ball.weights.sum()), 2 * math.pi**2, rel_tol=1e-9)


@pytest.mark.parametrize("d", [3, 5])
def test_directions_are_balanced(d: int) -> None:
    """With their reflections a rule of degree 3: second moments are those of the sphere."""
    u = spread(d, 24, 0)
    assert torch.allclose(u.mT @ u / len(u), torch.eye(d, dtype=DOUBLE) / d, atol=1e-12)
    assert torch.allclose(u.norm(dim=-1), torch.ones(24, dtype=DOUBLE))
    assert torch.equal(u[:12], -u[12:])


def test_the_cylinder_ends_half_way_round() -> None:
    covariance = torch.tensor([[1.0, 0.5], [0.5, 1.0]], dtype=DOUBLE)
    made = fan(Flat(EYE), MEAN, covariance, 9.0, periods=(2 * math.pi, 0.0))
    assert relative_error(made, covariance, 5.4322548225939397881) < 1e-8
    cut = made.reasons == End.CUT
    ends = math.pi / made.rays.directions[:, 0].abs()
    # cubic interpolation between 128 rays; the normaliser, beyond 3 deviations, does not see it
    assert torch.allclose(made.ends[cut], ends[cut], rtol=2e-6)
    assert bool((ends[~cut] >= 9).all())
    assert torch.allclose(
        made.opposite[cut],
        made.rays.directions[cut] * made.ends[cut, None] * torch.tensor([-1.0, 1.0], dtype=DOUBLE),
        atol=2e-5,
    )


@pytest.mark.parametrize(
    ("metric", "spread", "lean"),
    [(SPHERE, torch.sin, torch.cos), (HYPERBOLIC, torch.sinh, torch.cosh)],
)
def test_jacobi_fields_and_hessians(metric: RiemannianMetric, spread, lean) -> None:
    """W is s(r) across the ray and r along it, and H is r c/s across and 1 along."""
    made = fan(metric, MEAN, 0.1 * EYE, 2.0, rays=16, panels=12)
    r = made.v.norm(dim=-1, keepdim=True)
    along = made.v / r
    across = torch.stack([-along[:, 1], along[:, 0]], -1)
    for u, size in ((along, 1 + 0 * r), (across, r * lean(r) / spread(r))):
        image = (made.hessians @ u.unsqueeze(-1)).squeeze(-1)
        assert torch.allclose(image, size * u, atol=1e-8)
    state, last = made.rays.state, made.rays.times[:, -1, None]
    u = made.rays.directions
    v = torch.stack([-u[:, 1], u[:, 0]], -1)
    fields = (state.spread[:, -1] @ v.unsqueeze(-1)).squeeze(-1)
    assert torch.allclose(fields, spread(last) * v, atol=1e-8)
    gram = state.frame.mT @ metric.metric_matrix(state.point) @ state.frame
    assert torch.allclose(gram, EYE.expand_as(gram), atol=1e-8)  # frames stay orthonormal


def test_logarithms_of_the_sphere(whole_sphere: Fan) -> None:
    """Exact to the tolerance, on both sides of the chart's infinity, and 0 at the mean."""
    generator = torch.Generator().manual_seed(0)
    v = torch.randn(60, 2, dtype=DOUBLE, generator=generator)
    v = v * (
        torch.rand(60, 1, dtype=DOUBLE, generator=generator) * 2.9 / v.norm(dim=-1, keepdim=True)
    )
    found = logs(whole_sphere, torch.cat([sphere_exp(MEAN, v), MEAN[None]]))
    assert bool(found.found.all())
    assert torch.allclose(found.v[:-1], v, atol=1e-7)
    assert torch.equal(found.v[-1], 0 * MEAN)
    r = v.norm(dim=-1)
    size = torch.linalg.det(found.hessians[:-1])
    # of the geodesic before the last step of Newton's method, which is ≤ 3e-5 of its length
    assert torch.allclose(size, r / r.tan(), rtol=1e-3, atol=1e-4)


def test_a_logarithm_is_the_shortest() -> None:
    """On the cylinder a point a little more than half way round is reached the other way."""
    made = fan(Flat(EYE), 0 * MEAN, EYE, 8.0, rays=32, periods=(2 * math.pi, 0.0))
    aside = torch.tensor([1e-9, -1e-9, 1.0, -1.0], dtype=DOUBLE)
    x = torch.stack([math.pi + aside, torch.ones_like(aside)], -1)
    found = logs(made, x, periods=(2 * math.pi, 0.0))
    turns = torch.tensor([-1.0, 0, -1, 0], dtype=DOUBLE)
    exact = x + torch.stack([2 * math.pi * turns, 0 * turns], -1)
    assert torch.allclose(found.v, exact, atol=1e-8)


def test_points_outside_of_the_domain_say_so() -> None:
    made = fan(HYPERBOLIC, MEAN, 0.01 * EYE, 0.8, rays=16)
    found = logs(made, torch.tensor([[2.0, 0.0], [0.31, 0.2], [-0.9, 0.1]], dtype=DOUBLE))
    assert found.status.tolist() == [3, 0, 0]  # left domain, and two that have one
    assert bool(found.v[0].isnan().all())
    assert found.searched.tolist() == [False, False, True]  # the last lies beyond the fan's reach
