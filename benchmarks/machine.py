"""What the machine is, and what it can do at most: matrix products and memory."""

from __future__ import annotations

import os
import platform
from functools import partial
from pathlib import Path
from typing import Any

import torch

from benchmarks.timing import Run, sample, warm_up

PRODUCTS = {
    "float32": (torch.float32, 2),
    "float64": (torch.float64, 2),
    "complex64": (torch.complex64, 8),
    "complex128": (torch.complex128, 8),
}


def describe(device: torch.device) -> dict[str, Any]:
    """Hardware, software and threads, for the record."""
    facts: dict[str, Any] = {
        "processor": _processor(),
        "cores": os.cpu_count(),
        "threads": torch.get_num_threads(),
        "system": f"{platform.system()} {platform.machine()}",
        "python": platform.python_version(),
        "torch": torch.__version__,
        "jax": _jax_version() if device.type == "cpu" else None,
    }
    if hasattr(os, "sched_getaffinity"):
        facts["cores_used"] = len(os.sched_getaffinity(0))
    if hasattr(os, "getloadavg"):
        facts["load_at_start"] = round(os.getloadavg()[0], 2)
    if device.type == "cuda":
        facts["gpu"] = torch.cuda.get_device_name(device)
        facts["tf32"] = torch.backends.cuda.matmul.allow_tf32
    return facts


def _processor() -> str:
    try:
        lines = Path("/proc/cpuinfo").read_text(encoding="utf-8").splitlines()
        names = [line.split(":")[1].strip() for line in lines if line.startswith("model name")]
    except OSError:
        names = []
    return names[0] if names else platform.processor() or platform.machine()


def _jax_version() -> str | None:
    from benchmarks import jax_rivals

    jax = jax_rivals.load()
    return None if jax is None else jax.__version__


def other_libraries(n: int) -> dict[str, tuple[Run, float]]:
    """The float32 product by oneDNN and by JAX: on some processors far ahead of torch's own.

    What they reach shows how much of a ratio is owed to a library, not to a method.
    """
    runs: dict[str, tuple[Run, float]] = {}
    a, b = (torch.randn(n, n) for _ in range(2))
    operator = getattr(torch.ops.mkldnn, "_linear_pointwise", None)
    if operator is not None:
        runs["float32, oneDNN"] = (partial(operator, a, b, None, "none", [], ""), 2 * n**3 / 1e9)
    from benchmarks import jax_rivals

    jax = jax_rivals.load()
    if jax is not None:
        left, right = jax.numpy.asarray(a.numpy()), jax.numpy.asarray(b.numpy())
        product = jax.jit(jax.numpy.matmul)
        runs["float32, JAX"] = (
            lambda: jax.block_until_ready(product(left, right)),
            2 * n**3 / 1e9,
        )
    return runs


def peaks(device: torch.device, rounds: int = 7) -> dict[str, float]:
    """GFLOP/s of matrix products (complex multiply-adds at 8) and GB/s of a copy: the best seen.

    The best, not the median: a peak is what the machine can do when left alone.
    """
    n = 8192 if device.type == "cuda" else 1024
    found: dict[str, list[float]] = {}
    runs: dict[str, tuple[Run, float]] = {}
    for name, (dtype, operations) in PRODUCTS.items():
        a, b = (torch.randn(n, n, dtype=dtype, device=device) for _ in range(2))
        out = torch.empty_like(a)
        runs[name] = (partial(torch.mm, a, b, out=out), operations * n**3 / 1e9)
    if device.type == "cpu":
        runs |= other_libraries(n)
    size = 2**28 if device.type == "cuda" else 2**24
    source = torch.randn(size, device=device)
    target = torch.empty_like(source)
    runs["memory"] = (partial(target.copy_, source), 8 * size / 1e9)
    for run, _ in runs.values():
        warm_up(run, device)
    for _ in range(rounds):
        for name, (run, work) in runs.items():
            found.setdefault(name, []).append(work / sample(run, 1, device))
    return {name: round(max(rates), 1) for name, rates in found.items()}
