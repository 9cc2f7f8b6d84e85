"""Measured claims say what their results say, and nothing that these contradict."""

import json
from collections.abc import Callable
from io import StringIO
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from rich.console import Console
from scipy.stats import ttest_rel

from kahler_verify.calculus import Claim, Derivation
from kahler_verify.calculus.claims import Comparison, Measured, Speed
from kahler_verify.codegen.registry import shipped
from kahler_verify.errors import EvidenceError
from kahler_verify.evidence.ledger import measurements
from kahler_verify.evidence.ledger.cache import Cache
from kahler_verify.evidence.ledger.claims import judge
from kahler_verify.evidence.ledger.items import Ledger
from kahler_verify.evidence.ledger.proving import prove
from kahler_verify.evidence.ledger.writing import write_evidence
from kahler_verify.evidence.listing import print_ledger

Json = dict[str, Any]
EMPTY = Derivation("empty", "nothing", (), None)  # type: ignore[arg-type]
SPEED = Speed(results="speed.json", command="time it", defining=("by definition",))
TRIAL = Comparison(
    results="trial.json",
    command="try it",
    cell="main",
    baseline="plain",
    arms=(("warm", "warmth"),),
    measures=(("size", "smaller"),),
    references=(("cold", "coldness"),),
)


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Where results are looked for."""
    monkeypatch.setattr(measurements, "results_folders", lambda: (tmp_path,))
    return tmp_path


def row(rival: str, ours: float, theirs: float) -> Json:
    return {
        "quantity": "metric", "rival": rival, "ratio": theirs / ours, "ours_seconds": ours,
        "rival_seconds": theirs, "agrees": True, "error": None,
    }  # fmt: skip


def speed_report() -> Json:
    failed = {"quantity": "metric", "rival": "by definition, odd", "ratio": None, "error": "wrong"}
    return {
        "results": [
            row("by definition", 1.0, 4.0),
            row("by definition, compiled", 2.0, 20.0),
            row("by hand", 2.0, 1.0),
            failed,
        ],
        "growth": [
            {"quantity": "metric", "in": "d", "values": [1, 2], "exponent": 1.5,
             "count_exponent": 2.0}
        ],
        "memory": {"sizes": {"d": 3, "family": "f"}, "peak_mib": 70.4, "answer_mib": 20.0},
        "machine": {"processor": "abacus", "threads": 1, "torch": "9", "quick": False},
    }  # fmt: skip


def trial_report(seeds: int = 6) -> Json:
    random = np.random.default_rng(0)
    plain = random.normal(size=seeds)
    values = {
        "plain": {"size": list(plain)},
        "warm": {"size": list(plain - 1 + 0.1 * random.normal(size=seeds))},
        "cold": {"size": list(plain + 0.01 + 0.5 * (-1.0) ** np.arange(seeds))},
    }
    tests = {a: ttest_rel(values[a]["size"], values["plain"]["size"]) for a in ("warm", "cold")}
    p = {arm: float(test.pvalue) for arm, test in tests.items()}
    assert p["warm"] < p["cold"]
    adjusted = {"warm": min(1.0, 2 * p["warm"])}
    adjusted["cold"] = max(adjusted["warm"], p["cold"])
    differences = []
    for arm, test in tests.items():
        interval = test.confidence_interval(0.95)
        difference = np.mean(values[arm]["size"]) - np.mean(values["plain"]["size"])
        differences.append(
            {"arm": arm, "against": "plain", "measure": "size", "difference": float(difference),
             "low": float(interval.low), "high": float(interval.high), "p": p[arm],
             "p_holm": adjusted[arm], "seeds": seeds}
        )  # fmt: skip
    cell = {"title": "the greenhouse", "values": values, "differences": differences}
    return {"cells": {"main": cell}, "declaration": {"level": 0.05}}


REPORTS: dict[str, tuple[Measured, Callable[[], Json]]] = {
    "speed": (SPEED, speed_report),
    "trial": (TRIAL, trial_report),
}


def put(folder: Path, name: str, change: Callable[[Json], Any] = lambda report: None) -> Measured:
    """Write a report with a change; the claim's part that reads it."""
    part, make = REPORTS[name]
    report = make()
    change(report)
    (folder / part.results).write_text(json.dumps(report))
    return part


def judged(part: Measured) -> Any:
    return judge(Claim("X", "it is so", "test", measured=part), EMPTY)


def shown(part: Measured) -> str:
    console = Console(width=300, file=StringIO(), record=True)
    print_ledger(console, Ledger([judged(part)], []))
    return console.export_text()


def test_times_growth_and_memory_are_those_of_the_file(folder: Path) -> None:
    part = put(folder, "speed")
    assert judged(part).verdict == "measured"
    text = shown(part)
    for expected in (
        "autograd of the definition over ours, metric: 4 to 10 times, median 7; ours is faster",
        "every rival, hand-written ones too, over ours: 0.5 to 10 times, median 4; ours is faster",
        "growth of our time with d, metric: d^1.50, where the operation count says d^2.00",
        "memory at d = 3: 70 MiB at its peak, of which the answer takes 20 MiB",
        "abacus, 1 thread, torch 9, full grid",
        "to measure again, in a checkout: time it",
        "1 measured",
    ):
        assert expected in text


def test_names_of_claims_are_not_cut_off(folder: Path) -> None:
    claim = Claim("a-claim-of-a-long-name", "it is so", "test", measured=put(folder, "speed"))
    for width in (80, 40):
        console = Console(width=width, file=StringIO(), record=True)
        print_ledger(console, Ledger([judge(claim, EMPTY)], []))
        text = console.export_text()
        assert "…" not in text
        column = "".join(line.split("│")[1].strip() for line in text.splitlines() if "│" in line)
        assert column == claim.id


def test_what_was_not_measured_is_said(folder: Path) -> None:
    part = put(folder, "speed", lambda report: report.update(memory=None))
    assert "memory: not measured in this run" in shown(part)


def test_differences_are_computed_again(folder: Path) -> None:
    part = put(folder, "trial")
    text = shown(part)
    assert "found: smaller in 1 of 1 arms" in text
    assert "measured on: the greenhouse" in text
    assert "smaller? size of warmth minus plain: lower, -" in text
    assert "smaller? size of coldness minus plain: no clear change" in text
    assert "6 seeds, adjusted p = " in text
    report = trial_report()
    first = judged(part).evidence[1].data
    for name, value in report["cells"]["main"]["differences"][0].items():
        if isinstance(value, float):
            assert first[name] == pytest.approx(value)
    assert first["baseline_mean"] == pytest.approx(
        np.mean(report["cells"]["main"]["values"]["plain"]["size"])
    )


def test_a_seed_that_failed_is_left_out_of_its_pairs(folder: Path) -> None:
    def fail(report: Json) -> None:
        cell = report["cells"]["main"]
        for arm in ("warm", "cold"):
            cell["values"][arm]["size"][1:] = [None] * 5
        for found in cell["differences"]:
            values = [cell["values"][arm]["size"][0] for arm in (found["arm"], "plain")]
            found.update(difference=values[0] - values[1], low=None, high=None, p=None, seeds=1)
            del found["p_holm"]

    text = shown(put(folder, "trial", fail))
    assert "not known from 1 seeds" in text
    assert "smaller in 0 of 1 arms" in text


def _set(*path: Any, to: Any) -> Callable[[Json], None]:
    def change(report: Json) -> None:
        for key in path[:-1]:
            report = report[key]
        report[path[-1]] = to

    return change


DIFFERENCE = ("cells", "main", "differences", 0)


@pytest.mark.parametrize(
    ("name", "change", "message"),
    [
        ("speed", _set("results", 0, "ratio", to=9.0), r"results\[0\].ratio to be 4.*got 9"),
        ("speed", _set("results", 1, "rival_seconds", to=30.0), r"results\[1\].ratio to be 15"),
        ("speed", _set("results", 0, "agrees", to=False), r"results\[0\] to agree with ours"),
        ("speed", _set("results", 0, to={}), "speed.json: .*malformed .KeyError: 'ratio'"),
        ("speed", _set("results", 0, "ratio", to="fast"), r"ratio to be 4.*got fast"),
        ("speed", _set("machine", to=None), "malformed .TypeError"),
        ("speed", _set("results", to=[]), "malformed"),
        ("trial", _set(*DIFFERENCE, "difference", to=-5.0), "difference of warm / plain / size"),
        ("trial", _set(*DIFFERENCE, "low", to=-5.0), "low of warm / plain / size to be"),
        ("trial", _set(*DIFFERENCE, "p_holm", to=0.9), "p_holm of warm / plain / size to be"),
        ("trial", _set(*DIFFERENCE, "seeds", to=60), "seeds of warm / plain / size to be 6"),
        ("trial", _set(*DIFFERENCE, "low", to=None), "low of warm / plain / size"),
        ("trial", _set("cells", "main", "values", "warm", "size", 0, to=4.0), "difference of warm"),
        ("trial", _set("cells", "main", "values", "warm", "size", to=[1.0]), "malformed"),
        ("trial", _set("cells", to={}), "malformed .KeyError: 'main'"),
        ("trial", _set("cells", "main", "differences", to=[]), "malformed .KeyError"),
        ("trial", _set("declaration", "level", to=2), "declaration.level between 0 and 1, got 2"),
    ],
)
def test_files_that_contradict_themselves_are_refused(
    name: str, change: Callable[[Json], None], message: str, folder: Path
) -> None:
    part = put(folder, name, change)
    with pytest.raises(EvidenceError, match=message):
        judged(part)


@pytest.mark.parametrize("text", ["", "{", "[]", "3", "null", '{"results": 1}'])
def test_files_that_are_not_reports_are_refused(text: str, folder: Path) -> None:
    for part, _ in REPORTS.values():
        (folder / part.results).write_text(text)
        with pytest.raises(EvidenceError, match=rf"{part.results}: expected"):
            judged(part)


def test_without_results_a_claim_is_open_with_its_command(folder: Path) -> None:
    judgement = judged(TRIAL)
    assert judgement.verdict == "open"
    assert judgement.evidence == []
    assert "to measure it, in a checkout: try it" in shown(TRIAL)


def test_the_cache_notices_new_results(folder: Path) -> None:
    empty = Cache("default", []).folder
    put(folder, "trial")
    one = Cache("default", []).folder
    put(folder, "trial", _set("declaration", "level", to=0.1))
    assert len({empty, one, Cache("default", []).folder}) == 3


def test_shipped_measured_claims_read_what_is_committed(tmp_path: Path) -> None:
    claims = {c.id: c.measured for d in shipped().values() for c in d.claims if c.measured}
    assert set(claims) >= {"G7", "G8"}
    for claim_id, part in claims.items():
        assert part is not None
        there = measurements.results_path(part.results) is not None
        (judgement,) = prove([claim_id], use_cache=False).claims
        assert judgement.verdict == ("measured" if there else "open")
        assert judgement.command == part.command
    assert measurements.results_path("cpu.json") is not None
    # nothing there that the re-checker could evaluate: to measure again is to run the command
    assert write_evidence(prove(["G7"], use_cache=False), tmp_path / "evidence.json") == 0
