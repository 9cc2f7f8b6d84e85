"""The engine dask, on clusters of real processes of which one is killed; and what it says."""

import os
import re
import signal
import subprocess
import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from kahler_verify.errors import FieldError, InputError
from kahler_verify.fields.engines import Array, Dask
from kahler_verify.fields.log import Log
from kahler_verify.fields.work import carry_out
from tests.fields.jobs import Squares
from tests.fields.test_work import ROOT, events, until


@contextmanager
def cluster(folder: Path, workers: int) -> Iterator[tuple[str, list[subprocess.Popen]]]:
    """The address of a scheduler, its process and its workers', which nannies restart."""
    where = {
        "cwd": ROOT,
        "stdout": subprocess.DEVNULL,
        "env": {**os.environ, "PYTHONPATH": str(ROOT)},
    }
    log = (folder / "scheduler.log").open("w")
    command = [sys.executable, "-m", "distributed.cli.dask_scheduler", "--port", "0"]
    scheduler = subprocess.Popen([*command, "--no-dashboard"], **where, stderr=log)
    started = [scheduler]
    try:

        def address() -> re.Match[str] | None:
            text = (folder / "scheduler.log").read_text()
            return re.search(r"Scheduler at:\s+(tcp://\S+)", text)

        until(lambda: address() is not None)
        found = address()
        assert found is not None
        for _ in range(workers):
            command = [sys.executable, "-m", "distributed.cli.dask_worker", found[1]]
            more = ["--nthreads", "1", "--no-dashboard", "--local-directory", str(folder)]
            more += ["--death-timeout", "5"]  # else they wait for a scheduler for ever
            started.append(subprocess.Popen([*command, *more], **where, stderr=subprocess.DEVNULL))
        yield found[1], started
    finally:
        for process in reversed(started):  # a scheduler last: workers would wait for it
            process.terminate()
            try:
                process.wait(10)
            except subprocess.TimeoutExpired:
                process.kill()
                process.wait()
        log.close()


def test_a_scheduler_that_cannot_be_reached(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("kahler_verify.fields.engines.dask.PATIENCE", 0.5)
    with pytest.raises(InputError, match=r"scheduler: cannot reach tcp://127.0.0.1:9 within 0.5 s"):
        Dask("tcp://127.0.0.1:9").require()


@pytest.mark.parametrize("address", ["nonsense", "x://h:1", "tcp://h:y", ""])
def test_what_is_no_address(address: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """No client is begun, which would wait for 20 s to close and print a traceback."""
    monkeypatch.setattr("distributed.Client", None)
    with pytest.raises(InputError, match=f"scheduler: cannot reach {address} within 10 s: "):
        Dask(address).require()


@pytest.mark.thorough
def test_a_worker_that_is_killed_costs_its_own_task_alone(tmp_path: Path) -> None:
    job = Squares(tmp_path / "a.zarr", seconds=0.3).create()

    def kill() -> None:
        until(lambda: len(job.notes("began")) > 3)
        os.kill(job.notes("began")[-1][1], signal.SIGKILL)

    killer = threading.Thread(target=kill)
    killer.start()
    with cluster(tmp_path, 2) as (address, _):
        summary = carry_out(job, Dask(address), Log(job.path))
    killer.join()
    assert sorted(summary.done) == list(range(12))
    assert set(job.times("ended").values()) == {1}
    assert sum(job.times("began").values()) == 13
    assert job.is_right()


@pytest.mark.thorough
def test_a_scheduler_that_is_killed_loses_nothing_finished(tmp_path: Path) -> None:
    job = Squares(tmp_path / "a.zarr", seconds=0.5).create()
    with cluster(tmp_path, 2) as (address, (scheduler, *workers)):
        killer = threading.Thread(
            target=lambda: (until(lambda: len(job.notes("ended")) > 3), scheduler.kill())
        )
        killer.start()
        with pytest.raises(FieldError, match="was lost; what is done is kept"):
            carry_out(job, Dask(address), Log(job.path))
        killer.join()
        until(lambda: all(worker.poll() is not None for worker in workers))  # by themselves
    ended = job.times("ended")
    assert 3 < len(ended) < 12
    summary = carry_out(job, Array(), Log(job.path))
    assert summary.kept == len(ended)
    assert set(job.times("ended").values()) == {1}
    assert job.is_right()


@pytest.mark.thorough
def test_a_task_that_ends_its_workers_does_not_end_the_others(tmp_path: Path) -> None:
    job = Squares(tmp_path / "a.zarr", points=4000, fatal=1).create()
    with (
        cluster(tmp_path, 1) as (address, _),
        pytest.raises(FieldError, match=r"1 of 4 tasks .* 1: its worker died, 3 times; 3 are done"),
    ):
        carry_out(job, Dask(address), Log(job.path))
    assert len(events(job, "died")) == 2


@pytest.mark.thorough
def test_processes_here_are_a_cluster_too(tmp_path: Path) -> None:
    job = Squares(tmp_path / "a.zarr").create()
    assert sorted(carry_out(job, Dask(workers=2), Log(job.path)).done) == list(range(12))
    assert job.is_right()
