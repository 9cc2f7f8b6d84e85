"""The command ``fit-land``: locally adaptive normal laws fitted to points, or to encoded data."""

from __future__ import annotations

from io import BytesIO
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from kahler_verify.cli.consoles import beside, errors, say
from kahler_verify.errors import InputError
from kahler_verify.files import require_writable, write_bytes, write_text

if TYPE_CHECKING:
    from torch import Tensor

    from kahler_verify.geometry.riemannian import RiemannianMetric
    from kahler_verify.statistics import AdaptiveLaw, Candidate

WIDTH, BESIDE, ABOVE = 4.6, 0.6, 0.8  # inches of a picture's panel, and of words about it
EXACT = 1000  # points up to which every logarithm is a geodesic of its own


def fit_land(
    data: Annotated[
        str,
        typer.Argument(
            help="Points: .npy, .npz or .csv; a recording of sleep, .edf or .bdf, as two principal "
            "components of its band powers; a name, semicircle, moons, spirals or gaussian; or, "
            "with a checkpoint, #200 for its first 200 held-out samples, encoded."
        ),
    ],
    metric: Annotated[
        str, typer.Option(help="data, or a checkpoint: its decoder's Fisher-Rao metric.")
    ] = "data",
    sigma: Annotated[
        list[float] | None, typer.Option(help="Reach of the data metric; may be repeated.")
    ] = None,
    rho: Annotated[float | None, typer.Option(help="Its ρ; 0.0022 Nσ² by default.")] = None,
    components: Annotated[list[int] | None, typer.Option(help="How many; may be repeated.")] = None,
    held_out: Annotated[float, typer.Option(help="Part of the points that validates.")] = 0.25,
    rays: Annotated[int, typer.Option(help="Geodesics in a fan.")] = 128,
    seed: Annotated[int, typer.Option(help="Of the partition and of starts.")] = 0,
    kept: Annotated[
        Path | None, typer.Option(help="A folder; a fit that was interrupted goes on from it.")
    ] = None,
    json: Annotated[Path | None, typer.Option(help="Write all candidates and the best.")] = None,
    plot: Annotated[Path | None, typer.Option(help="Draw the best (.png), in the plane.")] = None,
) -> None:
    """Fit mixtures of locally adaptive normal laws, and choose by validated likelihood."""
    from json import dumps

    import torch

    from kahler_verify.statistics import candidates

    for name, output, ending in (("json", json, ""), ("plot", plot, ".png")):
        require_writable(name, output, ending)
    if not 0 < held_out < 1:
        raise InputError(f"held-out: expected a part between 0 and 1, got {held_out}")
    numbers = components or [1]
    if min(numbers) < 1:
        raise InputError(f"components: expected at least 1, got {min(numbers)}")
    points, decoder = _points(data, metric, seed)
    if decoder is not None:
        decoder = _tabulated(decoder, points)
    order = torch.randperm(len(points), generator=torch.Generator().manual_seed(seed))
    count = round(held_out * len(points))
    if count < 1 or len(points) - count <= points.shape[1]:
        raise InputError(
            f"data: {len(points)} points in {points.shape[1]} dimensions are too few to hold "
            f"{count} of them out"
        )
    validation, x = points[order[:count]], points[order[count:]]
    metrics = {"decoder": decoder} if decoder is not None else _data_metrics(x, sigma, rho)
    if kept is not None:
        kept.mkdir(parents=True, exist_ok=True)
    found = candidates(
        x,
        validation,
        metrics,
        numbers,
        lambda name, own, k: _fitted(x, name, own, k, rays, seed, kept),
        seed=seed,
    )
    out = beside(json, plot)
    _show(found, out)
    best = found[0]
    assert best.law is not None
    if json is not None:
        answer = {
            "data": data,
            "points": {"fitted": len(x), "validating": len(validation)},
            "measure": "the chart's (Lebesgue), nats per point",
            "candidates": [_plain(each) for each in found],
            "best": _described(best.law),
        }
        write_text(json, dumps(answer, indent=1, allow_nan=False))
    if plot is not None:
        if points.shape[1] != 2:
            raise InputError(f"plot: expected points in the plane, got d = {points.shape[1]}")
        write_bytes(plot, _picture(found, x, _axes_of(data)))


def _points(data: str, metric: str, seed: int) -> tuple[Tensor, RiemannianMetric | None]:
    """What is fitted, float64 [N, d], and a checkpoint's metric."""
    if metric == "data":
        return _read(data, seed), None
    from kahler_verify.cli.latents import open_latents

    latents = open_latents(Path(metric))
    if not data.startswith("#"):
        return _read(data, seed), latents.metric
    if not data[1:].isdigit() or int(data[1:]) < 1:
        raise InputError(f"data: expected # and how many held-out samples, got {data!r}")
    samples = latents.held_out(None)
    if samples is None:
        raise InputError(
            f"data: the data of {metric} have no name that is followed; give encoded points in a "
            "file"
        )
    return latents.encoded(samples[: int(data[1:])]).double(), latents.metric


def _tabulated(metric: RiemannianMetric, points: Tensor) -> RiemannianMetric:
    """In the plane a table of a decoder's metric, a box about the points; else it itself.

    A decoder saturates far from its codes: there its metric vanishes, and geodesics would go on
    for ever through latents that mean nothing.  The box is the whole space instead.
    """
    from kahler_verify.geometry import table_about

    if points.shape[1] != 2:
        return metric
    try:
        table = table_about(metric, points)
    except InputError as error:
        say(f"no table of the metric, which will be slow: {error}", to=errors)
        return metric
    gap = float(table.errors_at(points).max())
    say(f"the metric is read off a table, right to {gap:.1e} at the points", to=errors)
    return table


def _read(data: str, seed: int) -> Tensor:
    import numpy as np
    import torch

    from kahler_verify.models.arrays import FORMAT_ERRORS, read_arrays
    from kahler_verify.models.recordings import SUFFIXES, band_powers, principal

    if data in NAMED:
        return torch.from_numpy(named_points(data, seed))
    path = Path(data)
    if not path.exists():
        raise InputError(f"data: {data!r} is no file and none of {', '.join(NAMED)}")
    if path.suffix.lower() in SUFFIXES:
        return torch.from_numpy(principal(band_powers(path)))
    try:
        if path.suffix == ".csv":
            array = np.genfromtxt(path, delimiter=",", dtype=np.float64)
        else:
            array = read_arrays(path)[0]
        array = np.asarray(array, dtype=np.float64)
    except FORMAT_ERRORS as error:
        raise InputError(f"data: cannot read points from {data}: {error}") from error
    if array.ndim != 2 or 0 in array.shape:
        raise InputError(f"data: expected points [N, d] in {data}, got {list(array.shape)}")
    if not np.isfinite(array).all():
        rows = np.flatnonzero(~np.isfinite(array).all(1)).tolist()
        raise InputError(
            f"data: {len(rows)} of {len(array)} points in {data} have NaN or infinities, the first "
            f"of them {rows[:8]}"
        )
    return torch.from_numpy(array)


NAMED = ("semicircle", "moons", "spirals", "gaussian")


def named_points(name: str, seed: int, count: int = 260) -> Any:
    """Points of a shape that ``NAMED`` has, [count, 2]."""
    import numpy as np
    from sklearn.datasets import make_moons

    random = np.random.default_rng(seed)
    noise = 0.1 * random.standard_normal((count, 2))
    if name == "moons":
        return make_moons(count, noise=0.1, random_state=seed)[0]
    if name == "gaussian":
        root = np.linalg.cholesky(np.array([[0.5, 0.3], [0.3, 0.4]]))
        return 10 * noise @ root.T
    angle = np.pi * random.random(count)
    if name == "semicircle":
        return np.stack([np.cos(angle), np.sin(angle)], 1) + noise
    radius, side = 0.4 + 0.5 * angle, np.where(random.random(count) < 0.5, 1, -1)
    place = np.stack([np.cos(2 * angle), np.sin(2 * angle)], 1)
    return (radius * side)[:, None] * place + noise / 2


def _data_metrics(
    x: Tensor, sigma: list[float] | None, rho: float | None
) -> dict[str, RiemannianMetric]:
    from scipy.spatial import cKDTree

    from kahler_verify.statistics import data_metric

    if not sigma:
        near = cKDTree(x.numpy()).query(x.numpy(), min(9, len(x)))[0][:, -1].mean()
        sigma = [float(f"{factor * near:.2g}") for factor in (1.0, 2.0)]
        if min(sigma) == 0:
            raise InputError("data: expected distinct points, but most of them are repeated")
    if min(sigma) <= 0:
        raise InputError(f"sigma: expected positive numbers, got {min(sigma)}")
    return {f"data, σ = {each:g}": data_metric(x, each, rho) for each in sigma}


def _fitted(
    x: Tensor,
    name: str,
    metric: RiemannianMetric,
    k: int,
    rays: int,
    seed: int,
    kept: Path | None,
) -> AdaptiveLaw:
    from kahler_verify.statistics import AdaptiveNormalMixture

    def progress(n: int, likelihood: float) -> None:
        say(f"{name}, K = {k}, iteration {n}: {likelihood:.6f} nats per point", to=errors)

    fit = AdaptiveNormalMixture(
        metric,
        k,
        rays=rays,
        precision=1e-7,
        tolerance=1e-5,
        exact=len(x) <= EXACT,
        seed=seed,
        progress=progress,
        kept=None if kept is None else kept / f"{name} K={k}.npz".replace(" ", "_"),
    )
    return fit.fit(x).law_


def _show(found: list[Candidate], out: Any) -> None:
    from rich.table import Table

    table = Table("metric", "K", "fitted", "validated", "", title="nats per point, Lebesgue")
    for each in found:
        numbers = [f"{value:.4f}" for value in (each.training, each.validated)]
        table.add_row(each.metric, str(each.components), *numbers, each.failure[:60])
    out.print(table)


def _plain(each: Candidate) -> dict[str, Any]:
    numbers = {"fitted": each.training, "validated": each.validated}
    finite = {k: v if abs(v) != float("inf") else None for k, v in numbers.items()}
    out = {"metric": each.metric, "components": each.components, **finite}
    return out | ({"failure": each.failure} if each.failure else {})


def _described(law: AdaptiveLaw) -> dict[str, Any]:
    report = law.cut()
    return {
        "weights": law.weights.tolist(),
        "means": law.means.tolist(),
        "covariances": law.covariances.tolist(),
        "log_normalisers": law.log_normalisers.tolist(),
        "cut": {name: values.tolist() for name, values in report._asdict().items()},
    }


def _axes_of(data: str) -> tuple[str, str]:
    from kahler_verify.models.recordings import SUFFIXES

    if Path(data).suffix.lower() in SUFFIXES:
        return "first principal component of log powers", "second"
    return "first coordinate", "second"


def _picture(found: list[Candidate], x: Tensor, names: tuple[str, str]) -> bytes:
    """The best law, and the best of the other kind beside it."""
    from matplotlib.figure import Figure

    from kahler_verify.statistics import portrait
    from kahler_verify.statistics.adaptive.selection import FLAT

    other = [each for each in found if (each.metric == FLAT) != (found[0].metric == FLAT)]
    shown = [found[0], *[each for each in other if each.law is not None][:1]]
    figure, tall = Figure(layout="constrained"), 0.0
    for axes, each in zip(figure.subplots(1, len(shown), squeeze=False)[0], shown, strict=True):
        assert each.law is not None
        title = f"{each.metric}, K = {each.components}: {each.validated:.3f} nats, validated"
        portrait(each.law, axes, x, label=title)
        axes.set_xlabel(names[0])
        axes.set_ylabel(names[1])
        (left, right), (low, high) = axes.get_xlim(), axes.get_ylim()
        tall = max(tall, (high - low) / (right - left))
    figure.set_size_inches(WIDTH * len(shown), (WIDTH - BESIDE) * tall + ABOVE)
    out = BytesIO()
    figure.savefig(out, format="png", dpi=120)
    return out.getvalue()
