"""Geodesics of trained decoders, by each solver: ``python -m benchmarks.geodesics``.

Real VAEs on the digits are trained (a quarter of a minute each), the means of their decoders pull a
metric back, and pairs of encoded test samples are joined.  Every solver is given the same pairs on
one thread.  The excess is that of the measured length over the best that any solver found.
"""

from __future__ import annotations

import argparse
import copy
import math
import time
from collections.abc import Callable
from functools import partial
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import torch
from torch import Tensor, nn

from kahler_verify.curves import (
    STRAIGHT,
    Collocation,
    Curve,
    Polygon,
    Spline,
    bounds,
    connect,
    distances,
    initial_velocity,
    shoot,
)
from kahler_verify.geometry import PulledBackMetric
from kahler_verify.models import RealVAEConfig, TrainingOptions, load_data, train

FEW = 6  # pairs that slow solvers are given


def trained(d: int, epochs: int) -> tuple[nn.Module, Tensor]:
    """The network of a decoder's means, and codes of test samples."""
    data = load_data("digits-images", 0)
    config = RealVAEConfig(latent_dim=d)
    with TemporaryDirectory() as folder:
        out = Path(folder) / "model.safetensors"
        model: Any = train(config, data, out, options=TrainingOptions(epochs=epochs)).model
    model = model.double().requires_grad_(False)
    head = copy.deepcopy(model.decoder.head)  # with the data's own location and scale
    head.weight.mul_(model.decoder.scale)
    head.bias.mul_(model.decoder.scale).add_(model.decoder.location)
    net = nn.Sequential(model.decoder.layers, head)
    codes: Tensor = model.encoder(data.test.x.double())[0]
    return net, codes


def timed(call: Callable[[], Any]) -> tuple[Any, float]:
    """What a call returns, and its seconds of processor time."""
    start = time.process_time()
    out = call()
    return out, time.process_time() - start


def solvers(metric: PulledBackMetric, a: Tensor, b: Tensor) -> list[str]:
    """A row of the table for each solver."""
    single = metric.float()
    cases: list[tuple[str, int, Callable[[int], Curve]]] = []

    def case(name: str, pairs: int, metric: PulledBackMetric, **options: Any) -> None:
        def run(n: int) -> Curve:
            ends = (x[:n].to(torch.float32 if metric is single else x.dtype) for x in (a, b))
            return connect(metric, *ends, raise_on_failure=False, **options)

        cases.append((name, pairs, run))

    case("spectral elements, several starts", len(a), metric)
    case("spectral elements, one start", len(a), metric, starts=STRAIGHT)
    case("the same, float32", len(a), single, starts=STRAIGHT)
    case("spectral elements, one pair", 1, metric, starts=STRAIGHT)
    case("L-BFGS on 64 chords", FEW, metric, solver=Polygon(), starts=STRAIGHT)
    case("spline of 10 pieces, Adam", FEW, metric, solver=Spline(), starts=STRAIGHT)
    case("scipy's solve_bvp", FEW, metric, solver=Collocation(), starts=STRAIGHT)
    best, answers = torch.full_like(a[:, 0], torch.inf), []
    for name, most, run in cases:
        pairs = min(most, len(a))
        run(min(2, pairs))
        path, seconds = timed(partial(run, pairs))
        report = path.report
        assert report is not None
        found = report.converged
        length = Curve(metric, path.mesh, path.nodes.double()).length
        best[:pairs] = torch.minimum(best[:pairs], torch.where(found, length, torch.inf))
        answers.append((name, seconds, report, length))
    rows = []
    for name, seconds, report, length in answers:
        pairs, found = len(length), report.converged
        excess = (length / best[:pairs] - 1)[found]
        worst = excess.max() if len(excess) else math.nan
        rows.append(
            f"| {name} | {pairs} | {1e3 * seconds / pairs:.1f} | "
            f"{report.evaluations.double().median():.0f} | {excess.nanmedian():.1e} | "
            f"{worst:.1e} | {found.double().mean():.3f} |"
        )
    return rows


def others(metric: PulledBackMetric, a: Tensor, b: Tensor) -> list[str]:
    """Numbers of exp, log, bounds, warm starts and distance matrices."""
    path = connect(metric, a, b, raise_on_failure=False)
    assert path.report is not None
    rows = path.report.converged.nonzero().squeeze(-1)[:16]
    a, b, path = a[rows], b[rows], Curve(metric, path.mesh, path.nodes[rows])
    v = initial_velocity(path)
    shot = shoot(metric, a, v, raise_on_failure=False)
    fine = shoot(metric, a, v, tolerance=1e-12, raise_on_failure=False)
    size = (b - a).norm(dim=-1)
    away = 0.02 * torch.randn(a.shape, dtype=a.dtype, generator=torch.Generator().manual_seed(0))
    warm = connect(metric, a + away, b, start=path, raise_on_failure=False).report
    assert warm is not None
    bound, seconds = timed(lambda: bounds(Curve(metric, path.mesh, path.nodes[:2])))
    length = path.length[:2]
    codes = torch.cat([a, b])[:20]
    matrix, spent = timed(lambda: distances(metric, codes, raise_on_failure=False))
    pairs = len(codes) * (len(codes) - 1) // 2
    return [
        (
            f"exp to 1e-10: {shot.evaluations.double().median():.0f} evaluations, error "
            f"{((shot.point - fine.point).norm(dim=-1) / size).nanmedian():.1e}"
        ),
        f"exp(log b) - b: {((shot.point - b).norm(dim=-1) / size).nanmedian():.1e} of |b - a|",
        f"warm starts: {warm.evaluations.double().median():.0f} evaluations",
        (
            f"proved bounds, {seconds / 2:.1f} s each: (upper - length)/length "
            f"{(bound.upper / length - 1).max():.1e}, lower/length "
            f"{(bound.lower / length).min():.3f}"
        ),
        (
            f"distance matrix: {1e3 * spent / pairs:.1f} ms a pair, "
            f"{int(matrix.lengths.isnan().sum()) // 2} of {pairs} not found"
        ),
    ]


def main() -> None:
    """Train, solve, print Markdown."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--pairs", type=int, default=64)
    parser.add_argument("--epochs", type=int, default=60)
    parser.add_argument("--dimensions", type=int, nargs="+", default=[2])
    arguments = parser.parse_args()
    torch.set_num_threads(1)
    for d in arguments.dimensions:
        net, codes = trained(d, arguments.epochs)
        metric = PulledBackMetric(net, d)
        order = torch.randperm(len(codes), generator=torch.Generator().manual_seed(1))
        a, b = (codes[order[k * arguments.pairs :][: arguments.pairs]] for k in (0, 1))
        print(f"\n### d = {d}, D = {metric.embed(a[:1]).shape[1]}\n")
        print("| | pairs | ms a pair | evaluations | excess, median | largest | found |")
        print("|---|---|---|---|---|---|---|")
        for row in solvers(metric, a, b):
            print(row, flush=True)
        print()
        for row in others(metric, a, b):
            print(f"- {row}", flush=True)


if __name__ == "__main__":
    main()
