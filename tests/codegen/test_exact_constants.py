"""Numbers in generated text are exact, or generation refuses them."""

import ast

import pytest
import torch
from sympy import (
    Abs,
    Catalan,
    EulerGamma,
    Expr,
    Float,
    I,
    Rational,
    Symbol,
    conjugate,
    im,
    nan,
    oo,
    zoo,
)

from kahler_verify.calculus import coordinates, dimension, explicit_coordinates, potential
from kahler_verify.codegen.module import generate_module
from kahler_verify.errors import DerivationError, GenerationError

z = coordinates("z", dimension("d"))
r = z.H * z
z1, z2 = explicit_coordinates("z1 z2")
x, y = Abs(z1) ** 2, Abs(z2) ** 2
EXACT = {
    "ninth": im(z1) * z2 * conjugate(z2) / 9,
    "gaussian": Abs(z1 * (1 + 2 * I) / 18 + z2 / (3 - I)) ** 2 / 7,
    "long": (2**63) * x + (10**25 + 1) * y / (10**30 + 1),
    "mersenne": (2**61 - 1) * x / (2**53 + 1) + y * Rational(1, 3) ** 40,
    "powers": (1 + x) ** Rational(22, 7) + 2**y,
}


@pytest.mark.parametrize("name", EXACT)
def test_no_number_of_the_text_is_rounded(name: str) -> None:
    """Integers of 63 bits at most, imaginary ones of 53, and no quotient of two numbers."""
    text = generate_module(potential("p", EXACT[name], coordinates=(z1, z2))).text
    functions = [f for f in ast.parse(text).body if isinstance(f, ast.FunctionDef)]
    for node in (n for f in functions for n in ast.walk(f)):
        if isinstance(node, ast.Constant):
            assert not isinstance(node.value, float)
            if isinstance(node.value, complex):
                assert node.value.imag.is_integer()
                assert abs(node.value.imag) < 2**53
            elif isinstance(node.value, int):
                assert abs(node.value) < 2**63
        if isinstance(node, ast.BinOp) and isinstance(node.op, ast.Div | ast.Pow):
            assert any(isinstance(n, ast.Name) for n in ast.walk(node.left)), ast.unparse(node)


@pytest.mark.parametrize("dtype", [torch.complex64, torch.complex128])
def test_long_integers_run_under_torch(dtype: torch.dtype) -> None:
    text = generate_module(potential("p", EXACT["long"], coordinates=(z1, z2))).text
    scope: dict = {}
    exec(text, scope)
    g = scope["metric"](torch.ones(3, 2, dtype=dtype))
    expected = torch.tensor([2.0**63, (10**25 + 1) / (10**30 + 1)], dtype=dtype)
    torch.testing.assert_close(g[0].diagonal(), expected, rtol=1e-6, atol=0)


@pytest.mark.parametrize(
    ("phi", "message"),
    [
        (0.5 * x, "exact numbers, got 0.5"),
        (x**2.5, "exact numbers, got"),
        (Abs(z1) ** 2.5 + y, "exact numbers, got"),
        (Abs(0.1 * z1) ** 2, "exact numbers, got"),
        (x + 1j * im(z1), "exact numbers, got"),
        (Float("0.1") ** x, "exact numbers, got"),
        (x * oo, "finite numbers"),
        (x + nan, "finite numbers"),
        (x + zoo, "finite numbers"),
        (EulerGamma * x, "the constant EulerGamma"),
        (Catalan * y, "the constant Catalan"),
    ],
)
def test_what_is_not_exact_is_refused(phi: Expr, message: str) -> None:
    with pytest.raises((GenerationError, DerivationError), match=message):
        generate_module(potential("p", phi, coordinates=(z1, z2)))


@pytest.mark.parametrize(
    ("phi", "message"),
    [
        (0.5 * r, "exact numbers, got 0.5"),
        (r**2.5, "exact numbers, got 2.5"),
        (r * 10**30 + r**2, "integers below 2"),
        (r / 10**30 + r**2, "integers below 2"),
        (r * EulerGamma, "the constant EulerGamma"),
        (r * 1j, "exact numbers, got"),
    ],
)
def test_what_is_not_exact_is_refused_in_any_dimension(phi: Expr, message: str) -> None:
    with pytest.raises((GenerationError, DerivationError), match=message):
        generate_module(potential("p", phi))


def test_the_message_says_what_to_write() -> None:
    with pytest.raises((GenerationError, DerivationError), match=r"Rational\('0.1'\)"):
        generate_module(potential("p", 0.1 * x + Symbol("t", real=True), coordinates=(z1, z2)))
