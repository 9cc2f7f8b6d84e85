"""Functions of one real variable that torch applies entry by entry, to be had with derivatives.

What jets go through (see kahler_verify/rules/pointwise.py): activations, and the functions of a
pocket calculator.  Those that are analytic hold at complex arguments as they stand, on the branch
that torch takes.  Pieces are joined by positive(x) = max(x, 0), so that values where pieces meet
are those of the piece on the left.
"""

from sympy import (
    Expr,
    Rational,
    Symbol,
    acos,
    acosh,
    asin,
    asinh,
    atan,
    atanh,
    cos,
    cosh,
    digamma,
    erf,
    exp,
    log,
    loggamma,
    pi,
    sin,
    sinh,
    sqrt,
    tan,
    tanh,
)

from kahler_verify.calculus.pointwise import (
    Pointwise,
    absolute,
    expm1,
    log1p,
    positive,
    power,
    sigmoid,
    softplus,
)

x = Symbol("x", real=True)
alpha = Symbol("alpha", real=True)
scale = Symbol("scale", real=True)
rate = Symbol("rate", real=True)  # often 1/alpha
negative = x - positive(x)  # min(x, 0)


def exponential_below(alpha: Expr, scale: Expr, rate: Expr) -> Expr:
    """scale · x above 0, scale · alpha (exp(rate · x) - 1) below."""
    return scale * (positive(x) + alpha * expm1(rate * negative))


real_functions = Pointwise(
    name="real_functions",
    title="Functions of one real variable and their derivatives",
    variable=x,
    order=2,
    functions={
        # activations, smooth
        "tanh": tanh(x),
        "sigmoid": sigmoid(x),
        "softplus": softplus(rate * x) * scale,
        "logsigmoid": -softplus(-x),
        "silu": x * sigmoid(x),
        "gelu": x * (1 + erf(x / sqrt(2))) / 2,
        "gelu_tanh": x * (1 + tanh(sqrt(2 / pi) * (x + Rational(44715, 10**6) * x**3))) / 2,
        "mish": x * tanh(softplus(x)),
        # activations, joined of pieces
        "relu": positive(x),
        "leaky_relu": positive(x) + alpha * negative,
        "elu": exponential_below(alpha, scale, rate),
        "softsign": x / (1 + absolute(x)),
        "hardsigmoid": (positive(x + 3) - positive(x - 3)) / 6,
        "hardswish": x * (positive(x + 3) - positive(x - 3)) / 6,
        "softshrink": positive(x - alpha) - positive(-x - alpha),
        "abs": absolute(x),
        # elementary functions
        "exp": exp(x),
        "exp2": exp(x * log(2)),
        "expm1": expm1(x),
        "log": log(x),
        "log2": log(x) / log(2),
        "log10": log(x) / log(10),
        "log1p": log1p(x),
        "logit": log(x) - log(1 - x),
        "power": power(x, alpha),
        "sqrt": sqrt(x),
        "rsqrt": 1 / sqrt(x),
        "reciprocal": 1 / x,
        "square": x**2,
        "sin": sin(x),
        "cos": cos(x),
        "tan": tan(x),
        "asin": asin(x),
        "acos": acos(x),
        "atan": atan(x),
        "sinh": sinh(x),
        "cosh": cosh(x),
        "asinh": asinh(x),
        "acosh": acosh(x),
        "atanh": atanh(x),
        "erf": erf(x),
        "erfc": 1 - erf(x),
        "lgamma": loggamma(x),
        "digamma": digamma(x),
    },
)
