"""Potentials whose kernels show faults of reading."""

from __future__ import annotations

from dataclasses import replace
from functools import cache

from sympy import Abs, Expr, I, Rational, Symbol, conjugate, cos, exp, im, log, re, sin, sqrt, tanh

from kahler_verify.calculus.definition import Expected, Partial
from kahler_verify.calculus.derivation import (
    Derivation,
    Kernel,
    Output,
    explicit_coordinates,
    potential,
)
from kahler_verify.calculus.letters import coordinates, dimension, field, index, parameter
from kahler_verify.calculus.words import Tr, adjoint
from kahler_verify.codegen.module import Module, generate_module


def _specimens() -> dict[str, Derivation]:
    z1, z2 = explicit_coordinates("z1 z2")
    t = Symbol("t", positive=True)
    d = dimension("d")
    z, s, x = coordinates("z", d), parameter("s", hermitian=True), coordinates("z", d, real=True)
    r = z.H * z
    third = Rational(1, 3)
    written: dict[str, Expr] = {
        "exp_of_im": exp(im(z1)) + Abs(z1) ** 2 + Abs(z2) ** 2,
        "parts": re(z1 * z2) ** 2
        + im(z1 * z2**2) ** 2
        + Abs(z1) ** 4
        + re(I * z1)
        + re(z2 * exp(z1)),
        "modulus": Abs(z1) + Abs(z1**2 + 2 * I * conjugate(z2)) ** 3 + im(z1) / 9,
        "two_moduli": Abs(z1 * (1 + z2)) ** 3
        + Abs(z1 + I * conjugate(z1) / 3 + z2) ** 3
        + (1 + Abs(z1) ** 2) ** Rational(5, 2),
        "conjugates": conjugate(exp(z1 * z2)) * z2 + conjugate(z2) * exp(z1 + I * conjugate(z2)),
        "circles": cos(im(z1)) + t * tanh(re(z2)) + sin(re(z1) + im(z2)),
        "numbers": (2**70 + 3) * Abs(z1) ** 4
        + re((3 - 2 * I) * z1 * z2**2 + (2**64 * I + 2**65 + 5) * z2**2 * conjugate(z1))
        + t * (1 + re(z1)) ** 3
        + (1 + Abs(z1) ** 2) / (2 - I) / (2 + I)
        + 7 * Abs(z1) ** 2 / (3 * (2 + Abs(z2) ** 2))
        - Abs(z1 * z2) ** 2 / (5 * (2 + Abs(z2) ** 2)),
        "quotients": z1 * conjugate(z1) * (1 + Abs(z2) ** 2) / (1 + Abs(z1) ** 2 + 2 * Abs(z2) ** 2)
        + (1 + 2 * Abs(z1) ** 2) ** (Abs(z2) ** 2),
        "roots": log(2 + (1 + Abs(z1) ** 2) ** (2 * third)) + sqrt(1 + t * Abs(z2) ** 2) ** -1,
    }
    found = {n: potential(n, phi, coordinates=(z1, z2)) for n, phi in written.items()}
    letters = {
        "letters": log(1 + exp(r)) + (1 + s * r) ** third + exp(-s * r / 5),
        "nested": log(1 + sqrt(1 + log(1 + r))),
    }
    found |= {n: potential(n, phi) for n, phi in letters.items()}
    found = {  # the order of axes shows in fourth derivatives; they are slow for what is nested
        n: x if n == "parts" else replace(x, kernels=x.kernels[:3]) for n, x in found.items()
    }
    a, b = index("a b", d, real=True)
    phi = log(1 + exp(x.H * x)) * x.H * x
    out = {"g": Output(Partial(phi, a, b), (a, b))}
    found["real"] = Derivation("real", "", (Kernel("metric", out),), d, definition=phi)
    eps = field("eps", d, real=True, constant=True)
    along = Tr(adjoint(x) * eps)
    odd = Tr(adjoint(eps) * eps) * along * Tr(adjoint(x) * x)
    phi = Expected(along**4 + odd, eps)
    out = {"g": Output(Partial(phi, a, b), (a, b))}
    found["mean"] = Derivation("mean", "", (Kernel("metric", out),), d, definition=phi)
    return found


@cache
def specimen(name: str) -> tuple[Derivation, Module]:
    """A specimen with the kernels that the true generator makes of it."""
    derivation = _specimens()[name]
    return derivation, generate_module(derivation)


def names() -> tuple[str, ...]:
    """All specimens."""
    return tuple(_specimens())
