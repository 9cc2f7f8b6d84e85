"""AutoencoderKL at the sizes people have: times, passes and memory, each in its own process.

``python -m benchmarks.large_models operator 3`` measures the fourth of :data:`CASES`, and prints
JSON; :mod:`benchmarks.models` runs all of them for docs/peoples-decoders.md.  ``starts 0`` says how
often ten directions are right, of many starts, by the matrix of the first.
"""

from __future__ import annotations

import json
import statistics
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any, NamedTuple

import torch

from benchmarks.peoples_models import AutoencoderKL
from kahler_verify import FisherMetric
from kahler_verify.jets import propagate
from kahler_verify.linear_algebra.krylov import largest_eigenpairs

__all__ = ["CASES", "table"]

SEEDS = 5  # of starts; a start decides how many steps there are
STARTS = 150  # beside a matrix
PROCESSES = 3  # whose memory is looked at, as it varies by a tenth


class Case(NamedTuple):
    """A configuration of diffusers with random weights, and the width of its latents."""

    blocks: tuple[int, ...]
    layers: int
    width: int

    def model(self) -> AutoencoderKL:
        """Bit for bit what diffusers makes of these numbers, but for its random weights."""
        size = self.width * 2 ** (len(self.blocks) - 1)
        return AutoencoderKL(self.blocks, 32, size, self.layers)


CASES = (
    Case((32, 64, 64), 1, 8),
    Case((32, 64, 64, 64), 1, 8),
    Case((128, 256, 512, 512), 2, 8),
    Case((32, 64, 64), 1, 32),
    Case((32, 128), 1, 32),
)


def _mebibytes(name: str) -> float:
    text = Path("/proc/self/status").read_text()
    return next(int(x.split()[1]) for x in text.splitlines() if x.startswith(name)) / 1024


def _seconds(call: Callable[[], Any], repeats: int = 3) -> float:
    """The least CPU time of some."""
    spent = []
    for _ in range(repeats):
        begin = time.process_time()
        call()
        spent.append(time.process_time() - begin)
    return min(spent)


def _ready(case: Case) -> tuple[AutoencoderKL, torch.Tensor, float]:
    """The model, a latent, and the memory in use before anything of ours is done with it."""
    torch.set_num_threads(1)
    small = torch.randn(4, 2, 2)
    FisherMetric(AutoencoderKL(8, 2, 4)).operator(small, method="matrix-free").product(small)
    model = case.model()
    z = torch.randn(4, case.width, case.width, generator=torch.Generator().manual_seed(0))
    with torch.no_grad():
        model.decode(z[None])
    Path("/proc/self/clear_refs").write_text("5")  # the peak begins anew (Linux)
    return model, z, _mebibytes("VmRSS")


def training(case: Case) -> dict[str, float]:
    """The memory of one step's gradients."""
    model, z, before = _ready(case)
    model.requires_grad_(True).decode(z[None]).sample.square().sum().backward()
    return {"memory": _mebibytes("VmHWM") - before}


def memory(case: Case) -> dict[str, float]:
    """That of ten directions."""
    model, z, before = _ready(case)
    FisherMetric(model).operator(z, method="matrix-free").top(10)
    return {"memory": _mebibytes("VmHWM") - before}


def operator(case: Case) -> dict[str, Any]:
    """Times and passes."""
    model, z, _ = _ready(case)
    metric = FisherMetric(model).on_real_latents
    u = z.flatten()[None]
    with torch.no_grad():
        decoding = _seconds(lambda: model.decode(z[None]))
        tangent = _seconds(lambda: propagate(metric._letters, u, 1, u[None]))
    at = metric.operator(z, method="matrix-free")
    for _ in range(3):  # the second has a recording
        at.product(z)
    linear = at._linear
    assert linear is not None
    letters = linear.along(u)
    found: dict[str, Any] = {
        "parameters": sum(p.numel() for p in model.decoder.parameters()),
        "decoding": decoding,
        "tangent": tangent / decoding,
        "again": _seconds(lambda: linear.along(u)) / decoding,
        "cotangent": _seconds(lambda: linear.pull(letters)) / decoding,
        "product": _seconds(lambda: at.product(z)) / decoding,
    }
    tops = []
    for seed in range(SEEDS):
        begin = time.process_time()
        top = metric.operator(z, method="matrix-free").top(10, seed=seed)
        spent = (time.process_time() - begin) / decoding
        tops.append((spent, top.passes, top.values.tolist(), top.converged))
    best = torch.tensor([x[2] for x in tops]).amax(0)  # values of a smaller space are smaller
    errors = [((best - torch.tensor(x[2])) / best).max().item() for x in tops]
    return found | {
        "decodings": [x[0] for x in tops],
        "passes": [x[1] + 2 for x in tops],  # with the graph that the operator begins with
        "error": max(errors),
        "converged": all(x[3] for x in tops),
    }


def starts(case: Case) -> dict[str, Any]:
    """Steps and mistakes of Lanczos' method from many starts, beside the spectrum of g."""
    model, z, _ = _ready(case)
    g = FisherMetric(model).on_real_latents.operator(z, method="dense").matrix().double()
    truth = torch.linalg.eigvalsh(g).flip(0)[:11]
    found = [
        largest_eigenpairs(lambda u: u @ g, g[0], 10, tolerance=1e-3, steps=len(g), seed=seed)
        for seed in range(STARTS)
    ]
    errors = [((x.values - truth[:10]).abs() / truth[:10]).max().item() for x in found]
    steps = sorted(x.products for x in found)
    return {
        "starts": STARTS,
        "steps": {"median": statistics.median(steps), "most": steps[-1]},
        "wrong by more than 1e-3": sum(error > 1e-3 for error in errors),
        "largest error": max(errors),
        "tenth above the eleventh": (1 - truth[10] / truth[9]).item(),
        "not converged": sum(not x.converged for x in found),
    }


def _run(what: str, number: int) -> dict[str, Any]:
    command = [sys.executable, "-m", "benchmarks.large_models", what, str(number)]
    root = Path(__file__).resolve().parents[1]
    out = subprocess.run(command, cwd=root, capture_output=True, text=True, check=True).stdout
    result: dict[str, Any] = json.loads(out)
    return result


def _range(values: list[float]) -> str:
    middle, ends = statistics.median(values), (min(values), max(values))
    return f"{middle:.0f} ({ends[0]:.0f} – {ends[1]:.0f})"


def table() -> str:
    """Markdown."""
    head = (
        "| blocks, layers | parameters | d | outputs | one decoding | a tangent, and again | a "
        "cotangent | G·v | ten directions: passes | decodings | between starts | memory |"
    )
    lines = [head, "|---|---|---|---|---|---|---|---|---|---|---|---|"]
    for number, case in enumerate(CASES):
        found = _run("operator", number)
        ours, theirs = (
            statistics.median(_run(what, number)["memory"] for _ in range(PROCESSES))
            for what in ("memory", "training")
        )
        outputs = 3 * case.model().config.sample_size ** 2
        end = "" if found["converged"] else ", not all converged"
        lines.append(
            f"| {', '.join(map(str, case.blocks))}; {case.layers} | "
            f"{found['parameters'] / 1e6:.1f} M | {4 * case.width**2} | {outputs} | "
            f"{1e3 * found['decoding']:.3g} ms | {found['tangent']:.1f}, {found['again']:.1f} | "
            f"{found['cotangent']:.1f} | {found['product']:.1f} | {_range(found['passes'])}{end} | "
            f"{_range(found['decodings'])} | {found['error']:.0e} | {ours / theirs:.1f} "
            f"({ours:.0f} for {theirs:.0f} MiB) |"
        )
    return "\n".join(lines)


if __name__ == "__main__":
    chosen = {
        "training": training,
        "memory": memory,
        "operator": operator,
        "starts": starts,
    }[sys.argv[1]]
    print(json.dumps(chosen(CASES[int(sys.argv[2])])))
