"""The still page: the same map, codes and values, with geodesics computed beforehand.

It is for those who cannot run a server, and a part of ``kahler-verify verify --html``: the scripts
and the data stand in the page itself.
"""

from __future__ import annotations

import json
from itertools import combinations
from typing import Any

import torch
from torch import Tensor

from kahler_verify.curves import STRAIGHT, Curve, Mesh, Nearby, Status, connect
from kahler_verify.explorer import maps, paths
from kahler_verify.explorer.layers import colour_table, layers_of, legend
from kahler_verify.explorer.pages import asset
from kahler_verify.explorer.reading import Plane, plain
from kahler_verify.explorer.subject import Subject
from kahler_verify.explorer.tables import table_of

SIZE = 61  # points along each side of a map
ROOM = 0.12  # of the codes' extent, about them
MOST_MEDOIDS = 5
FEW_MEDOIDS = 3  # where latents have more than two coordinates, and a geodesic takes seconds
DIGITS = Nearby(tolerance=1e-3, levels=(Mesh(4, 4), Mesh(8, 4)))  # three of a length, there
CODES = 400  # that are drawn
SCRIPTS = ("numbers.js", "map.js", "frames.js", "twin.js")


def still(subject: Subject) -> dict[str, Any]:
    """Maps over one plane, codes, and geodesics between medoids of classes, as JSON has them."""
    i, j = _axes(subject)
    d = subject.dimension
    axes = torch.eye(d, dtype=torch.float64)[[i, j]]
    plane = Plane(torch.zeros(d, dtype=torch.float64), axes)
    codes = None if subject.codes is None else subject.codes[:CODES]
    window = _window(codes, plane)
    fields, known = {}, layers_of(subject)
    for name in known.keys() - ({"scalar_curvature"} if d > 2 else set()):
        layer = known[name]
        found = maps.over(subject, layer, plane, window, SIZE, lambda: None)
        fields[name] = found | legend(layer)
    chosen = medoids(subject)
    return plain(
        {
            "name": subject.name,
            "names": [subject.coordinates[i], subject.coordinates[j]],
            "held": d - 2,
            "window": list(window),
            "fields": {name: fields[name] for name in known if name in fields},
            "colours": {x["colours"]: colour_table(x["colours"]) for x in fields.values()},
            "codes": None if codes is None else codes @ axes.mT,
            "labels": None if subject.labels is None else subject.labels[:CODES],
            "medoids": [{"name": name, "place": axes @ z} for name, z in chosen],
            "pairs": _pairs(subject, chosen, axes),
        }
    )


def section(subject: Subject) -> dict[str, Any]:
    """The still page's style, scripts, and data that no text in it can leave."""
    shown = still(subject)
    data = json.dumps(shown, allow_nan=False, ensure_ascii=True)
    for mark in "<>&":
        data = data.replace(mark, f"\\u{ord(mark):04x}")
    return {
        "style": asset("map.css"),
        "script": "\n".join(asset(name) for name in SCRIPTS),
        "data": data,
        "medoids": len(shown["medoids"]),
    }


def medoids(subject: Subject) -> list[tuple[str, Tensor]]:
    """For each class the code that is nearest to the others, in coordinates; the first classes."""
    if subject.codes is None or subject.labels is None:
        return []
    found = []
    most = MOST_MEDOIDS if subject.dimension == 2 else FEW_MEDOIDS
    for label in subject.labels.unique().tolist()[:most]:
        own = subject.codes[subject.labels == label]
        found.append((str(label), own[torch.cdist(own, own).sum(-1).argmin()]))
    return found


def _axes(subject: Subject) -> tuple[int, int]:
    """The coordinates of a plane: of complex latents the one whose codes vary most."""
    d = subject.dimension
    if not subject.complex:
        return 0, 1
    spread = torch.zeros(d) if subject.codes is None else subject.codes.var(0)
    first = int((spread[: d // 2] + spread[d // 2 :]).argmax())
    return first, first + d // 2


def _window(codes: Tensor | None, plane: Plane) -> tuple[float, float, float, float]:
    """A square about the codes."""
    places = torch.tensor([[-2.0, -2.0], [2.0, 2.0]]).double()
    if codes is not None and len(codes) > 1:
        places = codes @ plane.axes.mT
    low, high = places.amin(0), places.amax(0)
    middle, half = (low + high) / 2, float((high - low).max().clamp_min(1e-3)) * (0.5 + ROOM)
    x, y = middle.tolist()
    return x - half, x + half, y - half, y + half


def _pairs(
    subject: Subject, chosen: list[tuple[str, Tensor]], axes: Tensor
) -> list[dict[str, Any]]:
    """Geodesics between all pairs of medoids, all in one batch, with straight lines beside them."""
    names = list(combinations(chosen, 2))
    if not names:
        return []
    a, b = (torch.stack([pair[k][1] for pair in names]) for k in (0, 1))
    curves = _connected(subject, a, b)
    report = curves.report
    assert report is not None
    out = []
    for n, ((first, _), (second, _)) in enumerate(names):
        line = paths.line_between(subject, subject.metric, a[n], b[n])
        row: dict[str, Any] = {
            "names": [first, second],
            "words": paths.WORDS[Status(int(report.status[n]))],
            "length": float(report.length[n]),
            "gap": float(report.gap[n]),
            "line": line | {"points": torch.tensor(line["points"]).double() @ axes.mT},
            "points": None,
        }
        if bool(curves.nodes[n].isfinite().all()):
            own = Curve(subject.metric, curves.mesh, curves.nodes[n])
            times = torch.linspace(0, 1, paths.TIMES, dtype=torch.float64)
            row["points"] = own(times) @ axes.mT
            row["frames"] = subject.frames(own(times[:: (paths.TIMES - 1) // (paths.FRAMES - 1)]))
        out.append(row)
    return out


def _connected(subject: Subject, a: Tensor, b: Tensor) -> Curve:
    """In a plane first on a table, and then refined."""
    metric = subject.metric
    if subject.dimension == 2 and subject.codes is not None:
        low, high = subject.codes.amin(0), subject.codes.amax(0)
        room = 0.35 * (high - low).max()
        table = table_of(metric, low - room, high + room)
        if table is not None:
            rough = connect(table.metric, a, b, solver=paths.TABLED, raise_on_failure=False)
            if bool(rough.nodes.isfinite().all()):
                fine = Nearby(tolerance=1e-7)
                return connect(metric, a, b, start=rough, solver=fine, raise_on_failure=False)
    return connect(metric, a, b, solver=DIGITS, starts=STRAIGHT, raise_on_failure=False)
