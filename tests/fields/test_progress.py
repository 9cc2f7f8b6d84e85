"""What is told of progress: lines where there is no terminal, with rate and remaining time."""

import re
from io import StringIO

import pytest
import typer
from rich.console import Console

from kahler_verify.cli import progress
from kahler_verify.cli.engine_options import STOPPED, end_if_stopped
from kahler_verify.fields import Progress, Summary


@pytest.mark.parametrize("terminal", [False, "dumb"])
def test_lines_have_rate_and_remaining_time(
    terminal: object, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The rate is that of this run, from its first chunk on; lines are ten seconds apart."""
    out, now = StringIO(), [0.0]
    monkeypatch.setattr(progress.time, "monotonic", lambda: now[0])
    environment = {"TERM": "dumb"} if terminal else {}
    console = Console(file=out, width=200, force_terminal=bool(terminal), _environ=environment)
    with progress.work_bar(console, "points") as tell:
        for moment, tasks in ((0, 5), (30, 6), (32, 7), (50, 8), (5000, 20)):
            now[0] = moment
            tell(Progress(tasks, 20, 100 * tasks, 2000, kept=500))
    assert out.getvalue().splitlines() == [
        "5 of 20 chunks, 500 of 2000 points",
        "6 of 20 chunks, 600 of 2000 points",
        "8 of 20 chunks, 800 of 2000 points, 10 points/s, 0:02:00 left",
        "20 of 20 chunks, 2000 of 2000 points, 0.282 points/s, 0:00:00 left",
    ]


def test_what_is_a_task_itself_is_counted_once() -> None:
    out = StringIO()
    with progress.work_bar(Console(file=out, width=200), "rows", "rows") as tell:
        tell(Progress(0, 8, 0, 8, 0))
    assert out.getvalue().splitlines() == ["0 of 8 rows"]


def test_a_terminal_has_a_bar() -> None:
    out = StringIO()
    console = Console(file=out, width=100, force_terminal=True, _environ={"TERM": "xterm"})
    with progress.work_bar(console, "points") as tell:
        tell(Progress(1, 4, 10, 40, 0))
        tell(Progress(2, 4, 20, 40, 0))
    said = re.sub(r"\x1b\[[0-9;?]*[A-Za-z]", "", out.getvalue())
    assert re.search(r"2/4 chunks, \S+ points/s 0:00:0", said)


def test_a_run_that_was_stopped_ends_as_by_a_signal() -> None:
    with pytest.raises(typer.Exit) as ended:
        end_if_stopped(Summary(3, 1, [0], stopped=True))
    assert ended.value.exit_code == STOPPED == 130
    end_if_stopped(Summary(3, 1, [0, 2], stopped=True))  # in time
    end_if_stopped(Summary(3, 1, [0]))
