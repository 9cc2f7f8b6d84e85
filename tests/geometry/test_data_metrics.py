"""Metrics of data: against their formulas differentiated by autograd, bounds, and bad input."""

import math

import pytest
import torch
from torch import Tensor

from kahler_verify.errors import InputError
from kahler_verify.geometry import data_metrics as module
from kahler_verify.geometry.data_metrics import LocalVarianceMetric, PrecisionWeightedMetric
from kahler_verify.geometry.riemannian import RiemannianMetric

SIGMA, RHO = 0.7, 0.1


def _draw(*shape: int, seed: int = 0) -> Tensor:
    return torch.randn(*shape, dtype=torch.float64, generator=torch.Generator().manual_seed(seed))


X, Z = _draw(30, 3), _draw(4, 3, seed=1)
FACTORS = _draw(30, 3, 3, seed=2).tril()


def _diagonal(z: Tensor) -> Tensor:
    r = z[:, None] - X
    w = torch.exp(-(r * r).sum(-1) / (2 * SIGMA**2))
    return torch.diag_embed(1 / ((w[..., None] * r * r).sum(1) + RHO))


def _full(z: Tensor) -> Tensor:
    r = z[:, None] - X
    w = torch.exp(-(r * r).sum(-1) / (2 * SIGMA**2))
    return torch.linalg.inv(torch.einsum("bk,bki,bkj->bij", w, r, r) + RHO * torch.eye(3).double())


def _weighted(z: Tensor) -> Tensor:
    r = z[:, None] - X
    w = torch.exp(-(r * r).sum(-1) / 0.64)
    inverse = torch.einsum("bk,kij->bij", w, FACTORS @ FACTORS.mT)
    far = 0.3 * torch.exp(-0.2 * (z * z).sum(-1))
    return torch.linalg.inv(inverse + far[:, None, None] * torch.eye(3).double())


CASES = {
    "diagonal": (LocalVarianceMetric(X, SIGMA, RHO), _diagonal),
    "full": (LocalVarianceMetric(X, SIGMA, RHO, structure="full"), _full),
    "weighted": (
        PrecisionWeightedMetric(X, FACTORS, temperature=0.8, regularization=0.3, tau=0.2),
        _weighted,
    ),
}


@pytest.mark.parametrize("case", CASES)
def test_metric_and_derivatives(case: str) -> None:
    metric, formula = CASES[case]
    reference = RiemannianMetric.from_function(formula)
    for ours, theirs in zip(metric.jet(Z, 2), reference.jet(Z, 2), strict=True):
        assert torch.allclose(ours, theirs, rtol=1e-10, atol=1e-12 * theirs.abs().max().item())
    assert torch.allclose(metric.scalar_curvature(Z), reference.scalar_curvature(Z))
    v = _draw(4, 3, seed=3)
    product = torch.einsum("bij,bj->bi", formula(Z), v)
    assert torch.allclose(metric.metric_vector_product(v, Z), product)


def test_the_bounds_of_the_local_variance() -> None:
    """1/(ρ + 2Nσ²/e) ≤ M ≤ 1/ρ, and M → 1/ρ far from data."""
    metric = CASES["diagonal"][0]
    values = metric.metric_matrix(3 * _draw(500, 3, seed=4)).diagonal(dim1=-2, dim2=-1)
    assert bool((values >= 1 / (RHO + 2 * len(X) * SIGMA**2 / math.e)).all())
    assert bool((values <= 1 / RHO).all())
    far = metric.metric_matrix(torch.full((1, 3), 50.0, dtype=torch.float64))
    assert torch.allclose(far[0], torch.eye(3, dtype=torch.float64) / RHO)


def test_many_data_by_chunks() -> None:
    x = _draw(20_000, 2)
    z = _draw(16, 2, seed=5)
    whole = LocalVarianceMetric(x, 0.3, RHO, memory_budget=2**31).scalar_curvature(z)
    cut = LocalVarianceMetric(x, 0.3, RHO, memory_budget=2**22).scalar_curvature(z)
    assert torch.allclose(whole, cut)


@pytest.mark.parametrize("count", [1, 2])
def test_few_and_repeated_points(count: int) -> None:
    metric = LocalVarianceMetric(X[:1].expand(count, 3), SIGMA, RHO)
    at = metric.metric_matrix(X[:1])
    assert torch.allclose(at[0], torch.eye(3, dtype=torch.float64) / RHO)
    assert bool(torch.isfinite(metric.scalar_curvature(Z)).all())


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: LocalVarianceMetric(X[:0], 1.0, 1.0), "data: expected at least one point"),
        (lambda: LocalVarianceMetric(X[0], 1.0, 1.0), r"data: expected .* \[N, d\]"),
        (lambda: LocalVarianceMetric([[0.0]], 1.0, 1.0), "data: expected .* got list"),
        (lambda: LocalVarianceMetric(X.long(), 1.0, 1.0), "data: expected a real floating-point"),
        (lambda: LocalVarianceMetric(X / 0, 1.0, 1.0), "data: expected finite"),
        (lambda: LocalVarianceMetric(X, 0.0, 1.0), "sigma: expected a positive number"),
        (lambda: LocalVarianceMetric(X, 1.0, 0.0), "rho: expected a positive number"),
        (lambda: LocalVarianceMetric(X, -1.0, 1.0), "sigma: expected a finite number, not neg"),
        (lambda: LocalVarianceMetric(X, math.nan, 1.0), "sigma: expected a finite number"),
        (lambda: LocalVarianceMetric(X, 1.0, 1.0, structure="dense"), "structure: expected"),
        (lambda: LocalVarianceMetric(X, 1.0, 1.0).metric_matrix(Z.float()), "z: expected .*like"),
        (lambda: LocalVarianceMetric(X, 1.0, 1.0).metric_matrix(Z[:, :2]), r"z: expected shape"),
        (lambda: PrecisionWeightedMetric(X, FACTORS[:3]), "factors: expected shape"),
        (lambda: PrecisionWeightedMetric(X, FACTORS.float()), "factors: expected"),
        (lambda: PrecisionWeightedMetric(X, FACTORS, temperature=0.0), "temperature: expected"),
        (lambda: PrecisionWeightedMetric(X, FACTORS, tau=-1.0), "tau: expected"),
        (
            lambda: PrecisionWeightedMetric(X, FACTORS, regularization=0.0).metric_matrix(Z * 1e3),
            "positive definite",
        ),
    ],
)
def test_bad_input(make, message: str) -> None:
    with pytest.raises(InputError, match=message):
        make()


def test_a_grid_is_a_product_of_its_axes(monkeypatch: pytest.MonkeyPatch) -> None:
    """LAND's metric on a grid, by products of matrices, is that at its points."""
    monkeypatch.setattr(module, "DATA_AT_ONCE", 7)
    data = _draw(20, 2)
    axes = [torch.linspace(-9, 3, n, dtype=torch.float64) for n in (5, 8)]
    for structure in ("diagonal", "full"):
        metric = LocalVarianceMetric(data, 0.4, 1e-3, structure=structure)
        exact = metric.metric_matrix(torch.cartesian_prod(*axes))
        assert torch.allclose(metric._on_grid(*axes), exact, rtol=1e-12)
