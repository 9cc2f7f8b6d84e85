"""Potentials of nested functions: derivatives go level by level, so that nothing explodes."""

import pytest
from sympy import Add, Expr, Rational, exp, log, sqrt, sympify

from kahler_verify.calculus import coordinates, dimension, parameter, potential, scalars
from kahler_verify.codegen.module import generate_module
from kahler_verify.evidence.proofs.schwartz_zippel import schwartz_zippel

d = dimension("d")
z = coordinates("z", d)
q, r, s, t = (scalars(z.H * parameter(n, d, d, hermitian=True) * z) for n in "ABCE")

SHAPES = {
    "composition": log(1 + sqrt(1 + log(1 + q) * log(1 + r))),
    "chain": log(1 + log(1 + log(1 + log(1 + q)))),
    "product": log(2 + q) * sqrt(1 + r) * exp(-s) * log(2 + t),
    "sum": log(1 + q) + log(1 + r) + log(1 + s) + log(1 + t),
    "sum_inside": log(1 + exp(-r) * sqrt(1 + q) + log(1 + q)),
    "product_inside": log(1 + log(1 + q) * log(1 + r) * log(1 + s)),
    "polynomial_inside": sqrt(1 + exp(log(1 + sqrt(1 + q * r * s)))),
    "quotient": log(1 + log(1 + q) / sqrt(1 + r)) / (1 + log(1 + s)),
    "power": (1 + log(1 + q) + sqrt(1 + r)) ** Rational(3, 2) * log(1 + s * t),
}


@pytest.mark.sampled(3)
@pytest.mark.parametrize("shape", SHAPES)
def test_fourth_derivatives_have_few_terms_and_operations(shape: str) -> None:
    made = potential(shape, SHAPES[shape])
    (kernel,) = [k for k in made.kernels if k.name == "metric_db"]
    assert len(Add.make_args(kernel.derived()["g_db"])) <= 28  # four sums of 7
    body = generate_module(made).text.partition("def metric_db(")[2]
    operations = sympify(body.partition("about ")[2].partition("\n")[0]).subs("d", 8)
    assert operations < 2e6  # multiplied out, the first shape takes 7 million
    assert body.partition("    return ")[0].count("\n") < 500


@pytest.mark.sampled(2)
@pytest.mark.parametrize("shape", ["composition", "product", "quotient"])
@pytest.mark.parametrize("kernel", ["metric", "metric_d"])
def test_staged_kernels_equal_the_definition_which_has_no_stages(shape: str, kernel: str) -> None:
    made = potential(shape, SHAPES[shape])
    module = generate_module(made)
    (declared,) = [k for k in made.kernels if k.name == kernel]
    found = schwartz_zippel(
        declared, module.text, {"d": 2, "n": 1, "K": 1}, heads=module.heads, trials=1
    )
    assert found.equal


def test_heads_are_those_of_the_definition() -> None:
    expr: Expr = log(1 + sqrt(1 + log(1 + q)))
    heads = generate_module(potential("p", expr)).heads
    assert not any("u0" in str(head) for head in heads)
    assert {sqrt(1 + log(1 + q)), expr} <= set(heads)
