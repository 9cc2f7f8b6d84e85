"""The circuit behind explicit coordinates: derivatives of programs, and what it makes possible."""

import time

import pytest
import torch
from sympy import Abs, Expr, Matrix, Rational, Symbol, exp, im, log, re, sqrt, symbols

import kahler_verify
from kahler_verify import PotentialMetric
from kahler_verify.calculus import coordinates, dimension, explicit_coordinates, potential
from kahler_verify.calculus.pointwise import Pointwise
from kahler_verify.codegen.circuit import Circuit, Node, Term, exact, random_residue
from kahler_verify.codegen.module import generate_module
from kahler_verify.errors import DerivationError, GenerationError, InputError

C = torch.complex128
z1, z2 = explicit_coordinates("z1 z2")
z = coordinates("z", dimension("d"))


def _circuit() -> tuple[Circuit, Term, Term]:
    circuit = Circuit()
    return circuit, circuit.input(random_residue("x")), circuit.input(random_residue("y"))


def test_equal_numbers_are_one_node() -> None:
    """Up to a power of i, and whatever they are computed by."""
    circuit, x, y = _circuit()
    add, times = circuit.add, circuit.multiply
    square = times(add(x, y), add(x, y))
    expanded = add(times(x, x), times(x, y).scaled(exact(2)), times(y, y))
    assert square == expanded
    assert add(x, y.scaled(exact(0, 1))).node is add(x.scaled(exact(0, -1)), y).node
    assert circuit.divide(times(x, y), x) == y
    assert add(square, expanded.scaled(exact(-1))).is_zero
    assert circuit.divide(x, x) == circuit.number(exact(1))


def test_derivatives_are_those_of_the_program() -> None:
    circuit, x, y = _circuit()
    add, times, divide, by = circuit.add, circuit.multiply, circuit.divide, x.node
    cube = circuit.power(add(x, y), 3)
    three = times(add(x, y), add(x, y)).scaled(exact(3))
    assert circuit.derivative(cube, by) == three
    quotient = divide(x, add(x, y))
    assert circuit.derivative(quotient, by) == divide(y, times(add(x, y), add(x, y)))
    assert circuit.derivative(times(y, y), by).is_zero
    inverse = circuit.power(x, -2)
    assert circuit.derivative(inverse, by) == circuit.power(x, -3).scaled(exact(-2))
    with pytest.raises(GenerationError, match="zero everywhere"):
        divide(x, add(y, y.scaled(exact(-1))))


def _size(node: Node, seen: set[Node]) -> int:
    if node in seen:
        return 0
    seen.add(node)
    return 1 + sum(_size(term.node, seen) for term in node.operands)


def test_derivatives_grow_with_the_program_and_not_with_what_it_expands_to() -> None:
    """(x + y)^(2^40), which no expansion ends on: 40 squares, and a few lines a derivative."""
    circuit, x, y = _circuit()
    power = circuit.power(circuit.add(x, y), 2**40)
    out = power
    for order in range(1, 5):
        out = circuit.derivative(out, x.node)
        assert _size(out.node, set()) < 200 * order**2


def test_the_siegel_upper_half_space_of_rank_three() -> None:
    """-log det Im Z, d = 6: Kähler-Einstein with Ric = -(n + 1) g.  Minutes, once; now a second."""
    zs = explicit_coordinates("z1 z2 z3 z4 z5 z6")
    a, b, c, d, e, f = zs
    imaginary = Matrix([[a, b, c], [b, d, e], [c, e, f]]).applyfunc(im)
    start = time.perf_counter()
    kernels = kahler_verify.compile(-log(imaginary.det()), coordinates=zs)
    assert time.perf_counter() - start < 60
    metric = PotentialMetric(kernels)
    generator = torch.Generator().manual_seed(0)
    x = torch.randn(4, 6, dtype=C, generator=generator) / 4
    x = x + 1j * torch.tensor([2.0, 0, 0, 3, 0, 1.5])
    g = metric.metric_matrix(x)
    torch.testing.assert_close(g, g.mH, rtol=0, atol=0)
    torch.testing.assert_close(metric.ricci_tensor(x), -4 * g)


def test_entries_that_are_conjugates_are_computed_once() -> None:
    phi = exp(re(z1 * z2**2)) + log(1 + Abs(z1) ** 2 + Abs(z1 + z2) ** 2)
    text = generate_module(potential("p", phi, coordinates=(z1, z2))).text
    metric = text.split("def metric(")[1].split("def ")[0]
    assert metric.count(".conj()") == 3  # of two coordinates, and of one entry


OPERATIONS = {  # + - * / in the lines of metric, metric_d and metric_db, as SymPy's cse had them
    "log_sum_exp": (log(exp(Abs(z1) ** 2) + exp(Abs(z1 + z2) ** 2) + exp(re(z2))), 594),
    "nested": (log(1 + sqrt(1 + Abs(z1) ** 2)) + log(1 + exp(re(z1)) + exp(2 * re(z2))), 227),
    "weighted": (log(1 + Abs(z1) ** 2 + Symbol("t", real=True) * Abs(z2) ** 2), 136),
}


@pytest.mark.parametrize("name", OPERATIONS)
def test_kernels_are_no_longer_than_they_were(name: str) -> None:
    phi, before = OPERATIONS[name]
    text = generate_module(potential("p", phi, coordinates=(z1, z2))).text
    kernels = text.split("def metric(")[1].split("def heads(")[0]
    body = "".join(part.split('"""')[-1] for part in kernels.split("def "))
    assert sum(body.count(f" {operation} ") for operation in "+-*/") <= before


# ------------------------------------------------------------ where a formula has no value


@pytest.mark.parametrize(
    ("phi", "g"),
    [
        (Abs(z1) ** 3 + Abs(z2) ** 2, 0),
        (Abs(z1) ** 3 + Abs(z1) ** 2 + Abs(z2) ** 2, 1),
        ((z1 * z1.conjugate()) ** Rational(3, 2) + Abs(z2) ** 2, 0),
        (Abs(z1) ** 5 + Abs(z1) ** Rational(7, 3) + Abs(z1) ** 2 + Abs(z2) ** 2, 1),
        (Abs(z1 - z1**2) ** 3 + Abs(z2) ** 2, 0),
        (Abs(z1 * z2 + z1) ** Rational(9, 4) + Abs(z1) ** 2 + Abs(z2) ** 2, 1),
        (Abs(z1) ** 4 * (1 + Abs(z1) ** 3) + Abs(z1) ** 2 + Abs(z2) ** 2, 1),
    ],
)
def test_powers_of_moduli_have_their_metric_at_zero(phi: Expr, g: int) -> None:
    metric = PotentialMetric(kahler_verify.compile(phi, coordinates=(z1, z2)))
    zero = torch.zeros(1, 2, dtype=C)
    torch.testing.assert_close(metric.metric_matrix(zero)[0, 0, 0], torch.tensor(g, dtype=C))
    gradient = metric.kernels.call("gradient", {"z": zero})
    torch.testing.assert_close(gradient, torch.zeros_like(gradient))
    assert metric.value(zero).abs().item() < 1e-12
    near = metric.metric_matrix(zero + 1e-9)
    torch.testing.assert_close(metric.metric_matrix(zero), near, rtol=0, atol=1e-2)


@pytest.mark.parametrize(
    "phi",
    [
        Abs(z1) + Abs(z2) ** 2,
        re(z1) ** Rational(3, 2) + Abs(z1) ** 2 + Abs(z2) ** 2,
        sqrt(Abs(z1) ** 4 + Abs(z2) ** 4) + Abs(z1) ** 2 + Abs(z2) ** 2,
        Abs(z1) ** Rational(3, 2) + Abs(z2) ** 2,
        Abs(z1) ** -2 + Abs(z2) ** 2,
    ],
)
def test_where_the_formula_has_no_value_the_message_says_so(phi: Expr) -> None:
    metric = PotentialMetric(kahler_verify.compile(phi, coordinates=(z1, z2)))
    zero = torch.zeros(1, 2, dtype=C)
    for method in ("metric_matrix", "log_volume", "ricci_tensor"):
        with pytest.raises(InputError, match=r"divides by zero there .* move z off"):
            getattr(metric, method)(zero)


def test_in_any_dimension_the_message_is_the_same() -> None:
    metric = PotentialMetric(kahler_verify.compile((z.H * z) ** Rational(3, 2)))
    with pytest.raises(InputError, match=r"divides by zero there .* even if it has a limit"):
        metric.metric_matrix(torch.zeros(1, 2, dtype=C))


def test_limits_name_their_upper_bounds() -> None:
    many = symbols("u:13", complex=True)
    phi = sum(Abs(u) ** 2 for u in many)
    with pytest.raises(GenerationError, match="expected at most 12, got 13"):
        generate_module(potential("p", phi, coordinates=many))
    for order in (-1, 9):
        with pytest.raises(DerivationError, match="from 0 to 8, got"):
            Pointwise("p", "p", z1, {"f": z1}, order=order)
