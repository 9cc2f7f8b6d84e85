"""The ledger computes verdicts; nothing passes without evidence."""

import json
import subprocess
import sys
from dataclasses import asdict
from fractions import Fraction
from pathlib import Path

import pytest
from sympy import Float, Integer, Matrix, Rational, Symbol, conjugate, eye, sqrt

from kahler_verify.calculus import (
    Bar,
    Case,
    Claim,
    Derivation,
    Derived,
    Formula,
    Gram,
    LogDet,
    Partial,
    Tr,
    Vanishing,
    Witness,
    covariance,
    dimension,
    explicit_coordinates,
    field,
    index,
)
from kahler_verify.codegen.registry import shipped
from kahler_verify.codegen.writing import generate_files
from kahler_verify.errors import EvidenceError
from kahler_verify.evidence.ledger.cache import Cache
from kahler_verify.evidence.ledger.claims import judge
from kahler_verify.evidence.ledger.items import Item
from kahler_verify.evidence.ledger.kernels import kernel_items
from kahler_verify.evidence.ledger.proving import prove
from kahler_verify.evidence.ledger.writing import write_evidence, write_ledger

d, n = dimension("d"), dimension("n")
a, b, c = index("a b c")
mu = field("mu", n)
S = field("S", n, n, hermitian=True, positive=True)
q = field("q", component=True, hermitian=True)
EMPTY = Derivation("empty", "nothing", (), d)
z1, z2 = explicit_coordinates("z1 z2")

EXPECTED = {
    "G1": "holds",
    "G2": "holds",
    "G3": "holds under A",
    "G3b": "holds under A",
    "G4": "holds",
    "G4-blocks": "holds",
    "G5": "holds under A",
    "G5-form": "holds",
    "G6": "holds",
    "G8-gradient": "holds",
    "G9": "holds",
    "O1": "holds",
    "O2": "holds under A",
    "O2-form": "holds",
    "O3": "holds",
    "O5": "holds",
    "O9": "refuted",
    "O9-form": "holds",
    "L1": "holds",
    "L3": "holds",
    "P4": "holds",
    "S1": "holds",
    "S5-discrete": "holds",
    "L5": "holds under A",
    "L5-speed": "holds",
    "P1": "holds under A",
    "PB1": "holds",
    "PB1-cubic": "refuted",
    "O1-form": "holds",
    "R1": "holds",
    "R2": "holds",
    "R3": "holds",
    "PB1-bernoulli": "holds",
    "PB1-categorical": "holds",
    "PB1-gaussian_natural": "holds",
    "PB1-negative_binomial": "holds",
    "PB1-laplace": "holds",
    "PB1-student_t": "holds",
    "PB1-von_mises_fisher": "holds",
    "G7": "measured",
    "O4": "holds under A",
    "O4-ReLU": "holds",
    "O6": "holds under A",
    "S2": "holds under A",
    "S2-inverse": "holds",
    "S3": "holds",
    "S3-order": "holds under A",
    "S5": "holds",
    "C1": "holds",
    "C2": "holds under A",
    "C2-form": "holds",
    "P3": "holds under A",
    "P4-limit": "holds under A",
    "L2": "holds under A",
    "L2-sphere": "holds",
    "L4": "holds under A",
    "L4-cut": "holds under A",
    "L4-grad": "holds under A",
    "PB1-symmetrised": "holds under A",
    **dict.fromkeys(("O5-trained", "O7", "O8", "S2-trained", "S4", "P2", "L6"), "measured"),
}
SIBLINGS = {  # of families that are above, by the same lines
    f"PB1-{family}": "holds" for family in ("poisson", "exponential", "gamma", "beta", "dirichlet")
}

LONG = {  # a second or more; `prove` judges them, and the rest too
    *SIBLINGS,
    *("G1", "G2", "G3", "G3b", "G4", "G5-form", "R1", "L3", "L5", "L5-speed", "C1"),
    *("O1", "O1-form", "O2-form", "O3", "O4", "O9-form"),
    *("PB1", "PB1-student_t", "PB1-gaussian_natural", "PB1-negative_binomial", "PB1-laplace"),
}


@pytest.mark.sampled(25)
@pytest.mark.parametrize(
    ("claim_id", "verdict"),
    [
        pytest.param(*pair, marks=pytest.mark.thorough if pair[0] in LONG else ())
        for pair in sorted((EXPECTED | SIBLINGS).items())
    ],
)
def test_verdicts(claim_id: str, verdict: str) -> None:
    """What was found by hand and by the study, found again by the software."""
    claim, derivation = next(
        (c, dv) for dv in shipped().values() for c in dv.claims if c.id == claim_id
    )
    judgement = judge(claim, derivation)
    assert judgement.verdict == verdict
    if judgement.verdict in ("refuted", "holds under A"):
        witnesses = [i for i in judgement.evidence if i.route == "exact witness"]
        assert witnesses
        unequal = [i for i in witnesses if i.outcome.endswith("≠ 0")]
        assert all(i.data.get("value") not in (None, "0", ["0", "0"]) for i in unequal)
        others = [i.outcome for i in witnesses if i not in unequal]
        assert all(x.endswith("≤ 0") or " < 0 at z = " in x for x in others)
    if judgement.verdict == "holds under A":
        assert judgement.under
    if judgement.verdict == "open":
        assert judgement.waits_for
    if judgement.verdict == "measured":
        assert judgement.command
        assert sum(i.samples for i in judgement.evidence)


def test_reference_values() -> None:
    """Numbers of earlier, independent work, from the expressions that the claims judge."""
    claims = {c.id: c for dv in shipped().values() for c in dv.claims}
    (d,) = claims["P4"].parts[0].right.free_symbols
    mean = claims["P4"].parts[0].right
    for size, radius, deviation in (
        (2, "1.2533141373155003", ".65513637756203356"),
        (64, "7.9688122219986286", ".70571366043550500"),
    ):
        found = mean.subs(d, size)
        assert abs(found.evalf(30) - Float(radius, 30)) < 1e-15
        assert abs(sqrt(size - found**2).evalf(30) - Float(deviation, 30)) < 1e-16
    limit = claims["O2"].parts[0].left
    (ratio,) = limit.free_symbols
    assert limit.subs(ratio, Rational(1, 2)) == Rational(1, 2)  # CV² of rows 2^{-i}


def test_no_claim_is_open() -> None:
    """None waits for an experiment any more."""
    claims = [c for dv in shipped().values() for c in dv.claims]
    assert len(claims) > 50
    assert not [c.id for c in claims if c.waits_for]


def test_every_listed_claim_is_there() -> None:
    ids = {c.id for dv in shipped().values() for c in dv.claims}
    listed = {f"G{i}" for i in range(1, 10)} | {f"O{i}" for i in range(1, 10)}
    listed |= {f"L{i}" for i in range(1, 7)} | {f"S{i}" for i in range(1, 6)}
    listed |= {f"P{i}" for i in range(1, 5)} | {"G3b", "C1", "C2", "PB1"}
    assert listed <= ids
    assert {*EXPECTED, *SIBLINGS} <= ids


def test_refuted_without_a_declared_witness_finds_one() -> None:
    part = Vanishing(Partial(LogDet(S), a, Bar(b)) - Tr(Partial(S, a, Bar(b))), (a, b), "wrong")
    judgement = judge(Claim("X", "false", "test", parts=(part,)), EMPTY)
    assert judgement.verdict == "refuted"
    assert judgement.evidence[-1].route == "exact witness"


def test_holds_under_an_assumption() -> None:
    part = Vanishing(Tr(Partial(mu, Bar(a)).H * S**-1 * mu), (a,), "∂̄μ = 0")
    witness = Witness(
        "μ = z̄₁",
        coordinates=(z1,),
        fields={mu: Matrix([conjugate(z1)]), S: Matrix([[1]])},
        at={z1: 2},
    )
    claim = Claim(
        "X",
        "the mean is holomorphic",
        "test",
        parts=(part,),
        cases=(Case("μ holomorphic", ((mu, "holomorphic"),)),),
        witnesses=(witness,),
    )
    judgement = judge(claim, EMPTY)
    assert judgement.verdict == "holds under A"
    assert judgement.under == ["μ holomorphic"]


def test_a_declared_witness_that_fails_is_an_error() -> None:
    part = Vanishing(Partial(LogDet(S), a), (a,), "constant determinant")
    witness = Witness("S = I", coordinates=(z1,), fields={S: eye(2)}, at={z1: 1})
    with pytest.raises(EvidenceError, match="zero there"):
        judge(Claim("X", "false", "test", parts=(part,), witnesses=(witness,)), EMPTY)


def test_a_claim_without_samples_is_an_error() -> None:
    with pytest.raises(EvidenceError, match="no sample"):
        judge(Claim("X", "nothing to check", "test"), EMPTY)


def test_a_false_formula_needs_a_witness() -> None:
    x = Symbol("x", real=True)
    with pytest.raises(EvidenceError, match="declares no witness"):
        judge(Claim("X", "x = 1", "test", parts=(Formula(x, Integer(1)),)), EMPTY)
    claim = Claim(
        "X",
        "x = 1",
        "test",
        parts=(Formula(x, Integer(1)),),
        witnesses=(Witness("x = ½", at={x: Rational(1, 2)}),),
    )
    assert judge(claim, EMPTY).verdict == "refuted"


def test_two_derivations_that_differ_do_not_hold() -> None:
    part = Derived(Tr(S), 2 * Tr(S), "wrong by a factor 2")
    assert judge(Claim("X", "false", "test", parts=(part,)), EMPTY).verdict == "refuted"


def test_gram_form_is_recognised_and_refused() -> None:
    good = Gram(covariance(q, Partial(q, a), Partial(q, Bar(b))), (a, b), "covariance")
    assert judge(Claim("X", "psd", "test", parts=(good,)), EMPTY).verdict == "holds"
    for bad in (
        -covariance(q, Partial(q, a), Partial(q, Bar(b))),
        covariance(q, Partial(q, a), Partial(q, b)),
    ):
        part = Gram(bad, (a, b), "not a Gram form")
        assert judge(Claim("X", "psd", "test", parts=(part,)), EMPTY).verdict == "refuted"


def test_routes_that_contradict_each_other_are_an_error(monkeypatch: pytest.MonkeyPatch) -> None:
    """A calculus that derives zero where numbers do not vanish must not be believed."""
    monkeypatch.setattr("kahler_verify.evidence.ledger.parts.derive", lambda expr: expr * 0)
    part = Vanishing(Partial(LogDet(S), a), (a,), "not zero")
    with pytest.raises(EvidenceError, match="normal form is zero"):
        judge(Claim("X", "false", "test", parts=(part,)), EMPTY)


def test_unknown_ids_and_profiles_are_named() -> None:
    with pytest.raises(EvidenceError, match="G99"):
        prove(["G99"])
    with pytest.raises(EvidenceError, match="profile"):
        prove(["G2"], profile="quick")


def test_a_users_file_is_judged(tmp_path: Path) -> None:
    path = tmp_path / "mine.py"
    path.write_text(
        "from sympy import log\n"
        "from kahler_verify.calculus import *\n"
        "d = dimension('d')\n"
        "a, b = index('a b')\n"
        "z = coordinates('z', d)\n"
        "A = parameter('A', d, d, hermitian=True)\n"
        "K = log(1 + z.H * A * z)\n"
        "claim = Claim('M1', 'K is A to second order', 'me',\n"
        "    parts=(Vanishing(Partial(K, a, Bar(b)) - Entry(A, b, a), (a, b), 'g = A'),))\n"
        "mine = potential('mine', K, claims=(claim,))\n"
    )
    ledger = prove([str(path)], use_cache=False)
    assert [j.verdict for j in ledger.claims] == ["refuted"]
    assert {i.what for i in ledger.kernels} >= {"mine.metric", "mine.metric_d", "mine.metric_db"}
    assert ledger.passed
    out = tmp_path / "ledger.json"
    write_ledger(ledger, out)
    written = json.loads(out.read_text())
    assert written["claims"][0]["id"] == "M1"
    assert written["claims"][0]["verdict"] == "refuted"


def test_a_users_file_may_name_dimensions_as_it_likes(tmp_path: Path) -> None:
    path = tmp_path / "mine.py"
    path.write_text(
        "from sympy import log\n"
        "from kahler_verify.calculus import *\n"
        "z = coordinates('z', dimension('latent'))\n"
        "B = parameter('B', dimension('rows'), dimension('latent'))\n"
        "mine = potential('mine', log(1 + z.H * B.H * B * z))\n"
    )
    ledger = prove([str(path)], use_cache=False)
    assert ledger.passed
    assert "mine: output_basis_free" in {i.what for i in ledger.kernels}


def test_kernel_items_cover_every_kernel() -> None:
    derivation = shipped()["fubini_study"]
    items = kernel_items(derivation)
    names = {k.name for k in derivation.kernels} | {"heads"}
    assert {i.what.partition(".")[2] for i in items} - {""} == names  # "": of the definition
    assert all(i.passed and i.samples for i in items)
    kernels = [i for i in items if i.data]
    assert len(kernels) == len(derivation.kernels)
    assert all(i.error_log2 is not None and i.error_log2 < -100 for i in kernels)
    with pytest.raises(EvidenceError, match="no kernels"):
        kernel_items(derivation, ("nonsense",))


def test_cache_round_trip_and_corruption(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("KAHLER_VERIFY_CACHE", str(tmp_path))
    cache = Cache("default", [])
    claim, derivation = next(
        (c, dv) for dv in shipped().values() for c in dv.claims if c.id == "G2"
    )
    judgement = judge(claim, derivation)
    cache.put("G2", judgement)
    assert asdict(cache.get("G2")) == asdict(judgement)  # type: ignore[arg-type]
    cache.put("kernels", [Item("route", "what", "ok", True, 1)])
    assert cache.get("kernels") == [Item("route", "what", "ok", True, 1)]
    next(cache.folder.glob("*.json")).write_text("{")
    assert cache.get("nothing") is None


@pytest.mark.thorough
def test_witnesses_pass_the_independent_checker_and_tampering_fails(tmp_path: Path) -> None:
    claims = ["G3", "G3b", "G5", "O9", "L5", "P1", "PB1-cubic", "O4", "O6", "S2", "S3-order"]
    claims += ["C2", "P3", "P4-limit", "L2", "L4", "L4-cut", "L4-grad", "PB1-symmetrised"]
    ledger = prove(claims, use_cache=False)
    path = tmp_path / "evidence.json"
    count = write_evidence(ledger, path)
    assert count >= 27
    command = [sys.executable, "-m", "kahler_verify.evidence.recheck", str(path)]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout + done.stderr
    data = json.loads(path.read_text())
    item = next(i for i in data["items"] if i["kind"] == "witness")
    item["value"][0] = str(Fraction(item["value"][0]) + 1)
    path.write_text(json.dumps(data))
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == 1


def test_what_is_zero_or_constant_as_written_is_no_evidence() -> None:
    nothing = Vanishing(Tr(S) - Tr(S), (), "0 = 0")
    with pytest.raises(EvidenceError, match="nothing to check"):
        judge(Claim("X", "trivial", "test", parts=(nothing,)), EMPTY)
    with pytest.raises(EvidenceError, match="constants"):
        judge(Claim("X", "1 = 1", "test", parts=(Formula(Integer(1), Integer(1)),)), EMPTY)


def test_claims_of_two_files_with_one_id_are_told_apart(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("KAHLER_VERIFY_CACHE", str(tmp_path / "cache"))
    paths = []
    for name, potential in (("one", "z.H * z"), ("two", "log(1 + z.H * z)")):
        path = tmp_path / f"{name}.py"
        path.write_text(
            "from sympy import log\n"
            "from kahler_verify.calculus import *\n"
            "a, b, c = index('a b c')\n"
            "z = coordinates('z', dimension('d'))\n"
            f"K = {potential}\n"
            "part = Vanishing(Partial(K, a, c, Bar(b)), (a, c, b), 'third derivatives')\n"
            "same = potential('same', K, claims=(Claim('E1', 'flat', 'me', parts=(part,)),))\n"
        )
        paths.append(str(path))
    for _ in range(2):  # cold and warm
        assert [j.verdict for j in prove(paths).claims] == ["holds", "refuted"]


def test_a_kernel_file_that_was_edited_is_found(tmp_path: Path) -> None:
    path = tmp_path / "mine.py"
    path.write_text(
        "from sympy import log\n"
        "from kahler_verify.calculus import *\n"
        "z = coordinates('z', dimension('d'))\n"
        "mine = potential('mine', log(1 + z.H * z))\n"
    )
    generate_files([path])
    assert prove([str(path)], use_cache=False).passed
    kernels = tmp_path / "mine_kernels.py"
    kernels.write_text(kernels.read_text().replace("z.conj()", "z", 1))
    assert not prove([str(path)], use_cache=False).passed
