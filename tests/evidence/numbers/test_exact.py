"""Kernels' own text over Q(i) equals the definition differentiated: equality, no tolerance."""

import math
import random

import numpy as np
import pytest

from kahler_verify.codegen.module import Module, generate_module
from kahler_verify.codegen.registry import shipped
from kahler_verify.errors import EvidenceError
from kahler_verify.evidence.numbers.arithmetic import (
    PRIME,
    Arithmetic,
    prime_field,
    rational,
)
from kahler_verify.evidence.numbers.arrays import array
from kahler_verify.evidence.numbers.nilpotent import inverse
from kahler_verify.evidence.numbers.readings import kernel_of
from kahler_verify.evidence.proofs.schwartz_zippel import compare, schwartz_zippel

_modules: dict[str, Module] = {}


def _module(name: str) -> Module:
    if name not in _modules:
        _modules[name] = generate_module(shipped()[name])
    return _modules[name]


@pytest.mark.sampled(8)
@pytest.mark.parametrize(
    ("name", "kernel", "sizes", "entries"),
    [
        ("gaussian_kl", "fisher_metric_full", {"d": 3, "n": 16, "K": 1}, None),
        ("gaussian_kl", "fisher_metric_d_full", {"d": 3, "n": 16, "K": 1}, 2),
        ("gaussian_kl", "fisher_metric_db_full", {"d": 3, "n": 16, "K": 1}, 1),
        ("gaussian_kl", "fisher_metric_db_diagonal", {"d": 2, "n": 3, "K": 1}, None),
        ("gaussian_kl", "fisher_metric_db_scalar", {"d": 2, "n": 3, "K": 1}, None),
        ("gaussian_kl", "kl_hessian_full", {"d": 2, "n": 4, "K": 1}, None),
        ("mixture_potential", "metric_db", {"d": 3, "n": 1, "K": 5}, None),
        ("mixture_potential", "metric_db_general", {"d": 3, "n": 1, "K": 5}, None),
        ("mixture_density", "metric_db", {"d": 3, "n": 1, "K": 5}, None),
        ("hermitian_geometry", "chern_curvature", {"d": 3, "n": 1, "K": 1}, None),
        ("hermitian_geometry", "chern_scalar", {"d": 3, "n": 1, "K": 1}, None),
        ("hermitian_geometry", "holomorphic_sectional", {"d": 3, "n": 1, "K": 1}, None),
        ("fubini_study", "metric_db", {"d": 3, "n": 1, "K": 1}, None),
    ],
)
def test_equality_over_gaussian_rationals(
    name: str, kernel: str, sizes: dict[str, int], entries: int | None
) -> None:
    module = _module(name)
    declared = kernel_of(shipped()[name], kernel)
    count, pairs = compare(declared, module.text, rational, sizes, 7, module.heads, entries)
    assert count == len(pairs) > 0
    for ours, expected in pairs:
        assert ours == expected
    assert any(ours != 0 for ours, _ in pairs)


def test_error_probability_is_that_of_the_degree_bound() -> None:
    module = _module("gaussian_kl")
    kernel = kernel_of(shipped()["gaussian_kl"], "fisher_metric_full")
    trial = schwartz_zippel(kernel, module.text, {"d": 2, "n": 3, "K": 1}, heads=module.heads)
    assert trial.equal
    assert trial.error_log2 == pytest.approx(3 * (math.log2(trial.degree) - math.log2(PRIME - 1)))
    assert trial.error_log2 < -100


def test_degree_bound_is_a_bound() -> None:
    """A line through the sampled numbers: the result is a rational function of no larger degree.

    For the holomorphic metric (∂_bμ)ᴴΣ⁻¹∂_aμ with n = 1 the result is |μ'|²/s²: degrees 2 over 2.
    """
    module = _module("gaussian_kl")
    kernel = kernel_of(shipped()["gaussian_kl"], "fisher_metric_scalar_holomorphic")
    trial = schwartz_zippel(kernel, module.text, {"d": 1, "n": 1, "K": 1}, heads=module.heads)
    assert trial.degree >= 4


@pytest.mark.parametrize(
    ("kernel", "old", "new"),
    [
        ("fisher_metric_full", "v1 @ v1.mH", "v1 @ v1.mT"),
        ("fisher_metric_full", "t0.conj()", "t0"),
        ("fisher_metric_diagonal", "r1 * r1", "r1"),
        ("fisher_metric_d_full", "+ p", "- p"),
    ],
)
def test_a_planted_fault_is_found(kernel: str, old: str, new: str) -> None:
    module = _module("gaussian_kl")
    start = module.text.index(f"def {kernel}(")
    assert old in module.text[start:]
    text = module.text[:start] + module.text[start:].replace(old, new, 1)
    declared = kernel_of(shipped()["gaussian_kl"], kernel)
    trial = schwartz_zippel(declared, text, {"d": 2, "n": 2, "K": 1}, heads=module.heads)
    assert not trial.equal


@pytest.mark.parametrize("ring", [rational, prime_field], ids=lambda ring: ring.name)
@pytest.mark.parametrize("n", [1, 3, 5])
def test_inverses_are_exact(ring: Arithmetic, n: int) -> None:
    rng = random.Random(n)
    matrix = array([ring.draw(rng) for _ in range(n * n)], (n, n))
    product = np.asarray(inverse(matrix, ring) @ matrix)
    assert all(x == (i == j) for (i, j), x in np.ndenumerate(product))
    matrix[n - 1] = matrix[0] * ring.number(1j) if n > 1 else matrix[0] * 0
    with pytest.raises(EvidenceError, match="singular"):
        inverse(matrix, ring)
