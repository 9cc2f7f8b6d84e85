"""``kahler-verify bench``: run the cells, print and write what came out."""

from __future__ import annotations

import json as jsonlib
import os
import time
from pathlib import Path
from typing import Any

import torch
from rich.console import Console
from rich.table import Table

from benchmarks import growth, machine, memory
from benchmarks.grid import full_grid, gpu_grid, quick_grid, real_grid
from benchmarks.page import rewrite
from benchmarks.plots import draw
from benchmarks.problem import Bench, Cell, Floor, Result, as_json
from kahler_verify.errors import InputError

FULL_MINUTES = 35.0
REAL_MINUTES = 8.0


def bench(
    *,
    quick: bool = False,
    real: bool = False,
    device: str = "cpu",
    minutes: float | None = None,
    json: Path | None = None,
    plots: Path | None = None,
    page: Path | None = None,
    console: Console | None = None,
) -> dict[str, Any]:
    """Run the benchmark and return what ``--json`` writes.

    Args:
        quick: one typical cell for each quantity, under 3 minutes on 2 cores.
        real: decoders of real latents instead.
        device: "cpu" (one thread on one core) or "cuda".
        minutes: after so many no further cell of the grid is begun; the important ones come first;
            35 by default, and 8 for real latents.
        json: where the results go.
        plots: the folder where ratios.png, roofline.png and growth.png go.
        page: a Markdown page, to rewrite what lies between its markers.
        console: where tables go.

    Raises:
        InputError: the device is not there, minutes is not positive, or plots are asked for of
            real latents, which have none.
    """
    if real and plots is not None:
        raise InputError("real: expected no plots, which are of complex latents")
    if minutes is None:
        minutes = REAL_MINUTES if real else FULL_MINUTES
    if not minutes > 0:
        raise InputError(f"minutes: expected a positive number, got {minutes!r}")
    console = console or Console()
    target = _device(device)
    _one_thread(target)
    started = time.monotonic()
    on_gpu = target.type == "cuda"
    runner = Bench(
        target,
        seconds=1.0 if real else 2.0 if quick else 6.0,
        limit=30.0 if quick or real else 60.0,
    )
    if real:
        cells = real_grid()[:8] if quick else real_grid()
    else:
        cells = gpu_grid(quick=quick) if on_gpu else quick_grid() if quick else full_grid()
    report: dict[str, Any] = {
        "results": [],
        "floors": [],
        "not_run": [],
        "peaks": machine.peaks(target),
        "growth": [] if real else growth.measure(target, quick=quick),
        "memory": None if quick or on_gpu or real else memory.measure(),
        "machine": machine.describe(target) | {"device": str(target), "quick": quick, "real": real},
    }
    for cell in cells:
        if time.monotonic() - started > 60 * minutes:
            report["not_run"].append(_label(cell))
            continue
        rows, floor = runner.run(cell)
        floor.fraction = fraction(floor, report["peaks"])
        report["results"] += [as_json(row) for row in rows]
        report["floors"].append(as_json(floor))
        console.print(table(cell, rows, floor))
        if json is not None:  # what is done is kept if the run is broken off
            _write(json, report)
    report["machine"]["minutes"] = round((time.monotonic() - started) / 60, 1)
    _print_growth(console, report)
    if json is not None:
        _write(json, report)
    if plots is not None:
        draw(report, plots)
    if page is not None:
        rewrite(page, report)
    return report


def fraction(floor: Floor, peaks: dict[str, float]) -> float | None:
    """The floor's time at the peak of products over ours; None if nothing is counted.

    Of complex products, but where latents are real.
    """
    if not floor.operations:
        return None
    dtype = floor.dtype
    if not floor.quantity.startswith("real"):
        dtype = {"float32": "complex64", "float64": "complex128"}[dtype]
    return floor.operations / (peaks[dtype] * 1e9) / floor.seconds


def table(cell: Cell, rows: list[Result], floor: Floor) -> Table:
    """One cell's ratios."""
    kind = "Jacobian's" if floor.quantity.startswith("real") else "8-operation"
    reached = "" if floor.fraction is None else f", {floor.fraction:.2f} of the {kind} floor"
    title = f"{_label(cell)}: ours {_time(floor.seconds)}{reached}"
    result = Table(title=title, title_justify="left", box=None)
    result.add_column("rival")
    result.add_column("× ours", justify="right")
    result.add_column("quartiles", justify="right")
    result.add_column("", overflow="fold")
    for row in sorted(rows, key=lambda row: row.ratio or float("inf")):
        spread = "" if row.spread is None else "{:.2f} – {:.2f}".format(*row.spread)
        ratio = "–" if row.ratio is None else f"{row.ratio:.2f}"
        result.add_row(row.rival, ratio, spread, row.error or "")
    return result


def _label(cell: Cell) -> str:
    sizes = " ".join(v if isinstance(v, str) else f"{k}={v}" for k, v in cell.sizes.items())
    return f"{cell.quantity} {sizes} {str(cell.dtype).removeprefix('torch.')}"


def _time(seconds: float) -> str:
    for unit, scale in (("s", 1.0), ("ms", 1e3)):
        if seconds * scale >= 1:
            return f"{seconds * scale:.3g} {unit}"
    return f"{seconds * 1e6:.3g} µs"


def _print_growth(console: Console, report: dict[str, Any]) -> None:
    result = Table(title="growth of ours", title_justify="left", box=None)
    for name in ("quantity", "in", "exponent", "of the operation count"):
        result.add_column(name)
    for row in report["growth"]:
        result.add_row(
            row["quantity"], row["in"], f"{row['exponent']:.2f}", f"{row['count_exponent']:.2f}"
        )
    console.print(result)
    console.print("peaks (GFLOP/s, GB/s):", report["peaks"], highlight=False)
    if report["not_run"]:
        console.print(f"{len(report['not_run'])} cells of the grid were left for lack of time")


def _write(path: Path, report: dict[str, Any]) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    part = path.with_name(f"{path.name}.part")  # what was there stays until all of it is written
    part.write_text(jsonlib.dumps(report, indent=1, ensure_ascii=False) + "\n", encoding="utf-8")
    part.replace(path)


def _device(name: str) -> torch.device:
    if name not in ("cpu", "cuda"):
        raise InputError(f"device: expected cpu or cuda, got {name!r}")
    if name == "cuda" and not torch.cuda.is_available():
        raise InputError("device: expected cpu, as torch sees no CUDA device here, got 'cuda'")
    return torch.device(name)


def _one_thread(device: torch.device) -> None:
    """One thread on one core, for torch, JAX and compiled code alike."""
    if device.type != "cpu":
        return
    os.environ["TORCHINDUCTOR_COMPILE_THREADS"] = "1"
    torch.set_num_threads(1)
    if hasattr(os, "sched_setaffinity"):
        os.sched_setaffinity(0, {max(os.sched_getaffinity(0))})
