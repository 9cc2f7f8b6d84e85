"""Real coordinates: a real index is its own bar, a real letter is its own conjugate."""

import copy

import pytest
from sympy import Expr, Rational, exp, log

from kahler_verify.calculus import (
    Bar,
    Contract,
    Covariance,
    Derivation,
    Entry,
    Expected,
    Jet,
    Kernel,
    Output,
    Partial,
    Total,
    Tr,
    adjoint,
    at_base,
    bregman,
    coordinates,
    derive,
    dimension,
    field,
    index,
    let,
    parameter,
    scalars,
    spelled_out,
    staged,
    wirtinger,
)
from kahler_verify.calculus.definition import OnDiagonal
from kahler_verify.calculus.letters import Index
from kahler_verify.calculus.pointwise import log1pexp, logistic
from kahler_verify.codegen.module import generate_module
from kahler_verify.errors import DerivationError

n, d = dimension("n"), dimension("d")
a, b, c, e, f = index("a b c e f", d, real=True)
p, q = index("p q")  # complex ones
(j,) = index("j", n, real=True)
x, X = field("x", n, real=True), field("X", n, n, real=True)
S, T = field("S", n, n, symmetric=True), field("T", n, n, symmetric=True)
y = field("y", n)
eps = field("eps", n, real=True, constant=True)


def test_a_real_index_is_its_own_bar() -> None:
    assert Bar(a) == a
    assert Bar(p) != p
    assert Partial(x, Bar(a)) == Partial(x, a)
    assert wirtinger(y, a, True) == wirtinger(y, a)
    assert wirtinger(y, p, True) != wirtinger(y, p)


def test_an_index_carries_its_size_and_its_kind() -> None:
    assert a.size == d
    assert j.size == n
    assert Index("a", d, real=True) == a
    assert Index("a", n, real=True) != a
    assert copy.deepcopy(a) == a


def test_a_real_letter_is_its_own_conjugate() -> None:
    s = field("s", real=True)
    assert s == s.H
    assert wirtinger(s, a) == wirtinger(s, a).H
    assert wirtinger(s, p, True) == wirtinger(s, p).H
    assert S.H == S
    assert wirtinger(X, p).T == wirtinger(X, p, True).H
    with pytest.raises(DerivationError, match="declared real"):
        _ = y.T


def test_traces_of_real_words_are_dihedral() -> None:
    assert Tr(X * S * T) == Tr(T * S * X.H)
    assert scalars(x.H * X * x) == scalars(x.H * X.H * x)
    assert Tr(wirtinger(S, a) * S * T) == Tr(T * S * wirtinger(S, a))
    H, J = field("H", n, n, hermitian=True), field("J", n, n, hermitian=True)
    K = field("K", n, n, hermitian=True)
    assert Tr(H * J * K) != Tr(K * J * H)


def test_entries_of_a_transpose_change_places() -> None:
    G = field("G", d, d, symmetric=True)
    assert Entry(G, a, b) == Entry(G, b, a)
    Y = field("Y", d, d, real=True)
    assert Entry(Y.H, a, b) == Entry(Y, b, a)
    assert Entry(Y, a, b) != Entry(Y, b, a)


def test_wick_pairs_real_ones_in_every_way() -> None:
    square = scalars(eps.H * S * eps) ** 2
    assert derive(Expected(square, eps)) == (Tr(S) ** 2 + 2 * Tr(S * S)).expand()
    circular = field("r", n, constant=True)
    H = field("H", n, n, hermitian=True)
    mean = derive(Expected(scalars(circular.H * H * circular) ** 2, circular))
    assert mean == Tr(H) ** 2 + Tr(H * H)
    sixth = scalars(eps.H * eps) ** 3
    assert derive(Expected(sixth, eps)).expand() == (n * (n + 2) * (n + 4)).expand()


def test_a_covariance_holds_connected_pairings_alone() -> None:
    quadratic = scalars(eps.H * S * eps)
    assert derive(Covariance(quadratic, quadratic, eps)) == 2 * Tr(S * S)
    assert derive(Covariance(quadratic, Tr(T), eps)) == 0
    shifted = scalars(adjoint(x + eps) * (x + eps))
    whole = derive(Expected(shifted**2, eps)) - derive(Expected(shifted, eps)) ** 2
    found = derive(Covariance(shifted, shifted, eps))
    assert (whole - found).expand() == 0
    assert found == 2 * n + 4 * scalars(x.H * x)


def test_totals_entries_and_sums_are_differentiated() -> None:
    r = coordinates("r", d, real=True, component=True)
    w = exp(-Tr(r.H * r))
    moved = wirtinger(Total(w), a)
    assert moved == -2 * Total(w * Tr(r.H * r.partial(a, bar=False)))
    assert wirtinger(Contract(Entry(x, j) ** 2, j), a) == 2 * Contract(
        Entry(x, j) * Entry(wirtinger(x, a), j), j
    )
    assert wirtinger(log1pexp(Entry(x, j)), a) == logistic(Entry(x, j)) * Entry(wirtinger(x, a), j)
    with pytest.raises(DerivationError, match="needs a mixture head"):
        derive(Partial(w, a))


def test_summed_indices_have_no_names() -> None:
    G = field("G", d, d, real=True)
    u = field("u", d, real=True)
    one = wirtinger(Contract(Entry(G, b, c) * Entry(u, b), b), a)
    other = wirtinger(Contract(Entry(G, e, c) * Entry(u, e), e), a)
    assert (one - other).xreplace({e: b}) == 0
    two = Contract(Entry(G, b, c) * Entry(u, b) * Entry(u, c), b, c)
    three = Contract(Entry(G, c, b) * Entry(u, c) * Entry(u, b), c, b)
    assert wirtinger(two, a) == wirtinger(three, a)


@pytest.mark.parametrize(
    "partition",
    [
        Contract(exp(Entry(x, j)), j),
        Contract(log1pexp(Entry(x, j)), j),
        Contract(-log(1 - exp(Entry(x, j))), j),
        Tr(x.H * S.at_base() * x),
    ],
)
def test_a_bregman_divergence_starts_at_second_order(partition: Expr) -> None:
    KL = bregman(partition, x)
    assert derive(OnDiagonal(KL)) == 0
    assert derive(OnDiagonal(Partial(KL, a))) == 0
    assert derive(OnDiagonal(Partial(KL, a, b))) != 0


def test_bregman_of_the_poisson_family_is_its_divergence() -> None:
    eta = field("eta", real=True)
    eta0 = eta.at_base()
    KL = bregman(exp(eta), eta)
    assert (KL - (exp(eta) - exp(eta0) - exp(eta0) * (eta - eta0))).expand() == 0


def _kernel_text(expr: Expr, *indices: Index) -> str:
    kernel = Kernel("out", {"out": Output(expr, indices)})
    return generate_module(Derivation("out", "a kernel", (kernel,), d)).text


def test_an_abbreviation_is_computed_once_for_all_its_arguments() -> None:
    G = field("G", d, d, symmetric=True)
    F = let("F", Entry(Partial(G, a), f, b) + Entry(Partial(G, b), f, a), of=(a, b), rows=f)
    text = _kernel_text(Tr(F(b, c).H * F(a, e)) - Tr(F(a, c).H * F(b, e)), a, b, c, e)
    assert text.count("G_d") == text.count("G_d: ") + 1 + text.count("(G_d")
    assert sum(" = " in line and "G_d" in line for line in text.splitlines()) <= 2
    with pytest.raises(DerivationError, match="expected 2 indices"):
        F(a)


def test_an_abbreviation_declares_its_parameters() -> None:
    G = field("G", d, d, symmetric=True)
    with pytest.raises(DerivationError, match=r"declare of=\(b\)"):
        let("F", Entry(Partial(G, a), f, b), of=(a,), rows=f)
    with pytest.raises(DerivationError, match="need indices with a size"):
        let("F", Entry(field("v", d), p), rows=p)


def test_abbreviations_are_differentiated_by_name() -> None:
    t = field("t", real=True)
    u = let("u", exp(t))
    assert wirtinger(u, a) == u.partial(a, bar=False)
    assert wirtinger(u, p) != 0
    assert wirtinger(let("w", exp(parameter("k", real=True))), a) == 0
    frozen = at_base(u)
    assert frozen.field.abbreviated[0] == exp(t.at_base())
    assert wirtinger(frozen, a) == 0
    assert spelled_out(log(1 + u)) == log(1 + exp(t))


def test_what_is_nested_is_staged() -> None:
    t, s = field("t", real=True), field("s", real=True)
    flat = Partial(log(1 + t) + exp(s), a)
    assert staged(flat) == flat
    nested = staged(Partial(log(1 + exp(t)), a))
    assert spelled_out(nested) == Partial(log(1 + exp(t)), a)
    assert nested != Partial(log(1 + exp(t)), a)
    assert staged(log(1 + exp(t))) == log(1 + exp(t))  # nothing is differentiated
    on_diagonal = OnDiagonal(Partial(bregman(log(1 + exp(t)), t), a, b))
    assert staged(on_diagonal) == on_diagonal
    seconds = [j for j in Output(on_diagonal, (a, b)).derived().atoms(Jet) if len(j.hol) > 1]
    assert not seconds  # what multiplies ∂∂t cancels


def test_upper_indices_are_among_the_indices() -> None:
    with pytest.raises(DerivationError, match="upper"):
        Output(Entry(x, j), (j,), upper=(a,))
    assert Output(Entry(x, j), (j,), upper=(j,)).upper == (j,)


def test_halves_are_where_formulas_have_them() -> None:
    """∂_a∂_b of ½|x|² is ∂_ax·∂_bx + x·∂_a∂_bx: no factor is typed for real coordinates."""
    energy = scalars(x.H * x) / 2
    hessian = derive(Partial(energy, a, b))
    products = Tr(wirtinger(x, a).H * wirtinger(x, b))
    assert hessian == products + Tr(x.H * wirtinger(wirtinger(x, a), b))
    mixed = derive(Partial(energy, p, Bar(q)))  # of real x at complex latents
    assert mixed.coeff(Tr(x.H * wirtinger(wirtinger(x, p), q, True))) == Rational(1)
