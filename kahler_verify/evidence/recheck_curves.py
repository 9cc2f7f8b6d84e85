"""Re-check bounds of distances: python recheck_curves.py FILE.json, with python-flint alone.

Nothing is taken from the project that wrote the file {"format": 1, "items": [{"kind": …}, …]}.
The metric is JᵀJ of a network f whose layers the item holds; floats are hexadecimal, so exact.

"upper": a curve from a to b is at most so long.  It is a polynomial on each of its elements, by
Bernstein coefficients.  On a piece of duration h its length is at most √(chord² + h⁴M²/12), where
|d²f(z(t))/dt²| ≤ M, as the variance of df/dt is at most h²M²/12; pieces come by halving.
"chord": no curve from a to b is shorter than |f(a) - f(b)|, whatever it passes.
"potential": no curve in a box is shorter than φ(b) - φ(a), as φ, linear on the triangles of a grid,
has pᵀg⁻¹p ≤ 1 with p = ∂φ on each, which is g - ppᵀ ⪰ 0.  In a cell J(z) = J + δH + R, and
|(J + δH + R)v|² ≥ (1 - τ)(|Jv|² + 2δ⟨Jv, Hv⟩) - (1/τ - 1)|Rv|², least at a corner.
"""

from __future__ import annotations

import json
import sys
from collections.abc import Callable, Sequence
from itertools import pairwise, product
from pathlib import Path
from typing import Any

from flint import arb, arb_mat, ctx

BITS = 80
LINEAR = 20  # where torch's softplus becomes linear
LOSSES = ("1/10000", "1/1000", "1/100", "1/25", "1/8", "1/3")  # τ, of which one has to do


def need(condition: Any, message: str) -> None:
    """Stop the item unless the condition is certain."""
    if condition is not True:
        raise ValueError(message)


def exact(data: Any) -> Any:
    """Nested lists of hexadecimal floats as balls of radius 0."""
    return [exact(x) for x in data] if isinstance(data, list) else arb(float.fromhex(data))


# ---------------------------------------------------------------- networks over balls
def monotone(function: Callable[[Any], Any], x: Any) -> Any:
    """An increasing function of a ball."""
    return function(x.lower()).union(function(x.upper()))


def falling(function: Callable[[Any], Any], x: Any) -> Any:
    """A function of |x| that falls."""
    return function(abs(x).upper()).union(function(x.abs_lower()))


def tanh(x: Any) -> tuple[Any, Any, Any]:
    """Value, slope and second derivative."""
    y, slope = monotone(arb.tanh, x), falling(lambda x: 1 - x.tanh() ** 2, x)
    return y, slope, -2 * y * slope


def sigmoid(x: Any) -> tuple[Any, Any, Any]:
    """The logistic function, as above."""
    y = monotone(lambda x: 1 / (1 + (-x).exp()), x)
    slope = falling(lambda x: (-x).exp() / (1 + (-x).exp()) ** 2, x)
    return y, slope, slope * (1 - 2 * y)


def softplus(x: Any) -> tuple[Any, Any, Any]:
    """Its integral, as above."""
    need(x < LINEAR, "softplus: linear there")
    y, slope, _ = sigmoid(x)
    return monotone(lambda x: x.exp().log1p(), x), y, slope


FUNCTIONS = {"tanh": tanh, "sigmoid": sigmoid, "softplus": softplus}


class Network:
    """Layers {"weight": rows, "bias": entries or null} or {"function": name}."""

    def __init__(self, layers: Sequence[dict]):
        self.layers: list[Any] = []
        for layer in layers:
            if "function" in layer:
                self.layers.append(FUNCTIONS[layer["function"]])
            else:
                bias = layer["bias"] and exact(layer["bias"])
                self.layers.append((arb_mat(exact(layer["weight"])), bias))

    def __call__(self, value: Any, first: Sequence = (), second: Sequence = ()) -> tuple:
        """Jets of many points at once: [outputs, points] of the value and of each derivative.

        ``second`` is along the pairs (0, 0), (0, 1), …, (1, 1), … of directions.
        """
        first, second = list(first), list(second)
        pairs = [(a, b) for a in range(len(first)) for b in range(a, len(first))]
        for layer in self.layers:
            if isinstance(layer, tuple):
                weight, bias = layer
                value, *rest = (weight * part for part in (value, *first, *second))
                first, second = rest[: len(first)], rest[len(first) :]
                for row, column in product(range(value.nrows()), range(value.ncols())):
                    if bias:
                        value[row, column] += bias[row]
                continue
            for at in product(range(value.nrows()), range(value.ncols())):
                value[at], slope, bend = layer(value[at])
                for part, (a, b) in zip(second, pairs, strict=False):
                    part[at] = slope * part[at] + bend * first[a][at] * first[b][at]
                for part in first:
                    part[at] = slope * part[at]
        return value, first, second


def norm_squared(x: Any, column: int) -> Any:
    """Σ of squares over outputs."""
    return sum((x[row, column] ** 2 for row in range(x.nrows())), arb(0))


def columns(points: Sequence[Sequence[Any]]) -> Any:
    """A matrix of points as columns."""
    return arb_mat([list(row) for row in zip(*points, strict=True)])


# ---------------------------------------------------------------- upper bounds and chords
def halves(control: list) -> tuple[list, list]:
    """De Casteljau: the control points of a polynomial's two halves."""
    left, right, row = [control[0]], [control[-1]], control
    while len(row) > 1:
        row = [[(x + y) / 2 for x, y in zip(p, q, strict=True)] for p, q in pairwise(row)]
        left.append(row[0])
        right.append(row[-1])
    return left, right[::-1]


def difference(control: list, scale: Any) -> list:
    """The control points of the derivative, by a time in which the piece takes 1/scale."""
    factor = (len(control) - 1) * scale
    steps = [[factor * (y - x) for x, y in zip(p, q, strict=True)] for p, q in pairwise(control)]
    return steps or [[arb(0) for _ in control[0]]]


def hull(control: list) -> list:
    """A box that holds the curve: one about its control points."""
    box = control[0]
    for point in control[1:]:
        box = [x.union(y) for x, y in zip(box, point, strict=True)]
    return box


def check_upper(item: dict) -> str:
    """Is there a curve from a to b that is no longer than the claim?"""
    network, elements = Network(item["layers"]), exact(item["elements"])
    ends = [elements[0][0], elements[-1][-1]]
    for first, second in pairwise(item["elements"]):
        need(first[-1] == second[0], "elements: they do not join")
    need([item["elements"][0][0], item["elements"][-1][-1]] == [item["a"], item["b"]], "ends")
    pieces = elements
    for _ in range(item["halvings"]):
        pieces = [half for piece in pieces for half in halves(piece)]
    count = arb(len(pieces))
    slopes = [difference(piece, count) for piece in pieces]
    bends = [difference(slope, count) for slope in slopes]
    box, first, second = (columns([hull(x) for x in part]) for part in (pieces, slopes, bends))
    bend = network(box, [first], [second])[2][0]
    x = network(columns([piece[0] for piece in pieces] + [ends[1]]))[0]
    total = arb(0)
    for k in range(len(pieces)):
        chord = sum(((x[row, k + 1] - x[row, k]) ** 2 for row in range(x.nrows())), arb(0))
        total += (chord + norm_squared(bend, k) / (12 * count**4)).upper().sqrt()
    claim = exact(item["bound"])
    need(total <= claim, f"bound: found {total}")
    return f"a curve from a to b is at most {float(claim):.9g} long"


def check_chord(item: dict) -> str:
    """Is |f(a) - f(b)| as large as the claim?"""
    x = Network(item["layers"])(columns([exact(item["a"]), exact(item["b"])]))[0]
    found = sum(((x[row, 0] - x[row, 1]) ** 2 for row in range(x.nrows())), arb(0)).sqrt()
    claim = exact(item["bound"])
    need(found >= claim, f"bound: found {found}")
    return f"no curve from a to b is shorter than {float(claim):.9g}"


# ---------------------------------------------------------------- potentials
def forms(network: Network, cells: Sequence[tuple]) -> list[tuple]:
    """For each cell (middle, half): the matrices at its corners and bounds of |R_a|²."""
    middles = columns([middle for middle, _ in cells])
    boxes = columns([[m + arb(0, 1) * h for m, h in zip(*cell, strict=True)] for cell in cells])
    each, zero = range(len(cells)), arb_mat(2, len(cells))
    axes = [arb_mat([[arb(int(a == row)) for _ in each] for row in (0, 1)]) for a in (0, 1)]
    _, j, here = network(middles, axes, [zero, zero, zero])
    around = network(boxes, axes, [zero, zero, zero])[2]
    rows, out = range(here[0].nrows()), []
    for k, (_, half) in enumerate(cells):
        inner = lambda x, y, k=k: sum((x[r, k] * y[r, k] for r in rows), arb(0))  # noqa: E731
        g = [[inner(j[a], j[b]) for b in (0, 1)] for a in (0, 1)]
        rate = [
            [[inner(here[a + c], j[b]) + inner(j[a], here[b + c]) for b in (0, 1)] for a in (0, 1)]
            for c in (0, 1)
        ]
        corners = [
            [[g[a][b] + s * rate[0][a][b] + t * rate[1][a][b] for b in (0, 1)] for a in (0, 1)]
            for s, t in product((half[0], -half[0]), (half[1], -half[1]))
        ]
        apart = [
            sum((abs(around[n][r, k] - here[n][r, k]).upper() ** 2 for r in rows), arb(0)).sqrt()
            for n in (0, 1, 2)
        ]
        rest = [(half[0] * apart[a] + half[1] * apart[a + 1]) ** 2 for a in (0, 1)]
        out.append((corners, rest))
    return out


def steep(corners: list, rest: list, p: Sequence[Any]) -> bool:
    """Is g - ppᵀ ⪰ 0 not certain everywhere in the cell?"""
    if all(x == 0 for x in p):
        return False
    for corner in corners:
        for loss in LOSSES:
            up, down = map(int, loss.split("/"))
            tau = arb(up) / down
            m = [
                [
                    (1 - tau) * corner[a][b] - (1 / tau - 1) * 2 * rest[a] * (a == b) - p[a] * p[b]
                    for b in (0, 1)
                ]
                for a in (0, 1)
            ]
            if m[0][0] > 0 and m[0][0] * m[1][1] - m[0][1] * m[1][0] > 0:
                break
        else:
            return True
    return False


def value(z: Sequence[Any], axes: Sequence[list], phi: list) -> Any:
    """φ(z), on the triangle where z is; on edges either will do."""
    place = []
    for x, axis in zip(z, axes, strict=True):
        inside = [k for k, (low, high) in enumerate(pairwise(axis)) if low <= x <= high]
        need(bool(inside), "a, b: outside the box")
        k = inside[0]
        place.append((k, (x - axis[k]) / (axis[k + 1] - axis[k])))
    (i, u), (k, v) = place
    low, high = phi[i][k], phi[i + 1][k + 1]
    lower = low + u * (phi[i + 1][k] - low) + v * (high - phi[i + 1][k])
    upper = low + v * (phi[i][k + 1] - low) + u * (high - phi[i][k + 1])
    return lower if u > v else upper if u < v else lower.union(upper)


def check_potential(item: dict) -> str:
    """Is φ nowhere steeper than the metric allows, and φ(b) - φ(a) as large as the claim?"""
    network, axes, phi = Network(item["layers"]), exact(item["axes"]), exact(item["potential"])
    for axis in axes:
        need(all((low < high) is True for low, high in pairwise(axis)), "axes: not increasing")
    for i, (left, right) in enumerate(pairwise(axes[0])):
        middle = [((low + high) / 2, (high - low) / 2) for low, high in pairwise(axes[1])]
        cells = [([(left + right) / 2, m], [(right - left) / 2, h]) for m, h in middle]
        for k, (form, (_, half)) in enumerate(zip(forms(network, cells), cells, strict=True)):
            width, height = 2 * half[0], 2 * half[1]
            corner, across = phi[i][k], phi[i + 1][k + 1]
            slopes = [
                ((phi[i + 1][k] - corner) / width, (across - phi[i + 1][k]) / height),
                ((across - phi[i][k + 1]) / width, (phi[i][k + 1] - corner) / height),
            ]
            for p in slopes:
                need(not steep(form[0], form[1], p), f"potential: too steep in the cell ({i}, {k})")
    found = value(exact(item["b"]), axes, phi) - value(exact(item["a"]), axes, phi)
    claim = exact(item["bound"])
    need(found >= claim, f"bound: found {found}")
    return f"no curve from a to b in the box is shorter than {float(claim):.9g}"


KINDS = {"upper": check_upper, "chord": check_chord, "potential": check_potential}


def main(paths: Sequence[str]) -> int:
    """Check all items of all files; 0 if every one holds."""
    lines, ctx.prec = [], BITS
    for item in (x for p in paths for x in json.loads(Path(p).read_text("utf-8"))["items"]):
        try:
            lines.append(f"ok    {item['kind']}: {KINDS[item['kind']](item)}")
        except (LookupError, TypeError, ValueError, ArithmeticError, AttributeError) as error:
            lines.append(f"FAIL  {item.get('kind')}: {error!r}")
        print(lines[-1], flush=True)
    return 0 if lines and all(line.startswith("ok") for line in lines) else 1


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
