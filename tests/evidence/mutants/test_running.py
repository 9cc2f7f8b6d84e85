"""Planted faults die, equals are told apart exactly, and a survivor fails the run."""

import inspect
import json
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from rich.console import Console

from kahler_verify.calculus.wirtinger import wirtinger
from kahler_verify.codegen.whitening import solve
from kahler_verify.errors import EvidenceError
from kahler_verify.evidence.listing import print_mutants
from kahler_verify.evidence.mutants.candidate import Candidate
from kahler_verify.evidence.mutants.derived_faults import derived_mutants
from kahler_verify.evidence.mutants.faults import BATCH, FAULTS, FUNCTION, SWAPPED, Mutant, spread
from kahler_verify.evidence.mutants.misprints import misprinted, source_of
from kahler_verify.evidence.mutants.planted import MISPRINTS, RULES
from kahler_verify.evidence.mutants.rules import Rule, edited, rule_mutants
from kahler_verify.evidence.mutants.running import judge, run_mutants
from kahler_verify.evidence.mutants.text_faults import kernel_mutants, sum_of, terms_of
from kahler_verify.evidence.mutants.verdicts import TESTS, Judged, MutantResult, write_mutants
from kahler_verify.evidence.mutants.workshop import Workshop, misprint_mutant
from kahler_verify.evidence.numbers.arrays import array, einsum

pytestmark = pytest.mark.xdist_group("running_mutants")  # one worker makes what the tests share

FEW = (
    "gaussian_kl.fisher_metric_diagonal",
    "hermitian_geometry.chern_scalar",
    "hermitian_geometry.chern_curvature",
    "mixture_potential.metric_d",
)


@pytest.fixture(scope="module")
def shop() -> Workshop:
    return Workshop.open()


def _of(shop: Workshop, kernel: str) -> list[Mutant]:
    return list(kernel_mutants(next(t for t in shop.targets if t.name == kernel)))


def _candidate(shop: Workshop, kernel: str, old: str, new: str) -> Candidate:
    bench = shop.bench(kernel)
    text = bench.target.body.text
    assert text.count(old) == 1
    return Candidate(bench.kernel.name, text.replace(old, new))


@pytest.mark.parametrize("fault", [f for f in FAULTS if f not in (SWAPPED, FUNCTION)])
def test_every_fault_is_killed(shop: Workshop, fault: str) -> None:
    own = [m for kernel in FEW for m in _of(shop, kernel) if m.fault == fault]
    judged = [judge(m, shop) for m in spread(own, 5)]
    counted = MutantResult(judged).counted
    assert counted
    assert all(m.killed and m.by and m.seconds < 5 for m in counted)


def test_there_are_enough_distinct_mutants(shop: Workshop) -> None:
    texts = {(m.kernel, m.text) for target in shop.targets for m in kernel_mutants(target)}
    assert len(texts) >= 200
    assert len({t.derivation.name for t in shop.targets}) >= 7
    again = [m.text for m in _of(shop, FEW[3])]
    assert again == [m.text for m in _of(shop, FEW[3])]  # the same in every run


def test_equal_ones_are_found_by_exact_evaluation(shop: Workshop) -> None:
    bench = shop.bench(FEW[0])
    assert bench.equivalent(bench.original)
    name = bench.target.body.lines[-1][1]
    symmetric = name.replace(")", ".mT)")  # k is symmetric
    assert bench.equivalent(_candidate(shop, FEW[0], f"return {name}", f"return {symmetric}"))
    hermitian = name.replace(",", ".mT,")  # g is not
    assert not bench.equivalent(_candidate(shop, FEW[0], f"return {name}", f"return {hermitian}"))


def test_equal_at_a_single_point_is_not_equal_in_a_batch(shop: Workshop) -> None:
    kernel = "hermitian_geometry.log_det_gradient"
    bench = shop.bench(kernel)
    mixed = _candidate(shop, kernel, ".unsqueeze(-3)", ".unsqueeze(0)")
    assert bench.runs(mixed)
    assert not bench.equivalent(mixed)
    judged = judge(Mutant("x", BATCH, "kernel", kernel, "", mixed.text), shop)
    assert judged.by[0] == "batch"
    assert {"exact", "autograd", "float64"} <= set(judged.missed_by)


def test_two_dimensions_hide_a_wrong_triangle_of_a_scalar_curvature(shop: Workshop) -> None:
    """It knows g⁻¹ by its determinant alone there."""
    kernel = "real_geometry.scalar_curvature"
    wrong = _candidate(shop, kernel, "identity0, upper=False", "identity0, upper=True")
    assert not shop.bench(kernel).equivalent(wrong)
    judged = judge(Mutant("x", "wrong triangle", "kernel", kernel, "", wrong.text), shop)
    assert judged.by == ["d = 3"]


def test_a_sum_over_the_batch_is_seen_beside_a_large_exponential(shop: Workshop) -> None:
    kernel = "precision_weighted.cometric"
    mixed = _candidate(shop, kernel, "'...,...ab->...ab'", "'...,...ab->ab'")
    judged = judge(Mutant("x", BATCH, "kernel", kernel, "", mixed.text), shop)
    assert judged.by == ["batch"]


def test_equal_over_the_rationals_may_lose_digits(shop: Workshop) -> None:
    """E[U Ū°] = E[U° Ū°], but not in float64."""
    kernel = "mixture_potential.metric_between"
    uncentred = [m for m in _of(shop, kernel) if m.fault == "uncentred moment"]
    judged = [judge(m, shop) for m in uncentred]
    once = [m for m in judged if m.equivalent]
    assert once
    assert all(m.loses_digits for m in once)
    assert all(m.killed for m in judged if not m.equivalent)


def test_what_does_not_run_is_not_counted(shop: Workshop) -> None:
    text = f"import torch\n\n\ndef {FEW[3].split('.')[1]}(q_d, q_db, w):\n    return q_d @ q_d\n"
    result = MutantResult([judge(Mutant("x", "sign", "kernel", FEW[3], "", text), shop)])
    assert not result.counted
    assert not result.mutants[0].runs
    assert not result.passed


def test_derived_and_printed_faults_are_killed(shop: Workshop) -> None:
    targets = [t for t in shop.targets if t.name in FEW]
    mutants = [m for t in targets for m in spread(list(derived_mutants(t, {})), 4)]
    true = [(t, t.kernel.derived()) for t in targets]
    heads = {t.derivation.name: shop.heads[t.derivation.name] for t in targets}
    for n in (1, 25, 28, 37):
        mutants += rule_mutants(RULES[n - 1], n, true, heads)
    judged = [judge(m, shop) for m in mutants]
    assert {m.place for m in judged} == {"derivation", "generator"}
    assert MutantResult(judged).passed


def test_a_mistyped_definition_agrees_with_its_kernel(shop: Workshop) -> None:
    """Factor 2 in the divergence: only claims and known answers stand outside the definition."""
    misprint = next(m for m in MISPRINTS if m.new.startswith("2 * adjoint"))
    mutant = misprint_mutant(1, misprint)
    judged = judge(mutant, shop)
    assert {"exact", "autograd", "float64"} <= set(judged.missed_by)
    assert "known answers" in judged.by
    assert "claims" in judged.by


def test_every_rule_still_stands_and_is_restored() -> None:
    for rule in RULES:
        function = inspect.unwrap(rule.function)
        before = function.__code__
        with edited(rule):
            assert function.__code__ is not before
        assert function.__code__ is before
    assert wirtinger.cache_info().currsize == 0


def test_every_misprint_still_stands() -> None:
    for misprint in MISPRINTS:
        text = source_of(misprint.file).read_text(encoding="utf-8")
        assert text.count(misprint.old) == 1, misprint
        assert misprint.old != misprint.new


def test_an_edit_whose_line_is_gone_is_an_error() -> None:
    rule = Rule("sign", solve, "no such line", "")
    with pytest.raises(EvidenceError, match="adapt the mutant"), edited(rule):
        pass
    with pytest.raises(EvidenceError, match="adapt the mutant"):
        misprinted(replace(MISPRINTS[0], old="no such line"))


def _alive() -> Judged:
    return Judged(
        id="kernel/x/sign/1",
        fault="sign",
        place="kernel",
        kernel="x.y",
        description="t0 → -t0",
        equivalent=False,
        loses_digits=False,
        runs=True,
        killed=False,
        by=[],
        missed_by=["exact"],
        seconds=0.1,
    )


def test_a_survivor_fails_the_run() -> None:
    alive = _alive()
    assert MutantResult([replace(alive, killed=True, by=["exact"], missed_by=[])]).passed
    assert MutantResult([alive]).survivors == [alive]
    assert not MutantResult([alive]).passed
    assert not MutantResult([]).passed
    console = Console(record=True, width=200)
    print_mutants(console, MutantResult([alive]))
    assert "alive: kernel/x/sign/1: t0 → -t0" in console.export_text()


@pytest.mark.thorough
def test_json(shop: Workshop, tmp_path: Path) -> None:
    result = run_mutants(mutants=spread(_of(shop, FEW[1]), 6), console=Console(quiet=True))
    assert result.passed
    write_mutants(result, tmp_path / "mutants.json")
    data = json.loads((tmp_path / "mutants.json").read_text(encoding="utf-8"))
    assert data["passed"] is True
    keys = {"id", "fault", "place", "kernel", "description"}
    keys |= {"equivalent", "killed", "by", "missed_by", "seconds"}
    for mutant in data["mutants"]:
        assert keys <= set(mutant)
        assert set(mutant["by"]) | set(mutant["missed_by"]) <= set(TESTS)
        assert mutant["fault"] in data["table"]
    whole = data["table"]["all"]
    assert whole["mutants"] == len(result.counted)
    assert sum(whole["killed first by"].values()) == whole["mutants"]


def test_sums_are_read_and_written() -> None:
    for code in ("a - b + 2 * c", "-a.conj() + b", "-a - b / 3"):
        assert sum_of(terms_of(code)) == code
    assert terms_of("a * b") == [("+", "a * b")]


def test_the_exact_einsum_sums_batches_as_torch_does() -> None:
    numbers = np.arange(12).reshape(3, 2, 2)
    expected = torch.einsum("...ab->ba", torch.tensor(numbers)).numpy()
    found = einsum("...ab->ba", array(numbers.astype(object)))
    assert found.tolist() == expected.tolist()
