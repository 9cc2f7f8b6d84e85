"""log det of batches of matrices: every way to it, its derivatives, and where there are none."""

import gc
import math
import weakref
from collections.abc import Callable

import pytest
import torch
from torch import Tensor
from torch.autograd import forward_ad, grad, gradcheck, gradgradcheck
from torch.func import hessian, jacfwd, jacrev

from kahler_verify.kernels.hermitian_geometry import log_det_pullback
from kahler_verify.linear_algebra import cholesky, elimination
from kahler_verify.linear_algebra.cholesky import factored, log_det

DTYPES = (torch.complex64, torch.complex128, torch.float32, torch.float64)
SIZES = (1, 2, 3, 5, 8, 9, 16)
ROUTES: dict[str, elimination.Eliminate] = {
    "library": elimination._by_library,
    "written out": elimination._written_out,
    "batch last": elimination._batch_last,
}
each_dtype = pytest.mark.parametrize("dtype", DTYPES, ids=str)
each_route = pytest.mark.parametrize("route", ROUTES)


def matrices(
    count: int, n: int, dtype: torch.dtype = torch.complex128, condition: float = 3.0
) -> Tensor:
    """[count, n, n] with eigenvalues from 1 / condition to 1, scaled from matrix to matrix."""
    generator = torch.Generator().manual_seed(n + count)
    wide = torch.complex128 if dtype.is_complex else torch.float64
    turn = torch.linalg.qr(torch.randn(count, n, n, dtype=wide, generator=generator))[0]
    values = torch.logspace(0, -math.log10(condition), n, dtype=wide) if n > 1 else torch.ones(1)
    scale = torch.rand(count, 1, 1, dtype=torch.float64, generator=generator) + 0.5
    g = scale * (turn * values) @ turn.mH
    return ((g + g.mH) / 2).to(dtype)


def applies(route: str, n: int, dtype: torch.dtype) -> bool:
    return route != "written out" or n == 1 or (n == 2 and dtype.is_complex)


def wide(g: Tensor) -> Tensor:
    return g.to(torch.complex128 if g.is_complex() else torch.float64)


# ------------------------------------------------------------------ values


@each_dtype
@pytest.mark.parametrize("n", SIZES)
def test_large_steps_are_made_in_parts(
    n: int, dtype: torch.dtype, monkeypatch: pytest.MonkeyPatch
) -> None:
    g = matrices(6, n, dtype)
    pivots, inverse = elimination._batch_last(g, True)
    monkeypatch.setattr(elimination, "PARTS", 0)
    again, apart = elimination._batch_last(g, True)
    tolerance = {"rtol": 10 * torch.finfo(dtype).eps, "atol": 10 * torch.finfo(dtype).eps}
    torch.testing.assert_close(again, pivots, **tolerance)
    torch.testing.assert_close(apart, inverse, **tolerance)


@each_dtype
@each_route
@pytest.mark.parametrize("n", SIZES)
def test_every_way_leads_to_the_same_numbers(route: str, n: int, dtype: torch.dtype) -> None:
    if not applies(route, n, dtype):
        return
    g = matrices(6, n, dtype)
    pivots, inverse = ROUTES[route](g, True)
    alone, nothing = ROUTES[route](g, False)
    factor = torch.linalg.cholesky(wide(g))
    exact = factor.diagonal(dim1=-2, dim2=-1).real.square().to(pivots.dtype)
    tolerance = {"rtol": 100 * torch.finfo(dtype).eps, "atol": 100 * torch.finfo(dtype).eps}
    assert nothing.numel() == 0
    torch.testing.assert_close(pivots.t(), exact, **tolerance)
    torch.testing.assert_close(alone, pivots, **tolerance)
    torch.testing.assert_close(inverse, log_det_pullback(factor).to(dtype), **tolerance)
    if dtype.is_complex and route != "library":
        assert not bool(inverse.diagonal(dim1=-2, dim2=-1).imag.any())


@pytest.mark.parametrize("n", [2, 3, 8])
@pytest.mark.parametrize("condition", [1e2, 1e4])
@each_route
def test_none_is_less_accurate_than_lapack(route: str, condition: float, n: int) -> None:
    if not applies(route, n, torch.complex64):
        return
    g = matrices(400, n, torch.complex64, condition)
    truth = torch.linalg.cholesky(wide(g))
    value = 2 * truth.diagonal(dim1=-2, dim2=-1).real.log().sum(-1)
    inverse = log_det_pullback(truth)

    def errors(which: str) -> tuple[float, float]:
        pivots, out = ROUTES[which](g, True)
        apart = (out - inverse).abs().amax((-2, -1)) / inverse.abs().amax((-2, -1))
        return (pivots.log().sum(0) - value).abs().mean().item(), apart.mean().item()

    own, lapack = errors(route), errors("library")
    assert own[0] < 2 * lapack[0]
    assert own[1] < 2 * lapack[1]


def test_sizes_and_numbers_choose_the_way(monkeypatch: pytest.MonkeyPatch) -> None:
    def chosen(g: Tensor, *, inverse: bool = True) -> str:
        method = elimination._method(g, inverse=inverse)
        return next(name for name, route in ROUTES.items() if route is method)

    many = elimination.MANY
    assert chosen(matrices(1, 1)) == "written out"
    assert chosen(matrices(many, 2)) == "written out"
    assert chosen(matrices(many, 2, torch.float64)) == "batch last"
    assert chosen(matrices(many - 1, 3)) == "library"
    assert chosen(matrices(many, 3)) == "batch last"
    assert chosen(matrices(many, 3), inverse=False) == "library"
    assert chosen(matrices(elimination.MANY_VALUES, 3), inverse=False) == "batch last"
    assert chosen(matrices(many, 9)) == "library"
    assert chosen(matrices(many, 9, torch.float64)) == "batch last"
    monkeypatch.setattr(elimination, "CHUNK", 7 * 9 * 16)
    for g in (matrices(many + 3, 3), matrices(many, 9), matrices(2 * many + 1, 4)):
        g.requires_grad_()
        value = log_det(g)[0]
        (slope,) = grad(value.sum(), g)
        torch.testing.assert_close(value, torch.linalg.slogdet(g).logabsdet)
        torch.testing.assert_close(slope, torch.linalg.inv(g))


@pytest.mark.parametrize("count", [4, 200, 600, 1100])
@pytest.mark.parametrize("n", [1, 2, 3])
def test_only_the_lower_triangle_is_read(n: int, count: int) -> None:
    g = matrices(count, n)
    spoilt = g.clone()
    spoilt[:, *torch.triu_indices(n, n, 1)] = torch.nan
    torch.view_as_real(spoilt).diagonal(dim1=1, dim2=2)[:, 1] = torch.nan  # the imaginary part
    spoilt.requires_grad_()
    torch.testing.assert_close(log_det(spoilt)[0], log_det(g)[0])
    (slope,) = grad(log_det(spoilt)[0].sum(), spoilt)
    torch.testing.assert_close(slope, torch.linalg.inv(g))


def test_large_entries_do_not_overflow() -> None:
    g = (1e30 * matrices(200, 2, torch.complex64)).requires_grad_()
    value, degenerate = log_det(g)
    (slope,) = grad(value.sum(), g)
    assert degenerate is None
    torch.testing.assert_close(value, torch.linalg.slogdet(wide(g))[1].float())
    torch.testing.assert_close(1e30 * slope, 1e30 * torch.linalg.inv(wide(g)).to(g.dtype))


def test_any_batch_and_any_strides() -> None:
    g = matrices(1200, 3)
    value = log_det(g)[0]
    folded = g.reshape(20, 60, 3, 3).transpose(0, 1)
    torch.testing.assert_close(log_det(folded)[0], value.reshape(20, 60).t())
    torch.testing.assert_close(log_det(g[0])[0], value[0])
    torch.testing.assert_close(log_det(g.conj())[0], value)
    pairs = matrices(200, 2).requires_grad_()
    (slope,) = grad(log_det(pairs.mT.conj())[0].sum(), pairs)
    torch.testing.assert_close(slope, torch.linalg.inv(pairs))
    one = g[:1].clone().requires_grad_()
    (slope,) = grad(log_det(one.expand(700, 3, 3))[0].sum(), one)
    torch.testing.assert_close(slope, 700 * torch.linalg.inv(one))
    empty = g[:0].requires_grad_()
    assert log_det(empty)[0].shape == (0,)
    assert grad(log_det(empty)[0].sum(), empty)[0].shape == (0, 3, 3)


# ------------------------------------------------------------------ derivatives


def of_pairs(pairs: Tensor) -> Tensor:
    """log det of Hermitian matrices made from any complex or real ones [..., n, n]."""
    eye = 3 * torch.eye(pairs.shape[-1], dtype=pairs.dtype)
    return log_det(pairs @ pairs.mH + eye)[0]


def by_torch(pairs: Tensor) -> Tensor:
    eye = 3 * torch.eye(pairs.shape[-1], dtype=pairs.dtype)
    factor = torch.linalg.cholesky(pairs @ pairs.mH + eye)
    return 2 * factor.diagonal(dim1=-2, dim2=-1).real.log().sum(-1)


def raw(*shape: int, dtype: torch.dtype = torch.complex128) -> Tensor:
    return torch.randn(shape, dtype=dtype, generator=torch.Generator().manual_seed(1))


@pytest.fixture(params=ROUTES)
def forced(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> str:
    """Only one way is taken."""
    route = ROUTES[request.param]
    monkeypatch.setattr(elimination, "_method", lambda g, *, inverse: route)
    return str(request.param)


@pytest.mark.parametrize("dtype", [torch.complex128, torch.float64], ids=str)
@pytest.mark.parametrize("n", [1, 2, 3])
def test_first_and_second_gradients(n: int, dtype: torch.dtype, forced: str) -> None:
    if not applies(forced, n, dtype):
        return
    pairs = raw(2, n, n, dtype=dtype).requires_grad_()
    assert gradcheck(of_pairs, pairs, check_forward_ad=True, check_batched_grad=True)
    assert gradgradcheck(of_pairs, pairs, check_fwd_over_rev=True, check_rev_over_rev=True)


def test_gradients_are_those_of_torch(forced: str) -> None:
    n = 2
    pairs = raw(5, n, n).requires_grad_()
    weights = torch.linspace(-1, 2, 5, dtype=torch.float64)
    ours, theirs = ((f(pairs) * weights).sum() for f in (of_pairs, by_torch))
    torch.testing.assert_close(grad(ours, pairs), grad(theirs, pairs))
    assert forced in ROUTES


def test_third_derivatives_along_a_line() -> None:
    """d³/dt³ log det(g + tV) = 2 tr((g⁻¹V)³)."""
    g, v = matrices(4, 3), matrices(4, 3, condition=7.0) @ matrices(4, 3)
    v = v + v.mH
    t = torch.zeros((), dtype=torch.float64, requires_grad=True)
    found = log_det(g + t * v)[0].sum()
    for _ in range(3):
        (found,) = grad(found, t, create_graph=True)
    m = torch.linalg.solve(g, v)
    expected = 2 * (m @ m @ m).diagonal(dim1=-2, dim2=-1).sum().real
    torch.testing.assert_close(found, expected)


@pytest.mark.parametrize(
    "twice", [hessian, lambda f: jacrev(jacrev(f)), lambda f: jacrev(jacfwd(f))]
)
@pytest.mark.parametrize("n", [1, 2, 3])
def test_functional_transforms_compose(n: int, twice: Callable) -> None:
    """The textbook's second derivatives: real coordinates, one point and vmapped points."""

    def at(f: Callable[[Tensor], Tensor]) -> Callable[[Tensor], Tensor]:
        return lambda x: f(torch.complex(*x.unbind()))

    x = raw(6, 2, n, n, dtype=torch.float64)
    expected = torch.stack([jacrev(jacrev(at(by_torch)))(each) for each in x])
    torch.testing.assert_close(twice(at(of_pairs))(x[0]), expected[0])
    torch.testing.assert_close(torch.vmap(twice(at(of_pairs)))(x), expected)
    torch.testing.assert_close(
        torch.vmap(at(of_pairs), in_dims=1)(x.transpose(0, 1)), at(of_pairs)(x.transpose(0, 1))
    )


def test_forward_mode_of_a_level() -> None:
    g, v = matrices(3, 4), matrices(3, 4, condition=5.0)
    with forward_ad.dual_level():
        slope = forward_ad.unpack_dual(log_det(forward_ad.make_dual(g, v))[0]).tangent
    expected = torch.linalg.solve(g, v).diagonal(dim1=-2, dim2=-1).sum(-1).real
    torch.testing.assert_close(slope, expected)


@pytest.mark.parametrize("function", [cholesky._PlainLogDet, cholesky._LogDet])
def test_what_is_saved_goes_with_the_graph(function: type[torch.autograd.Function]) -> None:
    """Without waiting for the garbage collector, which frees cycles."""
    g = matrices(3, 3).requires_grad_()
    value, inverse, _ = function.apply(g, math.nan, False, 1)
    value.sum().backward()
    saved = weakref.ref(inverse)
    gc.disable()
    try:
        del value, inverse, _
        assert saved() is None
    finally:
        gc.enable()


@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize("n", [1, 2, 3])
@pytest.mark.parametrize("count", [3, 600])
def test_compiles_with_its_gradient_in_one_graph(n: int, count: int) -> None:
    torch._dynamo.reset()
    g = matrices(count, n).requires_grad_()
    compiled = torch.compile(lambda g: log_det(g)[0], fullgraph=True, backend="aot_eager")
    value = compiled(g)
    torch.testing.assert_close(value, log_det(g)[0])
    torch.testing.assert_close(grad(value.sum(), g), grad(log_det(g)[0].sum(), g))


# ------------------------------------------------------------------ degenerate matrices


def spoilt(count: int, n: int, dtype: torch.dtype) -> tuple[Tensor, list[int]]:
    """Matrices of which some are zero, negative, singular to working precision, NaN, infinite."""
    g = matrices(count, n, dtype)
    eye, vector = torch.eye(n, dtype=dtype), torch.ones(n, dtype=dtype)
    noise = 3 * torch.finfo(dtype).eps * eye
    bad = [0 * eye, -g[0], torch.outer(vector, vector) + noise if n > 1 else 0 * eye]
    bad += [g[0] * torch.nan]
    for i, matrix in enumerate(bad):
        g[3 * i + 1] = matrix
    return g, [3 * i + 1 for i in range(len(bad))]


@each_dtype
@pytest.mark.parametrize("n", [1, 2, 3])
def test_degenerate_matrices_are_told_and_leave_the_others_alone(
    n: int, dtype: torch.dtype, forced: str
) -> None:
    if not applies(forced, n, dtype):
        return
    g, bad = spoilt(14, n, dtype)
    g.requires_grad_()
    value, degenerate = log_det(g)
    assert degenerate is not None
    assert degenerate.nonzero()[:, 0].tolist() == bad
    assert value.isnan().nonzero()[:, 0].tolist() == bad
    (slope,) = grad(value.sum(), g, retain_graph=True)
    assert bool(slope[bad].isnan().all((-2, -1)).all())
    good = ~degenerate
    torch.testing.assert_close(slope[good], torch.linalg.inv(g[good]), rtol=1e-4, atol=1e-4)
    (masked,) = grad(torch.where(degenerate, 0, value).sum(), g)
    assert bool((masked[bad] == 0).all())
    torch.testing.assert_close(masked[good], slope[good])
    assert factored(g)[1].tolist() == degenerate.tolist()
    alone = log_det(g.detach())[1]
    assert alone is not None
    assert alone.tolist() == degenerate.tolist()


@pytest.mark.parametrize("n", [1, 2, 3])
def test_second_derivatives_there(n: int) -> None:
    g, bad = spoilt(14, n, torch.complex128)
    g = g.requires_grad_()
    weights = torch.ones(14, dtype=torch.float64)
    weights[bad[0]] = 0
    (slope,) = grad((log_det(g)[0] * weights).sum(), g, create_graph=True)
    (second,) = grad((slope * slope.conj()).real.sum(), g)
    assert bool((second[bad[0]] == 0).all())
    assert bool(second[bad[1:]].isnan().any((-2, -1)).all())
    assert not bool(second[[i for i in range(14) if i not in bad]].isnan().any())
    _, moved = torch.func.jvp(lambda g: log_det(g)[0], (g.detach(),), (torch.ones_like(g),))
    assert moved.isnan().nonzero()[:, 0].tolist() == bad


def test_the_value_there_is_chosen_and_not_finite_stays_nan() -> None:
    g, bad = spoilt(14, 3, torch.complex128)
    g[0, 0, 0] = torch.inf
    for each in (g, g.clone().requires_grad_()):
        value, _ = log_det(each, if_degenerate=-math.inf)
        assert bool((value[bad[:-1]] == -math.inf).all())
        assert value.isnan().nonzero()[:, 0].tolist() == [0, bad[-1]]


@pytest.mark.parametrize("n", [1, 2, 3, 8])
def test_off_the_cpu_no_value_is_looked_at(n: int) -> None:
    """On the meta device there are none: what would keep a GPU waiting raises."""
    g = torch.empty(700, n, n, dtype=torch.complex64, device="meta", requires_grad=True)
    value, degenerate = log_det(g, if_degenerate=-math.inf)
    (slope,) = grad(value.sum(), g, create_graph=True)
    (second,) = grad(slope.abs().sum(), g)
    assert degenerate is not None
    assert value.shape == degenerate.shape == (700,)
    assert slope.shape == second.shape == g.shape
    assert factored(g.detach())[0].shape == (*log_det(g.detach())[0].shape, n, n)
    with pytest.raises(RuntimeError, match="meta"):
        bool(degenerate.any())


@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device")
@pytest.mark.parametrize("n", [1, 2, 3, 8, 16])
def test_on_cuda_nothing_waits_and_numbers_are_the_same(n: int) -> None:
    g = matrices(700, n).requires_grad_()
    there = g.detach().cuda().requires_grad_()
    log_det(there)[0].sum().backward()  # libraries start here
    there.grad = None
    torch.cuda.set_sync_debug_mode("error")
    try:
        value = log_det(there)[0]
        value.sum().backward()
    finally:
        torch.cuda.set_sync_debug_mode("default")
    torch.testing.assert_close(value.cpu(), log_det(g)[0])
    assert there.grad is not None
    torch.testing.assert_close(there.grad.cpu(), torch.linalg.inv(g))
