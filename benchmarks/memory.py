"""Peak memory of a large batch of metrics, in a process of its own."""

from __future__ import annotations

import json
import resource
import subprocess
import sys
from pathlib import Path
from typing import Any

import torch

from benchmarks import grid

SIZES = {"d": 32, "h": 256, "D": 784, "B": 4096, "family": "holomorphic", "sigma": "diagonal"}


def measure() -> dict[str, Any]:
    """Peak and answer in MiB, measured in a fresh process."""
    command = [sys.executable, "-m", "benchmarks.memory"]
    root = Path(__file__).resolve().parents[1]
    done = subprocess.run(command, cwd=root, capture_output=True, text=True, check=True)
    return json.loads(done.stdout)


def _resident() -> float:
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024  # Linux counts KiB


def _main() -> None:
    torch.set_num_threads(1)
    cell = grid.fisher(32, 256, 784, 4096)
    device = torch.device("cpu")
    cell.make({**SIZES, "B": 4}, torch.float32, device).ours()
    problem = cell.make(SIZES, torch.float32, device)
    before = _resident()
    answer = problem.ours()
    peak = _resident() - before
    size = answer.numel() * answer.element_size() / 2**20
    print(json.dumps({"sizes": SIZES, "peak_mib": round(peak, 1), "answer_mib": round(size, 1)}))


if __name__ == "__main__":
    _main()
