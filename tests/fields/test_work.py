"""What is done is never lost or done twice, whoever is killed: with real processes and stores."""

import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import NamedTuple
from unittest.mock import ANY

import numpy as np
import pytest

from kahler_verify.errors import FieldError, InputError
from kahler_verify.fields.engines import Array, Processes, engine
from kahler_verify.fields.log import Log, logged
from kahler_verify.fields.stores import chunk_file, opened, require_store, write_block
from kahler_verify.fields.work import (
    ATTEMPTS,
    DEATHS,
    Done,
    Engine,
    Job,
    Outcome,
    Progress,
    State,
    Summary,
    Waiting,
    carry_out,
    perform,
)
from tests.fields.jobs import CHUNK, EVERY, Squares

ROOT = Path(__file__).resolve().parents[2]


def work(job: Squares, who: Engine) -> Summary:
    return carry_out(job, who, Log(job.path))


def program(path: Path, *arguments: object) -> subprocess.Popen:
    return subprocess.Popen(
        [sys.executable, "-m", "tests.fields.runner", str(path), *map(str, arguments)],
        cwd=ROOT,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
    )


def until(condition: Callable[[], bool], seconds: float = 60) -> None:
    limit = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < limit
        time.sleep(0.02)


def is_alive(pid: int) -> bool:
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    state = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0]
    return state != "Z"


def events(job: Squares, name: str) -> list[int]:
    return [line["task"] for line in logged(job.path) if line["event"] == name]


def test_all_is_done_once_and_a_second_run_does_nothing(tmp_path: Path) -> None:
    job = Squares(tmp_path / "a.zarr").create()
    told = []
    summary = carry_out(job, Array(), Log(job.path), progress=told.append)
    assert summary.done == list(range(12))
    assert [now.tasks for now in told] == list(range(13))
    assert told[-1].amount == told[-1].total == 12000
    assert job.is_right()
    told.clear()
    again = carry_out(job, Array(), Log(job.path), progress=told.append)
    assert (again.kept, again.done) == (12, [])
    assert told == [Progress(12, 12, 12000, 12000, 12000)]
    assert set(job.times("began").values()) == {1}


class Late(NamedTuple):
    """Another does the task, and removes this one's draft, while it is at it."""

    job: Squares

    def state(self, task: int) -> State:
        return self.job.state(task)

    def run(self, task: int, attempt: int) -> Done:
        self.job.run(task, attempt)
        raise FileNotFoundError(2, "No such file", "a.partial")


def test_what_another_has_done_meanwhile_is_kept(tmp_path: Path) -> None:
    job = Squares(tmp_path / "a.zarr").create()
    assert perform(Late(job), 3, 0).kept
    assert perform(job, 3, 0).kept
    assert perform(job, 4, 0) == Outcome(4, seconds=ANY)
    assert job.times("began") == {3: 1, 4: 1}


def test_two_at_one_time_do_each_other_no_harm(tmp_path: Path) -> None:
    path = tmp_path / "a.zarr"
    both = [program(path, 0, 0.02) for _ in range(2)]
    said = [each.communicate()[0] for each in both]
    assert [each.returncode for each in both] == [0, 0], said
    assert Squares(path).is_right()
    assert list(path.rglob("*.partial")) == []


def test_a_worker_that_is_killed_costs_its_own_task_alone(tmp_path: Path) -> None:
    job = Squares(tmp_path / "a.zarr", seconds=0.3).create()

    def kill() -> None:
        until(lambda: len(job.notes("began")) > 3)
        os.kill(job.notes("began")[-1][1], signal.SIGKILL)

    killer = threading.Thread(target=kill)
    killer.start()
    summary = work(job, Processes(2))
    killer.join()
    assert sorted(summary.done) == list(range(12))
    assert job.is_right()
    (died,) = events(job, "died")
    assert job.times("began") == dict.fromkeys(range(12), 1) | {died: 2}
    assert job.times("ended") == dict.fromkeys(range(12), 1)
    assert sorted(events(job, "done")) == list(range(12))


def test_after_everything_is_killed_the_rest_is_done(tmp_path: Path) -> None:
    path = tmp_path / "a.zarr"
    job = Squares(path)
    first = program(path, 2, 0.4)
    until(lambda: len(job.notes("ended")) >= 3)
    first.kill()
    first.wait()
    until(lambda: not any(is_alive(pid) for _, pid in job.notes("began")), 10)
    there = {task for task in range(12) if chunk_file(path, job.variable, task).exists()}
    assert set(job.times("ended")) <= there
    begun = job.times("began")
    summary = work(job, Array())
    assert summary.kept == len(there)
    assert set(summary.done) == set(range(12)) - there
    assert all(job.times("began")[task] == begun[task] == 1 for task in there)
    assert job.is_right()


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_ctrl_c_finishes_what_is_in_work(tmp_path: Path, number: int) -> None:
    """A terminal sends its signal to the workers too."""
    path = tmp_path / "a.zarr"
    job = Squares(path)
    first = program(path, 1, 0.2)
    until(lambda: len(job.notes("ended")) >= 2)
    until(lambda: len(job.notes("began")) > len(job.notes("ended")))
    first.send_signal(number)
    if number == signal.SIGINT:
        os.kill(job.notes("began")[-1][1], number)
    said, _ = first.communicate(timeout=60)
    assert first.returncode == 0
    assert "stopping: tasks in work are finished" in said
    assert f"done {len(job.notes('ended'))} kept 0 stopped True" in said
    assert job.times("began") == job.times("ended")
    assert 2 < len(job.notes("ended")) < 12
    work(job, Array())
    assert set(job.times("began").values()) == {1}
    assert job.is_right()


def test_a_second_ctrl_c_drops_it(tmp_path: Path) -> None:
    path = tmp_path / "a.zarr"
    job = Squares(path)
    first = program(path, 1, 60)
    until(lambda: len(job.notes("began")) == 1)
    for _ in range(2):
        first.send_signal(signal.SIGINT)
        time.sleep(0.3)
    first.communicate(timeout=10)
    assert first.returncode != 0
    until(lambda: not is_alive(job.notes("began")[0][1]), 10)
    assert not chunk_file(path, job.variable, 0).exists()


@pytest.mark.parametrize("damage", ["a bit", "the end", "everything"])
def test_a_damaged_chunk_is_done_again(tmp_path: Path, damage: str) -> None:
    job = Squares(tmp_path / "a.zarr").create()
    work(job, Array())
    place = chunk_file(job.path, job.variable, 7)
    content = bytearray(place.read_bytes())
    content[4321] ^= 1
    place.write_bytes({"a bit": content, "the end": content[:99], "everything": b""}[damage])
    said = []
    summary = carry_out(job, Array(), Log(job.path, said.append))
    assert (summary.done, summary.kept) == ([7], 11)
    assert said == ["task 7: its chunk was damaged; it is done again"]
    assert events(job, "damaged") == [7]
    assert job.is_right()


def test_a_task_that_ends_its_workers_does_not_end_the_others(tmp_path: Path) -> None:
    job = Squares(tmp_path / "a.zarr", points=4000, fatal=1).create()
    with pytest.raises(
        FieldError, match=r"1 of 4 tasks .* 1: its worker died, 3 times; 3 are done"
    ):
        work(job, Processes(1))
    assert job.times("began") == {0: 1, 1: ATTEMPTS, 2: 1, 3: 1}


def test_workers_that_all_die_end_the_work(tmp_path: Path) -> None:
    """As they do in a script without the guard, however many tasks there are."""
    job = Squares(tmp_path / "a.zarr", points=40_000, fatal=EVERY).create()
    with pytest.raises(FieldError, match=r"workers died one after another.*__main__"):
        work(job, Processes(2))
    assert sum(job.times("began").values()) <= DEATHS + 2 + 2


class Frail(Engine):
    """A worker dies of each task once, after which the task is done."""

    name = "frail"

    def run(self, job: Job, waiting: Waiting) -> Iterator[Outcome]:
        while waiting:
            task, attempt = waiting.popleft()
            if attempt:
                yield perform(job, task, attempt)
            else:
                yield Outcome(task, attempt, died=True)
                waiting.appendleft(waiting.pop())  # which was put back


@pytest.mark.thorough
def test_a_script_without_a_guard_is_told_so(tmp_path: Path) -> None:
    """Its processes would begin it again, and so on: it was an error of many pages, three times."""
    script = tmp_path / "script.py"
    script.write_text(
        "import torch\nfrom kahler_verify import fields\n"
        "from kahler_verify.geometry import PulledBackMetric\n"
        "source = fields.of_metric(PulledBackMetric(torch.nn.Linear(2, 3).double()), 2)\n"
        "draws = lambda chunk: fields.prior(source.space, 10, seed=0, chunk=chunk)\n"
        "plan = fields.plan_for(source, 'det', draws)\n"
        f"fields.compute(source, plan, {str(tmp_path / 'f.zarr')!r}, engine=fields.Processes(1))\n"
    )
    done = subprocess.run([sys.executable, script], capture_output=True, text=True, check=False)
    assert done.returncode == 1
    assert "InputError: engine: a new process ended before it began" in done.stderr
    assert 'under `if __name__ == "__main__":`' in done.stderr.splitlines()[-1]
    assert done.stderr.count("Traceback") == 2


def test_deaths_count_one_after_another(tmp_path: Path) -> None:
    job = Squares(tmp_path / "a.zarr").create()
    assert work(job, Frail()).done == list(range(12))


def test_a_task_that_fails_is_named(tmp_path: Path) -> None:
    job = Squares(tmp_path / "a.zarr", points=4000, raises=2).create()
    with pytest.raises(
        FieldError, match=r"1 of 4 .* 2: ValueError: of this task's own; 3 are done"
    ):
        work(job, Array())
    assert work(job._replace(raises=-1), Array()).done == [2]


def test_a_full_disk_ends_the_work_and_leaves_no_half_chunk(tmp_path: Path) -> None:
    path = tmp_path / "a.zarr"
    job = Squares(path)
    said, _ = program(path, 0, 0, 5000).communicate()  # less than a chunk
    assert "1 of 12 tasks could not be finished" in said
    assert "File too large" in said
    assert [p for p in path.rglob("*") if "partial" in p.name or p.parent.name == "c"] == []
    assert work(job, Array()).done == list(range(12))


@pytest.mark.skipif(not hasattr(os, "geteuid") or os.geteuid() != 0, reason="mounts a disk")
def test_a_disk_that_runs_full_in_the_middle(tmp_path: Path) -> None:
    disk = tmp_path / "disk"
    disk.mkdir()
    mount = ["mount", "-t", "tmpfs", "-o", "size=72k", "tmpfs", str(disk)]
    if subprocess.run(mount, check=False, capture_output=True).returncode:
        pytest.skip("cannot mount a disk here")
    try:
        job = Squares(disk / "a.zarr").create()
        with pytest.raises(FieldError, match="No space left on device"):
            work(job, Array())
        done = list(job.times("ended"))
        assert 0 < len(done) < 12
        subprocess.run(["mount", "-o", "remount,size=4m", str(disk)], check=True)
        summary = work(job, Array())
        assert (summary.kept, len(summary.done)) == (len(done), 12 - len(done))
        assert set(job.times("ended").values()) == {1}
        assert job.is_right()
        subprocess.run(["mount", "-o", "remount,ro", str(disk)], check=True)
        assert work(job, Array()).kept == 12  # there is nothing to be written
        with pytest.raises(InputError, match=r"out: cannot write .*: Read-only file system"):
            Squares(disk / "b.zarr").create()
    finally:
        subprocess.run(["umount", str(disk)], check=True)


def test_a_store_that_vanishes_is_not_made_again(tmp_path: Path) -> None:
    class Vanishing(Squares):
        def run(self, task: int, attempt: int) -> Done:
            if task == 3:
                self.path.rename(tmp_path / "gone")
            return super().run(task, attempt)

    job = Vanishing(tmp_path / "a.zarr").create()
    with pytest.raises(FieldError, match="the store has vanished"):
        work(job, Array())
    assert job.times("ended").keys() == {0, 1, 2}
    assert not job.path.exists()


def test_a_store_that_vanishes_while_it_is_written_is_not_made_again(tmp_path: Path) -> None:
    job = Squares(tmp_path / "a.zarr").create()
    array = opened(job.path)["square"]

    class Vanishing:
        def __getitem__(self, name: str) -> object:
            job.path.rename(tmp_path / "gone")
            return array

    with pytest.raises(FileNotFoundError, match="the store has vanished"):
        write_block(job.path, Vanishing(), job.variable, 0, np.zeros(CHUNK))  # type: ignore[arg-type]
    assert not job.path.exists()


def test_jobs_of_an_array_share_a_store(tmp_path: Path) -> None:
    job = Squares(tmp_path / "a.zarr").create()
    assert work(job, Array(1, 5)).done == [1, 6, 11]
    for part in range(5):
        work(job, engine("array", task=f"{part}/5"))
    assert set(job.times("began").values()) == {1}
    assert job.is_right()


def test_the_store_of_whoever_is_quicker_stays(tmp_path: Path) -> None:
    job = Squares(tmp_path / "a.zarr").create()
    work(job, Array())
    assert require_store(job.path, {"points": job.points}, [job.variable], {}, {})
    assert job.is_right()
    with pytest.raises(InputError, match=r"out: .* holds another field: points 12000, not 9"):
        require_store(job.path, {"points": 9}, [job.variable], {}, {})


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"name": "ray"}, "engine: expected one of processes, dask, array, got 'ray'"),
        ({"workers": 0}, "workers: expected at least 1, got 0"),
        ({"scheduler": "tcp://x:1"}, "scheduler: expected --engine dask"),
        ({"task": "0/2"}, "task: expected --engine array"),
        ({"name": "array"}, "task: expected --task I/N with --engine array, got none"),
        ({"name": "array", "task": "2/2"}, "task: expected I/N with 0 ≤ I < N, got 2/2"),
        ({"name": "array", "task": "a"}, "task: expected I/N with 0 ≤ I < N, got 'a'"),
        ({"name": "array", "task": "0/2", "workers": 2}, "workers: expected none with"),
        ({"name": "dask", "scheduler": "x", "workers": 2}, "workers: expected none with"),
    ],
)
def test_bad_engines(arguments: dict, message: str) -> None:
    with pytest.raises(InputError, match=message):
        engine(**arguments)
