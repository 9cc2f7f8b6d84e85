"""Brownian motion: exact laws of one step, weak orders, stationary laws, and bad input.

Expectations over the noise are Gauss–Hermite sums, so that no sampling error hides an order.
"""

import math
from functools import cache

import numpy as np
import pytest
import scipy.linalg
import torch
from torch import Tensor

from kahler_verify.errors import CurveError, InputError
from kahler_verify.geometry.pulled_back import PulledBackMetric
from kahler_verify.geometry.riemannian import RiemannianMetric
from kahler_verify.statistics import BrownianScheme, brownian_motion, brownian_step
from tests.manifolds import DOUBLE, SPHERE, lift

S = BrownianScheme


def torus(z: Tensor) -> Tensor:
    x, y = z[..., 0], z[..., 1]
    ring = 2 + y.cos()
    return torch.stack([ring * x.cos(), ring * x.sin(), y.sin()], -1)


TORUS = PulledBackMetric(torus)
ANGLES = RiemannianMetric.from_function(  # (θ, φ) on the sphere
    lambda z: torch.diag_embed(torch.stack([torch.ones_like(z[..., 0]), z[..., 0].sin() ** 2], -1))
)


@cache
def hermite(points: int) -> tuple[Tensor, Tensor]:
    """Noise [n², 2] and weights that add up to one."""
    x, w = np.polynomial.hermite_e.hermegauss(points)
    noise = torch.from_numpy(np.stack(np.meshgrid(x, x, indexing="ij"), -1).reshape(-1, 2))
    return noise, torch.from_numpy(np.outer(w, w).ravel() / w.sum() ** 2)


def factor(metric: RiemannianMetric, z: Tensor, h: float, scheme: S, points: int = 12) -> float:
    """E cos θ after a step, over cos θ before it (θ from the pole opposite to the chart's)."""
    noise, weights = hermite(points)
    start = z.expand(len(noise), 2)
    height = lambda z: -lift(z)[..., 2] if metric is SPHERE else z[..., 0].cos()  # noqa: E731
    after = height(brownian_step(metric, start, noise, h, scheme))
    return ((weights @ after) / height(z)).item()


def test_one_step_on_the_sphere_is_known() -> None:
    """Values of the walks at h = .1: 30 digits by quadrature of E cos|v|; exact is e^-.1."""
    z = torch.tensor([0.3, -0.2], dtype=DOUBLE)
    assert math.isclose(factor(SPHERE, z, 0.1, S.WALK), 0.90326760856107346, rel_tol=1e-11)
    corrected = factor(SPHERE, z, 0.1, S.CORRECTED)
    assert math.isclose(corrected, 0.90482730705042873, rel_tol=1e-11)


@pytest.mark.parametrize("scheme", [S.RETRACTION, S.EULER, S.WALK])
def test_schemes_of_order_one_decay_as_they_should(scheme: S) -> None:
    """cos θ is an eigenfunction: E cos θ falls by e^-h, up to h² in a step."""
    z = torch.tensor([0.3, -0.2], dtype=DOUBLE)
    errors = [abs(factor(SPHERE, z, h, scheme) - math.exp(-h)) for h in (0.02, 0.01)]
    assert errors[0] < 0.02**2
    assert 1.9 < math.log2(errors[0] / errors[1]) < 2.1


def test_the_papers_step_is_right_where_the_chart_is_conformal_and_wrong_elsewhere() -> None:
    h, plane = 0.01, torch.tensor([0.3, -0.2], dtype=DOUBLE)
    assert abs(factor(SPHERE, plane, h, S.WITHOUT_DRIFT) - math.exp(-h)) < h * h
    angles = torch.tensor([1.1, 0.4], dtype=DOUBLE)
    printed = factor(ANGLES, angles, h, S.WITHOUT_DRIFT)
    assert math.isclose(printed, math.exp(-h / 2), rel_tol=1e-12)
    for scheme in (S.RETRACTION, S.EULER, S.WALK):
        assert abs(factor(ANGLES, angles, h, scheme) - math.exp(-h)) < h * h


@cache
def operator(scheme: S, h: float, n: int = 24) -> np.ndarray:
    """The transition of functions of y on the torus, at n equal angles (Fourier interpolation)."""
    noise, weights = hermite(12)
    y = 2 * math.pi * torch.arange(n, dtype=DOUBLE) / n
    start = torch.stack([torch.zeros_like(y), y], -1)
    after = brownian_step(
        TORUS, start.repeat_interleave(len(noise), 0), noise.repeat(n, 1), h, scheme
    )[:, 1].reshape(n, -1)
    k = np.fft.fftfreq(n, 1 / n)
    moments = (torch.exp(1j * after[..., None] * torch.from_numpy(k)) * weights[:, None]).sum(1)
    return (moments.numpy() @ (np.fft.fft(np.eye(n), axis=0) / n)).real


@cache
def exact(time: float, n: int = 24) -> np.ndarray:
    """E cos y after a time: the generator ½∂² - sin y/(2(2 + cos y)) ∂, by Fourier series."""
    y, k = 2 * np.pi * np.arange(n) / n, np.fft.fftfreq(n, 1 / n)
    transform = np.fft.fft(np.eye(n), axis=0)
    first, second = (np.fft.ifft(f[:, None] * transform, axis=0).real for f in (1j * k, -(k**2)))
    generator = second / 2 - np.diag(np.sin(y) / (2 * (2 + np.cos(y)))) @ first
    answer: np.ndarray = scipy.linalg.expm(time * generator) @ np.cos(y)
    return answer


@pytest.mark.parametrize(
    ("scheme", "order"), [(S.RETRACTION, 1), (S.EULER, 1), (S.WALK, 1), (S.CORRECTED, 2)]
)
def test_weak_orders_on_the_torus(scheme: S, order: int) -> None:
    y = np.cos(2 * np.pi * np.arange(24) / 24)
    errors = [
        np.abs(np.linalg.matrix_power(operator(scheme, 1 / steps), steps) @ y - exact(1.0)).max()
        for steps in (8, 16)
    ]
    assert abs(np.log2(errors[0] / errors[1]) - order) < 0.2
    assert errors[1] < {1: 8e-3, 2: 2e-4}[order]


def test_the_walk_keeps_the_volume_measure_and_others_come_near() -> None:
    """The volume law has E cos y = 1/(2R) = ¼; the step as printed forgets the volume."""
    y = np.cos(2 * np.pi * np.arange(24) / 24)
    means = {
        scheme: (np.linalg.matrix_power(operator(scheme, 1 / 8), 1024)[0] @ y).item()
        for scheme in (S.WALK, S.RETRACTION, S.WITHOUT_DRIFT)
    }
    assert abs(means[S.WALK] - 0.25) < 1e-6
    assert 1e-4 < abs(means[S.RETRACTION] - 0.25) < 0.02
    assert abs(means[S.WITHOUT_DRIFT]) < 1e-6


def test_paths() -> None:
    z = torch.zeros(2000, 2, dtype=DOUBLE)
    generator = torch.Generator().manual_seed(0)
    seen: list[tuple[int, int]] = []
    path = brownian_motion(
        SPHERE, z, 0.5, steps=5, generator=generator, progress=lambda *a: seen.append(a)
    )
    assert path.shape == (2000, 6, 2)
    assert torch.equal(path[:, 0], z)
    assert seen[-1] == (5, 5)
    height = -lift(path[:, -1])[:, 2]
    standard_error = height.std() / 2000**0.5
    assert abs(height.mean() - math.exp(-0.5)) < 4 * standard_error + 0.01
    again = brownian_motion(SPHERE, z, 0.5, steps=5, generator=generator.manual_seed(0))
    assert torch.equal(path, again)
    single = brownian_motion(SPHERE, z[0], 0.1, steps=2, scheme=S.WALK)
    assert single.shape == (3, 2)


def test_paths_that_leave_the_domain_are_named_and_never_invented() -> None:
    """A disc of finite radius: flat, and no metric beyond."""

    def cone(z: Tensor) -> Tensor:
        inside = (1 - (z * z).sum(-1))[..., None, None]
        return torch.where(inside > 0, 1.0, torch.nan) * torch.eye(2, dtype=z.dtype)

    metric = RiemannianMetric.from_function(cone)
    z = torch.zeros(64, 2, dtype=DOUBLE)
    generator = torch.Generator().manual_seed(0)
    with pytest.raises(CurveError, match="paths left the domain"):
        brownian_motion(metric, z, 4.0, steps=8, generator=generator)
    for scheme, steps in ((S.RETRACTION, 8), (S.EULER, 8), (S.WALK, 1)):
        path = brownian_motion(
            metric, z, 1.0, steps=steps, scheme=scheme, generator=generator, raise_on_failure=False
        )
        lost = path.isnan().any(-1)
        assert 0 < lost[:, -1].sum() < 64
        assert bool((lost[:, 1:] >= lost[:, :-1]).all())
        assert bool((path[~lost].norm(dim=-1) < 1).all())


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"steps": 0}, "steps: expected a positive integer, got 0"),
        ({"steps": 2.5}, "steps: expected a positive integer, got 2.5"),
        ({"time": -1.0}, "time: expected a positive finite number, got -1.0"),
        ({"time": math.inf}, "time: expected a positive finite number, got inf"),
        ({"time": "1"}, "time: expected a positive finite number"),
        ({"scheme": "milstein"}, "scheme: expected one of retraction, euler, walk"),
        ({"z": torch.tensor([math.nan, 0.0])}, "z: expected finite points"),
        ({"z": torch.zeros(2, dtype=torch.complex64)}, "z: "),
        ({"z": torch.zeros(2, dtype=torch.float16)}, "z: expected float32 or float64"),
    ],
)
def test_bad_input(change: dict[str, object], message: str) -> None:
    good: dict[str, object] = {"z": torch.zeros(2, dtype=DOUBLE), "time": 1.0, "steps": 2}
    given = good | change
    z, time = given.pop("z"), given.pop("time")
    with pytest.raises(InputError, match=message):
        brownian_motion(SPHERE, z, time, **given)  # type: ignore[arg-type]


def test_noise_has_the_points_shape() -> None:
    z = torch.zeros(3, 2, dtype=DOUBLE)
    with pytest.raises(InputError, match=r"noise: expected torch\.float64"):
        brownian_step(SPHERE, z, z[:2], 0.1)
