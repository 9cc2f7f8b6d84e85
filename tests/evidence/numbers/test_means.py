"""Means over a normal vector: exact up to the fifth degree, and refused above."""

from fractions import Fraction
from itertools import product
from math import prod

import pytest
from sympy import Expr, exp

from kahler_verify.calculus import Expected, Tr, adjoint, dimension, field, scalars
from kahler_verify.errors import EvidenceError
from kahler_verify.evidence.numbers.means import HIGHEST, degree_in, nodes_for, normal_nodes

n = dimension("n")
eps = field("eps", n, real=True, constant=True)
S = field("S", n, n, symmetric=True)
square: Expr = scalars(adjoint(eps) * S * eps)
MOMENTS = (1, 0, 1, 0, 3, 0)  # E x^k


@pytest.mark.parametrize("size", [1, 2, 3, 4])
def test_every_moment_of_low_degree_is_exact(size: int) -> None:
    for powers in product(range(HIGHEST + 1), repeat=size):
        if sum(powers) > HIGHEST:
            continue
        found = sum(
            w * prod(x**k for x, k in zip(at, powers, strict=True)) for at, w in normal_nodes(size)
        )
        assert found == prod(MOMENTS[k] for k in powers), powers


@pytest.mark.parametrize("size", [1, 2, 3])
def test_the_sixth_moment_is_not(size: int) -> None:
    """So that the limit is one: E x⁶ = 15."""
    assert sum(w * at[0] ** 6 for at, w in normal_nodes(size)) != 15


def test_there_are_few_nodes() -> None:
    assert [len(normal_nodes(size)) for size in (1, 4, 16)] == [5, 41, 545]
    assert sum(w for _, w in normal_nodes(16)) == Fraction(1)


def test_what_is_of_too_high_a_degree_is_refused() -> None:
    assert degree_in(square**2, eps.field) == 4
    assert len(list(nodes_for(square**2, eps, 2))) == 13
    with pytest.raises(EvidenceError, match=r"up to degree 5 .* of degree 6"):
        list(nodes_for(square**3, eps, 2))
    with pytest.raises(EvidenceError, match="needs a polynomial"):
        list(nodes_for(exp(square), eps, 2))
    with pytest.raises(EvidenceError, match="needs a polynomial"):
        list(nodes_for(square**-1, eps, 2))
    circular = field("r", n)
    with pytest.raises(EvidenceError, match="not real"):
        list(nodes_for(Tr(adjoint(circular) * circular), circular, 2))


def test_abbreviations_and_inner_means_count() -> None:
    assert degree_in(Tr(S) * square + Tr(S), eps.field) == 2
    assert degree_in(Tr(S), eps.field) == 0
    with pytest.raises(EvidenceError, match="needs a polynomial"):
        degree_in(Expected(square, eps), eps.field)
