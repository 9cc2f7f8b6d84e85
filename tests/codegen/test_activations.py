"""Generated activations: values and derivatives against mpmath and autograd, and total printing."""

import itertools

import mpmath
import pytest
import torch
from sympy import Float, Symbol, gamma, re

from kahler_verify.calculus.pointwise import Pointwise
from kahler_verify.codegen.pointwise import derivative_types, generate_pointwise
from kahler_verify.codegen.registry import shipped_pointwise
from kahler_verify.errors import DerivationError, GenerationError
from kahler_verify.networks.activations import ACTIVATIONS

POINTS = torch.tensor([0, 0.3 - 0.2j, -1.1 + 0.7j, 1.6 + 1.1j, -2.4 - 0.4j], dtype=torch.complex128)
BIAS = 0.4


def _by_parts(s):
    return lambda x, y: s(x) + 1j * s(y)


def _of_z(f):
    return lambda x, y: f(x + 1j * y)


def _logistic(t):
    return 1 / (1 + mpmath.exp(-t))


# Typed from the formulas, analytic in x and y separately, so that mpmath can differentiate them.
REFERENCE = {
    "identity": _of_z(lambda z: z),
    "quadratic": _of_z(lambda z: z + z**2 / 4),
    "cubic": _of_z(lambda z: z + z**3 / 6),
    "sin": _of_z(mpmath.sin),
    "tanh": _of_z(mpmath.tanh),
    "sigmoid": _of_z(_logistic),
    "silu": _of_z(lambda z: z * _logistic(z)),
    "split_tanh": _by_parts(mpmath.tanh),
    "split_softplus": _by_parts(lambda t: mpmath.log(1 + mpmath.exp(t))),
    "split_gelu": _by_parts(lambda t: t * mpmath.ncdf(t)),
    "split_silu": _by_parts(lambda t: t * _logistic(t)),
    "modulus_sigmoid": lambda x, y: (x + 1j * y) * _logistic(x * x + y * y + mpmath.mpf("0.4")),
    "modulus_squash": lambda x, y: (x + 1j * y) / mpmath.sqrt(1 + x * x + y * y),
}


def _bias(name):
    return (torch.tensor(BIAS, dtype=torch.float64),) if ACTIVATIONS[name].biased else ()


def _wirtinger(f, hol, anti, z):
    """(∂_x - i∂_y)^hol (∂_x + i∂_y)^anti f / 2^n from mpmath's real partial derivatives."""
    total = mpmath.mpc(0)
    for by_y in itertools.product((False, True), repeat=hol + anti):
        weight = mpmath.mpc(1)
        for position, is_y in enumerate(by_y):
            if is_y:
                weight *= -1j if position < hol else 1j
        count = sum(by_y)
        orders = (hol + anti - count, count)
        total += weight * mpmath.diff(f, (mpmath.mpf(z.real), mpmath.mpf(z.imag)), orders)
    return complex(total / 2 ** (hol + anti))


@pytest.mark.parametrize("name", ACTIVATIONS)
def test_derivatives_are_those_of_the_formula(name):
    got = ACTIVATIONS[name].derivatives(3, POINTS, *_bias(name))
    types = derivative_types(3, holomorphic=ACTIVATIONS[name].holomorphic)
    assert list(got) == types
    with mpmath.workdps(50):
        for hol, anti in derivative_types(3, holomorphic=False):
            expected = [_wirtinger(REFERENCE[name], hol, anti, complex(z)) for z in POINTS]
            values = got.get((hol, anti), torch.zeros_like(POINTS))
            torch.testing.assert_close(
                values, torch.tensor(expected, dtype=torch.complex128), rtol=1e-13, atol=1e-14
            )


@pytest.mark.parametrize("name", ACTIVATIONS)
def test_lower_orders_are_a_part_of_higher_ones(name):
    highest = ACTIVATIONS[name].derivatives(3, POINTS, *_bias(name))
    for order in range(3):
        for each, value in ACTIVATIONS[name].derivatives(order, POINTS, *_bias(name)).items():
            torch.testing.assert_close(value, highest[each], rtol=1e-14, atol=1e-15)


@pytest.mark.parametrize("name", ACTIVATIONS)
def test_derivatives_are_differentiable(name):
    """Autograd through the generated f_∂ and f_∂̄ gives the generated second derivatives."""
    bias = _bias(name)

    def first(x, y):
        jets = ACTIVATIONS[name].derivatives(1, torch.complex(x, y), *bias)
        return {each: torch.view_as_real(value) for each, value in jets.items()}

    x, y = POINTS.real.clone(), POINTS.imag.clone()
    one, zero = torch.ones_like(x), torch.zeros_like(x)
    _, by_x = torch.func.jvp(first, (x, y), (one, zero))
    _, by_y = torch.func.jvp(first, (x, y), (zero, one))
    expected = ACTIVATIONS[name].derivatives(2, POINTS, *bias)
    for hol, anti in by_x:
        dx, dy = (torch.view_as_complex(d[hol, anti].contiguous()) for d in (by_x, by_y))
        for more, got in (((1, 0), (dx - 1j * dy) / 2), ((0, 1), (dx + 1j * dy) / 2)):
            value = expected.get((hol + more[0], anti + more[1]), torch.zeros_like(got))
            torch.testing.assert_close(got, value, rtol=1e-13, atol=1e-14)


def test_every_declared_function_is_registered_and_the_other_way_round():
    (family,) = [each for each in shipped_pointwise() if each.name == "activations"]
    assert set(family.functions) == set(ACTIVATIONS) == set(REFERENCE)


def test_a_new_activation_is_one_line():
    z = Symbol("z", complex=True)
    module = generate_pointwise(Pointwise("mine", "Mine", z, {"bent": z + re(z) ** 2}, order=1))
    scope: dict = {}
    exec(module.text, scope)
    x, y = torch.tensor([2.0]), torch.tensor([3.0])
    assert [float(t) for t in scope["bent_1"](x, y)] == [6, 3, 3, 0, 2, 0]
    assert scope["FUNCTIONS"]["bent"][1] is False


@pytest.mark.parametrize(
    ("expr", "message"),
    [
        (lambda z: gamma(z), "no rule for"),
        (lambda z: z + Float(0.1), "exact numbers"),
        (lambda z: z * Symbol("b"), "real parameter"),
        (lambda z: re(gamma(z)), "alone"),
        (lambda z: z ** Symbol("n", real=True), "no rule for"),
    ],
)
def test_what_the_printer_does_not_list_is_an_error(expr, message):
    z = Symbol("z", complex=True)
    with pytest.raises(GenerationError, match=message):
        generate_pointwise(Pointwise("bad", "Bad", z, {"f": expr(z)}))


def test_names_must_be_identifiers():
    with pytest.raises(DerivationError, match="identifier"):
        Pointwise("bad", "Bad", Symbol("z"), {"no good": Symbol("z")})
