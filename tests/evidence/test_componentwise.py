"""Written-out components, differentiated by SymPy, agree with generated text; a fault shows."""

from functools import cache

import pytest
from sympy import Abs, exp, log, re, sqrt

from kahler_verify.calculus import explicit_coordinates, potential
from kahler_verify.calculus.derivation import Derivation, Kernel
from kahler_verify.codegen.module import Module, generate_module
from kahler_verify.codegen.registry import KERNELS, shipped
from kahler_verify.evidence.componentwise import componentwise

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
    and f"def {kernel.name}(" in (KERNELS / f"{name}.py").read_text()
    and kernel.name not in SLOW
]


def _kernel(derivation: Derivation, name: str) -> Kernel:
    return next(k for k in derivation.kernels if k.name == name)


@pytest.mark.parametrize(("name", "kernel"), CASES)
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
