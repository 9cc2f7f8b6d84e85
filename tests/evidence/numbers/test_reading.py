"""Evidence reads definitions by itself: faults of reading die, and right kernels pass."""

import random
import subprocess
import sys
from dataclasses import replace
from fractions import Fraction

import pytest
from sympy import (
    Abs,
    E,
    Expr,
    I,
    Rational,
    Symbol,
    conjugate,
    cos,
    cosh,
    exp,
    im,
    log,
    pi,
    re,
    sin,
    sinh,
    sqrt,
    tan,
    tanh,
)

from kahler_verify.calculus import (
    Derivation,
    LogDet,
    coordinates,
    dimension,
    explicit_coordinates,
    parameter,
    potential,
    words,
)
from kahler_verify.codegen.explicit import polarised
from kahler_verify.codegen.module import generate_module
from kahler_verify.evidence.ledger.kernels import kernel_items
from kahler_verify.evidence.mutants.faults import FACTOR, SIGN
from kahler_verify.evidence.mutants.reading_faults import judge_readings
from kahler_verify.evidence.mutants.reading_rules import EVIDENCE, GENERATOR
from kahler_verify.evidence.mutants.rules import Rule, edited
from kahler_verify.evidence.numbers.arithmetic import decimal, prime_field, rational
from kahler_verify.evidence.numbers.functions import Functions
from kahler_verify.evidence.numbers.samples import draw
from kahler_verify.evidence.numbers.series import evaluate_output
from kahler_verify.evidence.proofs.schwartz_zippel import reads_as_written, schwartz_zippel

# files that decide what is true; none of them loads any of the generator
NUMBERS = [
    "laws.readings",
    "proofs.schwartz_zippel",
    "proofs.witnesses",
    "recheck",
    "routes.autograd",
    "routes.componentwise",
    "routes.entries",
    "routes.terms",
    *(
        f"numbers.{name}"
        for name in (
            "arithmetic",
            "arrays",
            "domains",
            "functions",
            "gaussian",
            "means",
            "nilpotent",
            "points",
            "powers",
            "readings",
            "samples",
            "series",
            "taylor",
            "trees",
        )
    ),
]
SIZES = {"d": 2, "n": 2, "K": 2}

z1, z2 = explicit_coordinates("z1 z2")
s, t = Symbol("s", positive=True), Symbol("t", real=True)
q = Abs(z1) ** 2 + Abs(z2) ** 2
d = dimension("d")
z, a, c = coordinates("z", d), parameter("a", hermitian=True), parameter("c", d)
A = parameter("A", d, d, hermitian=True)
P = parameter("P", d, d, hermitian=True, positive=True)
r = z.H * z
third, quarter, fifth = Rational(1, 3), Rational(1, 4), Rational(1, 5)
# Right by construction: kernels are generated from them.  Every notation that is accepted is here.
EXPLICIT: dict[str, Expr] = {
    "two thirds in a log": log(2 + (1 + Abs(z1) ** 2) ** (2 * third)) + Abs(z2) ** 2,
    "a third in a log": log(2 + (1 + q) ** third),
    "a quarter in a log": log(2 + (1 + q) ** quarter),
    "fifths": log(2 + (1 + q) ** fifth) + (1 + q) ** (3 * fifth),
    "negative powers": log(2 + (1 + q) ** -Rational(1, 2)) + (1 + q) ** (-4 * third),
    "roots of one base": log(1 + sqrt(1 + Abs(z1) ** 2) + (1 + Abs(z1) ** 2) ** third),
    "root in exp in log": log(1 + exp(sqrt(1 + Abs(z1) ** 2)) + exp(-sqrt(1 + Abs(z1) ** 2) / 3)),
    "fifths of exponents": log(1 + exp(q / 5) + exp(2 * q / 5)),
    "re": log(3 + re(z1) ** 2) + exp(re(z1 * z2)),
    "im": exp(im(z1)) + cos(im(z2)) + im(z1 * z2) ** 2,
    "conjugate": z1 * conjugate(z2) + z2 * conjugate(z1) + log(2 + conjugate(z1) * z1),
    "Abs": Abs(z1) + Abs(z1 + z2) ** 3 + log(1 + Abs(z2)),
    "log of Abs": log(Abs(z1)) + log(1 + Abs(z1 - z2)),
    "circles": sin(re(z1)) + cos(im(z1)) * cosh(re(z2)) + sinh(im(z2)) + tan(re(z1) / 3),
    "logs of circles": log(cosh(re(z1))) + log(2 + cos(re(z2))) + tanh(re(z1 * z2)),
    "holomorphic": re(exp(z1) * z2) + re(sin(z1)) + Abs(exp(z1 * z2)) ** 2 + Abs(cos(z1)) ** 2,
    "positive parameter": sqrt(s * Abs(z1) ** 2 + 1) + sqrt(s) * Abs(z2) ** 2 + s**q,
    "real parameter": exp(t * re(z1)) * t**2 + log(1 + exp(t) * Abs(z1) ** 2) + Abs(z2) ** 2,
    "constants": pi * q + sqrt(2) * q**2 + log(3) * q + E * Abs(z1) ** 4 + 2**third * re(z2),
    "exponents that vary": (1 + q) ** (Abs(z1) ** 2) + (1 + q) ** (s / 2) + 2 ** Abs(z1) ** 2,
    "logs in logs": log(1 + log(2 + log(3 + q))),
    "half-planes": -log(im(z1)) - log(re(z2)),
    "complex roots": log(4 + sqrt(1 + z1) + sqrt(1 + conjugate(z1))) + Abs(z2) ** 2,
    "two spellings": exp(1 / (2 * s + 2 * q)) + exp(1 / (s + q)) + exp(re(z1) / (2 + 2 * s)),
    "softplus": log(1 + exp(re(z1))) + Abs(z2) ** 2,
}
LETTERS: dict[str, Expr] = {
    "letters: two thirds": log(2 + (1 + r) ** (2 * third)),
    "letters: quarters": log(2 + (1 + r) ** quarter + (1 + r) ** (-3 * quarter)),
    "letters: nested roots": sqrt(1 + (1 + log(1 + r)) ** third),
    "letters: root in exp": log(1 + exp(sqrt(1 + r) / 7)),
    "letters: parameter": (1 + a * r) ** third + (1 + r) ** a + (1 + r) ** (a / 2) + 2**r,
    "letters: circles": cosh(z.H * A * z) + sin(r) * tanh(r) + tan(r),
    "letters: re, im, Abs": log(1 + re(c.H * z) ** 2) + exp(im(c.H * z)) + Abs(c.H * z) ** 3,
    "letters: log det": LogDet(P) + log(1 + r) + r * LogDet(P * P),
}


def _derivations() -> dict[str, Derivation]:
    named = {n: potential("p", phi, coordinates=(z1, z2)) for n, phi in EXPLICIT.items()}
    return named | {n: potential("p", phi) for n, phi in LETTERS.items()}


@pytest.mark.parametrize("name", [*EXPLICIT, *LETTERS])
def test_a_right_kernel_is_not_accused(name: str) -> None:
    full = _derivations()[name]
    derivation = replace(full, kernels=full.kernels[:3])  # value, gradient, metric
    module = generate_module(derivation)
    compared = 0
    for kernel in derivation.kernels:
        if f"def {kernel.name}(" not in module.text:
            continue
        trial = schwartz_zippel(
            kernel, module.text, SIZES, trials=2, heads=module.heads, most_entries=4
        )
        assert trial.equal
        assert trial.error_log2 < -60
        compared += trial.entries
    assert compared
    assert reads_as_written(derivation, SIZES)


@pytest.mark.thorough
@pytest.mark.parametrize(
    "phi",
    [
        sqrt(1 + sqrt(1 + sqrt(1 + q))) + log(1 + sqrt(1 + (2 + q) ** third)),
        log(1 + sqrt(1 + q) + (1 + q) ** third + (1 + q) ** Rational(1, 6)),
        log(1 + exp(sqrt(1 + q)) + exp(-sqrt(1 + q) / 3)),
    ],
)
def test_deep_roots_are_not_accused(phi: Expr) -> None:
    assert all(item.passed for item in kernel_items(potential("deep", phi, coordinates=(z1, z2))))


def test_the_sign_of_im_in_the_generator_is_noticed() -> None:
    """The fault that both sides used to share."""
    phi = exp(im(z1)) + Abs(z1) ** 2 + Abs(z2) ** 2
    full = potential("ex", phi, coordinates=(z1, z2))
    derivation = replace(full, kernels=full.kernels[:3])
    assert all(item.passed for item in kernel_items(derivation))
    fault = Rule(SIGN, polarised, "(inner - other) / (2 * I)", "(other - inner) / (2 * I)")
    with edited(fault):
        failed = [item.what for item in kernel_items(derivation) if not item.passed]
    assert {"ex.value", "ex.gradient", "ex.metric"} <= set(failed)


def test_a_fault_in_what_letters_are_rewritten_to_is_noticed() -> None:
    phi = exp(im(c.H * z)) + r
    with edited(Rule(FACTOR, words._conjugates_written_out, "/ (2 * I)", "/ I")):
        wrong = potential("ex", phi)
    assert not reads_as_written(wrong, SIZES)
    assert not kernel_items(wrong)[0].passed
    assert reads_as_written(potential("ex", phi), SIZES)


@pytest.mark.parametrize(
    "rules",
    [
        pytest.param(GENERATOR, marks=pytest.mark.thorough),
        pytest.param(EVIDENCE, marks=pytest.mark.thorough),
        GENERATOR[::6],
        EVIDENCE[::2],
    ],
    ids=["generator", "evidence", "a sixth of the generator's", "half of evidence's"],
)
def test_every_fault_of_reading_is_killed(rules: tuple[Rule, ...]) -> None:
    assert min(len(GENERATOR), len(EVIDENCE)) >= 30
    judged = list(judge_readings(rules, most=1))
    assert len(judged) == len(rules)
    assert [(r.name, r.outcome) for r in judged if r.outcome != "killed"] == []


def test_what_decides_loads_nothing_of_the_generator() -> None:
    names = [f"kahler_verify.evidence.{n}" for n in NUMBERS]
    code = (
        f"import sys, importlib\nfor n in {names!r}: importlib.import_module(n)\n"
        "print([m for m in sys.modules if m.startswith('kahler_verify.codegen')])"
    )
    run = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert run.stdout.strip() == "[]"


def test_only_what_plants_faults_or_runs_variants_loads_what_rewrites() -> None:
    import ast
    from pathlib import Path

    import kahler_verify.evidence as evidence

    rewriting = {"explicit", "lowering", "kernel", "program", "pointwise", "factors", "heads"}
    rewriting |= {"circuit", "circuit_printer", "opening", "whitening", "contraction", "numbers"}
    free = {"mutants", "laws/variants/unrolled.py", "laws/calls.py"}
    home = Path(evidence.__file__).parent
    checked = set()
    for path in home.rglob("*.py"):
        name = path.relative_to(home).as_posix()
        if free & {name, name.partition("/")[0]}:
            continue
        checked.add(name.partition("/")[0])
        found = set()
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
            if isinstance(node, ast.ImportFrom) and node.module:
                found |= {(node.module, alias.name) for alias in node.names}
            if isinstance(node, ast.Import):
                found |= {(alias.name, "") for alias in node.names}
        parts = {m.split(".")[2] for m, _ in found if m.startswith("kahler_verify.codegen.")}
        parts |= {name for m, name in found if m == "kahler_verify.codegen"}
        parts |= {
            m.split(".")[1] for m, _ in found if m.startswith("kahler_verify.running.unrolling")
        }
        assert not parts & {*rewriting, "running"}, name
    assert checked >= {"numbers", "routes", "proofs", "laws", "ledger"}


def test_letters_obey_the_laws_of_their_functions() -> None:
    one, half = Fraction(1), Fraction(1, 2)
    draws = random.Random(4)
    u, v = prime_field.draw(draws), prime_field.draw(draws)
    real = prime_field.draw_positive(draws)
    f = Functions(prime_field, random.Random(5))
    e = f.exponential
    assert e([(one, u)]) * e([(one, v)]) == e([(one, u), (one, v)])
    assert e([(one, u)]) == e([(half, u)]) * e([(half, u)])
    assert e([(one, u * 3 / 7)]) == e([(Fraction(3, 7), u)])
    assert e([(one, u.conjugate())]) == e([(one, u)]).conjugate()
    assert e([(one, u), (-one, u)]) == 1
    circle = e([(one, real * prime_field.number(1j))])
    assert circle * circle.conjugate() == 1
    assert circle != 1
    assert e([(one, real)]).y == 0
    square = real * real
    assert e([(half, f.log(square))]) == f.power(square, half)
    assert f.power(square, half) ** 2 == square
    assert f.log(1 / real) == -f.log(real)
    for order in (2, 3, 5, 6, 12):
        c = Fraction(1, order)
        assert f.power(square, c) ** order == square
        assert f.power(square * 4, c) == f.power(square, c) * f.power(prime_field.number(4), c)


def test_roots_in_the_rationals() -> None:
    f = Functions(rational)
    assert f.power(rational.number(8) / 27, Fraction(-2, 3)) == rational.number(9) / 4
    with pytest.raises(Exception, match="no root of order 2"):
        f.power(rational.number(2), Fraction(1, 2))


def test_fifty_digits_agree_with_sympy() -> None:
    """The reading in numbers, against SymPy's own evaluation of what is written."""
    for name, phi in EXPLICIT.items():
        kernel = potential("p", phi, coordinates=(z1, z2)).kernels[0]
        sample = draw(kernel, decimal, random.Random(1), SIZES)
        value = complex(evaluate_output(phi, (), sample.point)[()])
        expected = complex(phi.subs({k: complex(x) for k, x in sample.point.values.items()}))
        assert value == pytest.approx(expected, rel=1e-9), name


def test_i_is_used() -> None:
    """Complex factors: re(i z) is -im z."""
    phi = re(I * z1) + im(z1) + Abs(z1) ** 2 + Abs(z2) ** 2
    kernel = potential("p", phi, coordinates=(z1, z2)).kernels[0]
    point = draw(kernel, prime_field, random.Random(2), SIZES).point
    x, y = point.values[z1], point.values[z2]
    assert evaluate_output(phi, (), point)[()] == x * x.conjugate() + y * y.conjugate()
