"""How the package's own time grows with B, d, D and K, beside what the operation count says."""

from __future__ import annotations

import statistics
from collections.abc import Callable, Mapping
from typing import Any

import torch

from benchmarks import floors, grid
from benchmarks.timing import sample, warm_up

DECODER: dict[str, Any] = {
    "d": 8,
    "h": 256,
    "D": 784,
    "B": 128,
    "family": "holomorphic",
    "sigma": "diagonal",
}
MIXTURE: dict[str, Any] = {"d": 32, "K": 128, "B": 256}  # where products rule, not memory


def measure(device: torch.device, *, quick: bool) -> list[dict[str, Any]]:
    """Fitted exponents: {"quantity", "in", "values", "seconds", "exponent", "count_exponent"}."""
    decoder = grid.fisher(8, 256, 784, 128)
    mixture = grid.mixture(32, 128, 256)
    factor = 8 if device.type == "cuda" else 1
    series = [
        (decoder, DECODER, "B", [64, 128, 256, 512]),
        (decoder, DECODER, "d", [8, 16, 32, 64]),
        (decoder, DECODER, "D", [784, 1568, 3136, 6272]),
        (mixture, MIXTURE, "K", [128, 256, 512, 1024]),
        (mixture, MIXTURE, "d", [32, 48, 64, 96]),
    ]
    counts: dict[str, Callable[[Mapping[str, Any]], float]] = {
        "Fisher metric": floors.fisher_operations,
        "mixture metric": floors.mixture_operations,
    }
    found = []
    for cell, base, name, values in series:
        chosen = values[:3] if quick else values
        points = [{**base, "B": base["B"] * factor} | {name: v} for v in chosen]
        if name == "B":
            points = [{**base, "B": v * factor} for v in chosen]
        runs = [cell.make(sizes, torch.float32, device).ours for sizes in points]
        for run in runs:
            warm_up(run, device)
        rounds = [[sample(run, 1, device) for run in runs] for _ in range(3 if quick else 7)]
        seconds = [statistics.median(times) for times in zip(*rounds, strict=True)]
        work = [counts[cell.quantity](sizes) * sizes["B"] for sizes in points]
        found.append(
            {
                "quantity": cell.quantity,
                "in": name,
                "values": [sizes[name] for sizes in points],
                "seconds": seconds,
                "exponent": round(floors.exponent(chosen, seconds), 3),
                "count_exponent": round(floors.exponent(chosen, work), 3),
            }
        )
    return found
