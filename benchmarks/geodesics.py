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
    Nearby,
    Polygon,
    Spectral,
    Spline,
    Status,
    bounds,
    connect,
    distances,
    initial_velocity,
    regularised,
    shoot,
)
from kahler_verify.curves.tour import places
from kahler_verify.geometry import PulledBackMetric
from kahler_verify.models import RealVAEConfig, TrainingOptions, load_data, train

FEW = 6  # pairs that slow solvers are given


def trained(d: int, epochs: int) -> tuple[nn.Module, Tensor]:
    """The network of a decoder's means, and codes of samples, those of the test set first."""
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
    codes: Tensor = model.encoder(torch.cat([data.test.x, data.train.x]).double())[0]
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
        if path.nodes.dtype == torch.float64:  # others' end points are rounded, and so are lengths
            best[:pairs] = torch.minimum(best[:pairs], torch.where(found, length, torch.inf))
        answers.append((name, seconds, report, length))
    rows = []
    for name, seconds, report, length in answers:
        pairs, found = len(length), report.converged
        excess = (length / best[:pairs] - 1)[found].abs()
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
    near = connect(metric, a + away, b, start=path, solver=Nearby(), raise_on_failure=False).report
    assert near is not None
    few = Curve(metric, path.mesh, path.nodes[:2])
    bound, seconds = timed(lambda: bounds(few))
    quick, fewer = timed(lambda: bounds(path, segments=128, arithmetic="floats"))
    length = path.length[:2]
    lines = [
        (
            f"exp to 1e-10: {shot.evaluations.double().median():.0f} evaluations, error "
            f"{((shot.point - fine.point).norm(dim=-1) / size).nanmedian():.1e}"
        ),
        f"exp(log b) - b: {((shot.point - b).norm(dim=-1) / size).nanmedian():.1e} of |b - a|",
        f"from a curve that ends 0.02 away: {near.evaluations.double().median():.0f} evaluations",
        (
            f"proved bounds, {seconds / 2:.1f} s each: (upper - length)/length "
            f"{(bound.upper / length - 1).max():.1e}, lower/length "
            f"{(bound.lower / length).min():.3f}"
        ),
        (
            f"by intervals of floats on 128 segments, {1e3 * fewer / len(rows):.1f} ms each: "
            f"{(quick.upper / path.length - 1).median():.1e}, at most "
            f"{(quick.upper / path.length - 1).max():.1e}"
        ),
    ]
    if a.shape[1] == 2:
        dual, spent = timed(lambda: bounds(few, segments=64, arithmetic="floats", cells=128))
        assert dual.inside is not None
        lines.append(
            f"potential on 128 x 128 cells, {spent / 2:.1f} s each: lower/length "
            f"{(dual.inside / length).tolist()}, proved: {dual.proved}"
        )
    return lines


def matrix(metric: PulledBackMetric, codes: Tensor) -> list[str]:
    """Six rows of the matrix of 500 codes: those of a point and of its neighbours."""
    codes = codes[:500]
    middle = 100
    own = torch.cat([torch.tensor([middle]), places(metric, codes).near[middle, :5]])
    found, spent = timed(
        lambda: distances(metric, codes[own], codes, segments=128, raise_on_failure=False)
    )
    pairs = found.lengths.numel()
    spent_on = found.report.evaluations.double()
    some = torch.randperm(pairs, generator=torch.Generator().manual_seed(0))[:300]
    a, b = codes[own][some // len(codes)], codes[some % len(codes)]
    cold, seconds = timed(lambda: connect(metric, a, b, raise_on_failure=False).report)
    gap = found.lengths.flatten()[some] / cold.length - 1
    whole = 500 * 499 // 2
    return [
        (
            f"{pairs} pairs of the matrix, {int(found.lengths.isnan().sum())} not found: "
            f"{1e3 * spent / pairs:.2f} ms each with proved bounds on 128 segments, "
            f"{spent_on.median():.0f} evaluations (mean {spent_on.mean():.0f}); at that rate all "
            f"{whole} take {whole * spent / pairs / 60:.1f} minutes on one core"
        ),
        (
            f"300 of them from all starts: {1e3 * seconds / 300:.2f} ms and "
            f"{cold.evaluations.double().median():.0f} evaluations each without bounds; the "
            f"matrix's lengths are longer by at most {gap.nan_to_num(0).max():.1e}"
        ),
    ]


def whole_matrix(metric: PulledBackMetric, codes: Tensor, out: Path, workers: int) -> list[str]:
    """All pairs of codes by processes, with proved bounds; what the store has is not done again."""
    from kahler_verify import fields

    source = fields.of_metric(metric, codes.shape[1])
    start = time.perf_counter()
    done = fields.compute_distances(
        source,
        fields.codes(source.space, codes.numpy()),
        out,
        segments=64,
        engine=fields.Processes(workers),
    )
    spent = time.perf_counter() - start
    found = fields.open_distances(out)
    pairs = torch.triu_indices(len(codes), len(codes), 1)
    parts = {
        name: torch.from_numpy(found[name])[pairs[0], pairs[1]]
        for name in ("length", "lower", "upper", "status", "evaluations")
    }
    length = parts["length"]
    return [
        (
            f"{len(length)} pairs of {len(codes)} codes by {workers} processes: "
            f"{spent / 60:.1f} minutes ({done.kept} of {done.kept + len(done.done)} tiles were "
            f"there before), {int((parts['status'] == Status.MINIMUM).sum())} minima, "
            f"{parts['evaluations'].double().median():.0f} evaluations "
            f"(mean {parts['evaluations'].double().mean():.0f})"
        ),
        (
            f"proved bounds on 64 segments: {(parts['upper'] / length - 1).nanmedian():.1e} above "
            f"the length, at most {(parts['upper'] / length - 1).nan_to_num(0).max():.1e}; "
            f"{(parts['lower'] / length).nanmedian():.2f} of it below; {found.detours()} pairs "
            "are longer than a way over a third code"
        ),
    ]


def antipodes() -> list[str]:
    """How often a search ends at a minimum, and the right one, at ε from the antipode."""

    def lift(z: Tensor) -> Tensor:
        s = (z * z).sum(-1, keepdim=True)
        return torch.cat([2 * z, s - 1], -1) / (1 + s)

    generator = torch.Generator().manual_seed(0)
    lines = []
    for epsilon in (0.3, 0.1, 0.03, 0.01):
        x, v = torch.randn(2, 400, 3, dtype=torch.float64, generator=generator)
        x = x / x.norm(dim=-1, keepdim=True)
        v = v - (v * x).sum(-1, keepdim=True) * x
        v = v / v.norm(dim=-1, keepdim=True)
        angle = math.pi - epsilon
        y = math.cos(angle) * x + math.sin(angle) * v
        inside = ((x[:, 2] < 0.8) & (y[:, 2] < 0.8)).nonzero().squeeze(-1)[:128]
        a, b = (p[inside, :2] / (1 - p[inside, 2:]) for p in (x, y))
        for name, starts in (("one start", STRAIGHT), ("several", None)):
            report = connect(
                PulledBackMetric(lift), a, b, starts=starts, raise_on_failure=False
            ).report
            assert report is not None
            right = (report.length - angle).abs() < 1e-8
            lines.append(
                f"{epsilon} from the antipode, {name}: {report.converged.double().mean():.3f} "
                f"minima, {right.double().mean():.3f} right, "
                f"{report.evaluations.double().median():.0f} evaluations"
            )
    return lines


def floors(metric: PulledBackMetric, codes: Tensor, a: Tensor, b: Tensor) -> list[str]:
    """What meshes the metric itself needs, and searches in metrics with a floor."""
    few = Spectral(levels=Spectral.levels[:3])
    done = connect(
        metric, a, b, solver=few, starts=STRAIGHT, raise_on_failure=False
    ).report.converged
    looks = sum(mesh.size for mesh in Spectral.levels[:5])
    lines = [
        (
            f"resolved by 8 elements of degree 8: {done.double().mean():.2f}; the others are "
            f"looked at on 32 too, which takes {looks} evaluations with one on each mesh"
        )
    ]
    for strength in (1e-3, 1e-2):
        floored = regularised(metric, codes, strength)
        report, spent = timed(
            partial(connect, floored, a, b, starts=STRAIGHT, raise_on_failure=False)
        )
        report = report.report
        lines.append(
            f"with a floor of {strength} of the mean eigenvalue: "
            f"{report.converged.double().mean():.3f} found, "
            f"{report.evaluations.double().median():.0f} evaluations, "
            f"{1e3 * spent / len(a):.0f} ms a pair"
        )
    return lines


def main() -> None:
    """Train, solve, print Markdown."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--pairs", type=int, default=64)
    parser.add_argument("--epochs", type=int, default=60)
    parser.add_argument("--without-rivals", action="store_true")
    parser.add_argument("--dimensions", type=int, nargs="+", default=[2])
    parser.add_argument("--matrix", type=Path, help="only the matrix of 500 codes, in this store")
    parser.add_argument("--codes", type=int, default=500, help="of that matrix")
    parser.add_argument("--workers", type=int, default=2, help="processes for that matrix")
    arguments = parser.parse_args()
    torch.set_num_threads(1)
    for d in arguments.dimensions:
        net, codes = trained(d, arguments.epochs)
        metric = PulledBackMetric(net, d)
        if arguments.matrix is not None:
            some = codes[: arguments.codes]
            for row in whole_matrix(metric, some, arguments.matrix, arguments.workers):
                print(f"- {row}", flush=True)
            continue
        tests = codes[:180]
        order = torch.randperm(len(tests), generator=torch.Generator().manual_seed(1))
        a, b = (codes[order[k * arguments.pairs :][: arguments.pairs]] for k in (0, 1))
        print(f"\n### d = {d}, D = {metric.embed(a[:1]).shape[1]}\n")
        if not arguments.without_rivals:
            print("| | pairs | ms a pair | evaluations | excess, median | largest | found |")
            print("|---|---|---|---|---|---|---|")
            for row in solvers(metric, a, b):
                print(row, flush=True)
            print()
        lines = others(metric, a, b) if d < 32 else []
        if d == 2:
            lines += matrix(metric, codes) + antipodes()
        else:
            lines += floors(metric, codes[:180], a, b)
        for row in lines:
            print(f"- {row}", flush=True)


if __name__ == "__main__":
    main()
