"""Fisher information a second way: scores and Wick's rule reach the divergence's normal form."""

import pytest
from sympy import Expr, exp

from kahler_verify.calculus import (
    Jet,
    LogDet,
    Partial,
    Tr,
    adjoint,
    derive,
    dimension,
    field,
    gaussian_mean,
    index,
    map_letters,
    scalars,
    wirtinger,
)
from kahler_verify.codegen.registry import shipped
from kahler_verify.errors import DerivationError

n = dimension("n")
a, b = index("a b")
mu, S = field("mu", n), field("Sigma", n, n, hermitian=True, positive=True)
x, r = field("x", n, constant=True), field("r", n, constant=True)
A, B, C = (field(name, n, n) for name in "ABC")
v = field("v", n)
log_p = scalars(-LogDet(S) - adjoint(x - mu) * S**-1 * (x - mu))


def mean(expr: Expr) -> Expr:
    """E over x ~ CN(μ, Σ)."""
    residual = {x: mu + r, x.H: mu.H + r.H}
    return gaussian_mean(map_letters(expr, lambda j: residual.get(j, j)), r, S)


def derived(kernel: str) -> dict[str, Expr]:
    return next(k for k in shipped()["gaussian_kl"].kernels if k.name == kernel).derived()


def test_the_score_has_mean_zero() -> None:
    assert mean(wirtinger(log_p, a)) == 0
    assert mean(wirtinger(log_p, a, True)) == 0


def test_score_products_are_the_hessian_of_the_divergence() -> None:
    blocks = derived("fisher_metric_full")
    score, score_bar = wirtinger(log_p, a), wirtinger(log_p, b, True)
    assert mean(score * score_bar) == blocks["g"]
    assert mean(score * wirtinger(log_p, b)) == blocks["k"]


def test_minus_the_mean_hessian_of_the_log_density_is_the_metric_too() -> None:
    blocks = derived("fisher_metric_full")
    assert -mean(wirtinger(wirtinger(log_p, a), b, True)) == blocks["g"]
    assert -mean(wirtinger(wirtinger(log_p, a), b)) == blocks["k"]


def test_moments_of_a_circular_gaussian() -> None:
    form = Tr(r.H * A * r)
    assert gaussian_mean(form, r, S) == Tr(A * S)
    assert gaussian_mean(form * Tr(r.H * B * r), r, S) == Tr(A * S) * Tr(B * S) + Tr(A * S * B * S)
    assert gaussian_mean(Tr(v.H * r) * Tr(r.H * v), r, S) == Tr(v.H * S * v)
    for odd in (Tr(v.H * r), Tr(v.H * r) ** 2, form * Tr(r.H * v)):
        assert gaussian_mean(odd, r, S) == 0


def test_six_residuals_give_all_six_pairings() -> None:
    cube = gaussian_mean(Tr(r.H * A * r) * Tr(r.H * B * r) * Tr(r.H * C * r), r, S)
    assert len(cube.args) == 6
    same = gaussian_mean(Tr(r.H * A * r) ** 3, r, S)
    one, two, three = Tr(A * S), Tr((A * S) ** 2), Tr(A * S * A * S * A * S)
    assert same == one**3 + 3 * one * two + 2 * three


@pytest.mark.parametrize(
    "expr",
    [exp(Tr(r.H * r)), 1 / Tr(r.H * r), LogDet(S) / (1 + Tr(r.H * A * r)), Tr(r.H * A * r) ** -2],
)
def test_what_wick_does_not_cover_is_an_error(expr: Expr) -> None:
    with pytest.raises(DerivationError, match="Wick's rule"):
        gaussian_mean(expr, r, S)


def test_a_derivative_of_the_residual_is_an_error() -> None:
    moving = field("r", n)
    term = derive(Partial(Tr(moving.H * A * moving), a))
    with pytest.raises(DerivationError, match="Wick's rule"):
        gaussian_mean(term, moving, S)


def test_residuals_that_are_numbers_are_an_error_not_a_constant() -> None:
    number = Jet(field("r").field)
    with pytest.raises(DerivationError, match="Wick's rule"):
        gaussian_mean(number * number.H, number, S)
