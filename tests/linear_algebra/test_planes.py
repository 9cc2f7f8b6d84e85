"""Planes of real and imaginary parts do what complex rows do, in every way of computing them."""

import inspect

import pytest
import torch
from torch.autograd import forward_ad, gradcheck, gradgradcheck

from kahler_verify.kernels import gaussian_kl
from kahler_verify.linear_algebra import planes as pairs
from kahler_verify.linear_algebra.planes import (
    Image,
    Pairs,
    Weight,
    pair_product,
    planes_of,
    real_part_product,
)

PRECISIONS = [(torch.complex128, 1e-13), (torch.complex64, 2e-6)]


def _complex(*shape, dtype=torch.complex128, seed=0):
    generator = torch.Generator().manual_seed(seed)
    return torch.randn(*shape, dtype=torch.complex128, generator=generator).to(dtype)


def _join(planes):
    return torch.complex(*planes)


def _assert_close(got, expected, tolerance):
    assert got.shape == expected.shape
    assert (got - expected).abs().max() <= tolerance * expected.abs().max()


@pytest.mark.parametrize(("dtype", "tolerance"), PRECISIONS)
@pytest.mark.parametrize("rows", [3, 200])  # four products, and three
@pytest.mark.parametrize(("m", "n"), [(70, 90), (90, 70), (5, 4)])
def test_products_are_those_of_complex_rows(dtype, tolerance, rows, m, n):
    x, w = _complex(2, rows, n, dtype=dtype), _complex(m, n, dtype=dtype, seed=1)
    _assert_close(_join(pair_product(planes_of(x), Weight(w))), x @ w.mT, tolerance)
    _assert_close(real_part_product(planes_of(x), Weight(w)), (x @ w.mT).real, tolerance)


def test_three_products_are_used_for_large_sizes_only(monkeypatch):
    used = []
    real_product = pairs.real_product
    monkeypatch.setattr(
        pairs, "real_product", lambda x, w: used.append(x.shape) or real_product(x, w)
    )
    few, w = pairs.THREE_PRODUCTS_FROM, _complex(64, 64)
    pair_product(planes_of(_complex(few["rows"], 64)), Weight(w))
    assert len(used) == 3
    used.clear()
    pair_product(planes_of(_complex(few["rows"] - 1, 64)), Weight(w))
    assert len(used) == 1


@pytest.mark.parametrize("conjugated", [(False, False), (True, False), (False, True), (True, True)])
@pytest.mark.parametrize("adjoint", [False, True])
@pytest.mark.parametrize("same", [False, True])
def test_matrix_products_with_every_conjugate(conjugated, adjoint, same):
    x = _complex(4, 3, 10)
    y = x if same else _complex(4, 2, 10, seed=1)
    left, right = Pairs(planes_of(x)), Pairs(planes_of(y))
    right = left if same else right
    if conjugated[0]:
        left, x = left.conj(), x.conj()
    if conjugated[1]:
        right, y = right.conj(), y.conj()
    got = left @ (right.mH if adjoint else right.mT)
    torch.testing.assert_close(got, x @ (y.mH if adjoint else y.mT))


@pytest.mark.parametrize("scale", [(4, 1, 10), (1, 1, 10), (4, 3, 1), (1, 1, 1)])
@pytest.mark.parametrize("lead", [4, 1])
def test_scaled_rows_have_their_gram_matrix(scale, lead):
    x, s = _complex(lead, 3, 10), torch.rand(scale, dtype=torch.float64)
    got = Pairs(planes_of(x)) * s
    torch.testing.assert_close(_join(got.planes), x * s)
    torch.testing.assert_close(got @ got.mH, (x * s) @ (x * s).mH)


FIRST_ORDER = [
    name
    for name in gaussian_kl.__all__
    if name.startswith(("fisher_metric_diagonal", "hermitian_part_diagonal"))
]


@pytest.mark.parametrize("name", FIRST_ORDER)
def test_generated_kernels_take_pairs_for_complex_rows(name):
    kernel = getattr(gaussian_kl, name)
    arguments = list(inspect.signature(kernel).parameters)
    rows = {a: _complex(5, 3, 8, seed=n) for n, a in enumerate(arguments) if a != "Sigma_factor"}
    factor = {"Sigma_factor": 0.5 + torch.rand(5, 8, dtype=torch.float64)}
    expected = kernel(**rows, **factor)
    got = kernel(**{a: Pairs(planes_of(x)) for a, x in rows.items()}, **factor)
    torch.testing.assert_close(got, expected)


@pytest.mark.parametrize("conjugated", [False, True])
def test_images_have_the_gram_matrices_of_what_they_stand_for(conjugated):
    x, y, w = _complex(4, 3, 6), _complex(4, 3, 6, seed=1), _complex(9, 6, seed=2)
    weight, scale = Weight(w), torch.rand(4, 1, 1, dtype=torch.float64)
    left = Image(planes_of(x), weight, real=False) * scale * scale
    right = Image(planes_of(y), weight, real=False) * scale
    wx, wy = x @ w.mT * scale**2, y @ w.mT * scale
    if conjugated:
        left, right, wx, wy = left.conj(), right.conj(), wx.conj(), wy.conj()
    torch.testing.assert_close(left @ left.mH, wx @ wx.mH)
    torch.testing.assert_close(left @ right.mH, wx @ wy.mH)


@pytest.mark.parametrize("adjoint", [False, True])
def test_images_of_real_rows_have_every_product(adjoint):
    # two real tangents t of h, and the planes (Re W t_1, Re W t_2)
    t, w = _complex(2, 4, 3, 6), _complex(9, 6, seed=2)
    image = Image(torch.cat([t.real, t.imag], -1), Weight(w), real=True)
    stands_for = torch.complex(*(t @ w.mT).real)
    got = image @ (image.mH if adjoint else image.mT)
    torch.testing.assert_close(got, stands_for @ (stands_for.mH if adjoint else stands_for.mT))


def _loss(x, w, s, p, q):
    """Through every function that has a gradient of its own."""
    weight = Weight(w)
    hidden = pairs.scaled(pair_product(planes_of(x), weight), torch.stack([p, q])[:, :, None])
    image, rows = Image(hidden, Weight(w.mH), real=False), Pairs(hidden) * s
    out = rows @ rows.mH + rows @ Pairs(planes_of(x)).mT + image @ image.mH
    real = real_part_product(hidden, weight)
    return torch.view_as_real(out).sin().sum() + real.sin().sum()


def _leaves():
    x, w = _complex(2, 3, 4), _complex(4, 4, seed=1) / 2
    s, p, q = torch.rand(3, 2, 1, 4, dtype=torch.float64).unbind()
    leaves = (x, w, s, p.squeeze(1), q.squeeze(1))
    return tuple(leaf.clone().requires_grad_() for leaf in leaves)


def test_gradients_of_both_orders_are_right():
    assert gradcheck(_loss, _leaves())
    assert gradgradcheck(_loss, _leaves())


@pytest.mark.parametrize("m", [70, 90])
def test_large_products_have_the_gradients_of_complex_ones(m):
    x, w = _complex(300, 80).requires_grad_(), _complex(m, 80, seed=1).requires_grad_()
    by_out = _complex(300, m, seed=2)
    planes, weight = planes_of(x), Weight(w)
    both = [
        (_join(pair_product(planes, weight)), x @ w.mT, by_out),
        (real_part_product(planes, weight), (x @ w.mT).real, by_out.real),
    ]
    for got, expected, by in both:
        got = torch.autograd.grad(got, (x, w), by, retain_graph=True)
        expected = torch.autograd.grad(expected, (x, w), by)
        for g, e in zip(got, expected, strict=True):
            torch.testing.assert_close(g, e)


def test_forms_that_functions_made_of_a_weight_do_not_cut_it_off_from_gradients():
    x, w = _complex(2, 4, 3, 6), _complex(9, 6, seed=2).requires_grad_()
    weight, rows = Weight(w), torch.cat([x.real, x.imag], -1)
    pair_product(planes_of(x), weight)
    real_part_product(planes_of(x), weight)
    image = Image(rows, weight, real=True)
    stands_for = torch.complex(*(x @ w.mT).real)
    by = _complex(4, 3, 3, seed=3)
    (got,) = torch.autograd.grad(image @ image.mH, w, by)
    (expected,) = torch.autograd.grad(stands_for @ stands_for.mH, w, by)
    torch.testing.assert_close(got, expected)


def test_transforms_and_forward_mode_give_the_same():
    leaves = [leaf.detach() for leaf in _leaves()]
    recorded = [leaf.clone().requires_grad_() for leaf in leaves]
    expected = torch.autograd.grad(_loss(*recorded), recorded)
    got = torch.func.grad(_loss, argnums=tuple(range(5)))(*leaves)
    for g, e in zip(got, expected, strict=True):
        torch.testing.assert_close(g, e)
    steps = [torch.randn_like(leaf) for leaf in leaves]
    slope = sum((e.conj() * v).real.sum() for e, v in zip(expected, steps, strict=True))
    with forward_ad.dual_level():
        duals = [forward_ad.make_dual(*pair) for pair in zip(leaves, steps, strict=True)]
        tangent = forward_ad.unpack_dual(_loss(*duals)).tangent
    torch.testing.assert_close(tangent, slope)
    _, by_func = torch.func.jvp(_loss, tuple(leaves), tuple(steps))
    torch.testing.assert_close(by_func, slope)
    batched = [torch.stack([leaf, leaf]) for leaf in leaves]
    torch.testing.assert_close(
        torch.func.vmap(_loss)(*batched), torch.stack([_loss(*leaves), _loss(*leaves)])
    )
