"""Several processes find what one finds, and their errors arrive."""

import os
import signal
import subprocess
import sys
from contextlib import suppress
from dataclasses import replace
from functools import partial
from pathlib import Path

import pytest

from kahler_verify.errors import EvidenceError
from kahler_verify.evidence.ledger.items import Judgement
from kahler_verify.evidence.ledger.proving import judge_shipped, prove
from kahler_verify.evidence.working import Work, done
from kahler_verify.processes import cores

CLAIMS = ("S5-discrete", "C2-form", "O9", "P3")
PIECES: list[Work] = [partial(judge_shipped, "claim", name, "default") for name in CLAIMS]


def _results(processes: int) -> list[Judgement]:
    found = {place: result for place, result in done(PIECES, processes) if result is not None}
    every = [found[place] for place in range(len(PIECES))]
    return [replace(r, seconds=0.0) for r in every if isinstance(r, Judgement)]


@pytest.mark.thorough
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


WAITING = """
import sys, time
from functools import partial
from kahler_verify.evidence.working import done

if __name__ == "__main__":
    list(done([partial(print, "begun", flush=True), *[partial(time.sleep, 600)] * 2], 2))
"""


@pytest.mark.skipif(sys.platform == "win32", reason="signals and sessions of POSIX")
@pytest.mark.parametrize("how", [signal.SIGKILL, signal.SIGTERM])
@pytest.mark.thorough
def test_no_process_is_left_behind(how: signal.Signals, tmp_path: Path) -> None:
    script = tmp_path / "waiting.py"
    script.write_text(WAITING)
    main = subprocess.Popen(
        [sys.executable, str(script)], stdout=subprocess.PIPE, text=True, start_new_session=True
    )
    assert main.stdout is not None
    assert main.stdout.readline() == "begun\n"  # the workers are there
    try:
        main.send_signal(how)
        # what they write ends when every process that may write has ended
        assert main.communicate(timeout=30) == ("", None)
    finally:
        with suppress(ProcessLookupError):
            os.killpg(main.pid, signal.SIGKILL)


def test_there_is_a_core() -> None:
    assert cores() >= 1
