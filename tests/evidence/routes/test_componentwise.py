"""Written-out components, differentiated by SymPy, agree with generated text; a fault shows."""

from functools import cache

import pytest
from sympy import Abs, exp, log, re, sqrt

from kahler_verify.calculus import (
    Tr,
    adjoint,
    coordinates,
    dimension,
    explicit_coordinates,
    field,
    parameter,
    potential,
)
from kahler_verify.calculus.abbreviation import let
from kahler_verify.calculus.definition import Contract, Entry, Expected, Partial
from kahler_verify.calculus.derivation import Derivation, Kernel, Output
from kahler_verify.calculus.letters import index
from kahler_verify.calculus.mixture import Total
from kahler_verify.codegen.formatting import body_of
from kahler_verify.codegen.module import Module, generate_module
from kahler_verify.codegen.registry import KERNELS, shipped
from kahler_verify.evidence.proofs.schwartz_zippel import schwartz_zippel
from kahler_verify.evidence.routes.componentwise import componentwise

SLOW = (  # higher derivatives of a written-out inverse or determinant
    "fisher_metric_d_full",
    "fisher_metric_db_full",
    "fisher_metric_db_diagonal",
    "fisher_metric_db_scalar",
)
z1, z2 = explicit_coordinates("z1 z2")


@cache
def _module(name: str) -> Module:
    return generate_module(shipped()[name])


CASES = [
    (name, kernel.name)
    for name, derivation in shipped().items()
    for kernel in derivation.kernels
    if isinstance(kernel, Kernel)
    and "componentwise" in derivation.routes
    and f"def {kernel.name}(" in (KERNELS / f"{name}.py").read_text()
    and kernel.name not in SLOW
]


def _kernel(derivation: Derivation, name: str) -> Kernel:
    return next(k for k in derivation.kernels if k.name == name)


def _heavy(name: str, kernel: str) -> bool:
    """Second derivatives of metrics at real latents, minutes of written-out derivatives; and the
    curvatures of mixtures, which are long."""
    mixed = name.startswith("mixture") and kernel in ("holomorphic_sectional", "scalar")
    return mixed or (name.startswith("real_gaussian") and ("_dd" in kernel or "_db" in kernel))


@pytest.mark.sampled(25)
@pytest.mark.parametrize(
    ("name", "kernel"),
    [pytest.param(*c, marks=pytest.mark.thorough) if _heavy(*c) else c for c in CASES],
)
def test_every_shipped_kernel(name: str, kernel: str) -> None:
    module = _module(name)
    declared = _kernel(shipped()[name], kernel)
    assert componentwise(declared, module.text, module.heads, seed=1, entries=1) < 1e-40


@pytest.mark.thorough
@pytest.mark.parametrize("kernel", SLOW)
def test_the_slowest_kernels(kernel: str) -> None:
    module = _module("gaussian_kl")
    assert componentwise(_kernel(shipped()["gaussian_kl"], kernel), module.text, entries=1) == 0


@pytest.mark.parametrize("kernel", ["gradient", "metric", "metric_d"])
def test_explicit_coordinates(kernel: str) -> None:
    phi = log(1 + Abs(z1) ** 2 + exp(re(z2))) + sqrt(2 + Abs(z1 * z2) ** 2)
    derivation = potential("p", phi, coordinates=(z1, z2))
    module = generate_module(derivation)
    error = componentwise(_kernel(derivation, kernel), module.text, module.heads)
    assert error < 1e-40


@pytest.mark.parametrize(
    ("name", "kernel", "right", "wrong"),
    [
        ("hermitian_geometry", "kahler_defect", "g_d - p0", "g_d + p0"),
        ("mixture_density", "metric", "t1 - p0", "t1 + p0"),
        ("gaussian_kl", "fisher_metric_full", "y1.flatten(-2)", "y1.mT.flatten(-2)"),
        ("fubini_study", "metric", "p0 - p1", "p0 - p1.mT"),
    ],
)
def test_a_fault_in_the_text_shows(name: str, kernel: str, right: str, wrong: str) -> None:
    module = _module(name)
    assert right in module.text
    broken = module.text.replace(right, wrong)
    declared = _kernel(shipped()[name], kernel)
    assert componentwise(declared, broken, module.heads, entries=2) > 1e-3


def _real(name: str) -> Kernel:
    """Of real coordinates: a Hessian, a sum over components, a mean, an abbreviation."""
    d, n = dimension("d"), dimension("n")
    a, b, i = index("a b i", d, real=True)
    (j,) = index("j", n, real=True)
    x, mu = coordinates("x", d, real=True), field("mu", n, real=True)
    S, eps = field("S", n, n, symmetric=True), parameter("eps", n, real=True)
    near = coordinates("r", d, real=True, component=True)
    total = Total(exp(-Tr(near.H * near)) * Entry(near, i) ** 2)
    u = let("u", log(1 + x.H * x))
    noisy = mu + S * eps
    length = Tr(adjoint(Partial(noisy, a)) * Partial(noisy, b))
    definitions = {
        "hessian": (Partial(log(1 + exp(x.H * x)) * x.H * x, a, b), (a, b)),
        "sum": (Partial(1 / (total + 1), a), (a, i)),
        "mean": (Expected(length, eps), (a, b)),
        "letter": (Partial(log(1 + u) * u, a, b), (a, b)),
        "entries": (Partial(Contract(exp(Entry(mu, j)), j), a, b), (a, b)),
    }
    return Kernel("metric", {"g": Output(*definitions[name])})


@pytest.mark.parametrize("name", ["hessian", "sum", "mean", "letter", "entries"])
def test_real_coordinates(name: str) -> None:
    kernel = _real(name)
    derivation = Derivation("real", "", (kernel,), dimension("d"))
    module = generate_module(derivation)
    assert componentwise(kernel, module.text, module.heads, entries=4) < 1e-40
    assert schwartz_zippel(
        kernel, module.text, {"d": 2, "n": 2, "K": 3}, trials=1, heads=module.heads
    ).equal
    body = body_of(module.text)
    wrong = module.text.replace(body, body.replace("return ", "return 2 * "))
    assert componentwise(kernel, wrong, module.heads, entries=4) > 1e-40
