"""Geodesics beside stochman's, at its defaults: ``python -m benchmarks.geodesic_rivals``.

stochman 0.3.0 (Detlefsen, Pouplin and others) minimises the energy of a cubic spline by Adam.  It
is not installed with us: ``python -m pip install --no-deps stochman==0.3.0 networkx``.  Both are
given the same decoder, trained on the digits, and the same pairs, on one thread, by turns; what is
compared is the median over turns.  Lengths are chords of the decoded curve between 2001 points,
extrapolated, for both; the excess is over the shorter of all.
"""

from __future__ import annotations

import argparse
import statistics
from collections.abc import Callable
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn

from benchmarks.geodesics import timed, trained
from kahler_verify.curves import STRAIGHT, connect
from kahler_verify.geometry import PulledBackMetric

TIMES = torch.linspace(0, 1, 2001, dtype=torch.float64)
Find = Callable[[Tensor, Tensor], Tensor]  # points of curves [B, T, d] at TIMES


class Counted(nn.Module):
    """A decoder that counts the points it is asked for."""

    def __init__(self, net: nn.Module):
        super().__init__()
        self.net, self.points = net, 0

    def forward(self, z: Tensor) -> Tensor:
        """x [..., D] at z [..., d]."""
        self.points += z[..., 0].numel()
        out: Tensor = self.net(z)
        return out


def stochman_finder(net: Counted) -> Find:
    """Their ``connecting_geodesic`` as it comes.

    Raises:
        ModuleNotFoundError: stochman is not installed.
    """
    from stochman.manifold import EmbeddedManifold

    class Decoded(EmbeddedManifold):  # type: ignore[misc]
        def embed(self, points: Tensor, jacobian: bool = False) -> Tensor:  # noqa: ARG002
            return net(points)

    def find(a: Tensor, b: Tensor) -> Tensor:
        curve, _ = Decoded().connecting_geodesic(a, b)
        with torch.no_grad():
            points: Tensor = curve(TIMES.to(a))
        return points.reshape(len(a), len(TIMES), -1)

    return find


def own_finder(net: Counted, **options: Any) -> Find:
    """Ours; evaluations are in the report, since it looks at the layers and not through them."""

    def find(a: Tensor, b: Tensor) -> Tensor:
        metric = PulledBackMetric(net.net, a.shape[-1])
        path = connect(metric, a, b, raise_on_failure=False, **options)
        assert path.report is not None
        net.points += int(path.report.evaluations.sum())
        return path(TIMES)

    return find


def lengths(net: nn.Module, points: Tensor) -> Tensor:
    """Of decoded curves [B, T, d] in float64: chords, extrapolated from half as many."""
    with torch.no_grad():
        x = torch.stack([net(own) for own in points.double()])
    fine, coarse = ((x[:, k:] - x[:, :-k])[:, ::k].norm(dim=-1).sum(1) for k in (1, 2))
    return (4 * fine - coarse) / 3


class Row(NamedTuple):
    """What a solver took and found."""

    name: str
    seconds: list[float]
    points: int
    lengths: Tensor


def compared(net: nn.Module, a: Tensor, b: Tensor, turns: int, alone: bool) -> list[Row]:
    """The same pairs by all solvers, in turns; one pair after the other where ``alone``."""
    single = Counted(copy_of(net, torch.float32))
    double = Counted(net)
    cases = [
        ("spectral elements, several starts", double, own_finder(double)),
        ("the same, one start", double, own_finder(double, starts=STRAIGHT)),
        ("the same, float32", single, own_finder(single, starts=STRAIGHT)),
        ("stochman", double, stochman_finder(double)),
        ("stochman, float32", single, stochman_finder(single)),
    ]
    rows = [Row(name, [], 0, torch.empty(0)) for name, *_ in cases]
    for _, counter, find in cases:  # nobody is timed cold
        find(*(x[:2].to(next(counter.parameters()).dtype) for x in (a, b)))
    for _ in range(turns):
        for k, (_, counter, find) in enumerate(cases):
            ends = [x.to(next(counter.parameters()).dtype) for x in (a, b)]
            parts = zip(*(x.split(1 if alone else len(x)) for x in ends), strict=True)
            counter.points = 0
            found, spent = timed(lambda: torch.cat([find(*pair) for pair in parts]))  # noqa: B023
            rows[k].seconds.append(spent)
            rows[k] = rows[k]._replace(points=counter.points, lengths=lengths(net, found))
    return rows


def copy_of(net: nn.Module, dtype: torch.dtype) -> nn.Module:
    """With weights of another kind of number."""
    import copy

    return copy.deepcopy(net).to(dtype)


def main() -> None:
    """Train, compare, print Markdown."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--dimension", type=int, default=2)
    parser.add_argument("--epochs", type=int, default=60)
    parser.add_argument("--batches", type=int, nargs="+", default=[1, 64, 1024])
    parser.add_argument("--turns", type=int, default=3)
    arguments = parser.parse_args()
    torch.set_num_threads(1)
    net, codes = trained(arguments.dimension, arguments.epochs)
    generator = torch.Generator().manual_seed(1)
    for batch in arguments.batches:
        alone, count = batch == 1, 8 if batch == 1 else batch
        order = torch.stack([torch.randperm(len(codes), generator=generator) for _ in range(2)])
        a, b = codes[order[:, :count]]
        rows = compared(net, a, b, arguments.turns if batch < 1000 else 1, alone)
        best = torch.stack([row.lengths for row in rows]).nan_to_num(torch.inf).amin(0)
        own = statistics.median(rows[1].seconds)
        print(f"\n| B = {batch} | ms a pair | of one start | points | excess, median | < 1e-3 |")
        print("|---|---|---|---|---|---|")
        for row in rows:
            spent = statistics.median(row.seconds)
            excess = row.lengths / best - 1
            print(
                f"| {row.name} | {1e3 * spent / count:.1f} | {spent / own:.1f} | "
                f"{row.points // count} | {excess.nanmedian():.1e} | "
                f"{(excess < 1e-3).double().mean():.2f} |",
                flush=True,
            )


if __name__ == "__main__":
    main()
