"""Generated functions of one real variable, against mpmath, and what their generator refuses."""

import mpmath
import pytest
import torch
from sympy import Symbol, gamma, sqrt

from kahler_verify.calculus.pointwise import Pointwise, positive
from kahler_verify.codegen.real_functions import generate_real_functions
from kahler_verify.codegen.registry import shipped_pointwise
from kahler_verify.errors import GenerationError
from kahler_verify.kernels import real_functions as kernels

POINTS = torch.tensor([-2.3, -0.4, 0.35, 0.8, 1.9, 4.2], dtype=torch.float64)
PARAMETERS = {"alpha": 1.3, "rate": 0.7, "scale": 1.1}


def softplus(t):
    return mpmath.log(1 + mpmath.exp(t))


def clipped(t):
    return min(max(t + 3, 0), 6) / 6


# Typed from the definitions; a, r and s are the parameters above.
REFERENCE = {
    "tanh": mpmath.tanh,
    "sigmoid": lambda t: 1 / (1 + mpmath.exp(-t)),
    "softplus": lambda t, r, s: s * softplus(r * t),
    "logsigmoid": lambda t: -softplus(-t),
    "silu": lambda t: t / (1 + mpmath.exp(-t)),
    "gelu": lambda t: t * mpmath.ncdf(t),
    "gelu_tanh": lambda t: (
        t / 2 * (1 + mpmath.tanh(mpmath.sqrt(2 / mpmath.pi) * (t + mpmath.mpf("0.044715") * t**3)))
    ),
    "mish": lambda t: t * mpmath.tanh(softplus(t)),
    "relu": lambda t: max(t, 0),
    "leaky_relu": lambda t, a: t if t > 0 else a * t,
    "elu": lambda t, a, r, s: s * (t if t > 0 else a * mpmath.expm1(r * t)),
    "softsign": lambda t: t / (1 + abs(t)),
    "hardsigmoid": clipped,
    "hardswish": lambda t: t * clipped(t),
    "softshrink": lambda t, a: t - a if t > a else t + a if t < -a else mpmath.mpf(0),
    "abs": abs,
    "exp": mpmath.exp,
    "exp2": lambda t: mpmath.mpf(2) ** t,
    "expm1": mpmath.expm1,
    "log": mpmath.log,
    "log2": lambda t: mpmath.log(t, 2),
    "log10": mpmath.log10,
    "log1p": lambda t: mpmath.log(1 + t),
    "logit": lambda t: mpmath.log(t / (1 - t)),
    "power": lambda t, a: t**a,
    "sqrt": mpmath.sqrt,
    "rsqrt": lambda t: 1 / mpmath.sqrt(t),
    "reciprocal": lambda t: 1 / t,
    "square": lambda t: t * t,
    "sin": mpmath.sin,
    "cos": mpmath.cos,
    "tan": mpmath.tan,
    "asin": mpmath.asin,
    "acos": mpmath.acos,
    "atan": mpmath.atan,
    "sinh": mpmath.sinh,
    "cosh": mpmath.cosh,
    "asinh": mpmath.asinh,
    "acosh": mpmath.acosh,
    "atanh": mpmath.atanh,
    "erf": mpmath.erf,
    "erfc": mpmath.erfc,
    "lgamma": lambda t: mpmath.log(abs(mpmath.gamma(t))),
    "digamma": mpmath.digamma,
}


@pytest.mark.parametrize("name", kernels.FUNCTIONS)
def test_values_and_derivatives(name):
    # torch's polygamma has 9 to 11 digits
    tolerance = 1e-9 if name in ("lgamma", "digamma") else 1e-13
    parameters = [PARAMETERS[p] for p in kernels.FUNCTIONS[name][1]]
    results = getattr(kernels, f"{name}_2")(POINTS, *parameters)
    seen = 0
    with mpmath.workdps(40):
        exact = [mpmath.mpf(p) for p in parameters]
        for k, t in enumerate(map(float, POINTS)):
            if not torch.isfinite(results[0][k]):
                continue  # outside the domain
            seen += 1
            for order in range(3):
                want = mpmath.diff(lambda u: REFERENCE[name](u, *exact), mpmath.mpf(t), order)
                assert abs(float(results[order][k]) - float(want)) < tolerance * (1 + abs(want))
    assert seen >= 1
    assert kernels.FUNCTIONS[name][2] == (float(results[2].abs().nan_to_num().max()) == 0)
    for order in (0, 1):
        lower = getattr(kernels, f"{name}_{order}" if order else name)(POINTS, *parameters)
        for a, b in zip(lower if order else (lower,), results, strict=False):
            torch.testing.assert_close(a, b, rtol=1e-15, atol=1e-15, equal_nan=True)


def test_every_declared_function_is_generated():
    (family,) = [each for each in shipped_pointwise() if each.name == "real_functions"]
    assert set(family.functions) == set(kernels.FUNCTIONS) == set(REFERENCE)


def test_a_new_function_is_one_line():
    x = Symbol("x", real=True)
    module = generate_real_functions(
        Pointwise("mine", "Mine", x, {"bent": positive(x) ** 2}, order=2)
    )
    scope: dict = {}
    exec(module.text, scope)
    assert [float(t) for t in scope["bent_2"](torch.tensor([3.0]))] == [9, 6, 2]


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda x: gamma(x), "no rule for"),
        (lambda x: x * Symbol("c"), "real parameter"),
        (lambda x: sqrt(-1) * x, "real function"),
    ],
)
def test_what_is_not_known_is_an_error(make, message):
    x = Symbol("x", real=True)
    with pytest.raises(GenerationError, match=message):
        generate_real_functions(Pointwise("bad", "Bad", x, {"f": make(x)}))
    t = Symbol("t", real=True)
    with pytest.raises(GenerationError, match="named x"):
        generate_real_functions(Pointwise("bad", "Bad", t, {"f": t**2}))
