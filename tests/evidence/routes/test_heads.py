"""What users run besides kernels: a module's heads are compared, and faults in them are noticed."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import mpmath
import pytest
import torch
from sympy import (
    Abs,
    Expr,
    Rational,
    Symbol,
    conjugate,
    cos,
    exp,
    im,
    log,
    loggamma,
    polygamma,
    sqrt,
)
from torch.func import jacrev, vmap

from kahler_verify.calculus import (
    Entry,
    coordinates,
    dimension,
    explicit_coordinates,
    index,
    parameter,
    potential,
)
from kahler_verify.calculus.indexed import Contract
from kahler_verify.codegen.module import generate_module
from kahler_verify.codegen.registry import KERNELS, shipped
from kahler_verify.codegen.writing import generate_files
from kahler_verify.errors import EvidenceError, GenerationError
from kahler_verify.evidence.crosscheck import crosscheck
from kahler_verify.evidence.ledger.kernels import kernel_items
from kahler_verify.evidence.ledger.proving import prove
from kahler_verify.evidence.mutants.head_faults import HeadFault, judge_heads, planted
from kahler_verify.evidence.routes.heads import compare_heads
from kahler_verify.running.kernel_set import KernelSet

z1, z2 = explicit_coordinates("z1 z2")
t = Symbol("t", positive=True)
WITH_HEADS = [p.stem for p in sorted(KERNELS.glob("*.py")) if "\ndef heads(" in p.read_text()]


@pytest.mark.parametrize("name", [n for n in WITH_HEADS if n in shipped()])
def test_shipped_heads_are_right(name: str) -> None:
    derivation = shipped()[name]
    text = (KERNELS / f"{name}.py").read_text()
    found = compare_heads(derivation, text, generate_module(derivation).heads)
    assert found is not None
    assert found.passed, found
    assert len(found.errors) == 3
    assert max(found.errors) < 1e-14


@pytest.mark.parametrize(
    "phi",
    [
        log(2 + (1 + Abs(z1) ** 2) ** Rational(2, 3)) + Abs(z2) ** 2 / sqrt(1 + t * Abs(z1) ** 2),
        exp(im(z1 * conjugate(z2))) + cos(im(z1)) - log(im(z1)),
        (1 + Abs(z1) ** 2) ** (t * Abs(z2) ** 2) + loggamma(t) * Abs(z1) ** 2,
        polygamma(0, t) * Abs(z1) ** 2 + polygamma(2, t) * Abs(z2) ** 2,
    ],
)
def test_right_heads_are_not_accused(phi: Expr) -> None:
    full = potential("p", phi, coordinates=(z1, z2))
    derivation = replace(full, kernels=full.kernels[:3])
    module = generate_module(derivation)
    found = compare_heads(derivation, module.text, module.heads)
    assert found is not None
    assert found.passed, found


def test_every_fault_of_heads_is_killed() -> None:
    judged = list(judge_heads())
    assert [f.fault for f in judged if not f.noticed] == []
    assert len(judged) >= 30
    assert len({f.fault.derivation for f in judged}) >= 8
    assert len({f.fault.fault for f in judged}) >= 6


def test_a_fault_that_no_longer_fits_is_an_error() -> None:
    with pytest.raises(EvidenceError, match="adapt the mutant"):
        planted(HeadFault("sign", "gamma", "no such line", ""))


def test_what_torch_alone_gets_wrong_is_noticed() -> None:
    """A threshold that only rounding knows of."""
    derivation = shipped()["bernoulli"]
    module = generate_module(derivation)
    text = module.text.replace("torch.sigmoid(eta)", "torch.sigmoid(eta.float()).double()")
    assert text != module.text
    found = compare_heads(derivation, text, module.heads)
    assert found is not None
    assert not found.passed


def test_heads_that_are_gone_are_noticed() -> None:
    derivation = shipped()["poisson"]
    module = generate_module(derivation)
    found = compare_heads(derivation, module.text.split("\ndef heads(")[0], module.heads)
    assert found is not None
    assert not found.passed


def test_prove_runs_the_heads_of_a_users_file(tmp_path: Path) -> None:
    path = tmp_path / "mine.py"
    path.write_text(
        "from sympy import conjugate, exp\n"
        "from kahler_verify.calculus import *\n"
        "a, w = explicit_coordinates('a w')\n"
        "mine = potential('mine', exp(a * conjugate(a) + w * conjugate(w)), coordinates=(a, w))\n"
        "mine = __import__('dataclasses').replace(mine, kernels=mine.kernels[:3])\n"
    )
    generate_files([path])
    ledger = prove([str(path)], use_cache=False)
    assert ledger.passed
    assert [i for i in ledger.kernels if i.what == "mine.heads"]
    kernels = tmp_path / "mine_kernels.py"
    right = kernels.read_text()
    for old, new in (("torch.exp(", "2 * torch.exp("), ("torch.exp(", "torch.exp(-")):
        kernels.write_text(right.replace(old, new))
        wrong = prove([str(path)], use_cache=False)
        assert not wrong.passed
        assert [i.what for i in wrong.kernels if not i.passed] == ["mine.heads"]
    kernels.write_text(right.replace("def gradient(", "def slope("))
    wrong = prove([str(path)], use_cache=False)
    assert [i.outcome for i in wrong.kernels if not i.passed] == ["is not in the file"]


def test_verify_runs_heads() -> None:
    derivation = shipped()["fubini_study"]
    derivation = replace(derivation, kernels=derivation.kernels[:1])
    text = (KERNELS / "fubini_study.py").read_text()
    for source, passes in ((text, True), (text.replace("s0 = 1 + t0", "s0 = 2 + t0"), False)):
        found = crosscheck(
            derivations={"fubini_study": derivation}, sources={"fubini_study": source}, points=1
        )
        (row,) = [r for r in found.rows if r.what == "fubini_study.heads"]
        assert row.passed is passes


def test_a_claim_about_kernels_needs_their_heads() -> None:
    items = kernel_items(shipped()["poisson"], ("fisher_metric",))
    assert items[-1].what == "poisson.heads"
    assert all(i.passed for i in items)


@pytest.mark.parametrize("name", ["gamma", "beta", "dirichlet"])
def test_polygamma_heads_to_the_last_digits(name: str) -> None:
    """In torch as it is, against 50 digits, over nine orders of magnitude."""
    x = torch.logspace(-3, 6, 40, dtype=torch.float64)[:, None]
    kernels = KernelSet(name)
    given = dict.fromkeys(kernels.arguments("heads"), x)
    found = kernels.module.heads(**given)
    heads = generate_module(shipped()[name]).heads
    alone = [(e, n) for e, n in heads.items() if e.args[1].func in (Entry, Contract)]
    assert {int(e.args[0]) for e, _ in alone} == {1, 2, 3}
    with mpmath.workdps(50):
        for e, n in alone:
            for y, value in zip(x.ravel().tolist(), found[n].ravel().tolist(), strict=True):
                truth = mpmath.psi(int(e.args[0]), mpmath.mpf(y))
                assert abs(value - truth) < 4e-15 * abs(truth), (e, y)


def test_polygamma_heads_are_differentiable_and_mapped() -> None:
    heads = KernelSet("gamma").module.heads
    x = torch.tensor([0.5, 2.0, 30.0], dtype=torch.float64)
    slope = vmap(jacrev(lambda y: heads(y[None])["polygamma_0"][0]))(x)
    assert torch.allclose(slope, heads(x)["polygamma_1"], rtol=1e-13)


def test_functions_of_real_numbers_are_refused_for_complex_ones() -> None:
    for phi in (loggamma(1 + Abs(z1) ** 2), polygamma(1, z1 * conjugate(z1))):
        with pytest.raises(GenerationError, match="complex arguments"):
            generate_module(potential("p", phi + Abs(z2) ** 2, coordinates=(z1, z2)))
    n, d = dimension("n"), dimension("d")
    (j,) = index("j", n, real=True)
    z = coordinates("z", d)
    order = Contract(polygamma(t, Entry(parameter("a", n, real=True, positive=True), j)), j)
    with pytest.raises(GenerationError, match="polygamma"):
        generate_module(potential("p", order * z.H * z))
