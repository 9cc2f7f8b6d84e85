"""Kernels of mixtures: contraction orders over components, shared constants, traces taken early."""

import ast
import re
from itertools import combinations
from math import prod

import pytest
import torch

from kahler_verify.calculus import (
    Contract,
    Derivation,
    Entry,
    Kernel,
    Output,
    dimension,
    field,
    index,
)
from kahler_verify.codegen.module import generate_module
from kahler_verify.codegen.program import NOMINAL_SIZE, WRITTEN, Tree, _cheapest
from kahler_verify.codegen.registry import KERNELS

MIXTURES = ("mixture_potential", "mixture_density")
# (k, ka, kb, kcd -> abcd), where opt_einsum's "optimal" forms an array [k, b, c, d]
OUTER = ((1, 1 | 2, 1 | 4, 1 | 8 | 16), 2 | 4 | 8 | 16, (128, 8, 8, 8, 8))
CHAIN = ((1, 1 | 2, 1 | 4, 1 | 8 | 16, 2 | 8, 4 | 16), 0, (128, 8, 8, 8, 8))


def cost(tree: Tree, axes, batched, out, sizes) -> tuple[float, set[int]]:
    """What a tree costs by the rule that the docstring states, and its leaves."""
    if isinstance(tree, int):
        return 0.0, {tree}

    def kept(leaves: set[int]) -> set[int]:
        bits = set(range(len(sizes)))
        held = {b for b in bits if any(axes[n] >> b & 1 for n in leaves)}
        others = {
            b for b in bits if any(axes[n] >> b & 1 for n in range(len(axes)) if n not in leaves)
        }
        return held & (others | {b for b in bits if out >> b & 1})

    def points(leaves: set[int]) -> int:
        return NOMINAL_SIZE["batch"] if any(batched[n] for n in leaves) else 1

    (left, one), (right, two) = (cost(t, axes, batched, out, sizes) for t in tree)
    both = one | two
    several = bool(kept(one) & kept(two) & kept(both)) or points(one) == points(two)
    rate = 2 if several and points(both) > 1 else 1
    work = rate * points(both) * prod(sizes[b] for b in kept(one) | kept(two))
    written = WRITTEN * NOMINAL_SIZE["batch"] * prod(sizes[b] for b in kept(both))
    return left + right + work + written, both


def every_tree(leaves: tuple[int, ...]):
    if len(leaves) == 1:
        yield leaves[0]
        return
    first, *rest = leaves
    for count in range(len(rest)):
        for chosen in combinations(rest, count):
            other = tuple(n for n in rest if n not in chosen)
            for left in every_tree((first, *chosen)):
                for right in every_tree(other):
                    yield left, right


@pytest.mark.parametrize(("axes", "out", "sizes"), [OUTER, CHAIN])
@pytest.mark.parametrize("shared", [(), (3,), (0, 3)])
def test_the_order_is_the_cheapest_of_all(axes, out, sizes, shared) -> None:
    batched = tuple(n not in shared for n in range(len(axes)))
    found = cost(_cheapest(axes, batched, out, sizes), axes, batched, out, sizes)[0]
    trees = every_tree(tuple(range(len(axes))))
    assert found == min(cost(t, axes, batched, out, sizes)[0] for t in trees)


@pytest.mark.parametrize("name", MIXTURES)
def test_second_derivatives_of_components_are_shared_by_all_points(name: str) -> None:
    """No kernel for quadratic components subtracts anything from q_db [K, d, d]."""
    text = (KERNELS / f"{name}.py").read_text()
    for function in ast.parse(text).body:
        if isinstance(function, ast.FunctionDef) and "general" not in function.name:
            assert not re.search(r"q_db(\.conj\(\))? - ", ast.unparse(function)), function.name


@pytest.mark.parametrize("name", MIXTURES)
@pytest.mark.parametrize("kernel", ["ricci", "scalar", "holomorphic_sectional"])
def test_contracted_curvature_holds_no_array_of_rank_four(name: str, kernel: str) -> None:
    """Results of its contractions have at most K d², d³ entries for each point."""
    text = (KERNELS / f"{name}.py").read_text()

    def rank(function: str) -> int:
        body = text.partition(f"def {function}(")[2].partition("\n\n\n")[0]
        return max(len(out) for out in re.findall(r'->\.\.\.(\w*)"', body))

    assert rank(kernel) <= 3
    assert rank("metric_db") == 4


def test_a_sum_may_have_free_indices() -> None:
    d = dimension("d")
    a, b, c = index("a b c")
    X, Y = field("X", d, d), field("Y", d, d)
    trace = Contract(Entry(X, a, b) * Entry(Y, b, c), b)
    kernel = Kernel("product", {"out": Output(trace - Entry(X, a, c), (a, c))})
    scope: dict = {"__name__": "product"}
    exec(generate_module(Derivation("product", "X Y - X", (kernel,), d)).text, scope)
    x, y = torch.randn(2, 5, 3, 3, dtype=torch.complex128)
    torch.testing.assert_close(scope["product"](x, y), x @ y - x)


def test_a_summed_index_has_no_meaning_outside() -> None:
    d = dimension("d")
    a, b = index("a b")
    X, Y = field("X", d, d), field("Y", d, d)
    rows = Contract(Entry(X, a, b), b) * Entry(Y, a, b)
    kernel = Kernel("rows", {"out": Output(rows, (a, b))})
    scope: dict = {"__name__": "rows"}
    exec(generate_module(Derivation("rows", "Σ_c X_ac Y_ab", (kernel,), d)).text, scope)
    x, y = torch.randn(2, 5, 3, 3, dtype=torch.complex128)
    torch.testing.assert_close(scope["rows"](x, y), x.sum(-1, keepdim=True) * y)
