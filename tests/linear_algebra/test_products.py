"""Products X Wᵀ: every way gives the same numbers, gradients and second gradients."""

import pytest
import torch
from torch.autograd import forward_ad

from kahler_verify.linear_algebra import products
from kahler_verify.linear_algebra.products import complex_product, interleaved, real_product

SIZES = [(3, 5, 4), (16, 130, 140), (600, 130, 140), (64, 256, 33)]  # rows, inner, outer
DTYPES = [torch.float32, torch.float64, torch.complex64, torch.complex128]
needs_onednn = pytest.mark.skipif(
    products._linear is None or not torch.backends.mkldnn.is_available(),
    reason="torch was built without oneDNN",
)


def _operands(rows, inner, outer, dtype):
    generator = torch.Generator().manual_seed(0)
    sizes = [(rows, inner), (outer, inner), (rows, outer)]
    return [torch.randn(*size, dtype=dtype, generator=generator) for size in sizes]


def _tolerance(dtype):
    eps = torch.finfo(dtype).eps
    return {"rtol": 100 * eps, "atol": 3000 * eps}


@pytest.mark.parametrize("size", SIZES)
@pytest.mark.parametrize("dtype", DTYPES)
def test_a_product_and_its_gradients_are_those_of_matmul(size, dtype):
    x, w, weights = _operands(*size, dtype)
    x.requires_grad_()
    w.requires_grad_()
    product = complex_product if dtype.is_complex else real_product
    got, expected = product(x, w), x @ w.mT
    torch.testing.assert_close(got, expected, **_tolerance(dtype))
    gradients = [torch.autograd.grad(out, [x, w], weights) for out in (got, expected)]
    torch.testing.assert_close(*gradients, **_tolerance(dtype))


@needs_onednn
def test_single_precision_goes_through_onednn_and_the_switch_turns_it_off(monkeypatch):
    calls = []

    def counted(*arguments):
        calls.append(arguments[0].shape)
        return operator(*arguments)

    operator = products._linear
    monkeypatch.setattr(products, "_linear", counted)
    x, w, _ = _operands(64, 128, 96, torch.complex64)
    by_onednn = complex_product(x, w)
    assert calls == [(64, 256)]  # real pairs
    with torch.backends.mkldnn.flags(enabled=False):
        by_blas = complex_product(x, w)
    assert len(calls) == 1
    torch.testing.assert_close(by_onednn, by_blas, **_tolerance(torch.complex64))
    complex_product(x.to(torch.complex128), w.to(torch.complex128))
    complex_product(x[:2], w)  # too few rows
    torch.func.vmap(complex_product, in_dims=(0, None))(x[None], w)
    assert len(calls) == 1


@needs_onednn
@pytest.mark.parametrize("dtype", [torch.complex64, torch.float32])
def test_second_gradients(dtype):
    x, w, weights = _operands(40, 90, 80, dtype)
    x.requires_grad_()
    w.requires_grad_()
    product = complex_product if dtype.is_complex else real_product
    seconds = []
    for out in (product(x, w), x @ w.mT):
        firsts = torch.autograd.grad(out, [x, w], weights, create_graph=True)
        loss = sum(f.abs().square().sum() for f in firsts)
        seconds.append(torch.autograd.grad(loss, [x, w]))
    assert product(x, w).grad_fn.name() == "_ProductBackward"
    torch.testing.assert_close(*seconds, rtol=1e-4, atol=0.05)


def test_views_conjugates_and_transposes_are_taken_as_they_are():
    x, w, _ = _operands(70, 90, 80, torch.complex64)
    for rows, weight in ((x.conj(), w), (x, w.conj()), (x.mT.contiguous().mT, w), (x, w.mH.mH)):
        got = complex_product(rows, weight)
        torch.testing.assert_close(got, rows @ weight.mT, **_tolerance(x.dtype))


def test_interleaved_pairs_of_a_matrix_and_of_its_adjoint():
    _, w, _ = _operands(1, 3, 2, torch.complex128)
    x = torch.randn(3, dtype=torch.complex128)
    pairs = interleaved(w) @ torch.view_as_real(x).flatten()
    torch.testing.assert_close(torch.view_as_complex(pairs.unflatten(0, (-1, 2))), w @ x)
    torch.testing.assert_close(interleaved(w.mH), interleaved(w.mH.resolve_conj()))


@pytest.mark.parametrize("dtype", [torch.complex64, torch.float32])
def test_tangents_of_forward_mode_are_kept(dtype):
    x, w, _ = _operands(64, 128, 96, dtype)
    v = torch.randn_like(x)
    product = complex_product if dtype.is_complex else real_product
    with forward_ad.dual_level():
        tangent = forward_ad.unpack_dual(product(forward_ad.make_dual(x, v), w)).tangent
    torch.testing.assert_close(tangent, v @ w.mT, **_tolerance(dtype))
    _, by_func = torch.func.jvp(lambda x: product(x, w), (x,), (v,))
    torch.testing.assert_close(by_func, v @ w.mT, **_tolerance(dtype))
