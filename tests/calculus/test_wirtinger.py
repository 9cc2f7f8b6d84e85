"""Every rule against numbers: nilpotent series over a prime field share no code with it."""

import pytest
from sympy import (
    Expr,
    Heaviside,
    Max,
    Rational,
    Symbol,
    arg,
    cos,
    exp,
    log,
    powsimp,
    sign,
    sin,
    sqrt,
    tanh,
)

from kahler_verify.calculus import (
    Bar,
    Centred,
    LogDet,
    LogSumExp,
    Mean,
    Moment,
    OnDiagonal,
    Partial,
    Tr,
    adjoint,
    assume,
    at_base,
    coordinates,
    derive,
    dimension,
    field,
    index,
    parameter,
    scalars,
    wirtinger,
)
from kahler_verify.errors import DerivationError
from kahler_verify.evidence.proofs.schwartz_zippel import vanishes

n, d = dimension("n"), dimension("d")
a, b, c, e = index("a b c e")
A, B = field("A", n, n), field("B", n, n)
S = field("S", n, n, hermitian=True, positive=True)
u = field("u", n)
s, t = field("s"), field("t", hermitian=True)
q, x = field("q", component=True, hermitian=True), field("x", component=True)
z, w = coordinates("z", d), parameter("w", d)
SIZES = {"d": 2, "n": 2, "K": 3}

RULES = {
    "letter": Tr(A * B),
    "adjoint": Tr(A.H * B * A),
    "power": Tr(A**3 * B),
    "inverse": Tr(S**-1 * A * S**-2 * B),
    "logdet": LogDet(S),
    "scaled logdet": LogDet(t * S),
    "words": scalars(u.H * S**-1 * u) * Tr(A),
    "quotient": Tr(A) / (1 + s * s.H),
    "exp": exp(Tr(A) * s),
    "log": log(2 + Tr(A.H * A)),
    "sqrt": (1 + s * s.H) ** Rational(1, 2),
    "nested": sin(log(1 + s)) * exp(-tanh(s)) + cos(s) ** 2,
    "general power": (2 + t) ** (1 + s),
    "coordinates": scalars(log(1 + z.H * z + (w.H * z) ** 2)),
    "log-sum-exp": LogSumExp(q),
    "minus q": -LogSumExp(-q),
    "mean": Mean(q, x) * Mean(q, x * q),
    "moment": Moment(q, Centred(q, x) ** 2 * Centred(q, q)),
    "function of a mixture": exp(LogSumExp(q) / 2) * s,
}


@pytest.mark.sampled(30)
@pytest.mark.parametrize("name", RULES)
@pytest.mark.parametrize("by", [(a,), (Bar(a),), (a, Bar(b)), (a, c, Bar(b))], ids=str)
def test_rule(name: str, by: tuple) -> None:
    definition = Partial(RULES[name], *by)
    indices = tuple(i.index if isinstance(i, Bar) else i for i in by)
    derived = derive(definition)
    assert not derived.has(Partial)
    trial = vanishes(definition - derived, indices, SIZES, trials=1, most_entries=2)
    assert trial.equal, derived


def test_derivatives_commute() -> None:
    for expr in RULES.values():
        one = derive(Partial(Partial(expr, a), Bar(b)))
        other = derive(Partial(Partial(expr, Bar(b)), a))
        assert powsimp((one - other).expand()).expand() == 0


def test_conjugate_of_a_derivative_is_the_derivative_of_the_conjugate() -> None:
    for expr in (Tr(A * S**-1 * B), exp(Tr(A)) * s, log(1 + s * t)):
        assert adjoint(derive(Partial(expr, a))) == derive(Partial(adjoint(expr), Bar(a)))


def test_on_diagonal_is_taken_after_the_derivatives_inside_it() -> None:
    divergence = Tr((A - at_base(A)) * (B - at_base(B)))
    assert derive(OnDiagonal(Partial(divergence, a))) == 0
    dA, dB = A.partial(a, bar=False), B.partial(b, bar=True)
    expected = Tr(dA * dB) + Tr(A.partial(b, bar=True) * B.partial(a, bar=False))
    assert derive(OnDiagonal(Partial(divergence, a, Bar(b)))) == expected
    outside = derive(Partial(OnDiagonal(Partial(divergence, a, Bar(b))), c))
    assert outside == derive(Partial(expected, c))


def test_assumptions_remove_terms_and_nothing_else() -> None:
    expr = derive(Partial(Tr(A * B), a, Bar(b)))
    assert assume(expr, (A, "holomorphic"), (B, "holomorphic")) == 0
    half = assume(expr, (A, "holomorphic"))
    assert {j.field.name for j in half.atoms(type(A))} == {"A", "B"}
    assert assume(expr, (A, "constant"), (B, "constant")) == 0


@pytest.mark.parametrize(
    ("expr", "message"),
    [
        (sign(s), "sign is not analytic"),
        (arg(s), "arg is not analytic"),
    ],
)
def test_a_function_without_a_complex_derivative_is_an_error(expr: Expr, message: str) -> None:
    with pytest.raises(DerivationError, match=message):
        wirtinger(expr, a)


def test_max_and_heaviside_are_errors_and_never_zeros() -> None:
    for expr in (Max(t, Symbol("r", real=True)), Heaviside(t)):
        try:
            derived = wirtinger(expr, a)
        except DerivationError:
            continue
        assert derived != 0  # the printer refuses what SymPy makes of it


def test_nothing_depends_on_sqrt_being_a_class_of_its_own() -> None:
    assert derive(Partial(sqrt(t), a)) == t.partial(a, bar=False) / (2 * sqrt(t))
