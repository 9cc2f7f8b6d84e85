"""The command ``analogy``: A is to B as C is to what?"""

from __future__ import annotations

from io import BytesIO
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from kahler_verify.cli.consoles import beside, say
from kahler_verify.files import require_writable, write_bytes, write_text

if TYPE_CHECKING:
    from torch import Tensor

    from kahler_verify.cli.latents import Latents
    from kahler_verify.curves import Analogy


def analogy(
    checkpoint: Annotated[Path, typer.Argument(help="A checkpoint.")],
    a: Annotated[str, typer.Argument(help="Coordinates, 0.5,-1 or 1+2j,0, or a sample, #3.")],
    b: Annotated[str, typer.Argument(help="As A.")],
    c: Annotated[str, typer.Argument(help="As A.  Put -- before A if one begins with a minus.")],
    data: Annotated[
        Path | None, typer.Option(help="Held-out data of a checkpoint trained on a file.")
    ] = None,
    json: Annotated[Path | None, typer.Option(help="Write the answer as JSON.")] = None,
    plot: Annotated[Path | None, typer.Option(help="Draw curves and images (.png).")] = None,
) -> None:
    """Carry the step from A to B along the geodesic from A to C, and take it there."""
    from json import dumps

    from kahler_verify.cli.latents import open_latents, point
    from kahler_verify.curves import analogy as solve

    for name, output, ending in (("json", json, ""), ("plot", plot, ".png")):
        require_writable(name, output, ending)
    latents = open_latents(checkpoint)
    samples = latents.held_out(data)
    a_z, b_z, c_z = (
        point(name, text, latents, samples) for name, text in (("A", a), ("B", b), ("C", c))
    )
    answer = solve(latents.metric, a_z, b_z, c_z)
    arithmetic = c_z + b_z - a_z
    apart = latents.metric.distance(answer.point, arithmetic, raise_on_failure=False)
    out = beside(json, plot)
    say(f"answer {_numbers(answer.point)}", to=out)
    say(
        f"A to B {float(answer.first.length):.6g}, A to C {float(answer.across.length):.6g}; "
        f"C + B - A is {float(apart):.6g} away",
        to=out,
    )
    if json is not None:
        written: dict[str, Any] = {
            "checkpoint": checkpoint.name,
            "coordinates": "x, y of z = x + iy" if latents.complex else "z",
            "answer": answer.point.tolist(),
            "arithmetic": arithmetic.tolist(),
            "velocity": answer.velocity.tolist(),
            "lengths": {"AB": float(answer.first.length), "AC": float(answer.across.length)},
        }
        write_text(json, dumps(written, indent=1, allow_nan=False))
    if plot is not None:
        corners = {"A": a_z, "B": b_z, "C": c_z, "answer": answer.point, "C + B − A": arithmetic}
        write_bytes(plot, _picture(latents, answer, corners))


def _numbers(point: Tensor) -> str:
    return ", ".join(f"{x:.6g}" for x in point.tolist())


def _picture(latents: Latents, answer: Analogy, corners: dict[str, Tensor]) -> bytes:
    """The plane of the first two coordinates; what is decoded at the corners, where images are."""
    from matplotlib.figure import Figure

    from kahler_verify.curves import Curve
    from kahler_verify.plots import plot_frames, plot_geodesics

    images = latents.images(answer.point[None]) is not None
    names = list(corners)
    figure = Figure(figsize=(10, 3.4) if images else (4, 4), layout="constrained")
    shape = [["plane", *names]] if images else [["plane"]]
    ratios = [2.4, *[1] * len(names)] if images else None
    axes: dict[str, Any] = figure.subplot_mosaic(shape, width_ratios=ratios)
    last = latents.metric.geodesic(corners["C"], answer.point, raise_on_failure=False)
    arithmetic = Curve.through(
        latents.metric,
        lambda t: corners["C"] + t[:, None] * (corners["C + B − A"] - corners["C"]),
    )
    for curve, label, color, linestyle in (
        (answer.first, "A to B", "#0072b2", "-"),
        (answer.across, "A to C", "#6b7280", "--"),
        (last, "C to the answer", "#d55e00", "-"),
        (arithmetic, "C to C + B − A", "#009e73", ":"),
    ):
        plot_geodesics(curve, axes=axes["plane"], label=label, color=color, linestyle=linestyle)
    axes["plane"].legend(fontsize=7)
    if images:
        for name, z in corners.items():
            plot_frames(z[None], latents.images, axes=axes[name])
            axes[name].set_title(name, fontsize=9)
    out = BytesIO()
    figure.savefig(out, format="png", dpi=120)
    return out.getvalue()
