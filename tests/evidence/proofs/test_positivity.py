"""Positive on a box: proved where it is, refuted at a point where it is not, else undecided."""

import pytest
from sympy import E, Integral, Rational, besseli, cos, erf, exp, log, oo, pi, sin, sqrt, symbols

from kahler_verify.calculus import Claim, Derivation, Formula, Positive, Witness, dimension
from kahler_verify.errors import EvidenceError
from kahler_verify.evidence.ledger.claims import judge
from kahler_verify.evidence.proofs import positivity
from kahler_verify.evidence.proofs.positivity import enclose

x, y = symbols("x y", positive=True)
EMPTY = Derivation("empty", "nothing", (), dimension("d"))


@pytest.mark.parametrize(
    ("expr", "box"),
    [
        (x**2 - x + Rational(26, 100), {x: (0, 1)}),  # 1/100 at ½
        (exp(-x) - Rational(1, 1000), {x: (0, 6)}),
        (x / E - log(x) + Rational(1, 100), {x: (1, 10)}),
        (sqrt(x) + pi - y, {x: (1, 4), y: (0, 4)}),
        (erf(x) - sin(x) / 2 - cos(x) / 100, {x: (Rational(1, 10), 3)}),
        (Integral(y * exp(-x * y), (y, 0, 1)) - Rational(1, 8), {x: (1, 2)}),  # .1485 at 2
    ],
)
def test_positive_on_the_whole_box(expr, box) -> None:
    found = enclose(Positive(expr, box, "it"))
    assert found.passed
    assert found.boxes >= 1


@pytest.mark.parametrize(
    ("expr", "box"),
    [
        (x**2 - x + Rational(24, 100), {x: (0, 1)}),  # -1/100 at ½
        (x**2 - x + Rational(26, 100) - Rational(1, 99), {x: (0, 1)}),
        (exp(-x) - Rational(1, 100), {x: (0, 6)}),
        (Integral(y * exp(-x * y), (y, 0, 1)) - Rational(1, 6), {x: (1, 2)}),
    ],
)
def test_a_point_where_it_is_not_positive(expr, box) -> None:
    found = enclose(Positive(expr, box, "it"))
    assert not found.passed
    assert found.value <= 0
    assert expr.subs(found.at).evalf() <= 0


def test_integrals_are_enclosed_and_not_estimated() -> None:
    """erf 1 = 2/√π ∫ e^{-x²}, to 30 digits on both sides."""
    area = 2 / sqrt(pi) * Integral(exp(-(x**2)), (x, 0, 1)) - erf(y)
    for sign in (1, -1):
        assert enclose(Positive(sign * area + Rational(1, 10**30), {y: (1, 1)}, "it")).passed
        assert not enclose(Positive(sign * area - Rational(1, 10**30), {y: (1, 1)}, "it")).passed


@pytest.mark.parametrize(
    ("integral", "message"),
    [
        (Integral(sqrt(x), (x, 0, 1)), "meromorphic"),
        (Integral(log(x + 1), (x, 0, 1)), "meromorphic"),
        (Integral(x, (x, 0, 1), (y, 0, 1)), "one interval"),
        (Integral(x, x), "one interval"),
        (Integral(exp(-x), (x, 0, oo)), "expected one of"),
    ],
)
def test_integrals_that_have_no_enclosure_are_errors(integral, message) -> None:
    with pytest.raises(EvidenceError, match=message):
        enclose(Positive(integral, {x: (0, 1), y: (0, 1)}, "it"))


def test_a_pole_on_the_way_is_not_positive() -> None:
    found = enclose(Positive(Integral(1 / (x - y) ** 2, (x, 0, 1)), {y: (0, 1)}, "it"))
    assert not found.passed


def test_an_exact_witness_may_refute_what_is_said_positive() -> None:
    part = Positive(x * y - 1, {x: (0, 2), y: (0, 1)}, "xy > 1")
    witness = Witness("x = 2, y = ¼", at={x: 2, y: Rational(1, 4)})
    judgement = judge(Claim("X", "xy > 1", "test", parts=(part,), witnesses=(witness,)), EMPTY)
    assert judgement.verdict == "refuted"
    last = judgement.evidence[-1]
    assert (last.route, last.outcome) == ("exact witness", "-1/2 ≤ 0")
    assert last.data["recheck"]["value"] == ["-1/2", "0"]
    wrong = Witness("x = 2, y = 1", at={x: 2, y: 1})
    with pytest.raises(EvidenceError, match="≤ 0, got 1"):
        judge(Claim("X", "xy > 1", "test", parts=(part,), witnesses=(wrong,)), EMPTY)


def test_a_zero_off_the_grid_is_not_decided(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(positivity, "MOST_BOXES", 200)
    touching = Positive((3 * x - 1) ** 2, {x: (0, 1)}, "it")
    found = enclose(touching)
    assert not found.passed
    assert not found.at
    with pytest.raises(EvidenceError, match=r"it: .* boxes do not decide it"):
        judge(Claim("X", "a square is positive", "test", parts=(touching,)), EMPTY)


def test_what_cannot_be_enclosed_is_an_error() -> None:
    with pytest.raises(EvidenceError, match=r"an interval for each of \{y\}"):
        enclose(Positive(x + y, {x: (0, 1)}, "it"))
    with pytest.raises(EvidenceError, match="expected one of exp, log, sin, cos, gamma, erf"):
        enclose(Positive(besseli(0, x), {x: (0, 1)}, "it"))


def test_a_claim_with_a_point_where_it_fails_is_refuted() -> None:
    right = Formula((x + 1) ** 2, x**2 + 2 * x + 1, "a square")
    wrong = Positive(x - Rational(1, 2), {x: (0, 1)}, "half")
    for parts in ((wrong,), (right, wrong)):
        judgement = judge(Claim("X", "x > ½", "test", parts=parts), EMPTY)
        assert judgement.verdict == "refuted"
        assert judgement.evidence[-1].route == "interval arithmetic"
        assert "at most" in judgement.evidence[-1].outcome
