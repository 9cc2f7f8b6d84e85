"""What the cross-check found: a table for the terminal, JSON, and one self-contained HTML page."""

from __future__ import annotations

import base64
import io
import json
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from jinja2 import Environment, StrictUndefined
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure
from rich.box import HEAVY_HEAD, SIMPLE_HEAD
from rich.console import Console
from rich.markup import escape
from rich.table import Table
from rich.text import Text
from torch import Tensor

from kahler_verify.errors import InputError
from kahler_verify.evidence.crosscheck import (
    METRIC_FLOAT32,
    METRIC_FLOAT64,
    CheckRow,
    CrossCheck,
)
from kahler_verify.evidence.description import HEADINGS, diagnosis_table
from kahler_verify.evidence.description import rows as described
from kahler_verify.evidence.real_report import decoded_plane, latent_maps
from kahler_verify.evidence.routes.kernel import EPSILON, MODEST, ROUTES, STANDARD_ERRORS
from kahler_verify.files import write_text
from kahler_verify.geometry import FisherMetric
from kahler_verify.models.data import to_images
from kahler_verify.models.real_vae import RealVAE
from kahler_verify.models.vae import ComplexVAE

ROUTE_NAMES = {
    "autograd": "autograd",
    "mpmath": "50 digits",
    "exact": "exact",
    "componentwise": "by component",
    "torch_kl": "torch's KL",
    "monte_carlo": "samples",
    "known": "known",
}
BLUE, ORANGE, GREY = "#0072b2", "#d55e00", "#6b7280"  # told apart by colour-blind readers too
HISTOGRAMS = ("autograd", "mpmath", "torch_kl", "known", "monte_carlo")
SUBSCRIPTS = str.maketrans("0123456789", "₀₁₂₃₄₅₆₇₈₉")
WIDE = 112  # columns of a terminal, from which tables have lines
GRID = 41
BATCH = 256


# ------------------------------------------------------------------------------- the summary


@dataclass(frozen=True)
class Cell:
    """All rows of one subject and one route, in a few characters."""

    text: str
    passed: bool


@dataclass(frozen=True)
class Line:
    """One line of the summary: a derivation or a quantity of the decoder, and its routes."""

    subject: str
    size: int
    points: int
    cells: Mapping[str, Cell]


def summary(rows: Sequence[CheckRow]) -> list[Line]:
    """Kernels by derivation, decoders by quantity."""
    groups: dict[str, list[CheckRow]] = {}
    for row in rows:
        module, _, quantity = row.kernel.partition(".")
        groups.setdefault(quantity if module == "decoder" else module, []).append(row)
    lines = []
    for subject, own in groups.items():
        by_route: dict[str, list[CheckRow]] = {}
        for row in own:
            by_route.setdefault(row.route, []).append(row)
        cells = {route: Cell(_worst(found), all(r.passed for r in found))
                 for route, found in by_route.items()}  # fmt: skip
        size = len({row.kernel for row in own})
        lines.append(Line(subject, size, sum(row.points for row in own), cells))
    return lines


def _worst(rows: Sequence[CheckRow]) -> str:
    failed = [row for row in rows if not row.passed]
    worst = max(failed or rows, key=lambda row: math.inf if math.isnan(row.error) else row.error)
    return shown_error(worst)


def shown_error(row: CheckRow) -> str:
    """An error with its unit, as tables show it."""
    if row.points == 0:
        return "not run"
    if row.unit == "exact":
        return "equal" if row.error == 0 else "differs"
    if row.unit == "standard errors":
        return f"{row.error:.1f} s.e."
    return "0" if row.error == 0 else f"{row.error:.0e}"


def _split(result: CrossCheck) -> tuple[list[Line], list[Line]]:
    on_decoder = [row for row in result.rows if row.kernel.startswith("decoder.")]
    return summary([row for row in result.rows if row not in on_decoder]), summary(on_decoder)


def _routes_of(lines: Sequence[Line]) -> list[str]:
    used = {route for line in lines for route in line.cells}
    return [route for route in ROUTE_NAMES if route in used] + sorted(used - set(ROUTE_NAMES))


def diagnosis_title(result: CrossCheck) -> str:
    """What the diagnosis is of."""
    if result.diagnosis is None:
        return ""
    return f"The decoder's geometry at {result.diagnosis.points} {result.diagnosed}"


def _bounds_in_words(result: CrossCheck) -> list[str]:
    frame = (
        "Largest error over all points, in the g-frame: each lower latent index divided by √g_aa, "
        "relative to the largest entry or to 1."
    )
    bound = (
        f"Bound: C ε cond(g) with C = {MODEST:g} and ε = {EPSILON:.1e}; "
        f"the largest C seen is {result.constant:.2g}. "
        f"Samples: within {STANDARD_ERRORS:g} standard errors (s.e.)."
    )
    words = [frame, bound]
    if result.checkpoint is not None:
        words.append(
            f"On the decoder the metric must agree to {METRIC_FLOAT64:g} in float64 "
            f"and to {METRIC_FLOAT32:g} in float32."
        )
    return words


def print_table(console: Console, result: CrossCheck, *, every: bool = False) -> None:
    """Print the summary, what failed, and the verdict; ``every`` prints each row too."""
    kernels, decoder = _split(result)
    width = console.width
    console.print(_table("Kernels against independent routes", "derivation", kernels, width))
    if decoder:
        name = f"The decoder of {result.checkpoint}, on held-out and on random latents"
        console.print(_table(name, "quantity", decoder, width))
    if result.diagnosis is not None:
        console.print(diagnosis_table(diagnosis_title(result), result.diagnosis))
    if every:
        console.print(_rows_table("Every comparison", result.rows, width))
    if result.failed:
        console.print(_rows_table("What fell short", result.failed, width))
    for words in (*result.missing, *result.notes):
        console.print(escape(words))
    for words in _bounds_in_words(result):
        console.print(f"[dim]{escape(words)}[/dim]")
    present = sum(fault.present for fault in result.faults)
    console.print(
        f"[dim]Self-test: torch {escape(torch.__version__)} has {present} of the "
        f"{len(result.faults)} known silent autograd faults; no route relies on them.[/dim]"
    )
    verdict = "[bold green]passed" if result.passed else "[bold red]FAILED"
    points = sum(row.points for row in result.rows)
    console.print(
        f"{verdict}[/]: {len(result.rows)} comparisons at {points} points, "
        f"{len(result.failed)} fell short, {result.seconds:.0f} s"
    )


def _table(title: str, subject: str, lines: Sequence[Line], width: int) -> Table:
    routes = _routes_of(lines)
    table = _narrow_table(title, width)
    table.add_column(subject, overflow="fold", min_width=10)
    columns = {"points": [str(line.points) for line in lines]}
    for route in routes:
        shown = [_coloured(line.cells.get(route)) for line in lines]
        columns[ROUTE_NAMES.get(route, escape(route))] = shown
    for heading, cells in columns.items():
        _add_numbers(table, heading, cells)
    names = [escape(x.subject) + (f" ({x.size})" if x.size > 1 else "") for x in lines]
    for row in zip(names, *columns.values(), strict=True):
        table.add_row(*row)
    return table


def _narrow_table(title: str, width: int) -> Table:
    """Without vertical lines where there is little room for them."""
    narrow = width < WIDE
    return Table(
        title=escape(title),
        title_justify="left",
        title_style="bold",
        box=SIMPLE_HEAD if narrow else HEAVY_HEAD,
        padding=(0, 0) if narrow else (0, 1),
        pad_edge=not narrow,
    )


def _add_numbers(table: Table, heading: str, cells: Sequence[str]) -> None:
    """A column whose entries are never cut; its heading may take several lines."""
    words = [*heading.split(), *[Text.from_markup(cell).plain for cell in cells]]
    table.add_column(heading, justify="right", min_width=max(map(len, words)), overflow="fold")


def _coloured(cell: Cell | None) -> str:
    if cell is None:
        return ""
    text = escape(cell.text)
    return f"[green]{text}[/]" if cell.passed else f"[bold red]✗ {text}[/]"


def _rows_table(title: str, rows: Sequence[CheckRow], width: int) -> Table:
    table = _narrow_table(title, width)
    columns = {
        "kernel": [escape(row.kernel) for row in rows],
        "route": [escape(row.route) for row in rows],
        "where": [escape(row.where) for row in rows],
    }
    numbers = {
        "points": [str(row.points) for row in rows],
        "error": [
            shown_error(row) if row.passed else f"[bold red]✗ {shown_error(row)}[/]" for row in rows
        ],
        "bound": [f"{row.bound:.1e}" for row in rows],
        "cond(g)": ["" if math.isnan(row.condition) else f"{row.condition:.1f}" for row in rows],
    }
    for heading in columns:
        table.add_column(heading, overflow="fold")
    for heading, cells in numbers.items():
        _add_numbers(table, heading, cells)
    table.add_column("note", overflow="fold")
    notes = [escape(row.note) for row in rows]
    for row in zip(*columns.values(), *numbers.values(), notes, strict=True):
        table.add_row(*row)
    return table


def write_json(result: CrossCheck, path: str | Path) -> None:
    """Write the result as JSON (the schema is that of ``CrossCheck.to_dict``)."""
    text = json.dumps(result.to_dict(), indent=1, allow_nan=False, ensure_ascii=False)
    write_text(path, text + "\n")


# ------------------------------------------------------------------------------- pictures


def error_histograms(rows: Sequence[CheckRow]) -> Figure:
    """Errors of all points, one panel for each route; zeros are drawn apart, on the left."""
    by_route: dict[str, list[float]] = {}
    for row in rows:
        if row.route in HISTOGRAMS and "float32" not in row.kernel:
            by_route.setdefault(row.route, []).extend(row.errors)
    routes = [route for route in HISTOGRAMS if by_route.get(route)]
    columns = 3
    lines = max(1, -(-len(routes) // columns))
    figure = _figure(9.6, 2.5 * lines)
    for n, route in enumerate(routes):
        axes = figure.add_subplot(lines, columns, n + 1)
        errors = np.array(by_route[route])
        if route == "monte_carlo":
            axes.hist(errors, bins=np.linspace(0, 6, 25).tolist(), color=BLUE)
            axes.axvline(STANDARD_ERRORS, color=ORANGE, linewidth=1.5)
            axes.set_xlabel("largest deviation (standard errors)")
        else:
            decades = np.arange(-18.5, -8.4, 0.5)
            finite = np.log10(np.clip(errors[(errors > 0) & np.isfinite(errors)], 3e-19, 3e-9))
            axes.hist(finite, bins=list(decades), color=BLUE)
            zeros = int((errors == 0).sum())
            axes.bar([-19.5], [zeros], width=0.8, color=GREY)
            axes.axvline(math.log10(EPSILON), color=ORANGE, linewidth=1.5)
            axes.set_xticks([-19.5, -18, -16, -14, -12, -10])
            ticks = ["0", *[rf"$10^{{{d}}}$" for d in (-18, -16, -14, -12, -10)]]
            axes.set_xticklabels(ticks)
            axes.set_xlabel("relative error" if route == "known" else "error in the g-frame")
        axes.set_title(f"{ROUTE_NAMES[route]}: {len(errors)} points", loc="left")
        axes.set_ylabel("points" if n % columns == 0 else "")
        axes.spines[["top", "right"]].set_visible(False)
    return figure


@dataclass(frozen=True)
class Plane:
    """A latent plane: one complex coordinate varies, the others are 0."""

    coordinate: int
    radius: float
    points: Tensor  # complex [GRID, GRID, d]; rows go up the imaginary axis
    log_volume: np.ndarray  # log √det g_ℝ, in nats
    defect: np.ndarray  # the norm of ∂_c g_{ab̄} - ∂_a g_{cb̄} under g
    held_out: np.ndarray | None  # that coordinate of held-out latents


def latent_plane(model: ComplexVAE, held_out: Tensor | None) -> Plane:
    """Volume and closedness defect over the coordinate that varies most among held-out latents.

    ``model`` is in float64.
    """
    d = model.config.latent_dim
    j, radius = 0, 2.0
    if held_out is not None:
        spread = (held_out - held_out.mean(0)).abs().square().mean(0)
        j = int(spread.argmax())
        radius = max(radius, 1.1 * float(torch.quantile(held_out[:, j].abs(), 0.98)))
    ticks = torch.linspace(-radius, radius, GRID, dtype=torch.float64)
    y, x = torch.meshgrid(ticks, ticks, indexing="ij")
    points = torch.zeros(GRID, GRID, d, dtype=torch.complex128)
    points[..., j] = torch.complex(x, y)
    metric = FisherMetric(model.decoder, check=False, validate_args=False)
    volumes, defects = [], []
    with torch.no_grad():
        for z in points.reshape(-1, d).split(BATCH):
            volumes.append(metric.log_volume(z))
            defects.append(_norm_under(metric.metric_matrix(z), metric.kahler_defect(z)))
    shape = (GRID, GRID)
    own = None if held_out is None else held_out[:, j].numpy()
    volume, defect = torch.cat(volumes).reshape(shape), torch.cat(defects).reshape(shape)
    return Plane(j, radius, points, volume.numpy(), defect.numpy(), own)


def _norm_under(g: Tensor, defect: Tensor) -> Tensor:
    """(Σ |T|²)^½ of T_{cab̄} [..., c, a, b] in a g-orthonormal frame, the same in all charts."""
    factor, info = torch.linalg.cholesky_ex(g)  # g[a, b] = Σ L[a, i] conj(L[b, i])
    inverse = torch.linalg.solve_triangular(
        factor, torch.eye(g.shape[-1], dtype=g.dtype).expand_as(g), upper=False
    )
    whitened = torch.einsum(
        "...ic,...ja,...kb,...cab->...ijk", inverse, inverse, inverse.conj(), defect
    )
    norm = (whitened * whitened.conj()).real.sum((-3, -2, -1)).sqrt()
    return torch.where(info > 0, torch.nan, norm)


def plane_maps(plane: Plane) -> Figure:
    """The volume map and the closedness-defect map side by side."""
    figure = _figure(9.6, 4.3)
    axes = figure.add_subplot(1, 2, 1)
    _map(
        figure, axes, plane, plane.log_volume, "cividis", r"$\log\sqrt{\det g_\mathbb{R}}$  (nats)"
    )
    axes.set_title("Volume density", loc="left")
    axes = figure.add_subplot(1, 2, 2)
    largest = np.nanmax(plane.defect) if np.isfinite(plane.defect).any() else math.nan
    if largest < 1e-10:
        label = r"$\|\partial_c g_{a\bar b}-\partial_a g_{c\bar b}\|_g$, rounding errors"
        title = "Closedness defect: zero (Kähler)"
    else:
        label = r"$\|\partial_c g_{a\bar b}-\partial_a g_{c\bar b}\|_g$"
        title = "Closedness defect (0 where Kähler)"
    _map(figure, axes, plane, plane.defect, "magma", label)
    axes.set_title(title, loc="left")
    return figure


def _map(
    figure: Figure, axes: Any, plane: Plane, values: np.ndarray, colours: str, label: str
) -> None:
    r = plane.radius
    image = axes.imshow(
        np.ma.masked_invalid(values),
        extent=(-r, r, -r, r),
        origin="lower",
        cmap=colours,
        interpolation="nearest",
    )
    axes.set_facecolor("#d1d5db")  # where the metric is not defined
    if plane.held_out is not None:
        z = plane.held_out
        axes.scatter(z.real, z.imag, s=5, c="white", edgecolors="black", linewidths=0.3, alpha=0.8)
        axes.set_xlim(-r, r)
        axes.set_ylim(-r, r)
    name = f"z_{{{plane.coordinate + 1}}}"
    axes.set_xlabel(rf"$\mathrm{{Re}}\,{name}$")
    axes.set_ylabel(rf"$\mathrm{{Im}}\,{name}$")
    bar = figure.colorbar(image, ax=axes, fraction=0.046, pad=0.03)
    bar.set_label(label)


def decoded_samples(model: ComplexVAE, plane: Plane, count: int = 7) -> Figure | None:
    """Means decoded from the prior, and over the latent plane; None where data are not images."""
    step = (GRID - 1) // (count - 1)
    grid = plane.points[::step, ::step].flip(0)  # the imaginary axis points up
    with torch.no_grad():
        drawn = to_images(model.sample_means(count * count), model.config.data)
        over = to_images(model.decoder.parameters_at(grid).mean, model.config.data)
    if drawn is None or over is None:
        return None
    figure = _figure(9.6, 5.3)
    name = f"z_{{{plane.coordinate + 1}}}"
    titles = ("Decoded from the prior", rf"Decoded over the plane of ${name}$")
    for n, (images, title) in enumerate(
        zip((drawn.unflatten(0, (count, count)), over), titles, strict=True)
    ):
        axes = figure.add_subplot(1, 2, n + 1)
        tiles = torch.nn.functional.pad(images, (1, 1, 1, 1), value=0.0)
        mosaic = tiles.permute(0, 2, 1, 3).reshape(count * tiles.shape[-2], -1)
        edge = plane.radius * count / (count - 1)  # tiles are centred on their latents
        extent = None if n == 0 else (-edge, edge, -edge, edge)
        axes.imshow(mosaic.numpy(), cmap="gray", vmin=0, vmax=1, extent=extent)
        axes.set_title(title, loc="left")
        if n == 0:
            axes.set_xticks([])
            axes.set_yticks([])
        else:
            axes.set_xlabel(rf"$\mathrm{{Re}}\,{name}$")
            axes.set_ylabel(rf"$\mathrm{{Im}}\,{name}$")
    return figure


def _figure(width: float, height: float) -> Figure:
    figure = Figure(figsize=(width, height), dpi=110, layout="constrained")
    FigureCanvasAgg(figure)
    return figure


def _data_uri(figure: Figure) -> str:
    buffer = io.BytesIO()
    figure.savefig(buffer, format="png", metadata={"Software": None})
    return "data:image/png;base64," + base64.b64encode(buffer.getvalue()).decode("ascii")


# ------------------------------------------------------------------------------- the page


@dataclass(frozen=True)
class Picture:
    """A figure of the page."""

    title: str
    uri: str
    alt: str
    caption: str


def _pictures_of_a_plane(model: ComplexVAE, held_out: Tensor | None) -> list[Picture]:
    pictures = []
    plane = latent_plane(model, held_out)
    j = str(plane.coordinate + 1).translate(SUBSCRIPTS)
    dots = (
        " Dots: held-out samples, by that coordinate of theirs."
        if plane.held_out is not None
        else ""
    )
    low, high = np.nanmin(plane.log_volume), np.nanmax(plane.log_volume)
    pictures.append(
        Picture(
            "The geometry of the decoder over a latent plane",
            _data_uri(plane_maps(plane)),
            f"Two maps over the plane of z{j}: log volume density from {low:.1f} to "
            f"{high:.1f} nats, and closedness defect up to {np.nanmax(plane.defect):.2g}.",
            f"The plane of z{j}, the latent coordinate that varies most; the others are 0."
            f"{dots} Left: the density of the Fisher volume, high where the decoder tells "
            "latents apart finely. Right: how far the Fisher metric is from Kähler, in a "
            "g-orthonormal frame. Grey: not defined.",
        )
    )
    samples = decoded_samples(model, plane)
    if samples is not None:
        pictures.append(
            Picture(
                "What it decodes",
                _data_uri(samples),
                "Two mosaics of decoded digits, from random latents and over the latent plane.",
                "Means of the likelihood as images: at latents drawn from the prior CN(0, I), "
                f"and over the plane of z{j} of the maps above.",
            )
        )
    return pictures


def _pictures_at_real_latents(model: RealVAE, held_out: Tensor | None) -> list[Picture]:
    dots = "" if held_out is None else " Dots: held-out samples."
    pictures = [
        Picture(
            "The geometry of the decoder over two latent coordinates",
            _data_uri(latent_maps(model, held_out)),
            "Maps of the log volume density and of the scalar curvature of the Fisher-Rao metric.",
            f"The first two latent coordinates; the others are 0.{dots} Left: the density of the "
            "Fisher-Rao volume, high where the decoder tells latents apart finely. Right: its "
            "scalar curvature, twice the Gauss curvature of a surface.",
        )
    ]
    decoded = decoded_plane(model)
    if decoded is not None:
        pictures.append(
            Picture(
                "What it decodes",
                _data_uri(decoded),
                "A mosaic of decoded digits over the latent plane.",
                "Means of the likelihood as images, over the first two latent coordinates.",
            )
        )
    return pictures


def _pictures(result: CrossCheck) -> list[Picture]:
    pictures = []
    if isinstance(result.model, RealVAE):
        pictures += _pictures_at_real_latents(result.model, result.held_out)
    elif result.model is not None:
        pictures += _pictures_of_a_plane(result.model, result.held_out)
    pictures.append(
        Picture(
            "How large the errors are",
            _data_uri(error_histograms(result.rows)),
            "Histograms of errors, one for each route; all lie near 1e-16, far below the bounds.",
            "One count for each point. The orange line is float64's ε = 2.2e-16, and for samples "
            f"the limit of {STANDARD_ERRORS:g} standard errors. Grey: no difference at all. The "
            "float32 check is left out.",
        )
    )
    return pictures


def save_picture(result: CrossCheck, path: str | Path) -> None:
    """Save the maps of the decoder's volume and closedness defect as a PNG.

    Raises:
        InputError: the cross-check had no checkpoint.
    """
    if result.model is None:
        raise InputError("result: expected a cross-check of a checkpoint, got one without")
    if isinstance(result.model, RealVAE):
        latent_maps(result.model, result.held_out).savefig(path, format="png")
        return
    plane_maps(latent_plane(result.model, result.held_out)).savefig(path, format="png")


def write_html(result: CrossCheck, path: str | Path) -> None:
    """Write one page that needs nothing else; every string in it is escaped."""
    environment = Environment(autoescape=True, undefined=StrictUndefined, trim_blocks=True)
    template = Path(__file__).with_name("report.html.j2").read_text(encoding="utf-8")
    kernels, decoder = _split(result)
    config: dict[str, Any] = {} if result.model is None else result.model.config.to_dict()
    text = environment.from_string(template).render(
        result=result,
        tables=[
            ("Kernels", "derivation", kernels, _routes_of(kernels)),
            ("The trained decoder", "quantity", decoder, _routes_of(decoder)),
        ],
        route_names=ROUTE_NAMES,
        route_titles={name: route.title for name, route in ROUTES.items()},
        bounds=_bounds_in_words(result),
        diagnosis_title=diagnosis_title(result),
        diagnosis_headings=HEADINGS,
        diagnosis_rows=[] if result.diagnosis is None else described(result.diagnosis),
        pictures=_pictures(result),
        points=sum(row.points for row in result.rows),
        kernel_count=len({r.kernel for r in result.rows if not r.kernel.startswith("decoder.")}),
        config=config,
        elbo=result.report.get("test_elbo"),
        shown_error=shown_error,
        isnan=math.isnan,
    )
    write_text(path, text)
