"""Results that are rounding error say so, and no others do."""

import warnings
from collections.abc import Iterator
from functools import cache
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from sympy import log
from torch import Tensor

import kahler_verify
from kahler_verify.calculus import coordinates, dimension, parameter
from kahler_verify.errors import InputError
from kahler_verify.geometry import PotentialMetric, RoundingWarning

QUANTITIES = ("scalar_curvature", "ricci_tensor", "curvature_tensor")
each_dtype = pytest.mark.parametrize("dtype", [torch.complex64, torch.complex128], ids=str)


@cache
def kernels(name: str) -> SimpleNamespace:
    z = coordinates("z", dimension("d"))
    square = z.H * z
    return kahler_verify.compile({"flat": log(square), "Burns": log(square) + square}[name])


@pytest.fixture(autouse=True)
def quiet() -> Iterator[None]:
    """No warning that a test does not ask for."""
    with warnings.catch_warnings():
        warnings.simplefilter("error", RoundingWarning)
        yield


def towards(d: int, dtype: torch.dtype, *radii: float) -> Tensor:
    w = torch.randn(
        len(radii), d, dtype=torch.complex128, generator=torch.Generator().manual_seed(2)
    )
    w = w / torch.linalg.vector_norm(w, dim=-1, keepdim=True)
    return (w * torch.tensor(radii, dtype=torch.float64)[:, None]).to(dtype)


def right_or_told(metric: PotentialMetric, z: Tensor, truth: float, tolerance: float) -> str:
    """How a scalar curvature is honest: right, warned about or refused."""
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        try:
            found = metric.scalar_curvature(z)
        except InputError as refusal:
            assert "rounding noise" in str(refusal) or "positive definite" in str(refusal)  # noqa: PT017
            return "refused"
    if any(issubclass(w.category, RoundingWarning) for w in caught):
        return "warned"
    assert abs(found.item() - truth) <= tolerance, (z, found)
    return "right"


@each_dtype
def test_a_flat_degenerate_metric_is_refused(dtype: torch.dtype) -> None:
    """log|z|² at d = 1: g is 0, of which rounding leaves 1e-17 or so, of either sign."""
    for seed in range(40):
        z = torch.randn(1, 1, dtype=dtype, generator=torch.Generator().manual_seed(seed))
        metric = PotentialMetric(kernels("flat"))
        for name in ("scalar_curvature", "log_det_hermitian", "log_volume"):
            with pytest.raises(InputError, match=r"rounding noise|positive definite|NaN"):
                getattr(metric, name)(z)


@each_dtype
def test_near_the_pole_of_a_burns_metric(dtype: torch.dtype) -> None:
    """log|z|² + |z|² at d = 2 has the scalar curvature 0."""
    how = {}
    for power in range(9):
        for seed in range(5):
            z = towards(2, dtype, *[10.0**-power] * 5)[seed : seed + 1]
            how[power, seed] = right_or_told(PotentialMetric(kernels("Burns")), z, 0, 1e-2)
    assert {how[0, seed] for seed in range(5)} == {"right"}
    assert {how[8, seed] for seed in range(5)} <= {"refused", "warned"}
    assert dtype == torch.complex64 or how[1, 0] == "right"


@each_dtype
@pytest.mark.parametrize("d", [1, 2, 3])
def test_far_out_on_projective_space(d: int, dtype: torch.dtype) -> None:
    reach = 7 if dtype == torch.complex128 else 4
    for power in range(reach):
        z = towards(d, dtype, 10.0**power)
        how = right_or_told(PotentialMetric("fubini_study"), z, d * (d + 1), 2e-2 * d * (d + 1))
        assert how == "right" if power <= (2 if reach == 7 else 0) else True
        assert how != "right" if power >= (5 if reach == 7 else 3) else True


def test_one_bad_point_of_many_is_found_after_good_ones() -> None:
    metric, z = PotentialMetric("fubini_study"), towards(2, torch.complex128, *[1.0] * 300)
    metric.scalar_curvature(z)
    far = z.clone()
    far[217] *= 1e5
    for _ in range(2):  # what is not sound is not taken for it at the next call
        with pytest.warns(RoundingWarning, match="rounding error.*217 of 300"):
            metric.scalar_curvature(far)
    metric.scalar_curvature(z)


@each_dtype
@pytest.mark.parametrize("name", ["fubini_study", "complex_ball", "flat"])
def test_ordinary_points_raise_no_alarm(name: str, dtype: torch.dtype) -> None:
    for d in (1, 2, 4):
        z = 0.5 * towards(d, dtype, *[0.05 * n for n in range(1, 20)])
        metric = PotentialMetric(name)
        for some in (z, z[:1], z[3]):
            for quantity in (*QUANTITIES, "christoffels", "log_det_hermitian", "log_volume"):
                getattr(metric, quantity)(some)
            metric.holomorphic_sectional_curvature(some, torch.ones_like(some))
        metric.holomorphic_sectional_curvature(z[3], torch.ones_like(z))


def test_how_much_it_costs() -> None:
    """Points among those that were found sound are not evaluated again."""
    metric, z = PotentialMetric("fubini_study"), towards(2, torch.complex128, *[1.0, 2.0, 3.0])
    calls: list[Any] = []
    plain = metric._derivatives
    metric._derivatives = lambda *some: calls.append(some[0]) or plain(*some)  # type: ignore[method-assign,func-returns-value]
    metric.scalar_curvature(z)
    assert len(calls) == 2
    assert len(calls[1]) <= 36
    metric.scalar_curvature(z)
    assert len(calls) == 3
    metric.validate_args = False
    metric.scalar_curvature(1e6 * z)
    assert len(calls) == 4


OVERFLOWS = {torch.complex64: 1e10, torch.complex128: 1e80}


@pytest.mark.parametrize("dtype", OVERFLOWS)
def test_an_infinity_inside_a_formula_is_noticed(dtype: torch.dtype) -> None:
    """1/∞ is a clean 0, and leaves no noise: (1 + |z|²)² overflows where g itself does not."""
    metric = PotentialMetric("fubini_study")
    metric.metric_matrix(torch.full((3, 2), 10.0, dtype=dtype))
    far = torch.full((3, 2), OVERFLOWS[dtype], dtype=dtype)
    for method in (metric.metric_matrix, metric.log_volume, metric.log_det_hermitian):
        with pytest.warns(RoundingWarning, match=r"overflow inside the metric's formula .in mul."):
            method(far)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        metric.metric_matrix(torch.full((3, 2), 20.0, dtype=dtype))


def test_what_was_sound_is_forgotten_with_the_parameters_that_it_was_sound_with() -> None:
    z, A = coordinates("z", dimension("d")), parameter("A", *2 * [dimension("d")], hermitian=True)
    compiled = kahler_verify.compile(log(1 + z.H * A * z))
    metric = PotentialMetric(compiled, A=torch.eye(2, dtype=torch.complex128))
    points = torch.full((3, 2), 2.0, dtype=torch.complex128)
    metric.scalar_curvature(points)
    kept = metric._sound_ranges()
    metric.scalar_curvature(points / 2)
    assert kept
    assert metric._sound_ranges() is kept
    metric.parameters["A"].mul_(2)
    assert metric._sound_ranges() == {}
