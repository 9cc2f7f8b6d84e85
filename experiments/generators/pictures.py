"""The experiment as pictures: a latent plane with geodesics, strips, regions, an analogy."""

from __future__ import annotations

from pathlib import Path

import torch
from matplotlib.figure import Figure
from torch import Tensor

from experiments.generators import measures
from experiments.generators.declaration import TRIPLES, Sizes
from experiments.generators.models import model_of
from kahler_verify.curves import STRAIGHT, Curve, analogy, connect
from kahler_verify.geometry import RiemannianMetric, table_about
from kahler_verify.models import RealVAE, load_data
from kahler_verify.plots import Plane, plot_codes, plot_field, plot_frames, plot_geodesics
from kahler_verify.plots.maps import plot_values
from kahler_verify.statistics import AdaptiveNormalMixture, RiemannianKMeans, portrait

SEED = 0
PAIRS = 6
SIDE = 12  # points along the longer side of the map of regions
CLUSTERED = 12  # points of each class


def draw(folder: Path, sizes: Sizes, assets: Path) -> None:
    """All pictures of the RBF model of the first seed, into ``assets``."""
    model = model_of(folder, SEED, "rbf", sizes)
    test = load_data("digits-images", SEED).test
    codes = measures.codes_of(model, test.x.double())
    assert test.labels is not None
    metric = measures.metrics(model)["expected"]
    order = torch.randperm(len(codes), generator=torch.Generator().manual_seed(SEED))
    a, b = codes[order[: 2 * PAIRS]].chunk(2)
    path = connect(metric, a, b, raise_on_failure=False)
    line = Curve.through(metric, lambda t: a[:, None] + t[:, None] * (b - a)[:, None])
    plane(metric, codes, test.labels, path, line).savefig(assets / "generators_plane.png", dpi=110)
    bent = int((line.length / path.length).nan_to_num(0).argmax())
    strips(model, metric, a[bent], b[bent]).savefig(assets / "generators_strips.png", dpi=130)
    regions(metric, codes, test.labels, sizes).savefig(assets / "generators_regions.png", dpi=110)
    laws(metric, codes, test.labels).savefig(assets / "generators_laws.png", dpi=110)
    answer(model, metric, codes, test.labels).savefig(assets / "generators_analogy.png", dpi=130)


def plane(
    metric: RiemannianMetric, codes: Tensor, labels: Tensor, path: Curve, line: Curve
) -> Figure:
    """The volume density, the codes, and geodesics beside straight lines."""
    figure = Figure(figsize=(7.4, 5.6), layout="constrained")
    axes = figure.subplots()
    own = Plane.of(codes)
    plot_field(metric, "log_volume", axes=axes, plane=own, cmap="Greys_r")
    plot_codes(codes, labels, axes=axes, plane=own, s=16, legend=False)
    plot_geodesics(path, axes=axes, plane=own, label="geodesics", color="#ffffff", linewidth=2.2)
    plot_geodesics(
        line, axes=axes, plane=own, label="straight", color="#ffb300", linewidth=1.2, linestyle="--"
    )
    axes.legend(fontsize=8, loc="upper right", facecolor="#777777", labelcolor="white")
    return figure


def strips(model: RealVAE, metric: RiemannianMetric, a: Tensor, b: Tensor) -> Figure:
    """Images along the geodesic and along the straight line, at equal times."""
    path = connect(metric, a, b)
    line = Curve.through(metric, lambda t: a + t[:, None] * (b - a))
    figure = Figure(figsize=(8, 1.9), layout="constrained")
    for axes, curve, name in zip(
        figure.subplots(2, 1), (path, line), ("geodesic", "straight"), strict=True
    ):
        plot_frames(curve, model.decoder.mean, axes=axes, count=13, cmap="gray_r")
        axes.set_title(f"{name}, length {float(curve.length):.2f}", fontsize=8, loc="left")
    return figure


def regions(metric: RiemannianMetric, codes: Tensor, labels: Tensor, sizes: Sizes) -> Figure:
    """Which centre of geodesic k-means is nearest, beside the classes of a triple."""
    triple = TRIPLES[1]
    rows = torch.cat([(labels == c).nonzero()[:CLUSTERED, 0] for c in triple])
    own, truth = codes[rows], labels[rows]
    fit = RiemannianKMeans(metric, 3, n_init=sizes.runs, random_state=SEED).fit(own)
    where = Plane.of(own)
    grid, centres = where.grid(SIDE), torch.from_numpy(fit.cluster_centers_)
    found = nearest(metric, grid, centres)
    figure = Figure(figsize=(6, 5), layout="constrained")
    axes = figure.subplots()
    plot_values(found, where, axes=axes, cmap="Pastel2", legend=False)
    plot_codes(own, truth, axes=axes, plane=where, s=30)
    axes.scatter(centres[:, 0], centres[:, 1], marker="x", color="black", s=60, zorder=5)
    return figure


def laws(metric: RiemannianMetric, codes: Tensor, labels: Tensor) -> Figure:
    """A mixture of locally adaptive normal laws, beside the classes of a triple that it is of."""
    rows = torch.isin(labels, torch.tensor(TRIPLES[1]))
    own, truth = codes[rows], labels[rows]
    table = table_about(metric, own)
    fit = AdaptiveNormalMixture(
        table,
        3,
        rays=32,
        precision=1e-3,
        tolerance=1e-3,
        most_iterations=25,
        exact=False,
        seed=SEED,
    )
    law = fit.fit(own).law_
    figure = Figure(figsize=(6, 5), layout="constrained")
    axes = figure.subplots()
    portrait(law, axes, own)
    plot_codes(own, truth, axes=axes, plane=Plane.of(own), s=30)
    return figure


def nearest(metric: RiemannianMetric, grid: Tensor, centres: Tensor) -> Tensor:
    """Numbers of the centres [K, d] with the shortest geodesics to a grid [..., d]; or NaN."""
    lengths = torch.stack(
        [
            connect(metric, c.expand_as(grid), grid, starts=STRAIGHT, raise_on_failure=False).length
            for c in centres
        ]
    ).nan_to_num(torch.inf)
    least, which = lengths.min(0)
    return torch.where(least.isfinite(), which.double(), torch.nan)


def answer(model: RealVAE, metric: RiemannianMetric, codes: Tensor, labels: Tensor) -> Figure:
    """A is to B as C is to what? By geodesics, and by vectors."""
    a, b, c = (codes[(labels == k).nonzero()[0, 0]] for k in (1, 7, 4))
    curved = analogy(metric, a, b, c).point
    shown = {"A": a, "B": b, "C": c, "D by geodesics": curved, "C + B − A": c + b - a}
    figure = Figure(figsize=(6.2, 1.6), layout="constrained")
    for axes, (name, z) in zip(figure.subplots(1, len(shown)), shown.items(), strict=True):
        plot_frames(z[None], model.decoder.mean, axes=axes, cmap="gray_r")
        axes.set_title(name, fontsize=8)
    return figure
