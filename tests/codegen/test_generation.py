"""Determinism, the check of committed kernels, and a printer that never guesses."""

import json
import math
import os
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from sympy import (
    Catalan,
    Expr,
    Function,
    Heaviside,
    Integer,
    Rational,
    Symbol,
    arg,
    exp,
    gamma,
    loggamma,
    pi,
    sqrt,
)

from kahler_verify.calculus import (
    Derivation,
    Kernel,
    Output,
    Partial,
    Tr,
    coordinates,
    dimension,
    explicit_coordinates,
    field,
    index,
    parameter,
    potential,
)
from kahler_verify.codegen.formatting import body_of, difference, formatted
from kahler_verify.codegen.lowering import Lowering
from kahler_verify.codegen.module import generate_module
from kahler_verify.codegen.program import Program
from kahler_verify.codegen.registry import KERNELS, load_file, shipped
from kahler_verify.errors import DerivationError, GenerationError

d, m = dimension("d"), dimension("m")
a, b = index("a b")
z, c = coordinates("z", d), parameter("c", d)
A, B = parameter("A", d, d, hermitian=True), parameter("B", d, d)
P, Q = (field(name, d, d, hermitian=True, positive=True, constant=True) for name in ("P", "Q"))
s = parameter("s", hermitian=True)
r = z.H * z
z1, z2 = explicit_coordinates("z1 z2")
ROOT = Path(__file__).parents[2]

SCRIPT = """
import json
import sys
from kahler_verify.codegen.module import generate_module
from kahler_verify.codegen.registry import load_file, shipped
names = sys.argv[2:]
known = shipped()
known |= {x.name: x for x in load_file(sys.argv[1])}
print(json.dumps({name: generate_module(known[name]).text for name in names}))
"""
USER = """
from sympy import conjugate, exp, log, sqrt
from kahler_verify.calculus import coordinates, dimension, explicit_coordinates
from kahler_verify.calculus import parameter, potential
z, A = coordinates("z", dimension("d")), parameter("A", dimension("m"), dimension("d"))
z1, z2 = explicit_coordinates("z1 z2")
mine = potential("mine", log(1 + exp(z.H * A.H * A * z)) + sqrt(1 + z.H * z))
unrolled = potential(
    "unrolled",
    log(1 + z1 * conjugate(z1) + exp(z2 + conjugate(z2))) * sqrt(2 + z2 * conjugate(z2)),
    coordinates=(z1, z2),
)
"""


@pytest.mark.thorough
def test_output_is_the_same_bytes_for_any_hash_seed_and_any_order(tmp_path: Path) -> None:
    path = tmp_path / "user.py"
    path.write_text(USER)
    names = ["mixture_density", "hermitian_geometry", "fubini_study", "mine", "unrolled"]

    def texts(seed: str, order: list[str]) -> dict[str, str]:
        environment = {**os.environ, "PYTHONHASHSEED": seed, "PYTHONPATH": str(ROOT)}
        run = subprocess.run(
            [sys.executable, "-c", SCRIPT, str(path), *order],
            capture_output=True,
            text=True,
            check=True,
            env=environment,
        )
        return json.loads(run.stdout)

    assert texts("0", names) == texts("4242", names[::-1])


def _with_kernels() -> dict[str, Derivation]:
    return {name: x for name, x in shipped().items() if (KERNELS / f"{name}.py").is_file()}


FEW = ("fubini_study", "jacobi_fields")  # `make test` compares all by `generate --check`


@pytest.mark.parametrize(
    "name",
    [
        pytest.param(n, marks=() if n in FEW else pytest.mark.thorough)
        for n in _with_kernels()
        if n != "gaussian_kl"
    ],
)
def test_committed_kernels_are_what_their_derivations_say(name: str) -> None:
    on_disk = (KERNELS / f"{name}.py").read_text()
    derivation = shipped()[name]
    if not all(isinstance(k, Kernel) for k in derivation.kernels):
        return  # pointwise functions have a generator of their own
    assert difference(on_disk, generate_module(derivation).text, name) == ""


def test_a_changed_sign_gives_a_diff_that_names_the_derivation() -> None:
    derivation = shipped()["complex_ball"]
    wrong = potential("complex_ball", -derivation.definition)
    old, new = (generate_module(x).text for x in (derivation, wrong))
    diff = difference(old, new, "complex_ball")
    assert diff.startswith("--- complex_ball (on disk)\n+++ complex_ball (derived)")
    assert "\n-    s0 = -1 * log_0" in diff or "\n-    s0" in diff


def test_an_edited_kernel_is_found_and_a_header_is_not() -> None:
    text = (KERNELS / "hermitian_geometry.py").read_text()
    assert difference(text, text, "x") == ""
    edited = text.replace("g_d - p0", "g_d + p0")
    assert edited != text
    assert "-    defect_0 = g_d - p0" in difference(text, edited, "hermitian_geometry")
    other_version = text.replace("SymPy: ", "SymPy: 9.")
    assert difference(text, other_version, "hermitian_geometry") == ""
    assert body_of(other_version) == body_of(text)


def test_formatting_is_idempotent_and_its_failure_says_why() -> None:
    text = generate_module(shipped()["flat"]).text
    assert formatted(text) == text
    with pytest.raises(GenerationError, match="ruff could not format"):
        formatted("def (:\n")


@pytest.mark.parametrize(
    ("phi", "message"),
    [
        (gamma(1 + r), "no rule for the function gamma"),
        (loggamma(1 + r), "no rule for the function (loggamma|polygamma)"),
        (Function("f")(Tr(r)), "SymPy knows no derivative of f"),
        (Catalan * r, None),
        (gamma(Rational(1, 3)) * r, "no rule for the number gamma"),
        (z.H * (P + Q) ** -1 * z, "only fields declared positive=True have an inverse"),
        (z.H * A**-1 * z, "only fields declared positive=True have an inverse"),
        (z.H * P**-1 * Q**-1 * z + z.H * Q**-1 * P**-1 * z, "two different inverses"),
        (Symbol("t", real=True) * r, r"write parameter\('t'\)"),
        (parameter("lambda") * r, "'lambda' cannot name an argument"),
        (parameter("torch") * r, "'torch' cannot name an argument"),
        (z.H * parameter("z", d, d) * z, "two inputs would be named z"),
        (r + parameter("z", d).H * z + z.H * parameter("z", d), "two inputs would be named z"),
        (Heaviside(s) * r, "no rule for the function Heaviside"),
        (sqrt(dimension("d")) * r, None),
    ],
)
def test_printing_is_total(phi: Expr, message: str | None) -> None:
    if message is None:  # a number that has a value, or an error, but no guess
        try:
            generate_module(potential("p", phi))
        except GenerationError as error:
            assert "constant" in str(error) or "input" in str(error)  # noqa: PT017
        return
    with pytest.raises((GenerationError, DerivationError), match=message):
        generate_module(potential("p", phi))


@pytest.mark.parametrize(
    ("phi", "message"),
    [
        (gamma(z1), "no rule for the function gamma"),
        (arg(z1), "no rule for the function arg"),
        (Symbol("t") * z1 + 0.5 * z1, "exact numbers"),
        (Symbol("lambda", real=True) * z1, "'lambda' cannot name"),
        (Symbol("z", real=True) * z1, "two inputs would be named z"),
    ],
)
def test_printing_is_total_in_explicit_coordinates(phi: Expr, message: str) -> None:
    with pytest.raises((GenerationError, DerivationError), match=message):
        generate_module(potential("p", phi + phi.conjugate() * 0, coordinates=(z1, z2)))


def test_a_parameter_whose_conjugate_is_unknown_is_an_error() -> None:
    from sympy import re

    with pytest.raises(GenerationError, match="declare the parameter t real=True"):
        generate_module(potential("p", re(Symbol("t") * z1), coordinates=(z1, z2)))


def test_a_potential_without_coordinates_is_an_error() -> None:
    with pytest.raises(DerivationError, match="expected an expression of coordinates"):
        potential("p", exp(s))
    with pytest.raises(DerivationError, match="expected a Python identifier"):
        potential("my-potential", r)


def test_neighbours_of_another_layout_are_an_error() -> None:
    n = dimension("n")
    S, F = field("S", n, n, hermitian=True, positive=True), field("F", n, n)
    kernel = Kernel("k", {"x": Output(Partial(Tr(S**-1 * F), a), (a,))}, {"S": "diagonal"})
    with pytest.raises(GenerationError, match="S is stored as diagonal, its neighbour F as full"):
        generate_module(Derivation("x", "x", (kernel,), d))


def test_irrational_constants_are_inputs_and_heads_computes_them() -> None:
    module = generate_module(potential("p", pi * r + sqrt(2) * (1 + r) ** 3))
    assert {str(e): n for e, n in module.heads.items()} == {
        "pi": "constant_0",
        "sqrt(2)": "constant_1",
    }
    assert "3.14159" not in module.text  # a literal would be rounded in every arithmetic
    scope: dict = {}
    exec(module.text, scope)
    z = torch.ones(1, 2, dtype=torch.complex128)
    values = scope["heads"](z)
    assert values["constant_0"].item() == math.pi
    assert values["constant_1"].item() == math.sqrt(2)


def test_vanishing_kernels_are_listed_and_have_no_code() -> None:
    text = generate_module(shipped()["flat"]).text
    assert 'VANISHING = ["metric_d", "metric_db"]' in text
    assert "def metric_d" not in text


def test_equal_right_hand_sides_are_one_line() -> None:
    program = Program()
    assert program.let("x + y") == program.let("x + y")
    assert len(program.lines) == 1
    assert Lowering(program, d).scalar(Integer(3)) == "3"


def test_a_derivation_file_that_fails_says_which_and_why(tmp_path: Path) -> None:
    path = tmp_path / "broken.py"
    for text, message in [
        ("x = 1 /", "SyntaxError"),
        ("import no_such_module_anywhere", "ModuleNotFoundError"),
        ("undefined_name", "NameError"),
        ("x = 1 / 0", "ZeroDivisionError"),
        ("x = {}['k']", "KeyError"),
        ("x = 3", "declares no Derivation"),
        ("from kahler_verify.calculus import field\nfield('x', 1, 1, wrong=True)", "got 'wrong'"),
    ]:
        path.write_text(text)
        with pytest.raises(DerivationError, match=message):
            load_file(path)
    with pytest.raises(DerivationError, match="not a file"):
        load_file(tmp_path / "missing.py")


def test_two_kernels_of_one_name_are_an_error() -> None:
    kernel = shipped()["flat"].kernels[0]
    with pytest.raises(DerivationError, match="different names"):
        replace(shipped()["flat"], kernels=(kernel, kernel))
