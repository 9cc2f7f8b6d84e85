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
    done = subprocess.run(command, cwd=root, capture_output=True, encoding="utf-8", check=True)
    return json.loads(done.stdout)


def _peak() -> float:
    """The most memory that this process has held, in MiB; Linux counts KiB.

    ``ru_maxrss`` begins with what the process that started this one had held, so that it is taken
    only where there is no /proc.
    """
    status = Path("/proc/self/status")
    if status.exists():
        lines = status.read_text(encoding="utf-8").splitlines()
        return next(int(line.split()[1]) for line in lines if line.startswith("VmHWM")) / 1024
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024


def _main() -> None:
    torch.set_num_threads(1)
    cell = grid.fisher(32, 256, 784, 4096)
    device = torch.device("cpu")
    cell.make({**SIZES, "B": 4}, torch.float32, device).ours()
    problem = cell.make(SIZES, torch.float32, device)
    before = _peak()
    answer = problem.ours()
    peak = _peak() - before
    size = answer.numel() * answer.element_size() / 2**20
    print(json.dumps({"sizes": SIZES, "peak_mib": round(peak, 1), "answer_mib": round(size, 1)}))


if __name__ == "__main__":
    _main()
