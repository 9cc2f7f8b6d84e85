"""The activations of decoders: each is one line, and its derivatives follow.

Every one is C² at least.  A function without z̄ is holomorphic away from its poles, which
kahler_verify/networks/activations.py lists; split functions act on Re z and Im z, modulus functions
scale z by a function of |z|².
"""

from collections.abc import Callable

from sympy import Expr, I, Symbol, conjugate, erf, im, re, sin, sqrt, tanh

from kahler_verify.calculus.pointwise import Pointwise, sigmoid, softplus

z = Symbol("z", complex=True)
b = Symbol("b", real=True)  # learnt per unit
modulus2 = z * conjugate(z)


def split(s: Callable[[Expr], Expr]) -> Expr:
    """s(Re z) + i s(Im z)."""
    return s(re(z)) + I * s(im(z))


activations = Pointwise(
    name="activations",
    title="Activations of decoders and their Wirtinger derivatives",
    variable=z,
    functions={
        "identity": z,
        "quadratic": z + z**2 / 4,
        "cubic": z + z**3 / 6,
        "sin": sin(z),
        "tanh": tanh(z),
        "sigmoid": sigmoid(z),
        "silu": z * sigmoid(z),
        "split_tanh": split(tanh),
        "split_softplus": split(softplus),
        "split_gelu": split(lambda t: t * (1 + erf(t / sqrt(2))) / 2),
        "split_silu": split(lambda t: t * sigmoid(t)),
        "modulus_sigmoid": z * sigmoid(modulus2 + b),
        "modulus_squash": z / sqrt(1 + modulus2),
    },
)
