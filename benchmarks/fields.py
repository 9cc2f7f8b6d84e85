"""What an engine costs: ``python -m benchmarks.fields --json FILE``, some minutes.

The log volume of a decoder of the digits' k-space (d = 4, D = 32, h = 64, trained as ``make demo``
trains one, by fewer epochs) at draws of the prior, on one thread for each process, in chunks of
50 000 points (half of that for two workers).  Rivals are plain loops over the same chunks, which
keep their results in memory.  Rounds are interleaved, the first of two changes with each, and
medians of ratios are given: other programs run on the machine.
"""

from __future__ import annotations

import argparse
import json
import resource
import shutil
import statistics
import tempfile
import time
from collections.abc import Callable
from concurrent.futures import ProcessPoolExecutor
from multiprocessing import get_context
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import torch

from benchmarks.machine import describe
from experiments.store import write_json
from kahler_verify import fields
from kahler_verify.fields.field import FieldJob
from kahler_verify.fields.log import Log
from kahler_verify.fields.plan import Plan
from kahler_verify.fields.work import Done, State, carry_out
from kahler_verify.models import TrainingOptions, VAEConfig, load_data, train

CHUNK = 50_000
EPOCHS = 30
ROUNDS = 5
SHORT = CHUNK // 2  # points of a chunk, where two processes are compared
PARTS = 24  # of their rounds: some seconds, since a job's workers load its metric once
EMPTY = 300  # tasks


class Empty(NamedTuple):
    """Tasks that do nothing: what is left is the engine."""

    count: int = EMPTY

    def amount(self, task: int) -> int:  # noqa: ARG002
        """Nothing."""
        return 1

    def state(self, task: int) -> State:  # noqa: ARG002
        """Never done."""
        return State.ABSENT

    def run(self, task: int, attempt: int) -> Done:  # noqa: ARG002
        """Nothing."""
        return Done()


def model(path: Path) -> fields.Source:
    """A checkpoint as ``make demo`` has one."""
    data = load_data("digits", 0)
    config = VAEConfig(
        data="digits", data_dim=data.dim, latent_dim=4, decoder="holomorphic", seed=0
    )
    train(config, data, path, options=TrainingOptions(epochs=EPOCHS))
    return fields.of_checkpoint(path)


def planned(source: fields.Source, points: int, seed: int, chunk: int = CHUNK) -> Plan:
    """Draws of the prior."""
    return fields.plan_for(
        source,
        "log_volume",
        lambda size: fields.prior(source.space, points, seed=seed, chunk=size),
        chunk=chunk,
    )


def loop(source: fields.Source, plan: Plan, chunks: list[int]) -> np.ndarray:
    """What anybody would write."""
    torch.set_num_threads(1)
    metric, found = source.metric(), []
    for chunk in chunks:
        x = plan.points.rows(chunk * plan.chunk, (chunk + 1) * plan.chunk)
        with torch.no_grad():
            found.append(metric.log_volume(source.space.from_real(torch.from_numpy(x))).numpy())
    return np.concatenate(found)


def _loop(path: str, seed: int, points: int, chunks: list[int]) -> int:
    source = fields.of_checkpoint(path)
    return len(loop(source, planned(source, points, seed, SHORT), chunks))


def timed(run: Callable[[], object], clock: Callable[[], float]) -> float:
    """Of one run."""
    start = clock()
    run()
    return clock() - start


def overhead(source: fields.Source, folder: Path, rounds: int) -> dict[str, Any]:
    """The store in this process against the loop, in CPU time."""
    ratios = []
    for number in range(rounds + 1):  # the first is not counted
        plan = planned(source, 2 * CHUNK, number)
        out = folder / f"overhead-{number}.zarr"
        plain = timed(lambda plan=plan: loop(source, plan, [0, 1]), time.process_time)
        ours = timed(
            lambda plan=plan, out=out: fields.compute(source, plan, out, engine=fields.Array()),
            time.process_time,
        )
        ratios.append(ours / plain)
        shutil.rmtree(out)
    return {"ratios": ratios[1:], "median": statistics.median(ratios[1:])}


def two_workers(source: fields.Source, folder: Path, path: Path, rounds: int) -> dict[str, Any]:
    """Two workers against two plain processes, by the wall clock; all have begun before."""
    points = PARTS * SHORT
    engine = fields.Processes(2)
    plain = [ProcessPoolExecutor(1, mp_context=get_context("spawn")) for _ in range(2)]
    ratios = []
    for number in range(rounds + 1):
        plan = planned(source, points, number, SHORT)
        out = folder / f"two-{number}.zarr"

        def ours(plan: Plan = plan, out: Path = out) -> None:
            fields.compute(source, plan, out, engine=engine)

        def rival(number: int = number) -> None:
            halves = [list(range(k, PARTS, 2)) for k in range(2)]
            running = [
                pool.submit(_loop, str(path), number, points, half)
                for pool, half in zip(plain, halves, strict=True)
            ]
            for each in running:
                each.result()

        order = (rival, ours) if number % 2 else (ours, rival)
        times = {run.__name__: timed(run, time.perf_counter) for run in order}
        ratios.append(times["rival"] / times["ours"])
        shutil.rmtree(out)
    for pool in plain:
        pool.shutdown()
    return {"ratios": ratios[1:], "median": statistics.median(ratios[1:])}


def million(source: fields.Source, folder: Path, points: int) -> dict[str, Any]:
    """Points in this process: rate, the store's size, and memory as the number grows."""
    peaks, seconds = {}, 0.0
    for count in (points // 10, points):
        plan = planned(source, count, 0)
        out = folder / f"million-{count}.zarr"
        seconds = timed(
            lambda plan=plan, out=out: fields.compute(source, plan, out, engine=fields.Array()),
            time.process_time,
        )
        peaks[count] = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024
    size = sum(p.stat().st_size for p in (out / "log_volume").rglob("*") if p.is_file())
    places = sum(p.stat().st_size for p in (out / "z").rglob("*") if p.is_file())
    job = FieldJob(out, source)
    read = timed(lambda: [job.state(task) for task in range(job.count)], time.process_time)
    shutil.rmtree(out)
    return {
        "points": points,
        "points_per_cpu_second": points / seconds,
        "bytes_per_value": size / points,
        "bytes_per_place": places / points,
        "checked_points_per_cpu_second": points / read,
        "peak_MiB": peaks,
    }


def empty_tasks(*, dask: bool) -> dict[str, float]:
    """Milliseconds of the wall clock for an empty task, once an engine has begun."""
    found = {}
    engines: dict[str, Any] = {"array": fields.Array(), "processes": fields.Processes(1)}
    if dask:
        engines["dask"] = fields.Dask(workers=1)
    for name, engine in engines.items():
        moments: list[float] = []
        carry_out(
            Empty(), engine, Log(None), progress=lambda _, m=moments: m.append(time.perf_counter())
        )
        found[name] = 1e3 * (moments[-1] - moments[20]) / (len(moments) - 21)
    return found


def main() -> None:
    """Parse the options and run."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.fields", description=__doc__)
    parser.add_argument("--json", type=Path)
    parser.add_argument("--rounds", type=int, default=ROUNDS)
    parser.add_argument("--points", type=int, default=10**6)
    parser.add_argument("--dask", action="store_true", help="empty tasks of dask too")
    options = parser.parse_args()
    torch.set_num_threads(1)
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        path = folder / "digits.safetensors"
        source = model(path)
        parts = {
            "overhead": lambda: overhead(source, folder, options.rounds),
            "two_workers": lambda: two_workers(source, folder, path, options.rounds),
            "empty_task_ms": lambda: empty_tasks(dask=options.dask),
            "million": lambda: million(source, folder, options.points),
        }
        report: dict[str, Any] = {"chunk": CHUNK}
        for part, run in parts.items():
            report[part] = run()
            print(part, json.dumps(report[part]), flush=True)
    facts = describe(torch.device("cpu"))
    keys = ("processor", "cores", "torch", "python", "load_at_start")
    report["machine"] = {key: facts[key] for key in keys if key in facts}
    if options.json is not None:
        write_json(options.json, report)


if __name__ == "__main__":
    main()
