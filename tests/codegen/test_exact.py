"""Generated text over F_p[i] equals its definition: every kernel, several sizes, batches."""

import inspect
import random
from functools import cache

import numpy as np
import pytest

from kahler_verify.calculus.derivation import Derivation, Kernel
from kahler_verify.codegen.module import Module, generate_module
from kahler_verify.codegen.registry import KERNELS, shipped
from kahler_verify.evidence.numbers.arithmetic import prime_field, run_text
from kahler_verify.evidence.numbers.arrays import array
from kahler_verify.evidence.numbers.samples import draw
from kahler_verify.evidence.numbers.series import evaluate_output
from kahler_verify.evidence.proofs.schwartz_zippel import call, compare

SIZES = [{"d": 1, "n": 1, "K": 1}, {"d": 2, "n": 3, "K": 3}, {"d": 3, "n": 4, "K": 5}]
CASES = [
    (name, kernel.name)
    for name, derivation in shipped().items()
    for kernel in derivation.kernels
    if isinstance(kernel, Kernel)
]


EVERY = SIZES[1]  # at which every kernel is tried every day; elsewhere one of each derivation
ONE_EACH = dict(reversed(CASES))


def _marks(case: tuple[str, str], always: bool = False) -> tuple[pytest.MarkDecorator, ...]:
    name, kernel = case
    return () if always or ONE_EACH[name] == kernel else (pytest.mark.thorough,)


@cache
def _module(name: str) -> Module:
    """The committed text with the heads of its derivation."""
    derivation = shipped()[name]
    text = (KERNELS / f"{name}.py").read_text()
    heads = generate_module(derivation).heads if "def heads" in text else {}
    return Module(name, text, "", heads)


def _kernel(derivation: Derivation, name: str) -> Kernel:
    return next(k for k in derivation.kernels if k.name == name)


@pytest.mark.sampled(120)
@pytest.mark.parametrize(
    ("name", "kernel", "sizes"),
    [
        pytest.param(*case, sizes, id=f"{case} {sizes}", marks=_marks(case, sizes is EVERY))
        for sizes in SIZES
        for case in CASES
    ],
)
def test_committed_text_equals_the_definition(
    name: str, kernel: str, sizes: dict[str, int]
) -> None:
    module, declared = _module(name), _kernel(shipped()[name], kernel)
    if f"def {kernel}(" not in module.text:
        _check_vanishing(declared, module, sizes)
        return
    count, pairs = compare(declared, module.text, prime_field, sizes, 1, module.heads, 3)
    assert count > 0
    assert all(ours == truth for ours, truth in pairs)


def _check_vanishing(kernel: Kernel, module: Module, sizes: dict[str, int]) -> None:
    """A kernel without code is listed, and its definition is zero."""
    assert kernel.name in run_text(module.text, prime_field)["VANISHING"]
    (output,) = kernel.outputs.values()
    sample = draw(kernel, prime_field, random.Random(0), sizes)
    entries = evaluate_output(output.definition, output.indices, sample.point)
    assert all(x == 0 for x in np.asarray(entries).ravel())


@pytest.mark.parametrize(
    ("name", "kernel"), [pytest.param(*case, marks=_marks(case)) for case in CASES]
)
def test_batches_are_stacked_points(name: str, kernel: str) -> None:
    """Three points as one batch of shape [3, 1] give the three results."""
    module, declared = _module(name), _kernel(shipped()[name], kernel)
    scope = run_text(module.text, prime_field)
    if kernel not in scope:
        return
    sizes, rng = {"d": 2, "n": 2, "K": 2}, random.Random(5)
    samples = [draw(declared, prime_field, rng, sizes, module.heads) for _ in range(3)]
    single = [call(scope, kernel, s) for s in samples]
    names = list(inspect.signature(scope[kernel]).parameters)
    stacked = [array(np.stack([np.asarray(s.tensors[n]) for s in samples])[:, None]) for n in names]
    together = scope[kernel](*stacked)
    together = together if isinstance(together, tuple) else (together,)
    for n, output in enumerate(together):
        for i in range(3):
            expected = np.asarray(single[i][n])
            ours = np.asarray(output)
            if ours.ndim == expected.ndim:  # it depends on no input: flat space's metric
                assert not np.asarray(single[0][n] != single[1][n]).any()
                continue
            assert ours.shape == (3, 1, *expected.shape)
            pairs = zip(ours[i].ravel(), expected.ravel(), strict=True)
            assert all(x == y for x, y in pairs)
