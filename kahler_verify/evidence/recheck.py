"""Re-check evidence: python recheck.py FILE.json, with python-flint and the standard library alone.

Nothing is taken from the project that wrote the file: definitions are differentiated again, by
nilpotent ε's over complex balls; every box, witness and bound is evaluated again.  A file is
{"format": 1, "items": [{"kind": …, "digest": …}, …]}, rationals are "p/q", complex numbers pairs.
"""

from __future__ import annotations

import hashlib
import json
import sys
from collections.abc import Callable, Iterator, Sequence
from functools import reduce
from itertools import product
from math import factorial, prod
from pathlib import Path
from typing import Any

from flint import acb, acb_mat, arb, ctx, fmpq

SLACK = fmpq(257, 256)  # a bound further than this from what is found is an error too


class Refuted(Exception):
    """What an item says is not what its numbers give."""


def need(condition: Any, message: str) -> None:
    """Stop the item unless the condition is certain."""
    if condition is not True:
        raise Refuted(message)


def digest(item: dict) -> str:
    """A seal against accidents; beyond it, every claim is evaluated again."""
    body = {k: v for k, v in item.items() if k != "digest"}
    return hashlib.sha256(json.dumps(body, sort_keys=True).encode()).hexdigest()


def rational(text: str) -> fmpq:
    """The number of a string p or p/q."""
    return fmpq(*map(int, text.split("/")))


def numbers(data: Any) -> Any:
    """A number, column or matrix of balls, from nested lists of pairs."""
    if isinstance(data[0], str):
        return acb(*(arb(rational(x)) for x in data))
    rows = data if not isinstance(data[0][0], str) else [[x] for x in data]
    return acb_mat([[numbers(x) for x in row] for row in rows])


def adjoint(x: Any) -> Any:
    """The conjugate, of a matrix the conjugate transpose."""
    return x.conjugate().transpose() if isinstance(x, acb_mat) else x.conjugate()


def trace(x: Any) -> Any:
    """The trace; a number is its own."""
    return x.trace() if isinstance(x, acb_mat) else x


class Nil:
    """Σ over sets of ε's (bit masks, ε² = 0) of numbers or matrices; absent parts are zero."""

    def __init__(self, parts: dict[int, Any]):
        self.parts = parts

    def __add__(self, other: Nil) -> Nil:
        shared = {m: x + other.parts[m] for m, x in self.parts.items() if m in other.parts}
        return Nil({**self.parts, **other.parts, **shared})

    def __mul__(self, other: Nil) -> Nil:
        out: dict[int, Any] = {}
        for (m, x), (k, y) in product(self.parts.items(), other.parts.items()):
            if not m & k:
                out[m | k] = out[m | k] + x * y if m | k in out else x * y
        return Nil(out)

    def each(self, change: Callable[[Any], Any]) -> Nil:
        """A linear map of every part."""
        return Nil({m: change(x) for m, x in self.parts.items()})

    def powers(self) -> Iterator[tuple[int, Nil]]:
        """(j, Nʲ) for j = 1, 2, … while it is not zero, N being the part with ε's."""
        j, power = 1, Nil({m: x for m, x in self.parts.items() if m})
        while power.parts:
            yield j, power
            j, power = j + 1, power * Nil({m: x for m, x in self.parts.items() if m})

    def inverse(self) -> Nil:
        """(X + N)⁻¹ = Y Σ_j (-NY)ʲ with Y = X⁻¹."""
        x = self.parts[0]
        y = Nil({0: x.inv() if isinstance(x, acb_mat) else 1 / x})
        return reduce(Nil.__add__, [y * p for _, p in (self * y).each(lambda v: -v).powers()], y)

    def log(self) -> Nil:
        """Log, of a matrix log det: log det X + Σ_j (-1)ʲ⁺¹ tr (X⁻¹N)ʲ/j."""
        x = self.parts[0]
        inner = Nil({0: x.inv() if isinstance(x, acb_mat) else 1 / x}) * self
        terms = [p.each(lambda v, j=j: trace(v) * (-1) ** (j + 1) / j) for j, p in inner.powers()]
        start = x.det() if isinstance(x, acb_mat) else x
        return reduce(Nil.__add__, terms, Nil({0: start.log()}))

    def exp(self) -> Nil:
        """Exp of a number."""
        terms = [p.each(lambda v, j=j: v / factorial(j)) for j, p in self.powers()]
        return Nil({0: self.parts[0].exp()}) * reduce(Nil.__add__, terms, Nil({0: acb(1)}))

    def top(self, eps: Sequence) -> Any:
        """The coefficient of the product of all ε's."""
        return self.parts.get((1 << len(eps)) - 1, acb(0))


def evaluate(tree: Any, names: dict[str, tuple[Nil, Nil]], bar: bool = False) -> Nil:
    """["+" | "*" | "exp" | "log" | "conj", …], ["^", x, "p/q"], a name, "I" or "p/q".

    ``names`` gives for each coordinate the pair z, z̄, which are independent of each other.
    """
    if isinstance(tree, str):
        unit = ["0", "-1" if bar else "1"] if tree == "I" else [tree, "0"]
        return names[tree][bar] if tree in names else Nil({0: numbers(unit)})
    op, *args = tree
    base = evaluate(args[0], names, bar != (op == "conj"))
    if op in ("+", "*"):
        rest = [evaluate(a, names, bar) for a in args[1:]]
        return reduce(Nil.__add__ if op == "+" else Nil.__mul__, rest, base)
    if op == "^" and rational(args[1]).q != 1:
        return (base.log() * Nil({0: acb(rational(args[1]))})).exp()
    if op == "^":
        e = int(rational(args[1]))
        return reduce(Nil.__mul__, [base if e > 0 else base.inverse()] * abs(e))
    return {"exp": base.exp, "log": base.log, "conj": lambda: base}[op]()


def derivative(tree: Any, z: Sequence[Any], by: Sequence[tuple[int, bool]]) -> Any:
    """∂… at balls z by pairs (coordinate, is it ∂̄): [(a, False), (b, True)] gives g_{ab̄}."""
    names = {}
    for i, x in enumerate(z):
        steps = [{1 << j: acb(1) for j, e in enumerate(by) if e == (i, b)} for b in (False, True)]
        names[f"z{i + 1}"] = (Nil({0: x, **steps[0]}), Nil({0: x.conjugate(), **steps[1]}))
    return evaluate(tree, names).top(by)


def positive(matrix: Sequence[Sequence[Any]]) -> bool | None:
    """LDLᴴ of a Hermitian ball matrix: is it positive definite?  None if the balls cannot tell."""
    a, n = [list(row) for row in matrix], len(matrix)
    for k in range(n):
        pivot = a[k][k].real
        if not pivot > 0:
            return False if pivot < 0 else None
        for i, j in product(range(k + 1, n), repeat=2):
            a[i][j] = a[i][j] - a[i][k] / pivot * a[k][j]
    return True


Metric = Callable[..., list[list[Any]]]  # of complex balls, and whether a lower bound is enough
Box = tuple[tuple[fmpq, fmpq], ...]  # the sides of Re z1, Im z1, Re z2, …


def expression(data: dict) -> Metric:
    """g of a potential given as a tree in z1, z2, and so on."""

    def metric(z: Sequence[Any], below: bool = False) -> list[list[Any]]:  # noqa: ARG001
        by = [[[(a, False), (b, True)] for b in range(len(z))] for a in range(len(z))]
        return [[derivative(data["tree"], z, pair) for pair in row] for row in by]

    return metric


def mixture(data: dict) -> Metric:
    """g of log Σ π_k e^{q_k} ("log_sum_exp") or -log Σ π_k det P_k e^{-q_k} ("density").

    With q_k = (z-c_k)ᴴP_k(z-c_k): g = P_1ᵀ + Σ w_k (P_k - P_1)ᵀ ± Σ_{k<m} w_k w_m δδᴴ.  As δδᴴ ⪰ 0,
    w_k w_m ≤ 1/(2 + 2 cosh log(w_k/w_m)) may give way to its upper end where it is subtracted, and to
    its lower end where it is added: that leaves a matrix below g.
    """
    weights, sign = (
        [rational(w) for w in data["weights"]],
        {"log_sum_exp": 1, "density": -1}[data["type"]],
    )
    need(sum(weights) == 1 and min(weights) > 0, "weights: expected positive ones with sum 1")
    p, c = [numbers(x) for x in data["precisions"]], [numbers(x) for x in data["centres"]]
    exact = [[[[*map(rational, x)] for x in row] for row in rows] for rows in data["precisions"]]
    flipped = [
        [[[x, -y] for x, y in column] for column in zip(*rows, strict=True)] for rows in exact
    ]
    need(exact == flipped, "precisions: not Hermitian")
    need(sign > 0 or all(positive(x.tolist()) for x in p), "precisions: not positive definite")
    pc, each = [x * y for x, y in zip(p, c, strict=True)], range(len(weights))
    cpc = [(adjoint(x) * y)[0, 0].real for x, y in zip(c, pc, strict=True)]
    logs = [
        (w * (x.det().real if sign < 0 else arb(1))).log() for w, x in zip(weights, p, strict=True)
    ]

    def gap(k: int, m: int, z: Any) -> Any:
        """log w_k/w_m, where common quadratic parts have cancelled."""
        bent, q = p[k] - p[m], cpc[k] - cpc[m] - 2 * (adjoint(z) * (pc[k] - pc[m]))[0, 0].real
        for i, j in ((i, j) for i in range(z.nrows()) for j in range(i)):
            q += 2 * (adjoint(z[i, 0]) * bent[i, j] * z[j, 0]).real
        squares = [bent[i, i].real * (x.real**2 + x.imag**2) for i, x in enumerate(z.entries())]
        return logs[k] - logs[m] + sign * sum(squares, q)

    def metric(entries: Sequence[Any], below: bool = False) -> list[list[Any]]:
        z = acb_mat([[x] for x in entries])
        gaps = [[gap(m, k, z) for m in each] for k in each]
        low = [(1 / sum((x.upper().exp() for x in row), arb(0))).lower() for row in gaps]
        high = [(1 / sum((x.lower().exp() for x in row), arb(0))).upper() for row in gaps]
        g = sum(((p[k] - p[0]) * acb(low[k].union(high[k])) for k in each[1:]), p[0]).transpose()
        for k, m in ((k, m) for k in each for m in range(k)):
            t = gaps[k][m].abs_lower()
            factor = (high[k] * high[m]).upper().min((1 / (2 + t.exp() + (-t).exp())).upper())
            factor = (low[k] * low[m]).union(factor)
            if below:
                factor = factor.lower() if sign > 0 else factor.upper()
            delta = ((p[k] - p[m]) * z - pc[k] + pc[m]).conjugate()
            g = g + delta * adjoint(delta) * acb(sign * factor)
        return g.tolist()

    return metric


def potential_of(data: dict) -> Metric:
    """The metric of the potential that an item is about."""
    return expression(data) if data["type"] == "expression" else mixture(data)


def over(box: Box) -> list[Any]:
    """Complex balls that contain the box."""
    sides = [arb(lo).union(arb(hi)) for lo, hi in box]
    return [acb(x, y) for x, y in zip(sides[::2], sides[1::2], strict=True)]


def tiles(box: Box, leaves: list[Box]) -> bool:
    """Do these leaves, made by halving, fill the box?"""
    if len(leaves) <= 1:
        return leaves == [box]
    for i, (lo, hi) in enumerate(box):
        middle = (lo + hi) / 2
        halves = [(*box[:i], side, *box[i + 1 :]) for side in ((lo, middle), (middle, hi))]
        lower, upper = (
            [x for x in leaves if h[i][0] <= x[i][0] < x[i][1] <= h[i][1]] for h in halves
        )
        if lower and upper and len(lower) + len(upper) == len(leaves):
            return tiles(halves[0], lower) and tiles(halves[1], upper)
    return False


def rayleigh(metric: Metric, z: Sequence[Any], v: Sequence[Any]) -> Any:
    """An upper bound of Σ g_{ab̄} v_a v̄_b/|v|²."""
    pairs = zip(metric(z), v, strict=True)
    value = sum(
        (x * a * b.conjugate() for row, a in pairs for x, b in zip(row, v, strict=True)), acb(0)
    )
    return (value.real / sum((abs(x) ** 2 for x in v), arb(0))).upper()


def check_region(item: dict) -> str:
    """Is a potential plurisubharmonic on a box?  Leaves that fill it, or z and v with vᴴgv < 0."""
    metric = potential_of(item["potential"])
    box, *boxes = (
        tuple((rational(lo), rational(hi)) for lo, hi in sides)
        for sides in [item["box"], *item["leaves"], *item["leftover"]]
    )
    leaves, rest = boxes[: len(item["leaves"])], boxes[len(item["leaves"]) :]
    if item["verdict"] == "refuted":
        where = zip(box, [rational(x) for pair in item["point"] for x in pair], strict=True)
        need(all(lo <= x <= hi for (lo, hi), x in where), "point: outside the box")
        point, vector = ([numbers(x) for x in item[key]] for key in ("point", "vector"))
        found, claimed = rayleigh(metric, point, vector), rational(item["value"])
        need(found <= claimed < 0 and claimed * SLACK <= found, f"value: found {found}")
        return f"refuted, vᴴgv/vᴴv ≤ {float(arb(claimed)):.3g} at an exact point"
    need(tiles(box, boxes), "leaves: do not fill the box")
    need(all(positive(metric(over(x), below=True)) for x in leaves), "leaves: one is not certified")
    need(item["verdict"] == ("undecided" if rest else "proved"), "verdict: not what leaves give")
    volume = sum((prod([hi - lo for lo, hi in x]) for x in rest), fmpq(0))
    need(volume == rational(item["leftover_volume"]), "leftover_volume: wrong")
    return f"{item['verdict']}, {len(leaves)} leaves certified, {len(rest)} left over"


def jet(tensors: dict, name: str, lead: tuple, hol: tuple, anti: tuple) -> Any:
    """A derivative of a field; None where absent: zero, or cancelled in what is asked for."""
    key = f"{name}_{'d' * len(hol)}{'b' * len(anti)}"
    if not hol and not anti and f"{name}_factor" in tensors:
        factor = numbers(tensors[f"{name}_factor"])
        return factor * adjoint(factor)
    if key in tensors:
        return numbers(reduce(lambda t, i: t[i], (*lead, *hol, *anti), tensors[key]))
    swapped = jet(tensors, name, lead, anti, hol) if name != "mu" and len(hol) < len(anti) else None
    return None if swapped is None else adjoint(swapped)


def series(tensors: dict, name: str, eps: Sequence, dagger: bool = False, lead: tuple = ()) -> Nil:
    """The Taylor polynomial of a field, or of its adjoint, in ε's (coordinate, is it ∂̄)."""
    parts = {}
    for mask in range(1 << len(eps)):
        chosen = [e for j, e in enumerate(eps) if mask >> j & 1]
        orders = [tuple(i for i, bar in chosen if bar == side) for side in (dagger, not dagger)]
        value = jet(tensors, name, lead, *orders)
        if value is not None:
            parts[mask] = adjoint(value) if dagger else value
    return Nil(parts)


def gaussian(tensors: dict, eps: list) -> Any:
    """KL(z_0‖z) = log det Σ + tr Σ⁻¹Σ_0 + (μ-μ_0)ᴴΣ⁻¹(μ-μ_0): the last two ε's move z, others both."""
    s, s0 = series(tensors, "Sigma", eps), series(tensors, "Sigma", eps[:-2])
    m, mh = (series(tensors, "mu", eps, dagger) for dagger in (False, True))
    for side in (m, mh):  # less the value at z_0
        side.parts = {mask: x for mask, x in side.parts.items() if mask >> (len(eps) - 2)}
    return (s.log() + ((s0 + m * mh) * s.inverse()).each(trace)).top(eps)


def log_mean_exp(tensors: dict, eps: list, sign: int) -> Any:
    """±log Σ_k w_k e^{±(q_k - q_k(z))}."""
    total = Nil({})
    for k, w in enumerate(tensors["w"]):
        q = series(tensors, "q", eps, lead=(k,)).each(lambda x: sign * x)
        total = total + Nil({0: numbers(w)}) * Nil({**q.parts, 0: acb(0)}).exp()
    return sign * total.log().top(eps)


# How each index of an output differentiates: is it ∂̄?  A divergence's last two move z alone.
BARS = {"g": (0, 1), "k": (0, 0), "g_d": (0, 0, 1), "g_db": (0, 1, 0, 1)}
FORMULAS: dict[str, Callable[[dict, list], Any]] = {
    "gaussian": gaussian,
    "log_sum_exp": lambda tensors, eps: log_mean_exp(tensors, eps, 1),
    "density": lambda tensors, eps: log_mean_exp(tensors, eps, -1),
}


def check_point(item: dict, point: dict) -> str:
    """Are outputs within their bounds of the definition, in the frame where g has diagonal 1?"""
    formula, d = FORMULAS[item["formula"]], len(next(iter(point["outputs"].values()))["computed"])

    def entry(name: str, index: tuple[int, ...]) -> Any:
        return formula(point["inputs"], list(zip(index, map(bool, BARS[name]), strict=True)))

    g = [[entry("g", (a, b)) for b in range(d)] for a in range(d)]
    g = g if point["metric"] is None else numbers(point["metric"]).tolist()
    claim, bounds = point["positive_definite"], [point["lambda_min"], point["lambda_max"]]
    need(claim is None or positive(g) is claim, f"positive_definite: not {claim}")
    need([x is None for x in bounds] == [claim is not True] * 2, "lambda: out of place")
    for sign, text, factor in product((1, -1), bounds, (0, 1)) if claim else ():
        t = rational(text) * (1 + fmpq(sign * factor, 16))
        rows = [
            [sign * (x - (t if i == j else 0)) for j, x in enumerate(r)] for i, r in enumerate(g)
        ]
        if text == bounds[sign < 0]:
            need(
                (positive(rows) is True) is (factor == 0), f"eigenvalues: {text} is no tight bound"
            )
    worst = {}
    for name, out in point["outputs"].items():
        worst[name], claimed = arb(0), rational(out["bound"])
        for i in product(range(d), repeat=len(BARS[name])):
            computed = numbers(reduce(lambda t, j: t[j], i, out["computed"]))
            error = abs(computed - entry(name, i)) / prod([g[j][j].real.sqrt() for j in i])
            worst[name] = worst[name].max(error.upper())
        need(worst[name] <= claimed, f"{name}: error up to {worst[name]}, above its bound")
        tight = claimed <= worst[name] * SLACK + rational(item["floor"])
        need(tight, f"{name}: the bound is far from {worst[name]}")
    return ", ".join(f"{name} within {float(x):.2g}" for name, x in worst.items())


def check_kernel(item: dict) -> str:
    """A certificate of one kernel at one point or a batch of them."""
    need(item["verdict"] == "certified" and len(item["points"]) > 0, "nothing is certified")
    need(0 < rational(item["floor"]) < fmpq(1, 2**30), "floor: too coarse")
    return "; ".join(check_point(item, point) for point in item["points"])


# Further kinds register here: a function of the item that returns a line, or raises Refuted.
KINDS: dict[str, Callable[[dict], str]] = {"region": check_region, "kernel": check_kernel}


def check(item: dict) -> str:
    """One line about an item; raises Refuted."""
    need(item.get("digest") == digest(item), "digest: the item was changed")
    need(item.get("kind") in KINDS and 2 <= item["bits"] <= 8192, "kind or bits: not known here")
    try:
        with ctx.workprec(2 * item["bits"]):
            return KINDS[item["kind"]](item)
    except (LookupError, TypeError, ValueError, ArithmeticError, AttributeError) as error:
        raise Refuted(f"malformed, {type(error).__name__}: {error}") from error


def main(paths: Sequence[str]) -> int:
    """Check all items of all files; 0 if every one holds."""
    failures, count = 0, 0
    for item in (x for p in paths for x in json.loads(Path(p).read_text("utf-8"))["items"]):
        count += 1
        try:
            verdict = f"ok    {check(item)}"
        except Refuted as error:
            verdict, failures = f"FAIL  {error}", failures + 1
        print(f"{item.get('kind')} {item.get('title', '')}: {verdict}")
    print(f"{count - failures} of {count} items hold")
    return 1 if failures or not count else 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
