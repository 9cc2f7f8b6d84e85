"""Tabulated metrics: near the original, with derivatives of their own, and the original outside."""

import pytest
import torch
from torch import Tensor
from torch.func import jacfwd

from kahler_verify.errors import InputError
from kahler_verify.geometry.data_metrics import LocalVarianceMetric
from kahler_verify.geometry.riemannian import RiemannianMetric
from kahler_verify.geometry.tabulated import TabulatedMetric, table_about

DATA = torch.randn(30, 2, dtype=torch.float64, generator=torch.Generator().manual_seed(0))
EXACT = LocalVarianceMetric(DATA, 0.5, 0.01, structure="full")
CORNER = torch.tensor([2.0, 1.5], dtype=torch.float64)
TABLE = TabulatedMetric(EXACT, -CORNER, CORNER, 0.5 / 8)


def points(count: int, size: float = 1.4) -> Tensor:
    generator = torch.Generator().manual_seed(1)
    return size * (2 * torch.rand(count, 2, dtype=torch.float64, generator=generator) - 1)


def test_it_is_near_the_metric_by_the_error_that_it_names() -> None:
    assert TABLE.error < 1e-4
    z = points(200)
    exact, here = EXACT.metric_matrix(z), TABLE.metric_matrix(z)
    root = torch.linalg.inv(torch.linalg.cholesky(exact))
    gap = torch.linalg.matrix_norm(root @ (here - exact) @ root.mT, 2)
    assert gap.max() < 2 * TABLE.error
    finer = TabulatedMetric(EXACT, -CORNER, CORNER, 0.5 / 16)
    assert finer.error < TABLE.error / 30  # of order 6
    for own, other in zip(finer.jet(z, 2), EXACT.jet(z, 2), strict=True):
        assert torch.allclose(own, other, rtol=1e-3, atol=1e-4 * float(other.abs().max()))


def test_derivatives_are_its_own() -> None:
    z = points(6)
    jet = TABLE.jet(z, 2)
    for n in range(len(z)):

        def value(x: Tensor, n: int = n) -> Tensor:
            place = (x - TABLE._first) / TABLE.spacing
            cell = ((z[n] - TABLE._first) / TABLE.spacing).floor()
            weights = torch.stack([(place - cell) ** k for k in range(6)], -1) @ _basis().mT
            i = cell.long()
            own = TABLE._table[i[0] - 2 : i[0] + 4, i[1] - 2 : i[1] + 4]
            a, lean, rest = torch.einsum("ijk,i,j->k", own, weights[0], weights[1])
            first = a.exp()
            rows = [first, lean * first, lean * first, lean**2 * first + rest.exp()]
            return torch.stack(rows).reshape(2, 2)

        slopes = jacfwd(value)(z[n]).permute(2, 0, 1)
        bends = jacfwd(jacfwd(value))(z[n]).permute(2, 3, 0, 1)
        assert torch.allclose(jet.g[n], value(z[n]), rtol=1e-12)
        assert torch.allclose(jet.d[n], slopes, rtol=1e-10, atol=1e-10)
        assert torch.allclose(jet.dd[n], bends, rtol=1e-9, atol=1e-8)


def _basis() -> Tensor:
    from kahler_verify.geometry.tabulated import _basis as basis

    return basis()[0]


def test_outside_it_is_the_metric_itself() -> None:
    z = torch.tensor([[5.0, 0.0], [0.1, 0.2], [0.0, -1.6]], dtype=torch.float64)
    for own, other in zip(TABLE.jet(z, 2), EXACT.jet(z, 2), strict=True):
        assert torch.equal(own[[0, 2]], other[[0, 2]])
        assert not torch.equal(own[1], other[1])


def test_a_box_may_be_all_there_is() -> None:
    box = TabulatedMetric(EXACT, -CORNER, CORNER, 0.5 / 8, outside="nothing")
    z = torch.tensor([[5.0, 0.0], [0.1, 0.2]], dtype=torch.float64)
    for own, table in zip(box.jet(z, 2), TABLE.jet(z, 2), strict=True):
        assert bool(own[0].isnan().all())
        assert torch.equal(own[1], table[1])


def walled(width: float) -> RiemannianMetric:
    """Flat, but for a ridge of some width across the middle."""

    def g(z: Tensor) -> Tensor:
        height = 1 + 5 * torch.exp(-((z[..., 0] / width) ** 2) / 2)
        return height[..., None, None] * torch.eye(2).to(z)

    return RiemannianMetric.from_function(g, check=False)


def test_a_table_about_points_is_as_fine_as_they_need() -> None:
    """A ridge without points lies between two groups of them."""
    x = DATA + torch.tensor([4.0, 0.0]) * DATA[:, :1].sign()
    broad, narrow = (table_about(walled(width), x) for width in (0.5, 0.05))
    extent = float((x.amax(0) - x.amin(0)).max())
    assert broad.spacing == extent / 48
    assert narrow.spacing < broad.spacing
    ridge = torch.linspace(-0.2, 0.2, 41, dtype=torch.float64)
    places = torch.cat([x, torch.stack([ridge, 0 * ridge], -1)])
    assert float(narrow.errors_at(places).max()) < 0.01
    coarse = table_about(walled(0.05), x, finest=48)
    assert coarse.spacing == broad.spacing
    assert float(coarse.errors_at(places).max()) > 0.01
    assert torch.equal(coarse.low, x.amin(0) - extent)


def test_bad_input() -> None:
    with pytest.raises(InputError, match="corners"):
        TabulatedMetric(EXACT, CORNER, -CORNER, 0.1)
    with pytest.raises(InputError, match="spacing"):
        TabulatedMetric(EXACT, -CORNER, CORNER, 0.0)
    with pytest.raises(InputError, match="nodes are more than"):
        TabulatedMetric(EXACT, -CORNER, CORNER, 1e-4)
    half = RiemannianMetric.from_function(lambda z: torch.diag_embed(z), check=False)
    half.validate_args = False
    with pytest.raises(InputError, match="positive definite metric on the box"):
        TabulatedMetric(half, -CORNER, CORNER, 0.1)
