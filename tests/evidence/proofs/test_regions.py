"""Regions of plurisubharmonicity: the sharp threshold of two components, and honest verdicts."""

from fractions import Fraction

import flint
import numpy as np
import pytest
from sympy import Symbol, conjugate, exp, log, sin

from kahler_verify.codegen.registry import shipped
from kahler_verify.errors import EvidenceError, InputError
from kahler_verify.evidence import recheck
from kahler_verify.evidence.proofs.potentials import Formula, Mixture
from kahler_verify.evidence.proofs.regions import prove_plurisubharmonic

HALVES = (Fraction(1, 2), Fraction(1, 2))
THIRDS = (Fraction(1, 3), Fraction(2, 3))
z1, z2 = Symbol("z1", complex=True), Symbol("z2", complex=True)


def two(distance: str, weights: tuple[Fraction, Fraction], d: int) -> Mixture:
    """Components at ±½ on the diagonal of C^d, with a full Hermitian P and δᴴPδ = distance."""
    s = Fraction(distance)
    off = (Fraction(1, 4), Fraction(1, 5))
    p: list = [[s]] if d == 1 else [[s / 2, off], [(off[0], -off[1]), s / 2 - 2 * off[0]]]
    centres = [[sign * Fraction(1, 2)] * d for sign in (1, -1)]
    return Mixture("density", weights, centres, [p, p])


@pytest.mark.parametrize("weights", [HALVES, THIRDS])
@pytest.mark.parametrize(
    ("distance", "d", "verdict"),
    [("3.9", 1, "proved"), ("3.5", 2, "proved"), ("4.1", 1, "refuted"), ("4.1", 2, "refuted")],
)
def test_two_components_lose_plurisubharmonicity_at_distance_four(
    distance: str, d: int, verdict: str, weights: tuple[Fraction, Fraction]
) -> None:
    result = prove_plurisubharmonic(two(distance, weights, d))
    assert result.verdict == verdict
    assert recheck.check(result.to_json()).startswith(verdict)


def test_at_the_threshold_itself_the_verdict_is_undecided_with_the_leftover() -> None:
    result = prove_plurisubharmonic(two("4", HALVES, 1), most_boxes=200)
    assert result.verdict == "undecided"
    assert 0 < result.leftover_volume < 6
    assert "left over" in str(result)
    with pytest.raises(EvidenceError, match="undecided"):
        result.to_json()


def test_components_of_different_shape_need_a_tree_of_boxes() -> None:
    mixture = Mixture("density", HALVES, [[Fraction(3, 10)], [Fraction(-3, 10)]], [[[1]], [[2]]])
    result = prove_plurisubharmonic(mixture)
    assert result.verdict == "proved"
    assert len(result.leaves) > 4
    item = result.to_json()
    assert recheck.check(item)
    lost = {**item, "leaves": item["leaves"][1:]}
    with pytest.raises(ValueError, match="do not fill"):
        recheck.check({**lost, "digest": recheck.digest(lost)})


def test_three_components_are_refuted_between_far_centres_and_proved_near_each_other() -> None:
    def three(r: Fraction) -> Mixture:
        centres = [[(r, 0)], [(-r / 2, r)], [(-r / 2, -r)]]
        return Mixture("density", [Fraction(1, 3)] * 3, centres, [[[1]]] * 3)

    assert prove_plurisubharmonic(three(Fraction(3, 5))).verdict == "proved"
    assert prove_plurisubharmonic(three(Fraction(3))).verdict == "refuted"


def test_log_sum_exp_is_plurisubharmonic_on_any_box_unless_a_component_is_not() -> None:
    box = [(-3, 3), (-3, 3)]
    good = Mixture("log_sum_exp", THIRDS, [[2], [-2]], [[[1]], [[3]]])
    assert prove_plurisubharmonic(good, box).verdict == "proved"
    bad = Mixture("log_sum_exp", THIRDS, [[0], [0]], [[[1]], [[-1]]])
    assert prove_plurisubharmonic(bad, box).verdict == "refuted"


def test_potentials_that_users_write() -> None:
    radius2 = z1 * conjugate(z1)
    assert prove_plurisubharmonic(log(1 + radius2), [(-1, 1)] * 2).verdict == "proved"
    quartic = prove_plurisubharmonic(radius2 - radius2**2 / 5, [(-2, 2)] * 2)
    assert quartic.verdict == "refuted"
    assert recheck.check(quartic.to_json())
    sheared = exp(z1 + conjugate(z1)) + (z2 + z1**2) * conjugate(z2 + z1**2)
    plane = prove_plurisubharmonic(sheared, [(-Fraction(1, 16), Fraction(1, 16))] * 4)
    assert plane.verdict == "proved"
    assert recheck.check(plane.to_json())


def test_shipped_derivations_in_a_chosen_dimension() -> None:
    ball = prove_plurisubharmonic(
        shipped()["complex_ball"], [(-Fraction(1, 4), Fraction(1, 4))] * 4, d=2
    )
    assert ball.verdict == "proved"
    assert recheck.check(ball.to_json())


def test_the_lower_matrix_is_below_the_metric_at_points_of_the_box() -> None:
    rng = np.random.default_rng(0)
    for kind in ("density", "log_sum_exp"):
        mixture = Mixture(kind, THIRDS, [[1, (0, 1)], [-1, 0]],
                          [[[2, (0, 1)], [(0, -1), 2]], [[1, 0], [0, 3]]])  # fmt: skip
        metric = recheck.mixture(dict(mixture.data))
        sides = [flint.arb(x, 0.05) for x in rng.normal(size=4)]
        box = [flint.acb(*sides[:2]), flint.acb(*sides[2:])]
        lower = metric(box, below=True)
        for _ in range(20):
            step = 0.05 * rng.uniform(-1, 1, 4)
            point = [flint.acb(b.real.mid() + x, b.imag.mid() + y)
                     for b, x, y in zip(box, step[::2], step[1::2], strict=True)]  # fmt: skip
            g = metric(point)
            gap = np.array(
                [[complex((g[i][j] - lower[i][j].mid()).mid()) for j in (0, 1)] for i in (0, 1)]
            )
            slack = max(float(x.real.rad() + x.imag.rad()) for row in lower for x in row)
            assert np.linalg.eigvalsh(gap)[0] > -2 * slack


def test_errors_name_the_argument() -> None:
    with pytest.raises(InputError, match="weights: expected positive"):
        Mixture("density", [1, 1], [[0], [1]], [[[1]], [[1]]])
    with pytest.raises(InputError, match="Hermitian"):
        Mixture("density", [1], [[0, 0]], [[[1, 1], [0, 1]]])
    with pytest.raises(InputError, match="positive definite"):
        Mixture("density", [1], [[0]], [[[-1]]])
    with pytest.raises(InputError, match="kind"):
        Mixture("softmax", [1], [[0]], [[[1]]])
    with pytest.raises(InputError, match="box: expected 2 sides"):
        prove_plurisubharmonic(z1 * conjugate(z1), [(1, -1)] * 2)
    with pytest.raises(InputError, match="d: expected the dimension"):
        Formula.of(shipped()["flat"])
    with pytest.raises(EvidenceError, match="does not know sin"):
        prove_plurisubharmonic(sin(z1 * conjugate(z1)), [(-1, 1)] * 2)
