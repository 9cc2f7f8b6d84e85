"""The lines of Python that do what the page shows."""

from __future__ import annotations

from typing import Any

from torch import Tensor

from kahler_verify.explorer import reading
from kahler_verify.explorer.layers import FIELD, layers_of
from kahler_verify.explorer.subject import Subject
from kahler_verify.geometry.quantities import BOTH


def lines(subject: Subject, points: dict[str, Tensor], asked: dict[str, Any]) -> str:
    """A script that makes the metric, and computes and prints what a tool shows.

    Args:
        subject: whose ``source`` begins it.
        points: by their letters.
        asked: what the page sent: ``tool``, and what that one needs.
    """
    written = ["import torch", *subject.source, ""]
    for name, point in points.items():
        written.append(f"{name} = {_tensor(point.tolist())}")
    tool = asked.get("tool")
    if {"a", "b"} <= points.keys() and tool in ("path", "transport"):
        written += [
            "curve = metric.geodesic(a, b)",
            "print('length', float(curve.length), 'gap', float(curve.report.gap))",
        ]
    vector = asked.get("vector")
    if tool == "transport" and vector and {"a", "b"} <= points.keys():
        written += [
            f"u = {_tensor(vector)}",
            "print('carried', metric.transport(curve, u).tolist())",
        ]
    if tool == "exp" and vector and "a" in points:
        written += [f"v = {_tensor(vector)}", "print('exp', metric.exp(a, v).tolist())"]
    if tool == "analogy" and {"a", "b", "c"} <= points.keys():
        written += [
            "from kahler_verify.curves import analogy",
            "answer = analogy(metric, a, b, c)",
            "print('answer', answer.point.tolist())",
        ]
    written += _drawn(subject, asked, curve=any("curve =" in line for line in written))
    return "\n".join(written) + "\n"


def _drawn(subject: Subject, asked: dict[str, Any], *, curve: bool) -> list[str]:
    """The map, with the curve on it, by matplotlib."""
    quantity = layers_of(subject).get(str(asked.get("layer")))
    if quantity is None or quantity.latents != BOTH or quantity.name == FIELD:
        return []  # of the metric on real coordinates
    if not isinstance(asked.get("plane"), dict):
        return []
    where = reading.plane(asked["plane"], subject.dimension)
    extent = reading.window(asked.get("window"))
    origin, *axes = (_tensor(x.tolist()) for x in (where.origin, *where.axes))
    return [
        "",
        "from kahler_verify.plots import Plane, plot_field, plot_geodesics",
        "",
        f"plane = Plane({origin},",
        *[f"    {axis}," for axis in axes],
        f"    extent={extent!r})",
        f"axes = plot_field(metric, {quantity.name!r}, plane=plane)",
        *(["plot_geodesics(curve, axes=axes, plane=plane, lengths=True)"] if curve else []),
        "axes.figure.savefig('latent-plane.png', dpi=120)",
    ]


def _tensor(values: list[float]) -> str:
    """A tensor's text that reads back to the same bits."""
    return f"torch.tensor([{', '.join(repr(float(x)) for x in values)}], dtype=torch.float64)"
