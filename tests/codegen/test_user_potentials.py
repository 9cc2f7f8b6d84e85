"""Potentials that the project has never seen: the same exact check as for shipped kernels.

Over F_p[i] roots are true square roots; other transcendental values are drawn.  With 50 digits all
are computed, and so is the ``heads`` function of the generated text.
"""

import inspect
import random
from functools import cache
from importlib import import_module
from pathlib import Path

import mpmath
import numpy as np
import pytest
import torch
from sympy import (
    Abs,
    E,
    Expr,
    I,
    Rational,
    Symbol,
    conjugate,
    cos,
    exp,
    im,
    log,
    pi,
    re,
    sin,
    sqrt,
    symbols,
    tanh,
)

from kahler_verify.calculus import (
    Derivation,
    Tr,
    adjoint,
    coordinates,
    dimension,
    explicit_coordinates,
    field,
    parameter,
    potential,
)
from kahler_verify.codegen.explicit import bar, polarised
from kahler_verify.codegen.module import Module, generate_module
from kahler_verify.codegen.registry import load_file
from kahler_verify.errors import DerivationError, GenerationError
from kahler_verify.evidence.numbers.arithmetic import (
    Arithmetic,
    decimal,
    prime_field,
    rational,
    run_text,
)
from kahler_verify.evidence.numbers.samples import draw, exact_ring
from kahler_verify.evidence.numbers.series import evaluate_output
from kahler_verify.evidence.proofs.schwartz_zippel import call

d, m = dimension("d"), dimension("m")
z, c = coordinates("z", d), parameter("c", d)
A, B, C = (
    parameter("A", d, d, hermitian=True),
    parameter("B", m, d),
    parameter("C", d, d),
)
P = field("P", d, d, hermitian=True, positive=True, constant=True)
s = parameter("s", hermitian=True)
w = parameter("w", 1, d)
r = z.H * z
z1, z2 = explicit_coordinates("z1 z2")
t, z0 = symbols("t z0", real=True)
SIZES = {"d": 2, "m": 3, "K": 1, "n": 1}

DIMENSION_FREE: dict[str, Expr] = {
    "logarithms_in_logarithms": log(1 + log(1 + log(1 + r))),
    "conjugate_of_a_function": log(3 + r) + Abs(exp(adjoint(c) * A * z)) ** 2,
    "matrices": log(1 + z.H * B.H * B * z),
    "several_terms": log(1 + r) + (z.H * A**2 * z) ** 2 - exp(-r),
    "words": log(1 + z.H * C * C.H * z) + z.H * C * z + z.H * adjoint(C) * z,
    "traces": log(Tr(A * A) + r) + Tr(A * z * z.H * A),
    "shifted": log(1 + adjoint(z - c) * A * (z - c)),
    "mahalanobis": z.H * P**-1 * z + log(1 + z.H * P**-1 * c * c.H * P**-1 * z),
    "fractional": (1 + s * r) ** Rational(3, 2) + (2 + r) ** Rational(1, 3),
    "symbolic_power": (1 + r) ** s,
    "two_to_the": 2**r,
    "sin_log": sin(log(1 + r)),
    "softplus": log(1 + exp(r)),
    "nested_root": log(1 + sqrt(1 + r)) + exp(-sqrt(2 + r)),
    "constants": pi * r + sqrt(2) * r**2 + log(pi + r),
    "modulus": Abs(exp(c.H * z)) ** 2 + exp(2 * r) * exp(r / 2),
    "scalar_in_a_word": z.H * (1 + c.H * c) * z * r,
    "row_vectors": log(1 + Tr(w * z) * Tr(z.H * w.H)) + Tr(w * A * z) * Tr(z.H * A * w.H),
    "mean_over_d": Tr(z * z.H) ** 2 / d,
    "imaginary_fractions": im(c.H * z) * r / 9 + r**2 * Rational(5, 7) + re(I * c.H * z / 11) / 3,
    "long_integers": (2**53 + 1) * r**2 / (2**61 - 3) + 3**39 * r,
}
EXPLICIT: dict[str, Expr] = {
    "weighted": log(1 + z1 * conjugate(z1) + t * z2 * conjugate(z2)),
    "real_parts": Abs(z1) ** 4 + re(z1 * z2) ** 2 + exp(re(z2)) + im(z2) ** 2,
    "sin_log_of": sin(log(2 + Abs(z1) ** 2)) + t * z2 * conjugate(z2),
    "parameter_named_z0": z0 * Abs(z1) ** 2 + z0**2 * Abs(z2) ** 4,
    "thirds": Abs(z1) ** 2 / 3 + pi * Abs(z2) ** 2 + I * re(z1) * im(z2) / 7,
    "modulus_itself": Abs(z1) + Abs(z1**2 + conjugate(z2)) ** 3,
    "products": sqrt(1 + Abs(z1) ** 2) * log(1 + exp(Abs(z2) ** 2)),
    "entire": re(exp(z1)) * t + cos(im(z1)) + tanh(re(z2)) + t**2,
    "nested": log(1 + sqrt(1 + Abs(z1) ** 2)) + log(1 + exp(re(z1)) + exp(2 * re(z2))),
    "gaussian_rationals": im(z1) * z2 * conjugate(z2) / 9
    + Abs(z1 * (2 + I) / 5 + z2 * (3 - 7 * I) / 4) ** 2 / 3
    + re(z1 * z2 * (1 + I) / 18) * Abs(z1) ** 2,
    "large_integers": (2**53 + 1) * Abs(z1) ** 4 / (2**61 - 3)
    + (10**40 + 7) * Abs(z2) ** 4
    + re(z1 * conjugate(z2) * (2**70 + 1 + I * (2**64 + 3)) / (10**50 + 1)),
    "decimals": Rational("0.1") * Abs(z1) ** 2 + Rational("12.75") * Abs(z2) ** 4,
    "rational_exponent": 3 ** (Abs(z1) ** 2 / 3) + (2 + Abs(z2) ** 2) ** Rational(2, 3),
    "named_constants": pi * Abs(z1) ** 2 + E * Abs(z2) ** 4 + sqrt(2) * Abs(z1 * z2) ** 2,
    "powers_of_moduli": Abs(z1) ** 3 + Abs(z1 * z2) ** 5 + Abs(z2) ** Rational(7, 3),
    "constant_entries": exp(t) * Abs(z1) ** 2 + Abs(z2) ** 2 * sqrt(2) + Abs(z1 + I * z2) ** 2,
}


def _derivations() -> dict[str, Derivation]:
    out = {name: potential(name, phi) for name, phi in DIMENSION_FREE.items()}
    out |= {n: potential(n, phi, coordinates=(z1, z2)) for n, phi in EXPLICIT.items()}
    out["one_dimension"] = potential("one_dimension", -log(99 - Abs(z1) ** 2), coordinates=(z1,))
    out["reversed"] = potential("reversed", Abs(z2) ** 4 + re(z1), coordinates=(z2, z1))
    return out


DERIVATIONS = _derivations()


@cache
def _module(name: str) -> Module:
    return generate_module(DERIVATIONS[name])


@pytest.mark.sampled(40)
@pytest.mark.parametrize("arithmetic", [prime_field, decimal], ids=lambda x: x.name[:6])
@pytest.mark.parametrize("name", DERIVATIONS)
def test_text_equals_definition(name: str, arithmetic: Arithmetic) -> None:
    module = _module(name)
    scope = run_text(module.text, arithmetic)
    for kernel in DERIVATIONS[name].kernels:
        if kernel.name in scope.get("VANISHING", []):
            continue
        if arithmetic is decimal and kernel.name == "metric_db":
            continue  # the slowest, and exact above
        sample = draw(kernel, arithmetic, random.Random(3), SIZES, module.heads)
        (ours,) = call(scope, kernel.name, sample)
        (output,) = kernel.outputs.values()
        truth = evaluate_output(output.definition, output.indices, sample.point)
        assert np.asarray(ours).shape == np.asarray(truth).shape
        for x, y in zip(np.asarray(ours).ravel(), np.asarray(truth).ravel(), strict=True):
            assert x == y if arithmetic is prime_field else abs(x - y) < 1e-40 * (1 + abs(y))


@pytest.mark.parametrize(
    "name", [n for n, x in DERIVATIONS.items() if exact_ring(x.kernels[0]) is rational]
)
def test_text_equals_definition_over_rationals(name: str) -> None:
    """Few rational numbers have roots, or are e to the power of a fraction: others are left out."""
    module = _module(name)
    scope = run_text(module.text, rational)
    kernel = next(k for k in DERIVATIONS[name].kernels if k.name == "metric")
    if kernel.name in scope.get("VANISHING", []):
        return
    sample = draw(kernel, rational, random.Random(3), SIZES, module.heads)
    (output,) = kernel.outputs.values()
    (ours,) = call(scope, "metric", sample)
    truth = evaluate_output(output.definition, output.indices, sample.point)
    assert all(x == y for x, y in zip(np.ravel(ours), np.ravel(truth), strict=True))


def _to_torch(value: object) -> torch.Tensor:
    values = np.asarray(value)
    flat = [complex(x) for x in values.ravel()]
    return torch.tensor(flat, dtype=torch.complex128).reshape(values.shape)


@pytest.mark.parametrize("name", DERIVATIONS)
def test_torch_with_its_own_heads_agrees_with_fifty_digits(name: str) -> None:
    """The whole text under torch, with heads(), on a batch; parameters have no batch."""
    module = _module(name)
    scope: dict = {}
    exec(compile(module.text, name, "exec"), scope)
    for kernel in DERIVATIONS[name].kernels:
        if kernel.name in scope.get("VANISHING", []) or kernel.name == "metric_db":
            continue
        sample = draw(kernel, decimal, random.Random(11), SIZES, module.heads)
        tensors = {
            n: _to_torch(v) for n, v in sample.tensors.items() if n not in module.heads.values()
        }
        tensors["z"] = torch.stack([tensors["z"], 2 * tensors["z"], tensors["z"]])
        if "heads" in scope:
            arguments = inspect.signature(scope["heads"]).parameters
            tensors |= scope["heads"](*[tensors[n] for n in arguments])
        arguments = list(inspect.signature(scope[kernel.name]).parameters)
        ours = scope[kernel.name](*[tensors[n] for n in arguments])
        (output,) = kernel.outputs.values()
        truth = _to_torch(evaluate_output(output.definition, output.indices, sample.point))
        if ours.ndim == truth.ndim:  # it depends on parameters alone
            ours = ours.expand(3, *ours.shape)
        torch.testing.assert_close(ours[0], truth, rtol=1e-11, atol=1e-11)
        torch.testing.assert_close(ours[2], ours[0], rtol=0, atol=0)


@pytest.mark.parametrize("name", EXPLICIT)
def test_polarisation_keeps_the_value(name: str) -> None:
    """z̄ as a symbol of its own: at z̄ = conj z the expression has its value."""
    phi, rng = EXPLICIT[name], random.Random(name)
    flat = polarised(phi, (z1, z2))
    assert not flat.has(conjugate, re, im, Abs)
    values = {z: complex(rng.gauss(0, 1), rng.gauss(0, 1)) for z in (z1, z2)}
    reals = {p: rng.uniform(0.5, 2) for p in phi.free_symbols - {z1, z2}}
    both = {**values, **{bar(z): x.conjugate() for z, x in values.items()}, **reals}
    expected = complex(phi.subs({**values, **reals}).evalf())
    assert complex(flat.subs(both).evalf()) == pytest.approx(expected, rel=1e-12)


def test_the_parameter_of_an_explicit_potential_may_have_any_free_name() -> None:
    for name in ("z0", "zb0", "c0", "out0", "s0", "x0", "o0", "t0", "identity0"):
        p = Symbol(name, real=True)
        phi = p * Abs(z1) ** 2 + Abs(z1) ** 4 * p**2 + exp(p * Abs(z2) ** 2)
        module = generate_module(potential("p", phi, coordinates=(z1, z2)))
        kernel = next(
            k for k in potential("p", phi, coordinates=(z1, z2)).kernels if k.name == "metric"
        )
        sample = draw(kernel, prime_field, random.Random(0), SIZES, module.heads)
        (ours,) = call(run_text(module.text, prime_field), "metric", sample)
        (output,) = kernel.outputs.values()
        truth = evaluate_output(output.definition, output.indices, sample.point)
        assert all(x == y for x, y in zip(np.ravel(ours), np.ravel(truth), strict=True))


def test_long_products_are_planned_in_time() -> None:
    """A word of matrices in a fourth derivative: planning by permutations took hours."""
    M = [parameter(f"M{i}", d, d, hermitian=True) for i in range(4)]
    word = z.H * M[0] * M[1] * M[2] * M[3] * M[2] * M[1] * M[0] * z
    text = generate_module(potential("p", log(1 + word))).text
    assert "def metric_db" in text
    assert mpmath.mp.dps >= 15


def test_derivatives_without_end_are_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    calculus = import_module("kahler_verify.calculus.wirtinger")  # its name is a function's, too
    monkeypatch.setattr(calculus, "MOST_TERMS", 10)
    potential_of_many_terms = potential("p", log(2 + log(2 + adjoint(z - c) * B.H * B * (z - c))))
    with pytest.raises(DerivationError, match=r"more than 10 terms.*explicit coordinates"):
        generate_module(potential_of_many_terms)


@pytest.mark.parametrize("wrap", ["Abs(sqrt(Abs(z1)**2 - 1))**2", "Abs(log(Abs(z1)**2 - 1))**2"])
def test_conjugates_across_a_branch_cut_are_refused(wrap: str, tmp_path: Path) -> None:
    path = tmp_path / "cut.py"
    path.write_text(
        "from sympy import Abs, log, re, sqrt\n"
        "from kahler_verify.calculus import explicit_coordinates, potential\n"
        "(z1,) = explicit_coordinates('z1')\n"
        f"cut = potential('cut', {wrap} + Abs(z1)**2, coordinates=(z1,))\n"
    )
    with pytest.raises(GenerationError, match="cut"):
        [generate_module(derivation) for derivation in load_file(path)]
