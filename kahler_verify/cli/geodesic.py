"""The command ``geodesic``: a shortest curve between two latents, and how far it can be trusted."""

from __future__ import annotations

from dataclasses import replace
from io import BytesIO
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from kahler_verify.cli.consoles import beside, say
from kahler_verify.cli.user_models import LATENTS_HELP, MODULE_HELP, open_module
from kahler_verify.files import require_writable, write_bytes, write_text

if TYPE_CHECKING:
    from kahler_verify.cli.latents import Latents
    from kahler_verify.curves import Bounds, Curve
    from kahler_verify.plots import Plane

WIDE = 1.5  # of a curve's extent, that its picture shows
STYLES: tuple[dict[str, Any], ...] = (
    {"color": "#d55e00", "linewidth": 2.2},
    {"color": "#0072b2", "linestyle": "--", "linewidth": 1.8},
)


def geodesic(
    checkpoint: Annotated[str, typer.Argument(help="A checkpoint; none with --module.")],
    a: Annotated[str, typer.Argument(help="Coordinates, 0.5,-1 or 1+2j,0, or a sample, #3.")],
    b: Annotated[
        str | None, typer.Argument(help="As A.  Put -- before A if one begins with a minus.")
    ] = None,
    data: Annotated[
        Path | None, typer.Option(help="Held-out data of a checkpoint trained on a file.")
    ] = None,
    module: Annotated[str | None, typer.Option(help=MODULE_HELP)] = None,
    latents: Annotated[str | None, typer.Option(help=LATENTS_HELP)] = None,
    times: Annotated[int, typer.Option(help="Points of the curve in the JSON.")] = 33,
    segments: Annotated[
        int, typer.Option(help="Pieces of the curve for an upper bound of its length; 0: none.")
    ] = 128,
    cells: Annotated[
        int,
        typer.Option(
            help="In a plane, cells a side for a lower bound of all curves within a box; 0: none."
        ),
    ] = 0,
    json: Annotated[Path | None, typer.Option(help="Write curve and report as JSON.")] = None,
    plot: Annotated[Path | None, typer.Option(help="Draw the curve and a line (.png).")] = None,
) -> None:
    """Find the geodesic between two latents in the decoder's Fisher-Rao metric."""
    from json import dumps

    import torch

    from kahler_verify.cli.latents import of_user, open_latents, point
    from kahler_verify.curves import Curve, Status, bounds
    from kahler_verify.errors import InputError

    for name, output, ending in (("json", json, ""), ("plot", plot, ".png")):
        require_writable(name, output, ending)
    if times < 2:
        raise InputError(f"times: expected at least 2, got {times}")
    for name, count in (("segments", segments), ("cells", cells)):
        if count < 0:
            raise InputError(f"{name}: expected 0 or more, got {count}")
    if cells and not segments:
        raise InputError(f"segments: expected at least 1 with cells, got {segments}")
    texts = (a, b) if module is None else (checkpoint, a)
    if (b is None) == (module is None):
        raise InputError(
            "expected a checkpoint and two points A B, or two points with --module, got "
            f"{2 + (b is not None)} arguments"
        )
    space = (
        open_latents(Path(checkpoint)) if module is None else of_user(open_module(module, latents))
    )
    samples = space.held_out(data)
    ends = [point(name, str(text), space, samples) for name, text in zip("AB", texts, strict=True)]
    path = space.metric.geodesic(*ends, raise_on_failure=False)
    line = Curve.through(space.metric, lambda t: ends[0] + t[:, None] * (ends[1] - ends[0]))
    report = path.report
    assert report is not None
    status = Status(int(report.status))
    out = beside(json, plot)
    say(f"geodesic: {status.name.lower().replace('_', ' ')}", to=out)
    say(
        f"length {float(report.length):.9g} (straight line {float(line.length):.9g}), estimated "
        f"excess {float(report.gap):.1e} of it",
        to=out,
    )
    say(
        f"{int(report.agreeing)} of {int(report.starts)} starts agree; Morse index "
        f"{int(report.morse_index)}; residual {float(report.residual):.1e}; "
        f"{int(report.evaluations)} evaluations of the metric",
        to=out,
    )
    between = None
    if segments and bool(path.nodes.isfinite().all()):
        between = bounds(path, segments=segments, cells=cells)
        say(_told(between), to=out)
    if json is not None:
        at = torch.linspace(0, 1, times, dtype=torch.float64)
        answer: dict[str, Any] = {
            "checkpoint": space.name,
            "coordinates": "x, y of z = x + iy" if space.complex else "z",
            "status": status.name,
            "straight_line": float(line.length),
            "report": {k: _plain(v) for k, v in report.to_json().items()},
            "bounds": None if between is None else _written(between),
            "times": at.tolist(),
            "curve": path(at).tolist() if bool(path.nodes.isfinite().all()) else None,
        }
        write_text(json, dumps(answer, indent=1, allow_nan=False))
    if plot is not None:
        write_bytes(plot, _picture(space, path, line))
    if status != Status.MINIMUM:
        raise typer.Exit(1)


def _told(bounds: Bounds) -> str:
    """What is known of the distance, in a line."""
    upper = f"{'proved' if bounds.proved else 'estimated'} at most {float(bounds.upper):.9g}"
    told = f"distance: {upper}, at least {float(bounds.lower):.6g}"
    if bounds.inside is not None and bounds.box is not None:
        sides = " × ".join(f"[{a:.3g}, {b:.3g}]" for a, b in bounds.box.T.tolist())
        told += f"; within {sides} at least {float(bounds.inside):.6g}"
    return told


def _written(bounds: Bounds) -> dict[str, Any]:
    return {
        "lower": _plain(float(bounds.lower)),
        "upper": _plain(float(bounds.upper)),
        "upper_is_proved": bounds.proved,
        "inside": None if bounds.inside is None else _plain(float(bounds.inside)),
        "box": None if bounds.box is None else bounds.box.tolist(),
    }


def _plain(value: float) -> float | None:
    return value if value == value and abs(value) != float("inf") else None


def _picture(latents: Latents, path: Curve, line: Curve) -> bytes:
    """Curve and line over a map of the volume; what is decoded along them, where images are."""
    from matplotlib.figure import Figure

    from kahler_verify.plots import plot_field, plot_frames, plot_geodesics

    curves = {"geodesic": path, "straight line": line}
    images = latents.images(line.nodes[:1]) is not None
    figure = Figure(figsize=(11, 4) if images else (5, 4), layout="constrained")
    shape = [["plane", name] if images else ["plane"] for name in curves]
    axes: dict[str, Any] = figure.subplot_mosaic(shape, width_ratios=[2, 3] if images else None)
    plane = _plane(latents.dimension, path if bool(path.nodes.isfinite().all()) else line)
    if plane is not None:
        plot_field(latents.metric, axes=axes["plane"], plane=plane, resolution=61, cmap="Greys_r")
    for (name, curve), style in zip(curves.items(), STYLES, strict=True):
        plot_geodesics(curve, axes=axes["plane"], plane=plane, label=name, **style)
        if images:
            axes[name].set_title(f"{name}, length {float(curve.length):.4g}", fontsize=10)
            axes[name].set_axis_off()
        if images and bool(curve.nodes.isfinite().all()):
            plot_frames(curve, latents.images, axes=axes[name])
    axes["plane"].legend(fontsize=8)
    out = BytesIO()
    figure.savefig(out, format="png", dpi=120)
    return out.getvalue()


def _plane(dimension: int, curve: Curve) -> Plane | None:
    """That in which a curve bends most, wide enough to see it in its surroundings."""
    from kahler_verify.plots import Plane

    if dimension < 2:
        return None
    whole = Plane.of(curve.nodes)
    left, right, bottom, top = whole.extent
    half = max(right - left, top - bottom) * WIDE / 2
    s, t = (left + right) / 2, (bottom + top) / 2
    return replace(whole, extent=(s - half, s + half, t - half, t + half))
