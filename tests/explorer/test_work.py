"""Many requests never pile up: one of a kind runs, one waits, and a cancelled one ends."""

import time
from threading import Event

from kahler_verify.explorer.work import Cancelled, Desk, Job


def until(condition) -> bool:
    for _ in range(200):
        if condition():
            return True
        time.sleep(0.01)
    return False


def test_a_hundred_clicks_start_two_pieces_of_work() -> None:
    desk, gate, done = Desk(), Event(), []

    def work(n: int):
        def run(job: Job) -> int:
            gate.wait(5)
            done.append(n)
            return n

        return run

    first = desk.submit("path", work(0), patient=True)
    assert until(lambda: desk.started == 1)
    jobs = [desk.submit("path", work(n), patient=True) for n in range(1, 100)]
    gate.set()
    assert until(lambda: jobs[-1].done)
    assert done == [0, 99]
    assert first.outcome == 0
    assert not first.cancelled
    assert all(job.cancelled for job in jobs[:-1])
    assert desk.started == 2


def test_a_newer_one_ends_what_runs() -> None:
    desk = Desk()

    def endless(job: Job) -> None:
        while True:
            job.tell("on")
            time.sleep(0.005)

    first = desk.submit("fit", endless)
    assert until(lambda: len(first.news) > 2)
    second = desk.submit("fit", lambda job: "second")
    assert until(lambda: second.done)
    assert second.outcome == "second"
    assert isinstance(first.outcome, Cancelled)
    third = desk.submit("fit", endless)
    assert until(lambda: third.news)
    desk.cancel("map")
    assert not third.cancelled
    desk.cancel("fit")
    assert until(lambda: third.done)
    last = desk.submit("fit", endless)
    desk.cancel()  # of any kind
    assert until(lambda: last.done)


def test_kinds_do_not_wait_for_each_other() -> None:
    desk, gate = Desk(), Event()
    slow = desk.submit("fit", lambda job: gate.wait(5))
    quick = desk.submit("path", lambda job: 1)
    assert until(lambda: quick.done)
    assert not slow.done
    gate.set()
    assert until(lambda: slow.done)


def test_an_exception_is_an_outcome() -> None:
    def broken(job: Job) -> None:
        raise ZeroDivisionError("nought")

    desk = Desk()
    job = desk.submit("path", broken)
    assert until(lambda: job.done)
    assert isinstance(job.outcome, ZeroDivisionError)
    after = desk.submit("path", lambda job: 2)
    assert until(lambda: after.done)
    assert after.outcome == 2
