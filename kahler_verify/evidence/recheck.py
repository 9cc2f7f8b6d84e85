"""Re-check evidence: python recheck.py FILE.json, with python-flint and the standard library alone.

Nothing is taken from the project that wrote the file: definitions are differentiated again, by
nilpotent ε's over complex balls; every box, witness and bound is evaluated again.  A file is
{"format": 1, "items": [{"kind": …, "digest": …}, …]}, rationals are "p/q", complex numbers pairs.
"""

from __future__ import annotations

import hashlib
import json
import sys
from collections.abc import Callable, Sequence
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
    """A matrix of balls from nested lists of pairs: a number is 1 × 1, a vector a column."""
    if isinstance(data[0], str):
        return acb_mat([[acb(*(arb(rational(x)) for x in data))]])
    rows = data if not isinstance(data[0][0], str) else [[x] for x in data]
    return acb_mat([[numbers(x)[0, 0] for x in row] for row in rows])


def adjoint(x: Any) -> Any:
    """The conjugate transpose."""
    return x.conjugate().transpose()


class Nil:
    """Σ over sets of ε's (bit masks, ε² = 0) of matrices; absent parts are zero."""

    def __init__(self, parts: dict[int, Any]):
        self.parts = parts

    def __add__(self, other: Nil) -> Nil:
        shared = {m: x + other.parts[m] for m, x in self.parts.items() if m in other.parts}
        return Nil({**self.parts, **other.parts, **shared})

    def __mul__(self, other: Nil) -> Nil:
        terms = [(m, k) for m in self.parts for k in other.parts if not m & k]
        each = [Nil({m | k: self.parts[m] * other.parts[k]}) for m, k in terms]
        return reduce(Nil.__add__, each, Nil({}))

    def each(self, change: Callable[[Any], Any]) -> Nil:
        """A linear map of every part."""
        return Nil({m: change(x) for m, x in self.parts.items()})

    def powers(self, coefficient: Callable[[int], fmpq]) -> Nil:
        """Σ_j coefficient(j) Nʲ for j ≥ 1, N being the part with ε's."""
        power = step = Nil({m: x for m, x in self.parts.items() if m})
        total, j = Nil({}), 1
        while power.parts:
            total = total + power.each(lambda x, c=acb(coefficient(j)): x * c)
            power, j = power * step, j + 1
        return total

    def inverse(self) -> Nil:
        """(X + N)⁻¹ = Y + Y Σ_j (-NY)ʲ with Y = X⁻¹."""
        y = Nil({0: self.parts[0].inv()})
        return y + y * (self * y).powers(lambda j: fmpq((-1) ** j))

    def log(self) -> Nil:
        """Log det: log det X - Σ_j tr (-X⁻¹N)ʲ/j; of a number its log."""
        terms = (Nil({0: self.parts[0].inv()}) * self).powers(lambda j: fmpq(-((-1) ** j), j))
        start = Nil({0: acb_mat([[self.parts[0].det().log()]])})
        return start + terms.each(lambda x: acb_mat([[x.trace()]]))

    def exp(self) -> Nil:
        """Exp of a number."""
        start = Nil({0: self.parts[0].exp()})
        return start + start * self.powers(lambda j: fmpq(1, factorial(j)))

    def top(self, eps: Sequence) -> Any:
        """The coefficient, a number, of the product of all ε's."""
        return self.parts.get((1 << len(eps)) - 1, acb_mat([[0]]))[0, 0]


def evaluate(tree: Any, names: dict[str, Nil]) -> Nil:
    """A tree of ["+" | "*" | "inverse" | "exp" | "log", …], names, and numbers "p/q"."""
    if isinstance(tree, str):
        return names[tree] if tree in names else Nil({0: numbers([tree, "0"])})
    first, *rest = [evaluate(x, names) for x in tree[1:]]
    if tree[0] in ("+", "*"):
        return reduce(Nil.__add__ if tree[0] == "+" else Nil.__mul__, rest, first)
    return {"inverse": first.inverse, "exp": first.exp, "log": first.log}[tree[0]]()


def derivative(tree: Any, z: Sequence[Any], by: Sequence[tuple[int, bool]]) -> Any:
    """∂… of a tree in z1, z1~ (= z̄1), …, I at balls z: by [(a, False), (b, True)] it is g_{ab̄}."""
    names = {"I": Nil({0: acb_mat([[acb(0, 1)]])})}
    for (i, x), bar in product(enumerate(z), (False, True)):
        steps = {1 << j: acb_mat([[1]]) for j, e in enumerate(by) if e == (i, bar)}
        start = acb_mat([[x.conjugate() if bar else x]])
        names[f"z{i + 1}" + "~" * bar] = Nil({0: start, **steps})
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


def expression(data: dict) -> Callable[..., list[list[Any]]]:
    """g over balls z, for a potential that is a tree."""
    eps = lambda z: [[[(a, False), (b, True)] for b in range(len(z))] for a in range(len(z))]  # noqa: E731
    return lambda z, **_: [[derivative(data["tree"], z, e) for e in row] for row in eps(z)]


def mixture(data: dict) -> Callable[..., list[list[Any]]]:
    """g over balls, of log Σ π_k e^{q_k} ("log_sum_exp") or -log Σ π_k det P_k e^{-q_k} ("density").

    With q_k = (z-c_k)ᴴP_k(z-c_k): g = P_1ᵀ + Σ w_k (P_k - P_1)ᵀ ± Σ_{k<m} w_k w_m δδᴴ.  As δδᴴ ⪰ 0,
    w_k w_m ≤ 1/(2 + 2 cosh log(w_k/w_m)) may give way to its upper end where it is subtracted, and
    to its lower end where it is added: that leaves a matrix ``below`` g, enough for g ≻ 0.
    """
    sign = {"log_sum_exp": 1, "density": -1}[data["type"]]
    c, p = [numbers(x) for x in data["centres"]], [numbers(x) for x in data["precisions"]]
    p = [(x + adjoint(x)) / 2 for x in p]  # the Hermitian part is meant
    pc, each = [x * y for x, y in zip(p, c, strict=True)], range(len(p))
    start = [(adjoint(x) * y)[0, 0].real * sign for x, y in zip(c, pc, strict=True)]
    for k, w in enumerate(data["weights"]):
        start[k] += (rational(w) * (p[k].det().real if sign < 0 else arb(1))).log()

    def metric(entries: Sequence[Any], below: bool = False) -> list[list[Any]]:
        z = acb_mat([[x] for x in entries])

        def gap(k: int, m: int) -> Any:  # log w_k/w_m, where common quadratic parts have cancelled
            q, bent = -2 * (adjoint(z) * (pc[k] - pc[m]))[0, 0].real, p[k] - p[m]
            for i, x in enumerate(entries):
                q += bent[i, i].real * (x.real * x.real + x.imag * x.imag)
                for j in range(i):
                    q += 2 * (x.conjugate() * bent[i, j] * entries[j]).real
            return start[k] - start[m] + sign * q

        gaps = [[gap(m, k) for m in each] for k in each]
        low = [(1 / sum((x.upper().exp() for x in row), arb(0))).lower() for row in gaps]
        high = [(1 / sum((x.lower().exp() for x in row), arb(0))).upper() for row in gaps]
        g = sum(((p[k] - p[0]) * acb(low[k].union(high[k])) for k in each[1:]), p[0]).transpose()
        for k, m in product(each, each):
            t, least = gaps[k][m].abs_lower(), (low[k] * low[m]).lower()
            most = (high[k] * high[m]).upper().min((1 / (2 + t.exp() + (-t).exp())).upper())
            factor = (least if sign > 0 else most) if below else least.union(most)
            delta = ((p[k] - p[m]) * z - pc[k] + pc[m]).conjugate()
            g = g + delta * adjoint(delta) * acb(sign * factor / 2)  # each pair comes twice
        return g.tolist()

    return metric


POTENTIALS = {"expression": expression, "log_sum_exp": mixture, "density": mixture}
Box = tuple[tuple[fmpq, fmpq], ...]  # the sides of Re z1, Im z1, Re z2, …


def over(box: Box) -> list[Any]:
    """Complex balls that contain the box."""
    sides = [arb(lo).union(arb(hi)) for lo, hi in box]
    return [acb(x, y) for x, y in zip(sides[::2], sides[1::2], strict=True)]


def tiles(box: Box, leaves: list[Box]) -> bool:
    """Do these leaves, made by halving, fill the box?"""
    if len(leaves) <= 1:
        return leaves == [box]
    for i, (lo, hi) in enumerate(box):
        cut = (lo + hi) / 2
        parts = [x for x in leaves if x[i][1] <= cut], [x for x in leaves if x[i][0] >= cut]
        if all(parts) and len(parts[0]) + len(parts[1]) == len(leaves):
            halves = [(*box[:i], side, *box[i + 1 :]) for side in ((lo, cut), (cut, hi))]
            return all(map(tiles, halves, parts))
    return False


def rayleigh(g: Sequence[Sequence[Any]], v: Sequence[Any]) -> Any:
    """An upper bound of Σ g_{ab̄} v_a v̄_b/|v|²."""
    pairs = product(range(len(v)), repeat=2)
    value = sum((g[a][b] * v[a] * v[b].conjugate() for a, b in pairs), acb(0))
    return (value.real / sum((x * x.conjugate() for x in v), acb(0)).real).upper()


def check_region(item: dict) -> str:
    """Is a potential plurisubharmonic on a box?  Leaves that fill it, or z and v with vᴴgv < 0."""
    metric = POTENTIALS[item["potential"]["type"]](item["potential"])
    sides = [item["box"], *item["leaves"], *item["leftover"]]
    box, *boxes = (tuple((rational(x), rational(y)) for x, y in b) for b in sides)
    if item["verdict"] == "refuted":
        where = [rational(x) for pair in item["point"] for x in pair]
        inside = [lo <= x <= hi for (lo, hi), x in zip(box, where, strict=True)]
        g, v = metric(numbers(item["point"]).entries()), numbers(item["vector"]).entries()
        found, claimed = rayleigh(g, v), rational(item["value"])
        need(all(inside) and len(v) == len(g), "point or vector: outside the box")
        need(found <= claimed < 0 and claimed * SLACK <= found, f"value: found {found}")
        return f"refuted, vᴴgv/vᴴv ≤ {float(arb(claimed)):.3g} at an exact point"
    leaves, rest = boxes[: len(item["leaves"])], boxes[len(item["leaves"]) :]
    need(tiles(box, boxes), "leaves: do not fill the box")
    need(all(positive(metric(over(x), below=True)) for x in leaves), "leaves: not all certified")
    need(item["verdict"] == ("undecided" if rest else "proved"), "verdict: not what leaves give")
    return f"{item['verdict']}, {len(leaves)} leaves certified, {len(rest)} left over"


def series(tensors: dict, name: str, eps: Sequence, dagger: bool = False, lead: tuple = ()) -> Nil:
    """The Taylor polynomial of a field, or of its adjoint, in ε's (coordinate, is it ∂̄).

    Sigma_db holds ∂∂̄Σ, Sigma_factor L of Σ = L Lᴴ.  Absent derivatives are zero, or cancel.
    """

    def jet(hol: tuple, anti: tuple) -> Any:
        key = f"{name}_{'d' * len(hol)}{'b' * len(anti)}"
        if key == f"{name}_" and f"{name}_factor" in tensors:
            return (lambda x: x * adjoint(x))(numbers(tensors[f"{name}_factor"]))
        if key in tensors:
            return numbers(reduce(lambda t, i: t[i], (*lead, *hol, *anti), tensors[key]))
        swapped = jet(anti, hol) if name != "mu" and len(hol) < len(anti) else None  # Hermitian
        return None if swapped is None else adjoint(swapped)

    parts = {}
    for mask in range(1 << len(eps)):
        chosen = [e for j, e in enumerate(eps) if mask >> j & 1]
        orders = [tuple(i for i, bar in chosen if bar == side) for side in (dagger, not dagger)]
        parts[mask] = jet(*orders)
    known = Nil({mask: x for mask, x in parts.items() if x is not None})
    return known.each(adjoint) if dagger else known


def gaussian(tensors: dict, eps: list) -> Any:
    """KL = log det Σ + tr Σ⁻¹Σ_0 + (μ-μ_0)ᴴΣ⁻¹(μ-μ_0): the last two ε's move z, others z_0 too."""
    s, s0 = series(tensors, "Sigma", eps), series(tensors, "Sigma", eps[:-2])
    m, mh = (series(tensors, "mu", eps, dagger) for dagger in (False, True))
    m, mh = (Nil({k: x for k, x in y.parts.items() if k >> (len(eps) - 2)}) for y in (m, mh))
    rest = ((s0 + m * mh) * s.inverse()).each(lambda x: acb_mat([[x.trace()]]))
    return (s.log() + rest).top(eps)


def log_mean_exp(tensors: dict, eps: list, sign: int) -> Any:
    """±log Σ_k w_k e^{±(q_k - q_k(z))}."""
    total = Nil({})
    for k, w in enumerate(tensors["w"]):
        q = series(tensors, "q", eps, lead=(k,)).each(lambda x: x * sign)
        total = total + Nil({0: numbers(w)}) * Nil({**q.parts, 0: acb_mat([[0]])}).exp()
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
    d, found = len(next(iter(point["outputs"].values()))["computed"]), []

    def entry(name: str, index: tuple[int, ...]) -> Any:
        eps = [(i, bool(bar)) for i, bar in zip(index, BARS[name], strict=True)]
        return FORMULAS[item["formula"]](point["inputs"], eps)

    g = [[entry("g", (a, b)) for b in range(d)] for a in range(d)]
    g = g if point["metric"] is None else numbers(point["metric"]).tolist()
    claim, bounds = point["positive_definite"], [point["lambda_min"], point["lambda_max"]]
    need(claim is None or positive(g) is claim, f"positive_definite: not {claim}")
    need([x is None for x in bounds] == [claim is not True] * 2, "lambda: out of place")
    for (sign, text), more in product(zip((1, -1), bounds, strict=True), (0, 1) if claim else ()):
        t = rational(text) * (1 + fmpq(sign * more, 16))  # a bound, and no bound if tightened
        rows = [[sign * (x - t * (i == j)) for j, x in enumerate(r)] for i, r in enumerate(g)]
        need((positive(rows) is True) is (more == 0), f"eigenvalues: {text} is no tight bound")
    for name, out in point["outputs"].items():
        worst, claimed = arb(0), rational(out["bound"])
        for i in product(range(d), repeat=len(BARS[name])):
            computed = numbers(reduce(lambda t, j: t[j], i, out["computed"]))[0, 0]
            error = abs(computed - entry(name, i)) / prod([g[j][j].real.sqrt() for j in i])
            worst = worst.max(error.upper())
        need(worst <= claimed, f"{name}: error up to {worst}, above its bound")
        tight = claimed <= worst * SLACK + rational(item["floor"])
        need(tight, f"{name}: the bound is far from {worst}")
        found.append(f"{name} within {float(worst):.2g}")
    return ", ".join(found)


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
    lines, failures = [], 0
    for item in (x for p in paths for x in json.loads(Path(p).read_text("utf-8"))["items"]):
        try:
            lines.append(f"ok    {check(item)}")
        except Refuted as error:
            lines, failures = [*lines, f"FAIL  {error}"], failures + 1
        print(f"{item.get('kind')} {item.get('title', '')}: {lines[-1]}", flush=True)
    print(f"{len(lines) - failures} of {len(lines)} items hold")
    return 1 if failures or not lines else 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
