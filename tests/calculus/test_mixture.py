"""Log-sum-exp mixtures: total covariance, and centred formulas of third and fourth order."""

import pytest
from sympy import Expr

from kahler_verify.calculus import (
    Bar,
    Centred,
    LogSumExp,
    Mean,
    Moment,
    Partial,
    assume,
    covariance,
    derive,
    field,
    index,
)
from kahler_verify.errors import DerivationError

a, b, c, e = index("a b c e")
q = field("q", component=True, hermitian=True)
x, y = field("x", component=True), field("y", component=True)
s = field("s")
quadratic = (q, "quadratic")
qq = assume(q, quadratic)


def u(i: Expr, letter: Expr = qq) -> Expr:
    """U_i = ∂_i q - E ∂_i q."""
    return Centred(letter, letter.partial(i, bar=False))


def u_bar(i: Expr, letter: Expr = qq) -> Expr:
    return Centred(letter, letter.partial(i, bar=True))


def p(i: Expr, j: Expr, letter: Expr = qq) -> Expr:
    return letter.partial(i, bar=False).partial(j, bar=True)


def Q(i: Expr, j: Expr) -> Expr:
    return Centred(qq, p(i, j))


def E(product: Expr) -> Expr:
    return Moment(qq, product)


def test_law_of_total_covariance() -> None:
    g = derive(Partial(LogSumExp(q), a, Bar(b)))
    within = Mean(q, p(a, b, q))
    between = covariance(q, q.partial(a, bar=False), q.partial(b, bar=True))
    assert g == within + between
    density = derive(Partial(-LogSumExp(-q), a, Bar(b)))
    weights = -q
    assert density == Mean(weights, p(a, b, q)) - covariance(
        weights, q.partial(a, bar=False), q.partial(b, bar=True)
    )


def test_third_derivative_of_quadratic_components() -> None:
    ours = assume(derive(Partial(LogSumExp(q), a, c, Bar(b))), quadratic)
    assert ours == E(u(a) * u(c) * u_bar(b)) + E(Q(a, b) * u(c)) + E(Q(c, b) * u(a))


def test_fourth_derivative_of_quadratic_components() -> None:
    ours = assume(derive(Partial(LogSumExp(q), a, c, Bar(b), Bar(e))), quadratic)

    def M(i: Expr, j: Expr) -> Expr:
        return E(u(i) * u_bar(j))

    H, H_bar = E(u(a) * u(c)), E(u_bar(b) * u_bar(e))
    expected = E(u(a) * u(c) * u_bar(b) * u_bar(e)) - M(a, b) * M(c, e) - M(a, e) * M(c, b)
    expected -= H * H_bar
    expected += E(Q(a, b) * u(c) * u_bar(e)) + E(Q(c, b) * u(a) * u_bar(e))
    expected += E(Q(a, e) * u(c) * u_bar(b)) + E(Q(c, e) * u(a) * u_bar(b))
    expected += E(Q(a, b) * Q(c, e)) + E(Q(a, e) * Q(c, b))
    assert ours == expected


def test_general_components_add_the_terms_that_design_names() -> None:
    general = derive(Partial(LogSumExp(q), a, c, Bar(b)))
    extra = Mean(q, p(a, b, q).partial(c, bar=False)) + Moment(
        q, Centred(q, q.partial(a, bar=False).partial(c, bar=False)) * u_bar(b, q)
    )
    cubic = Moment(q, u(a, q) * u(c, q) * u_bar(b, q))
    swaps = Moment(q, Centred(q, p(a, b, q)) * u(c, q)) + Moment(
        q, Centred(q, p(c, b, q)) * u(a, q)
    )
    assert general == cubic + swaps + extra


def test_every_factor_of_a_moment_is_centred() -> None:
    for order in [(a, Bar(b)), (a, c, Bar(b)), (a, c, Bar(b), Bar(e))]:
        for moment in derive(Partial(LogSumExp(q), *order)).atoms(Moment):
            for factor in moment.args[1].as_ordered_factors():
                assert isinstance(factor.as_base_exp()[0], Centred)


def test_linearity_and_vanishing() -> None:
    assert Mean(q, 2 * x + s * y) == 2 * Mean(q, x) + s * Mean(q, y)
    assert Mean(q, s) == s
    assert Centred(q, s) == 0
    assert Moment(q, Centred(q, x)) == 0
    assert covariance(q, x, s) == 0
    assert covariance(q, x, y) == covariance(q, y, x)
    assert covariance(q, Mean(q, x), y) == 0
    assert LogSumExp(q).func(q) == LogSumExp(q)


@pytest.mark.parametrize(
    ("build", "message"),
    [
        (lambda: LogSumExp(s), "expected a field with component=True"),
        (lambda: Moment(q, x * Centred(q, y)), "expected products of Centred factors"),
    ],
)
def test_errors(build, message: str) -> None:
    with pytest.raises(DerivationError, match=message):
        build()
