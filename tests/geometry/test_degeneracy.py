"""Which metrics are degenerate and which ill conditioned, in both precisions and any units."""

import math
from collections.abc import Callable

import pytest
import torch
from torch import Tensor

from kahler_verify.distributions import ComplexNormal
from kahler_verify.errors import InputError
from kahler_verify.geometry import FisherMetric, MixtureMetric
from kahler_verify.linear_algebra.cholesky import factored, log_det

each_dtype = pytest.mark.parametrize("dtype", [torch.complex64, torch.complex128], ids=str)


def unitary(n: int, seed: int = 0) -> Tensor:
    generator = torch.Generator().manual_seed(seed)
    return torch.linalg.qr(torch.randn(n, n, dtype=torch.complex128, generator=generator))[0]


def conditioned(n: int, condition: float, seed: int = 0) -> Tensor:
    turn = unitary(n, seed)
    values = torch.logspace(0, -math.log10(condition), n, dtype=torch.complex128)
    return (turn * values) @ turn.mH


def linear(weight: Tensor, conjugate: Tensor | None = None) -> FisherMetric:
    """Of the decoder z ↦ CN(Wz + Vz̄, I)."""

    def decoder(z: Tensor) -> ComplexNormal:
        mean = z @ weight.to(z.dtype).mT
        if conjugate is not None:
            mean = mean + z.conj() @ conjugate.to(z.dtype).mT
        return ComplexNormal(mean, scale=1.0)

    return FisherMetric(decoder, check=False)


def points(count: int, d: int, dtype: torch.dtype) -> Tensor:
    return torch.randn(count, d, dtype=dtype, generator=torch.Generator().manual_seed(1))


@pytest.mark.parametrize(
    ("n", "condition"), [(2, 1e5), (16, 1e4), (16, 1e5), (64, 4e3), (64, 5e4), (100, 1e3)]
)
def test_what_slogdet_resolves_in_single_precision_is_not_degenerate(
    n: int, condition: float
) -> None:
    g = torch.stack([conditioned(n, condition, seed) for seed in range(3)])
    real = torch.cat([torch.cat([g.real, -g.imag], -1), torch.cat([g.imag, g.real], -1)], -2)
    for matrices in (g.to(torch.complex64), real.float()):
        truth = torch.linalg.slogdet(
            matrices.to(torch.complex128 if matrices.is_complex() else torch.float64)
        ).logabsdet
        value, degenerate = log_det(matrices)
        assert degenerate is None
        torch.testing.assert_close(value.double(), truth, rtol=1e-4, atol=0.05)
        assert not bool(factored(matrices)[1].any())
        lower = factored(matrices)[0]
        torch.testing.assert_close(lower @ lower.mH, matrices, rtol=1e-4, atol=1e-6)
        matrices.requires_grad_()
        value, degenerate = log_det(matrices)
        assert degenerate is None
        torch.testing.assert_close(value.double(), truth, rtol=1e-4, atol=0.05)


@pytest.mark.parametrize(("d", "condition"), [(16, 1e4), (64, 4e3)])
def test_ill_conditioned_metrics_have_volumes_gradients_and_curvatures(
    d: int, condition: float
) -> None:
    z, g = points(3, d, torch.complex64), conditioned(d, condition)
    weight = torch.linalg.cholesky(g).mH
    mixture = MixtureMetric(
        torch.ones(1), z[:1] * 0, ((g + g.mH) / 2).mT.to(z.dtype)[None].contiguous()
    )
    truth = torch.linalg.slogdet(g).logabsdet.float().expand(3)
    for metric in (mixture, linear(weight), linear(weight, 0.1 * weight.conj())):
        near = {"rtol": 2e-3, "atol": 0.05}
        log_g = metric.log_det_hermitian(z)
        volume = metric.log_volume(z) - d * math.log(2)
        if metric.complementary_part(z).any():  # det [[g, k], [k̄, ḡ]] = det(1 - .1²)² det g det ḡ
            torch.testing.assert_close(volume, truth + d * math.log(1 - 0.01), **near)
        else:
            torch.testing.assert_close(volume, truth, **near)
            torch.testing.assert_close(log_g, truth, **near)
    assert bool(mixture.scalar_curvature(z).isfinite().all())
    learnt = weight.to(torch.complex64).requires_grad_()
    linear(learnt, 0.1 * learnt.conj()).log_volume(z).sum().backward()
    assert learnt.grad is not None
    assert bool(learnt.grad.isfinite().all())


def rank_deficient(d: int, outputs: int) -> Tensor:
    generator = torch.Generator().manual_seed(d + outputs)
    rank = max(1, d // 2)
    a = torch.randn(outputs, rank, dtype=torch.complex128, generator=generator)
    return a @ torch.randn(rank, d, dtype=torch.complex128, generator=generator) / outputs**0.5


def duplicated(d: int, outputs: int) -> Tensor:
    generator = torch.Generator().manual_seed(d + outputs)
    w = torch.randn(outputs, d, dtype=torch.complex128, generator=generator) / outputs**0.5
    w[:, -1] = w[:, 0] * 3
    return w


def hidden(d: int, outputs: int) -> Tensor:
    """The null vector has a small last component, so that no single pivot is rounding noise."""
    w = duplicated(d, outputs)
    w[:, -2] = w[:, 0] + 0.015 * duplicated(d, outputs)[:, -2]
    w[:, -1] = (w[:, -2] - w[:, 0]) * 70 + 0.9 * w[:, 0] - 0.9 * w[:, -2]
    return w


@pytest.mark.sampled(8)
@each_dtype
@pytest.mark.parametrize("make", [rank_deficient, duplicated, hidden])
@pytest.mark.parametrize(("d", "outputs"), [(3, 5), (3, 784), (8, 64)])
def test_degenerate_metrics_are_recognised(
    make: Callable[[int, int], Tensor], d: int, outputs: int, dtype: torch.dtype
) -> None:
    z = points(2, d, dtype)
    units = torch.ones(d, dtype=torch.complex128)
    units[0], units[-1] = 1e7, 1e-7
    for scale in (1, 1e-10, 1e10):
        weight = make(d, outputs) * scale
        for w in (weight, weight * units):
            metric = linear(w)
            for some in (z, z[:1]):
                with pytest.raises(InputError, match="positive definite"):
                    metric.log_det_hermitian(some)
                with pytest.raises(InputError, match="positive definite"):
                    metric.scalar_curvature(some)
            metric.validate_args = False
            assert bool(metric.log_det_hermitian(z).isnan().all())


@each_dtype
@pytest.mark.parametrize("many", [1, 300])
@pytest.mark.parametrize("scale", [1.0, 1e-10, 1e10])
def test_real_directions_without_effect_have_no_volume(
    scale: float, many: int, dtype: torch.dtype
) -> None:
    """μ = Re z, and W Re(Az): rank d of 2d; also where k cancels g up to its rounding."""
    for d, outputs in ((1, 1), (2, 7), (4, 784)):
        generator = torch.Generator().manual_seed(d)
        a = torch.randn(outputs, d, dtype=torch.complex128, generator=generator) * scale
        phase = torch.exp(1j * torch.arange(d, dtype=torch.float64))
        z = points(many, d, dtype)
        for w, v in ((a, a), (a * phase, a * phase.conj()), (a.conj(), a.conj())):
            metric = linear(w, v)
            assert bool((metric.log_volume(z) == -math.inf).all())
            moving = z[:2].clone().requires_grad_()
            with pytest.raises(InputError, match="no gradient"):
                (metric.log_volume(moving) + 0 * moving.real.sum(-1)).sum().backward()


@each_dtype
def test_units_are_no_part_of_it(dtype: torch.dtype) -> None:
    g = conditioned(5, 100.0)
    units = torch.tensor([1, 1e-15, 1e15, 1e-8, 1e8], dtype=torch.complex128)
    for scale in (1.0, 1e-7, 1e7):
        h = scale * units[:, None] * g * units
        value, degenerate = log_det(h.to(dtype)[None])
        assert degenerate is None
        truth = (
            torch.linalg.slogdet(g).logabsdet + 2 * units.abs().log().sum() + 5 * math.log(scale)
        )
        assert value.item() == pytest.approx(truth.item(), rel=1e-5)


def test_transforms_and_looks_judge_alike() -> None:
    good = conditioned(16, 1e4).to(torch.complex64)
    w = rank_deficient(16, 20)
    bad = (w.mH @ w).to(torch.complex64)
    both = torch.stack([good, bad])
    for value in (
        log_det(both)[0],
        torch.vmap(lambda g: log_det(g)[0])(both),
        torch.func.vjp(lambda g: log_det(g)[0], both)[0],
    ):
        assert value.isnan().tolist() == [False, True]
    assert torch.vmap(lambda g: factored(g)[1])(both).tolist() == [False, True]
    assert [bool(factored(g)[1]) for g in both] == [False, True]
    assert [bool(log_det(g)[0].isnan()) for g in both] == [False, True]
