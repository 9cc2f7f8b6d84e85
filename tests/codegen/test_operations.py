"""Operation counts in headers: every line that is there counts once, and no other."""

import re
from pathlib import Path

import pytest
from sympy import Integer, Poly, symbols, sympify

from kahler_verify.calculus import Tr, dimension, field, index
from kahler_verify.calculus.definition import Partial, derive
from kahler_verify.codegen.kernel import print_kernel
from kahler_verify.codegen.registry import KERNELS

n, d = symbols("n d")


def _function(module: str, kernel: str) -> str:
    return (
        (Path(KERNELS) / f"{module}.py")
        .read_text()
        .partition(f"def {kernel}(")[2]
        .partition("\ndef ")[0]
    )


@pytest.mark.parametrize(
    ("module", "kernel", "flops"),
    [
        ("gaussian_kl", "fisher_metric_full", 4),
        ("gaussian_kl", "fisher_metric_d_full_holomorphic", 4),
        ("real_gaussian_kl", "fisher_metric_full", 1),
    ],
)
def test_a_triangular_solve_counts_once(module: str, kernel: str, flops: int) -> None:
    """A solve of a matrix for each latent index takes n³ multiply-adds, of a vector n²."""
    body = _function(module, kernel)
    printed = sympify(body.partition("about ")[2].partition("\n")[0], locals={"n": n, "d": d})
    solves = re.findall(r"solve_triangular\(\w+(?:\.m[TH])?, (\w+)", body)
    matrices = [x for x in solves if not x.startswith("mu")]
    found = Poly(printed.expand(), n, d).coeff_monomial(n**3 * d)
    assert found == flops * len(matrices)


def test_lines_that_no_result_needs_do_not_count() -> None:
    size, latent = dimension("n"), dimension("d")
    a, b = index("a b", latent, real=True)
    S = field("S", size, size, symmetric=True, positive=True)
    derived = Tr(
        S**-1 * Partial(S, a).args[0].partial(a, bar=False) * S**-1 * S.partial(b, bar=False)
    )
    printed = print_kernel({"out": (derived, (a, b))}, latent)
    names = {name for name, _ in printed.lines}
    assert all(re.search(rf"\b{name}\b", str(printed.lines + printed.results)) for name in names)
    once = printed.operations.expand()
    twice = print_kernel({"x": (derived, (a, b)), "y": (derived, (a, b))}, latent).operations
    assert twice.expand() == once
    assert once.coeff(size, 3) == Integer(2) * latent


def test_letters_of_higher_order_are_not_whitened_where_one_of_lower_order_can_be() -> None:
    """Tr(Σ⁻¹∂ₐΣ Σ⁻¹∂_b∂_cΣ): four solves of d matrices, none of d² of them."""
    size, latent = dimension("n"), dimension("d")
    a, b, c = index("a b c", latent, real=True)
    S = field("S", size, size, symmetric=True, positive=True)
    first, second = Partial(S, a), Partial(S, b, c)
    printed = print_kernel({"out": (derive(Tr(S**-1 * first * S**-1 * second)), (a, b, c))}, latent)
    solves = [code for _, code in printed.lines if "solve_triangular" in code]
    assert len(solves) == 4
    assert not any("S_dd" in code for code in solves)
    assert printed.operations.expand().coeff(size, 3) == 4 * latent
    same = print_kernel({"out": (derive(Tr(S**-1 * second * S**-1 * first)), (a, b, c))}, latent)
    assert same.operations == printed.operations


@pytest.mark.parametrize(
    ("module", "kernel"),
    [
        ("real_gaussian_kl", "fisher_metric_d_full"),
        ("gaussian_kl", "fisher_metric_d_full"),
        ("real_gaussian_kl", "fisher_metric_dd_full"),
    ],
)
def test_the_highest_derivative_of_a_covariance_is_used_as_it_is(module: str, kernel: str) -> None:
    body = _function(module, kernel).partition('"""')[2].partition('"""')[2]
    order = "ddd" if "_dd_" in kernel else "dd"
    assert f"Sigma_{order}" in body
    assert not re.search(rf"solve_triangular\(\w+, Sigma_{order}\b", body)
