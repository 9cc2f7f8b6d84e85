"""The package on a CUDA device: ``python -m benchmarks.gpu --json FILE``, under five minutes.

Needs torch, numpy and the package's sources alone.  Three parts: results equal the CPU's within
rounding; hot paths never wait for the device; rates and ratios by the harness of ``bench``.
"""

from __future__ import annotations

import argparse
import json
import time
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from benchmarks import growth, machine
from benchmarks.floors import fisher_operations
from benchmarks.grid import gpu_grid
from benchmarks.mixture_rivals import build_mixture
from benchmarks.networks import build_decoder, latent_points
from benchmarks.problem import TOLERANCE, Bench, as_json, deviation, flatten
from benchmarks.timing import sample, warm_up
from kahler_verify.geometry import FisherMetric, MixtureMetric

MINUTES = 3.5  # after this no further cell is begun
SIZES = {"d": 4, "h": 64, "D": 96, "B": 64, "K": 32}


def quantities(dtype: torch.dtype, device: torch.device) -> dict[str, Callable[[], Any]]:
    """What is compared with the CPU and run without synchronisation, by name."""
    calls: dict[str, Callable[[], Any]] = {}
    z = latent_points(SIZES, dtype, device)
    for family in ("holomorphic", "split"):
        for sigma in ("diagonal", "scalar", "constant"):
            sizes = SIZES | {"family": family, "sigma": sigma}
            decoder = build_decoder(sizes, dtype, device).requires_grad_(False)
            metric = FisherMetric(decoder, check=False, validate_args=False)
            name = f"Fisher, {family}, {sigma}"
            calls[f"{name}: metric"] = partial(metric.metric_matrix, z)
            if sigma == "diagonal":
                calls[f"{name}: log det"] = partial(metric.log_det_hermitian, z)
                calls[f"{name}: log volume"] = partial(metric.log_volume, z)
                calls[f"{name}: Christoffels"] = partial(metric.christoffels, z)
    mixture = MixtureMetric(*build_mixture(SIZES, dtype, device), validate_args=False)
    calls["mixture: metric"] = lambda: mixture.metric_matrix(z)
    calls["mixture: Ricci"] = lambda: mixture.ricci_tensor(z)
    calls["mixture: scalar curvature"] = lambda: mixture.scalar_curvature(z)
    return calls


def compare_with_cpu(device: torch.device) -> list[dict[str, Any]]:
    """Relative differences between the device's and the CPU's results, in both dtypes.

    The yardstick is the CPU in float64; the tolerance that of the harness, ten times for curvature,
    which amplifies rounding.
    """
    rows = []
    reference = {
        name: flatten(call())
        for name, call in quantities(torch.float64, torch.device("cpu")).items()
    }
    for dtype in (torch.float64, torch.float32):
        for name, call in quantities(dtype, device).items():
            gap = deviation(call(), reference[name])
            allowed = TOLERANCE[dtype] * (10 if "Ricci" in name or "curvature" in name else 1)
            rows.append(
                {
                    "quantity": name,
                    "dtype": str(dtype).removeprefix("torch."),
                    "difference": gap,
                    "agrees": gap <= allowed,
                }
            )
    return rows


def find_synchronisation(device: torch.device) -> list[dict[str, Any]]:
    """Run every quantity once more with synchronising calls forbidden: which of them make one."""
    calls = quantities(torch.float32, device)
    for call in calls.values():
        call()
    rows = []
    torch.cuda.synchronize(device)
    for name, call in calls.items():
        torch.cuda.set_sync_debug_mode("error")
        try:
            call()
            error = None
        except RuntimeError as caught:
            error = str(caught).splitlines()[0]
        finally:
            torch.cuda.set_sync_debug_mode("default")
        rows.append({"quantity": name, "synchronises": error is not None, "error": error})
    return rows


def fractions(device: torch.device, peaks: dict[str, float]) -> list[dict[str, Any]]:
    """Counted operations of the Fisher metric per second, over the measured complex product's."""
    rows = []
    for d, B in ((8, 512), (8, 4096), (8, 16384), (32, 1024), (32, 4096)):
        sizes = {"d": d, "h": 512, "D": 3072, "B": B, "family": "holomorphic", "sigma": "diagonal"}
        decoder = build_decoder(sizes, torch.float32, device).requires_grad_(False)
        metric = FisherMetric(decoder, check=False, validate_args=False)
        z = latent_points(sizes, torch.float32, device)

        def run(metric: FisherMetric = metric, z: Tensor = z) -> Tensor:
            with torch.no_grad():
                return metric.metric_matrix(z)

        warm_up(run, device)
        seconds = min(sample(run, 3, device) for _ in range(3))
        rate = B * fisher_operations(sizes) / seconds / 1e9
        rows.append(
            {
                "sizes": sizes,
                "seconds": seconds,
                "gflops": rate,
                "fraction": rate / peaks["complex64"],
            }
        )
    return rows


def main() -> None:
    """Write one JSON with everything."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--json", type=Path, required=True)
    parser.add_argument("--device", default="cuda")
    options = parser.parse_args()
    device = torch.device(options.device)
    started = time.monotonic()
    peaks = machine.peaks(device)
    report: dict[str, Any] = {
        "machine": machine.describe(device) | {"device": str(device), "quick": False},
        "peaks": peaks,
        "agreement": compare_with_cpu(device),
        "synchronisation": find_synchronisation(device) if device.type == "cuda" else [],
        "fractions": fractions(device, peaks),
        "growth": growth.measure(device, quick=True),
        "results": [],
        "floors": [],
        "not_run": [],
    }
    runner = Bench(device, seconds=4.0, limit=45.0)
    for cell in gpu_grid():
        if time.monotonic() - started > 60 * MINUTES:
            report["not_run"].append([cell.quantity, dict(cell.sizes)])
            continue
        rows, floor = runner.run(cell)
        if floor.operations:
            name = {"float32": "complex64", "float64": "complex128"}[floor.dtype]
            floor.fraction = floor.operations / (peaks[name] * 1e9) / floor.seconds
        report["results"] += [as_json(row) for row in rows]
        report["floors"].append(as_json(floor))
        for row in rows:
            print(row.quantity, row.sizes, row.rival, row.ratio, row.error, flush=True)
        options.json.write_text(json.dumps(report, indent=1, ensure_ascii=False), encoding="utf-8")
    report["machine"]["minutes"] = round((time.monotonic() - started) / 60, 1)
    options.json.write_text(json.dumps(report, indent=1, ensure_ascii=False), encoding="utf-8")
    bad = [row for row in report["agreement"] if not row["agrees"]]
    waiting = [row for row in report["synchronisation"] if row["synchronises"]]
    print(f"{len(bad)} disagreements with the CPU, {len(waiting)} synchronising calls")
    print(json.dumps({"agreement": bad, "synchronisation": waiting}, ensure_ascii=False))


if __name__ == "__main__":
    main()
