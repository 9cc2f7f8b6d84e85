"""Pullbacks of numbers at a matrix letter, read off the calculus."""

import pytest

from kahler_verify.calculus import LogDet, Partial, Tr, derive, dimension, field, index, pullback
from kahler_verify.errors import DerivationError

n = dimension("n")
(c,) = index("c")
A, B = field("A", n, n, constant=True), field("B", n, n, constant=True)
S = field("S", n, n, hermitian=True, positive=True)


def test_of_log_det_is_the_inverse_and_of_that_the_inverse_twice() -> None:
    assert pullback(LogDet(S), S) == S**-1
    assert derive(Partial(pullback(LogDet(S), S), c)) == derive(-(S**-1) * Partial(S, c) * S**-1)


@pytest.mark.parametrize(
    "number", [LogDet(S), Tr(A * S * B * S), Tr(A * S**-1 * B) * LogDet(S), Tr(S * A) ** 3]
)
def test_the_derivative_is_the_trace_with_the_pullback(number) -> None:
    expected = derive(Tr(pullback(number, S) * Partial(S, c)))
    assert derive(Partial(number, c)) == expected
    assert expected != 0


def test_terms_of_other_letters_do_not_count() -> None:
    other = field("T", n, n, hermitian=True, positive=True)
    assert pullback(LogDet(S) + 3 * LogDet(other), S) == S**-1
    assert pullback(LogDet(other), S) == 0


def test_what_is_no_trace_of_a_word_is_refused() -> None:
    with pytest.raises(DerivationError, match="one trace"):
        pullback(Tr(S), S)  # the identity has no letter
