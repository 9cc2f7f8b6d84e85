"""What runs is what is proved: variants against plain kernels, plans, kernels behind methods."""

import json
from typing import Literal

import pytest
import torch
from rich.console import Console

from kahler_verify.errors import EvidenceError
from kahler_verify.evidence import methods
from kahler_verify.evidence.laws.variants import decoders, groups
from kahler_verify.evidence.laws.variants.compared import beside, numbers
from kahler_verify.evidence.laws.variants.decoders import plans_chosen
from kahler_verify.evidence.laws.variants.groups import GROUPS, compared
from kahler_verify.evidence.laws.variants.mixtures import mixture_metric
from kahler_verify.evidence.ledger.items import Ledger
from kahler_verify.evidence.ledger.kernels import method_items, variant_items
from kahler_verify.evidence.ledger.writing import write_ledger
from kahler_verify.evidence.listing import behind, print_ledger
from kahler_verify.evidence.methods import Behind, kernels_run
from kahler_verify.evidence.mutants.geometry_faults import GEOMETRY_RULES, first_difference
from kahler_verify.evidence.mutants.rules import Rule, edited
from kahler_verify.evidence.mutants.running import judged_geometry
from kahler_verify.geometry import (
    FisherRaoMetric,
    HermitianMetric,
    MixtureMetric,
    PotentialMetric,
    layouts,
)
from kahler_verify.geometry.fisher import FisherMetric, Plan

Wider = Literal["full", "reduced", "gram", "sketched"]
RULES = [(group, rule) for group, rules in GEOMETRY_RULES.items() for rule in rules]


@pytest.mark.sampled(3)
@pytest.mark.parametrize("group", GROUPS)
def test_variants_are_their_kernels_to_twelve_digits(group: str) -> None:
    found = compared(group)
    assert len(found) > 90
    assert [c for c in found if not c.passed] == []


def test_every_kind_of_plan_is_compared(monkeypatch: pytest.MonkeyPatch) -> None:
    means = {mean for _, mean, _ in plans_chosen()}
    assert means == {"full", "reduced", "gram"}

    class Longer(Plan):
        mean: Wider

    monkeypatch.setattr(decoders, "Plan", Longer)
    with pytest.raises(EvidenceError, match="sketched"):
        plans_chosen()


@pytest.mark.parametrize("count", [3, 80])
@pytest.mark.parametrize("budget", [2**29, 100_000])
def test_default_mixtures_never_leave_their_layouts(
    monkeypatch: pytest.MonkeyPatch, count: int, budget: int
) -> None:
    """Every product of the kernels on the hot path is one that layouts know."""

    def refuse(x: object) -> None:
        raise AssertionError(f"{type(x).__name__} was turned into a plain tensor")

    monkeypatch.setattr(layouts, "_plain", refuse)
    metric = mixture_metric(count, 3, "potential", False, budget)
    assert bool(torch.isfinite(metric.log_volume(numbers(5, 3))).all())


@pytest.mark.sampled(8)
@pytest.mark.parametrize(("group", "rule"), RULES[::7])
def test_faults_in_geometry_are_noticed(group: str, rule: Rule) -> None:
    """A seventh of them; ``mutate`` plants all."""
    noticed = first_difference(group, rule)
    assert noticed.by
    assert judged_geometry(1, noticed).killed


def test_there_are_enough_faults_and_each_edits_a_line_that_is_there() -> None:
    assert len(RULES) >= 90
    for _, rule in RULES:
        with edited(rule):
            pass
    assert len({(rule.function, rule.old, rule.new) for _, rule in RULES}) == len(RULES)
    missing = Rule("sign", layouts.Gram.added_to, "no such line", "")
    with pytest.raises(EvidenceError, match="adapt the mutant"):
        first_difference("mixtures", missing)


def test_observed_kernels_are_those_that_a_call_runs() -> None:
    z = 0.1 * numbers(2, 3)
    metric = PotentialMetric("fubini_study")
    assert kernels_run(lambda: metric.metric_matrix(z)) == {"fubini_study.metric"}
    found = kernels_run(lambda: metric.ricci_tensor(z))
    assert {"hermitian_geometry.chern_ricci", "fubini_study.metric_db"} <= found
    assert kernels_run(lambda: z @ z.mT) == set()


@pytest.mark.thorough
def test_a_method_without_a_kernel_fails(monkeypatch: pytest.MonkeyPatch) -> None:
    by_hand = lambda self, z: torch.eye(z.shape[-1]).expand(*z.shape, -1)  # noqa: E731
    monkeypatch.setattr(MixtureMetric, "metric_matrix", by_hand)
    monkeypatch.setattr(methods, "_decoders", lambda: iter(()))
    rows = {(row.metric, row.method): row for row in methods.behind_methods()}
    assert not rows["MixtureMetric", "metric_matrix"].passed
    assert rows["MixtureMetric", "log_volume"].passed
    assert not rows["FisherMetric", "metric_matrix"].passed  # watched at no call


def test_every_public_method_is_watched() -> None:
    for kind in (FisherMetric, FisherRaoMetric, PotentialMetric, MixtureMetric):
        names = {n for n in dir(kind) if not n.startswith("_")}
        elsewhere = set(methods.WITHOUT_NUMBERS) | {"on_real_latents"}
        if kind is FisherMetric:  # of real latents, watched as FisherRaoMetric's
            elsewhere |= set(methods._public(FisherRaoMetric)) - set(dir(HermitianMetric))
        assert names == set(methods._public(kind)) | (names & elsewhere)


def test_the_table_of_methods(monkeypatch: pytest.MonkeyPatch, tmp_path, capsys) -> None:
    rows = [
        Behind("MixtureMetric", "value", {"a.value", "b.value"}, 1),
        Behind("MixtureMetric", "other", {"a.value", "b.value"}, 1),
        Behind("MixtureMetric", "by_hand", set(), 2, ["full"]),
    ]
    monkeypatch.setattr(methods, "behind_methods", lambda: rows)
    items = method_items()
    assert behind(items)[0] == ("MixtureMetric", ["value", "other"], "a, b: value")
    whole = Ledger([], items)
    assert not whole.passed
    print_ledger(Console(width=100), whole)
    assert "no kernel runs: full" in capsys.readouterr().out
    write_ledger(whole, tmp_path / "ledger.json")
    data = json.loads((tmp_path / "ledger.json").read_text())
    assert [m["data"]["kernels"] for m in data["methods"]] == [["a.value", "b.value"]] * 2 + [[]]
    assert data["kernels"] == []


def test_the_line_of_a_group(monkeypatch: pytest.MonkeyPatch) -> None:
    lines = {"good": lambda: iter([beside("x", 1e-15)]),
             "bad": lambda: iter([beside("y", float("nan"))])}  # fmt: skip
    monkeypatch.setattr(groups, "GROUPS", lines)
    good, bad = variant_items()
    assert good.passed
    assert "1.0e-15" in good.outcome
    assert not bad.passed
    assert "y by nan" in bad.outcome


@pytest.mark.thorough  # `prove` does it too
def test_every_public_method_runs_kernels_or_says_why_not() -> None:
    assert [row.method for row in methods.behind_methods() if not row.passed] == []
