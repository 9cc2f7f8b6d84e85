"""Geodesics of a decoder with 784 outputs: ``python -m benchmarks.geodesic_width``.

The digits' decoder is followed by a fixed linear map that makes its images larger.  The same pairs
are joined with its last layer hidden, with it reduced by QR, and in float32, by turns.
"""

from __future__ import annotations

import argparse
import statistics
from typing import Any

import torch
from torch import Tensor, nn
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils.flop_counter import flop_registry

from benchmarks.geodesics import timed, trained
from kahler_verify.curves import STRAIGHT, connect, regularised
from kahler_verify.geometry import PulledBackMetric


class Opaque(nn.Module):
    """The same decoder, whose last layer nobody sees."""

    def __init__(self, net: nn.Module):
        super().__init__()
        self.net = net

    def forward(self, z: Tensor) -> Tensor:
        """x [..., D] at z [..., d]."""
        out: Tensor = self.net(z)
        return out


class Products(TorchDispatchMode):
    """Counts the operations of products of matrices."""

    operations = 0

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        """Call, and count."""
        del types
        out = func(*args, **(kwargs or {}))
        count = flop_registry.get(func.overloadpacket)
        if count is not None:
            self.operations += count(*args, **(kwargs or {}), out_val=out)
        return out


def wide(net: nn.Module, codes: Tensor, pairs: int = 128) -> str:
    """What 784 outputs cost, images of 8 × 8 made larger: with and without the QR reduction."""
    *layers, head = net.children()
    pixels = torch.eye(64, dtype=torch.float64).reshape(64, 1, 8, 8)
    larger = nn.functional.interpolate(pixels, (28, 28), mode="bilinear").reshape(64, 784)
    last = nn.Linear(head.in_features, 784).double().requires_grad_(False)
    last.weight.copy_(larger.mT @ head.weight)
    last.bias.copy_(larger.mT @ head.bias)
    whole = nn.Sequential(*layers, last)
    order = torch.stack(
        [torch.randperm(len(codes), generator=torch.Generator().manual_seed(k)) for k in (1, 2)]
    )
    a, b = codes[order[:, :pairs]]
    reduced = regularised(PulledBackMetric(whole), codes[:180], 1e-2)
    full = regularised(PulledBackMetric(Opaque(whole)), codes[:180], 1e-2)
    square = torch.randn(1024, 1024, dtype=torch.float64)

    def run(metric: Any, *ends: Tensor) -> Any:
        return lambda: connect(metric, *ends, starts=STRAIGHT, raise_on_failure=False)

    calls = {
        "full": run(full, a, b),
        "QR": run(reduced, a, b),
        "single": run(reduced.float(), a.float(), b.float()),
        "product": lambda: square @ square,
    }
    spent: dict[str, list[float]] = {name: [] for name in calls}
    for _ in range(3):
        for name, call in calls.items():
            spent[name].append(timed(call)[1])
    took = {name: statistics.median(times) for name, times in spent.items()}
    peak = 2 * 1024**3 / took["product"]
    with Products() as counted:
        calls["full"]()
    share = counted.operations / took["full"] / peak
    return (
        f"D = 784, {pairs} pairs, floor 1e-2: {1e3 * took['full'] / pairs:.1f} ms a pair, "
        f"{took['full'] / took['QR']:.1f} times less with QR, and "
        f"{took['QR'] / took['single']:.1f} times less again in float32; without QR products "
        f"of matrices run at {share:.2f} of the peak of {peak / 1e9:.0f} GFLOP/s"
    )


def main() -> None:
    """Train, measure, print a line."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--dimension", type=int, default=8)
    parser.add_argument("--epochs", type=int, default=60)
    parser.add_argument("--pairs", type=int, default=128)
    arguments = parser.parse_args()
    torch.set_num_threads(1)
    net, codes = trained(arguments.dimension, arguments.epochs)
    print(wide(net, codes, arguments.pairs))


if __name__ == "__main__":
    main()
