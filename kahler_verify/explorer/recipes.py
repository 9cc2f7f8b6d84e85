"""The lines of Python that do what the page shows."""

from __future__ import annotations

from typing import Any

from torch import Tensor

from kahler_verify.explorer.subject import Subject

TOOLS = ("path", "ball", "exp", "transport", "analogy", "cluster")


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
            "line = torch.linspace(0, 1, 97, dtype=torch.float64)",
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
    return "\n".join(written) + "\n"


def _tensor(values: list[float]) -> str:
    """A tensor's text that reads back to the same bits."""
    return f"torch.tensor([{', '.join(repr(float(x)) for x in values)}], dtype=torch.float64)"
