"""Normal forms of traces, shapes, adjoints, and the notation of papers."""

import pytest
from sympy import Abs, Integer, Rational, conjugate, exp, im, log, re, sqrt

from kahler_verify.calculus import (
    LogDet,
    Tr,
    adjoint,
    at_base,
    coordinates,
    dimension,
    field,
    index,
    parameter,
    scalars,
)
from kahler_verify.calculus.definition import Entry, Partial, derive
from kahler_verify.calculus.words import distribute
from kahler_verify.errors import DerivationError

n, d = dimension("n"), dimension("d")
a, b = index("a b")
A, B, C = field("A", n, n), field("B", n, n), field("C", n, d)
S = field("S", n, n, hermitian=True, positive=True)
u, v = field("u", n), field("v", n)
s = field("s")
z = coordinates("z", d)


def test_denominators_stay_apart() -> None:
    """SymPy's own expansion multiplies them out: that of logarithms in logarithms took hours."""
    x, y = Tr(z.H * z), log(1 + Tr(z.H * z))
    both = (1 + x) * (1 + y) ** 2
    assert distribute((x + y) / both) == x / both + y / both
    # where a sum meets its own denominator, what is left is multiplied out as well
    met = distribute(((1 + x) ** 2 + y) / ((1 + x) * (1 + y)))
    assert met == 1 / (1 + y) + x / (1 + y) + y / ((1 + x) * (1 + y))


def test_traces_are_cyclic_and_linear() -> None:
    assert Tr(A * B * S) == Tr(B * S * A) == Tr(S * A * B)
    assert Tr(A * B * S) != Tr(A * S * B)
    assert Tr(2 * A + s * A * B) == 2 * Tr(A) + s * Tr(B * A)
    assert Tr((A + B) ** 2) == Tr(A**2) + 2 * Tr(A * B) + Tr(B**2)
    assert Tr(C * C.H) == Tr(C.H * C)
    assert Tr(A - A) == 0


def test_a_trace_is_cut_at_vectors() -> None:
    assert Tr(A * u * v.H) == Tr(v.H * A * u)
    assert Tr(u * v.H * B * v * u.H) == Tr(v.H * B * v) * Tr(u.H * u)
    assert scalars(u.H * v * v.H * u) == Tr(u.H * v) * Tr(v.H * u)


def test_inverses_cancel_across_the_ends_of_a_trace() -> None:
    assert Tr(S**-1 * A * S) == Tr(A)
    assert Tr(A * S * S**-1 * B) == Tr(A * B)
    assert Tr(S**-2 * A * S) == Tr(S**-1 * A)


def test_an_identity_keeps_its_size() -> None:
    assert derive(scalars(Tr(S**-1 * at_base(S)))) == Tr(S**-1 * at_base(S))
    from kahler_verify.calculus import OnDiagonal

    assert derive(OnDiagonal(Tr(S**-1 * at_base(S)))) == n
    # log det(e^s S) = n s + log det S: the words cancel before their trace is taken
    assert derive(Partial(LogDet(exp(s) * S), a)) == n * s.partial(a, bar=False) + Tr(
        S**-1 * S.partial(a, bar=False)
    )


@pytest.mark.parametrize("expr", [A * B + A.H, u.H * A * v, s * A, S**-1 * A * S**2, C.H * A * C])
def test_adjoint_is_an_involution(expr) -> None:
    assert adjoint(adjoint(expr)) == expr


def test_adjoint_reverses_products_and_conjugates_numbers() -> None:
    assert adjoint(A * B) == B.H * A.H
    assert adjoint(S) == S
    assert adjoint(Tr(A * S)) == Tr(S * A.H)
    assert adjoint(log(Tr(A))) == log(Tr(A.H))
    assert adjoint(Tr(A) ** Rational(1, 2)) == Tr(A.H) ** Rational(1, 2)
    assert adjoint(A.partial(a, bar=False)) == A.H.partial(a, bar=True)


def test_derivatives_of_hermitian_letters_have_one_spelling() -> None:
    assert S.partial(a, bar=True) == S.partial(a, bar=False).H
    assert (
        S.partial(b, bar=False).partial(a, bar=True)
        == S.partial(a, bar=False).partial(b, bar=True).H
    )
    assert S.partial(a, bar=False).partial(b, bar=True) == S.partial(b, bar=True).partial(
        a, bar=False
    )


def test_scalars_reads_the_notation_of_papers() -> None:
    assert scalars(u.H * A * v) == Tr(u.H * A * v)
    assert scalars(log(1 + u.H * u)) == log(1 + Tr(u.H * u))
    assert scalars((u.H * u) ** 2) == Tr(u.H * u) ** 2
    assert scalars(2 ** (u.H * u)) == 2 ** Tr(u.H * u)
    assert scalars(u.H * (1 + v.H * v) * u) == Tr(u.H * u) * (1 + Tr(v.H * v))
    assert scalars(A * B) == A * B


def test_scalars_writes_conjugates_out() -> None:
    t, x = Tr(v.H * A * u), v.H * A * u
    bar = Tr(u.H * A.H * v)
    assert scalars(conjugate(scalars(x))) == bar
    # SymPy takes the conjugate of a product apart, and that of a function inside
    assert scalars(conjugate(exp(u.H * A * v))) == exp(Tr(v.H * adjoint(A) * u))
    assert scalars(conjugate(s * u.H * v)) == adjoint(s) * Tr(v.H * u)
    assert scalars(re(t)) == t / 2 + bar / 2
    assert (
        scalars(im(t) + re(s))
        == scalars((t - bar) / (2 * Integer(-1) ** Rational(1, 2))) + (s + s.H) / 2
    )
    assert scalars(Abs(t) ** 2) == t * bar
    assert scalars(Abs(s) ** 3) == (s * s.H) ** Rational(3, 2)
    assert scalars(Abs(s)) == sqrt(s * s.H)


@pytest.mark.parametrize(
    ("build", "message"),
    [
        (lambda: field("x", n, holomorph=True), "expected traits among .* got 'holomorph'"),
        (lambda: Tr(C), "expected a square matrix, got n × d"),
        (lambda: Tr(A * C * B), "do not multiply"),
        (lambda: Tr(S * S**-1), "size of this identity is unknown"),
        (lambda: Tr(Integer(3)), "size of this identity is unknown"),
        (lambda: LogDet(s), "expected a matrix, got the scalar s"),
        (lambda: LogDet(C), "expected a square matrix, got n × d"),
        (lambda: Tr(A ** Rational(1, 2)), "matrix powers must be integers"),
        (lambda: derive(Partial(A ** Rational(1, 2), a)), "matrix powers must be integers"),
        (lambda: scalars(A + u), "cannot add shapes"),
        (lambda: scalars(u.H * u + A), "cannot add shapes"),
        (lambda: Tr((A * B) ** -1), "write the inverse of a product factor by factor"),
        (lambda: scalars(0.5 * u.H * u), r"exact numbers, got 0.5.*write Rational\('0.5'\)"),
        (lambda: scalars(conjugate(u)), "expected a number, got the matrix"),
        (lambda: Partial(Tr(A), "a"), "expected indices such as a or Bar"),
        (lambda: Entry(A, a), "expected 2 indices for a n × n matrix"),
        (lambda: Entry(u, a, b), "expected 1 indices"),
        (lambda: Entry(Integer(2), a), "expected a matrix, got the scalar 2"),
    ],
)
def test_errors_name_what_is_wrong(build, message: str) -> None:
    with pytest.raises(DerivationError, match=message):
        build()


def test_parameters_are_constant_and_coordinates_are_linear() -> None:
    c = parameter("c", d)
    assert c.partial(a, bar=False) == 0
    assert z.partial(a, bar=True) == 0
    assert z.partial(a, bar=False) != 0
    assert z.partial(a, bar=False).partial(b, bar=False) == 0
    assert z.H.partial(a, bar=False) == 0
