"""Metrics of potentials: shipped, compiled in a notebook, and from a user's file."""

import math
from pathlib import Path

import pytest
import torch
from sympy import log
from torch import Tensor

import kahler_verify
from kahler_verify import PotentialMetric
from kahler_verify.calculus import adjoint, coordinates, dimension, parameter
from kahler_verify.geometry import HermitianMetric

C, R = torch.complex128, torch.float64
d = 3


def numbers(*shape: int, seed: int = 0) -> Tensor:
    return torch.randn(shape, dtype=C, generator=torch.Generator().manual_seed(seed))


POINTS = 0.3 * numbers(5, d)
each_shipped = pytest.mark.parametrize("name", ["flat", "fubini_study", "complex_ball"])


@pytest.fixture(scope="module")
def weighted() -> PotentialMetric:
    """Φ = log(1 + (z-c)ᴴP(z-c)): Fubini-Study in another affine chart."""
    n = dimension("d")
    z, c, p = coordinates("z", n), parameter("c", n), parameter("p", n, n, hermitian=True)
    kernels = kahler_verify.compile(log(1 + adjoint(z - c) * p * (z - c)))
    root = numbers(d, d, seed=1)
    return PotentialMetric(kernels, c=numbers(d, seed=2), p=root @ root.mH + torch.eye(d))


def real_vector(u: Tensor) -> Tensor:
    return torch.cat([u.real, u.imag], -1)


@each_shipped
def test_real_metric_matrix_is_the_inner_product(name: str) -> None:
    metric = PotentialMetric(name)
    u, v = numbers(2, 5, d, seed=4)
    matrix = metric.real_metric_matrix(POINTS)
    expected = torch.einsum("bi,bij,bj->b", real_vector(u), matrix, real_vector(v))
    torch.testing.assert_close(metric.inner_product(u, v, POINTS), expected)
    rotated = metric.inner_product(1j * u, 1j * v, POINTS)  # Hermitian: J is an isometry
    torch.testing.assert_close(rotated, expected)


@each_shipped
def test_log_volume_is_half_the_log_det_of_the_real_metric(name: str) -> None:
    metric = PotentialMetric(name)
    expected = torch.linalg.slogdet(metric.real_metric_matrix(POINTS))[1] / 2
    torch.testing.assert_close(metric.log_volume(POINTS), expected)
    hermitian = metric.log_det_hermitian(POINTS) + d * math.log(2)
    torch.testing.assert_close(metric.log_volume(POINTS), hermitian)


def test_values_are_those_of_the_papers() -> None:
    square = (POINTS * POINTS.conj()).real.sum(-1)
    torch.testing.assert_close(PotentialMetric("flat").value(POINTS), square)
    torch.testing.assert_close(PotentialMetric("fubini_study").value(POINTS), square.log1p())
    inside = POINTS / 3
    expected = -torch.log1p(-square / 9)
    torch.testing.assert_close(PotentialMetric("complex_ball").value(inside), expected)


def test_parameters_make_an_affine_chart(weighted: PotentialMetric) -> None:
    """Curvature does not see the chart: that of Fubini-Study."""
    assert isinstance(weighted, HermitianMetric)
    scalar = weighted.scalar_curvature(POINTS)
    torch.testing.assert_close(scalar, torch.full((5,), float(d * (d + 1)), dtype=R))
    chart = torch.linalg.cholesky(weighted.parameters["p"]).mH
    moved = (POINTS - weighted.parameters["c"]) @ chart.mT
    expected = PotentialMetric("fubini_study").log_det_hermitian(moved)
    expected = expected + 2 * torch.linalg.slogdet(chart)[1]
    torch.testing.assert_close(weighted.log_det_hermitian(POINTS), expected)


def test_gradients_by_parameters_and_points(weighted: PotentialMetric) -> None:
    c = weighted.parameters["c"].clone().requires_grad_(True)
    z = POINTS[:1].clone().requires_grad_(True)
    p = weighted.parameters["p"]

    def volume(z: Tensor, c: Tensor) -> Tensor:
        return PotentialMetric(weighted.kernels.module, c=c, p=p).log_volume(z)

    assert torch.autograd.gradcheck(volume, (z, c), check_forward_ad=False)
    assert torch.autograd.gradgradcheck(volume, (z, c))


def test_to_another_dtype(weighted: PotentialMetric) -> None:
    single = weighted.to(dtype=torch.complex64)
    got = single.metric_matrix(POINTS.to(torch.complex64))
    assert got.dtype == torch.complex64
    torch.testing.assert_close(got.to(C), weighted.metric_matrix(POINTS), rtol=1e-4, atol=1e-5)
    assert single.to("cpu", C).parameters["p"].dtype == C
    assert single.to("meta").parameters["c"].device.type == "meta"


def test_vmap_and_jit_of_a_metric(weighted: PotentialMetric) -> None:
    mapped = torch.vmap(weighted.log_volume)(POINTS)
    torch.testing.assert_close(mapped, weighted.log_volume(POINTS))
    mapped = torch.vmap(weighted.scalar_curvature)(POINTS)
    torch.testing.assert_close(mapped, weighted.scalar_curvature(POINTS))


def test_from_file_chooses_by_name(tmp_path: Path) -> None:
    path = tmp_path / "mine.py"
    path.write_text(
        "from sympy import Abs, cosh, exp, re\n"
        "from kahler_verify.calculus import explicit_coordinates, potential\n"
        "z = z1, z2 = explicit_coordinates('z1 z2')\n"
        "waves = potential('waves', exp(Abs(z1) ** 2) + cosh(re(z2)), coordinates=z)\n"
        "other = potential('other', Abs(z1) ** 2 + Abs(z2) ** 4, coordinates=z)\n"
    )
    metric = PotentialMetric.from_file(path, "waves")
    z = POINTS[:, :2]
    square = (z[:, 0] * z[:, 0].conj()).real
    diagonal = torch.stack([(1 + square) * square.exp(), z[:, 1].real.cosh() / 4], -1)
    torch.testing.assert_close(metric.metric_matrix(z), torch.diag_embed(diagonal).to(C))
    assert metric.kahler_defect(z).abs().max() == 0
    other = PotentialMetric.from_file(path, "other").metric_matrix(z)[:, 1, 1]
    torch.testing.assert_close(other.real, 4 * (z[:, 1] * z[:, 1].conj()).real)


def test_connection_of_fubini_study() -> None:
    """Γ^e_{ca} = -(z̄_c δ_ae + z̄_a δ_ce) / (1 + |z|²), as [c, a, e]."""
    z = POINTS[0]
    square = (z * z.conj()).real.sum()
    eye = torch.eye(d, dtype=C)
    both = torch.einsum("c,ae->cae", z.conj(), eye) + torch.einsum("a,ce->cae", z.conj(), eye)
    gamma = PotentialMetric("fubini_study").christoffels(z)
    torch.testing.assert_close(gamma, -both / (1 + square))
