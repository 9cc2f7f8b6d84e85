"""Several processes find what one finds, and their errors arrive."""

from dataclasses import replace
from functools import partial

import pytest

from kahler_verify.errors import EvidenceError
from kahler_verify.evidence.ledger.items import Judgement
from kahler_verify.evidence.ledger.proving import judge_shipped, prove
from kahler_verify.evidence.ledger.working import Work, cores, done

CLAIMS = ("S5-discrete", "C2-form", "O9", "P3")
PIECES: list[Work] = [partial(judge_shipped, "claim", name, "default") for name in CLAIMS]


def _results(processes: int) -> list[Judgement]:
    found = {place: result for place, result in done(PIECES, processes) if result is not None}
    every = [found[place] for place in range(len(PIECES))]
    return [replace(r, seconds=0.0) for r in every if isinstance(r, Judgement)]


def test_two_processes_find_what_one_finds() -> None:
    alone = _results(1)
    assert [r.id for r in alone] == list(CLAIMS)
    assert _results(2) == alone


def test_one_process_tells_what_it_begins_with() -> None:
    told = list(done(PIECES[:2]))
    assert [(place, result is None) for place, result in told] == [
        (0, True), (0, False), (1, True), (1, False),
    ]  # fmt: skip


@pytest.mark.thorough
def test_an_error_in_another_process_is_raised_here() -> None:
    wrong: Work = partial(prove, ["G99"])  # type: ignore[arg-type]
    with pytest.raises(EvidenceError, match="G99"):
        list(done([wrong, *PIECES], 2))


def test_there_is_a_core() -> None:
    assert cores() >= 1
