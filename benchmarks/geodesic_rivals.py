"""Geodesics beside other libraries: ``python -m benchmarks.geodesic_rivals``.

stochman 0.3.0 (Detlefsen, Pouplin and others) minimises the energy of a cubic spline by Adam, here
at its defaults.  With ``--rivals`` there are more: geomstats 2.8 (Miolane and others), and
geometric_ml of LAND's author (Arvanitidis), which both solve a boundary value problem for a pair.
They are given g and its derivatives by us, which is their best form.  None is installed with us:

- ``python -m pip install --no-deps stochman==0.3.0 networkx``
- ``python -m pip install geomstats==2.8.0 "numpy<2.4"``
- ``git clone https://github.com/georgiosarvanitidis/geometric_ml``, that folder on PYTHONPATH;
  numpy < 2.4 too.

All are given the same decoder, trained on the digits, and the same pairs, on one thread, by turns;
what is compared is the median over turns.  Lengths are chords of the decoded curve between 2001
points, extrapolated, for all; the excess is over the shorter of all.
"""

from __future__ import annotations

import argparse
import statistics
from collections.abc import Callable, Sequence
from contextlib import redirect_stdout
from functools import partial
from io import StringIO
from typing import Any, NamedTuple

import numpy as np
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


class Derived:
    """The metric of a decoder, g and ∂g by our jets, as geometric_ml asks a manifold for them."""

    def __init__(self, net: Counted):
        self.net, self.metric = net, PulledBackMetric(net.net)

    @staticmethod
    def is_diagonal() -> bool:
        """Whether g comes as its diagonal."""
        return False

    def metric_tensor(self, c: np.ndarray, nargout: int = 1) -> Any:
        """g [N, d, d] at columns c [d, N], and ∂g with its own index last."""
        z = torch.from_numpy(np.ascontiguousarray(c.T))
        self.net.points += len(z)
        jet = self.metric.jet(z, nargout - 1)
        if nargout == 1:
            return jet.g.numpy()
        return jet.g.numpy(), jet.d.permute(0, 2, 3, 1).numpy()


def geometric_ml_finder(net: Counted, name: str) -> Find:
    """Their solver ``bvp``, by SciPy, or ``fp``, the fixed point, at their defaults.

    Raises:
        ModuleNotFoundError: geometric_ml is not on PYTHONPATH.
    """
    from python.core import geodesics

    manifold = Derived(net)
    times = TIMES.numpy()

    def find(a: Tensor, b: Tensor) -> Tensor:
        with redirect_stdout(StringIO()):
            make = geodesics.SolverBVP if name == "bvp" else geodesics.SolverFP
            solver = make() if name == "bvp" else make(D=a.shape[-1])
            found = []
            for one, other in zip(a.numpy(), b.numpy(), strict=True):
                ends = one[:, None], other[:, None]
                try:
                    curve, *_, failed, _ = geodesics.compute_geodesic(solver, manifold, *ends)
                except np.linalg.LinAlgError:  # astray, where g is singular to rounding
                    found.append(torch.full((len(times), a.shape[-1]), torch.nan).double())
                    continue
                points = curve(times[None] if failed else times)[0]  # a line where it failed
                found.append(torch.from_numpy(np.ascontiguousarray(points.T)))
        return torch.stack(found)

    return find


def geomstats_finder(net: Counted) -> Find:
    """Their ``LogODESolver``, SciPy's solve_bvp on Christoffel symbols, at its defaults.

    Raises:
        InputError: geomstats is not installed.
    """
    from kahler_verify.guests.geomstats import to_geomstats

    class Asked(PulledBackMetric):
        def christoffels(self, z: Tensor) -> Tensor:
            net.points += z[..., 0].numel()
            return super().christoffels(z)

    def find(a: Tensor, b: Tensor) -> Tensor:
        from geomstats.numerics.geodesic import LogODESolver

        metric = to_geomstats(Asked(net.net, a.shape[-1]))
        solver = LogODESolver(metric.space, use_jac=False)
        found = []
        for one, other in zip(a.numpy(), b.numpy(), strict=True):
            path = solver.geodesic_bvp(other, one)
            found.append(torch.as_tensor(path(TIMES.numpy())))
        return torch.stack(found)

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


RIVALS: dict[str, list[tuple[str, bool, Callable[[Counted], Find]]]] = {
    # what is installed: rows, each in single precision or not
    "stochman": [
        ("stochman", False, stochman_finder),
        ("stochman, float32", True, stochman_finder),
    ],
    "geomstats": [("geomstats, solve_bvp", False, geomstats_finder)],
    "geometric_ml": [
        ("geometric_ml, solve_bvp", False, partial(geometric_ml_finder, name="bvp")),
        ("geometric_ml, fixed point", False, partial(geometric_ml_finder, name="fp")),
    ],
}


def compared(
    net: nn.Module, a: Tensor, b: Tensor, turns: int, alone: bool, rivals: Sequence[str]
) -> list[Row]:
    """The same pairs by all solvers, in turns; one pair after the other where ``alone``."""
    single = Counted(copy_of(net, torch.float32))
    double = Counted(net)
    cases = [
        ("spectral elements, several starts", double, own_finder(double)),
        ("the same, one start", double, own_finder(double, starts=STRAIGHT)),
        ("the same, float32", single, own_finder(single, starts=STRAIGHT)),
    ]
    for rival in rivals:
        for name, short, finder in RIVALS[rival]:
            counter = single if short else double
            cases.append((name, counter, finder(counter)))
    rows = [Row(name, [], 0, torch.empty(0)) for name, *_ in cases]
    for _, counter, find in cases:  # nobody is timed cold
        find(*(x[:1].to(next(counter.parameters()).dtype) for x in (a, b)))
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
    parser.add_argument("--rivals", nargs="*", choices=RIVALS, default=["stochman"])
    parser.add_argument("--pairs", type=int, default=8, help="where B = 1")
    arguments = parser.parse_args()
    torch.set_num_threads(1)
    net, codes = trained(arguments.dimension, arguments.epochs)
    generator = torch.Generator().manual_seed(1)
    for batch in arguments.batches:
        alone, count = batch == 1, arguments.pairs if batch == 1 else batch
        order = torch.stack([torch.randperm(len(codes), generator=generator) for _ in range(2)])
        a, b = codes[order[:, :count]]
        turns = arguments.turns if batch < 1000 else 1
        rows = compared(net, a, b, turns, alone, arguments.rivals)
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
