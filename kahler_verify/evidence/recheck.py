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
from operator import mul
from pathlib import Path
from typing import Any

from flint import acb, acb_mat, arb, ctx, fmpq

FAILURES = (LookupError, TypeError, ValueError, ArithmeticError, AttributeError)
SLACK = fmpq(257, 256)  # a bound further than this from what is found is an error too


def need(condition: Any, message: str) -> None:
    """Stop the item unless the condition is certain."""
    if condition is not True:
        raise ValueError(message)


def digest(item: dict) -> str:
    """A seal against accidents; beyond it, every claim is evaluated again."""
    body = {k: v for k, v in item.items() if k != "digest"}
    return hashlib.sha256(json.dumps(body, sort_keys=True).encode()).hexdigest()


def rational(text: str) -> fmpq:
    """The number of a string p or p/q."""
    return fmpq(*map(int, text.split("/")))


def numbers(data: Any) -> Any:
    """A matrix of balls from nested lists of pairs: a number is 1 × 1, a vector a column."""
    if isinstance(data, acb) or isinstance(data[0], str):
        x = data if isinstance(data, acb) else acb(*(arb(rational(x)) for x in data))
        return acb_mat([[x]])
    rows = [x if isinstance(x, list) and isinstance(x[0], list) else [x] for x in data]
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

    def each(self, change: Callable[..., Any], *more: Any) -> Nil:
        """A linear map of every part."""
        return Nil({m: change(x, *more) for m, x in self.parts.items()})

    def powers(self, coefficient: Callable[[int], fmpq]) -> Nil:
        """Σ_j coefficient(j) Nʲ for j ≥ 1, N being the part with ε's."""
        power = step = Nil({m: x for m, x in self.parts.items() if m})
        total, j = Nil({}), 1
        while power.parts:
            total, power, j = total + power.each(mul, coefficient(j)), power * step, j + 1
        return total

    def inverse(self) -> Nil:
        """(X + N)⁻¹ = Y + Y Σ_j (-NY)ʲ with Y = X⁻¹."""
        y = Nil({0: self.parts[0].inv()})
        return y + y * (self * y).powers(lambda j: fmpq((-1) ** j))

    def log(self) -> Nil:
        """Log det: log det X - Σ_j tr (-X⁻¹N)ʲ/j; of a number its log."""
        terms = (Nil({0: self.parts[0].inv()}) * self).powers(lambda j: fmpq(-((-1) ** j), j))
        return Nil({0: acb_mat([[self.parts[0].det().log()]])}) + terms.trace()

    def trace(self) -> Nil:
        """The trace."""
        return self.each(lambda x: acb_mat([[x.trace()]]))

    def exp(self) -> Nil:
        """Exp of a number."""
        start = Nil({0: self.parts.get(0, acb_mat([[0]])).exp()})
        return start + start * self.powers(lambda j: fmpq(1, factorial(j)))


def evaluate(tree: Any, lookup: Callable[[str], Nil]) -> Nil:
    """A tree: a name, ["number", re, im], or ["+" | "*" | "inverse" | "exp" | "log" | "trace", …]."""
    if isinstance(tree, str):
        return lookup(tree)
    if tree[0] == "number":
        return Nil({0: numbers(tree[1:])})
    first, *rest = [evaluate(x, lookup) for x in tree[1:]]
    if tree[0] in ("+", "*"):
        return reduce(Nil.__add__ if tree[0] == "+" else Nil.__mul__, rest, first)
    methods = {"inverse": first.inverse, "exp": first.exp, "log": first.log, "trace": first.trace}
    return methods[tree[0]]()


def derivative(tree: Any, tensors: dict, eps: Sequence, hermitian: Sequence[str] = ()) -> Any:
    """∂… of a tree of fields, by ε's (coordinate, is it ∂̄): [(a, 0), (b, 1)] gives g_{ab̄}.

    Names are Sigma, its adjoint Sigma~, q:k for component k; "!" holds at z_0 against the last two
    ε's.  Sigma_db has ∂∂̄Σ, Sigma_factor L of Σ = L Lᴴ.  What is absent is zero or does not matter:
    μ and log w may be shifted.
    """

    def jet(stem: str, lead: list, hol: list, anti: list) -> Any:
        key = f"{stem}_{'d' * len(hol)}{'b' * len(anti)}".rstrip("_")
        if key == stem and f"{stem}_factor" in tensors:
            factor = numbers(tensors[f"{stem}_factor"])
            return factor * adjoint(factor)
        if key in tensors:
            return numbers(reduce(lambda t, i: t[i], [*lead, *hol, *anti], tensors[key]))
        swap = stem in hermitian and len(hol) < len(anti)
        value = jet(stem, lead, anti, hol) if swap else None
        return None if value is None else adjoint(value)

    def lookup(name: str) -> Nil:
        stem, _, component = name.rstrip("~!").partition(":")
        parts, bars, lead = {}, (0, 1), [int(component)] if component else []
        for mask in range(1 << (len(eps) - 2 * ("!" in name))):
            chosen = [e for j, e in enumerate(eps) if mask >> j & 1]
            orders = [[i for i, bar in chosen if bar == side ^ ("~" in name)] for side in bars]
            parts[mask] = jet(stem, lead, *orders)
        known = Nil({mask: x for mask, x in parts.items() if x is not None})
        return known.each(adjoint) if "~" in name else known

    everything = (1 << len(eps)) - 1
    return evaluate(tree, lookup).parts.get(everything, acb_mat([[0]]))[0, 0]


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
    """g over balls z, for a potential that is a tree in z:0, z:0~ (its conjugate), z:1, …."""

    def metric(z: Sequence[Any], **_: Any) -> list[list[Any]]:
        each = range(len(z))
        fields = {"z": list(z), "z_d": [[acb(i == j) for j in each] for i in each]}
        return [[derivative(data["tree"], fields, [(a, 0), (b, 1)]) for b in each] for a in each]

    return metric


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

        def gap(k: int, m: int) -> Any:  # log w_k/w_m; common quadratic parts cancel
            linear, bent = adjoint(z) * (pc[k] - pc[m]), adjoint(z) * (p[k] - p[m]) * z
            return start[k] - start[m] + sign * (bent[0, 0].real - 2 * linear[0, 0].real)

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


def rayleigh(g: Sequence[Sequence[Any]], v: Any) -> Any:
    """An upper bound of Σ g_{ab̄} v_a v̄_b/|v|², v being a column."""
    form = v.transpose() * acb_mat(g) * v.conjugate()
    return (form[0, 0].real / (adjoint(v) * v)[0, 0].real).upper()


def check_region(item: dict) -> str:
    """Is a potential plurisubharmonic on a box?  Leaves that fill it, or z and v with vᴴgv < 0."""
    metric = POTENTIALS[item["potential"]["type"]](item["potential"])
    sides = [item["box"], *item["leaves"]]
    box, *leaves = (tuple((rational(x), rational(y)) for x, y in b) for b in sides)
    if item["verdict"] == "refuted":
        where = [rational(x) for pair in item["point"] for x in pair]
        inside = [lo <= x <= hi for (lo, hi), x in zip(box, where, strict=True)]
        g, claimed = metric(numbers(item["point"]).entries()), rational(item["value"])
        found = rayleigh(g, numbers(item["vector"]))
        need(all(inside), "point: outside the box")
        need(found <= claimed < 0 and claimed * SLACK <= found, f"value: found {found}")
        return f"refuted, vᴴgv/vᴴv ≤ {float(arb(claimed)):.3g} at an exact point"
    need(item["verdict"] == "proved" and tiles(box, leaves), "leaves: do not fill the box")
    need(all(positive(metric(over(x), below=True)) for x in leaves), "leaves: not all certified")
    return f"proved, {len(leaves)} leaves certified"


def check_metric(g: list[list[Any]], claim: bool | None, least: str, most: str) -> None:
    """Is g positive definite (None: not known), with eigenvalues in [least, most], tight to 1/16?"""
    need(claim is None or positive(g) is claim, f"positive_definite: not {claim}")
    for (sign, text), more in product(((1, least), (-1, most)), (0, 1)) if claim else ():
        t = rational(text) * (1 + fmpq(sign * more, 16))  # a bound, and no bound if tightened
        rows = [[sign * (x - t * (i == j)) for j, x in enumerate(r)] for i, r in enumerate(g)]
        need((positive(rows) is True) is (more == 0), f"eigenvalues: {text} is no tight bound")


def check_kernel(item: dict) -> str:
    """Are a kernel's outputs within their bounds of a definition's derivatives, at all points?

    ``bars`` says of every index of an output whether it is ∂̄.  Errors are in the frame where g,
    computed from the definition or else given, has diagonal 1; below ``floor`` they do not count.
    """
    floor = rational(item["floor"])
    need(item["verdict"] == "certified" and 0 < floor < fmpq(1, 2**30), "nothing is certified")
    for point in item["points"]:
        each = range(len(next(iter(point["outputs"].values()))["computed"]))
        entry = lambda i, bars, fields=point["inputs"]: derivative(  # noqa: E731
            item["definition"], fields, list(zip(i, bars, strict=True)), item["hermitian"]
        )
        g = [[entry((a, b), (0, 1)) for b in each] for a in each]
        g = g if point["metric"] is None else numbers(point["metric"]).tolist()
        check_metric(g, *(point[k] for k in ("positive_definite", "lambda_min", "lambda_max")))
        for name, out in point["outputs"].items():
            found, claimed = arb(0), rational(out["bound"])
            for i in product(each, repeat=len(item["bars"][name])):
                computed = numbers(reduce(lambda t, j: t[j], i, out["computed"]))[0, 0]
                error = abs(computed - entry(i, item["bars"][name]))
                found = found.max((error / prod([g[j][j].real.sqrt() for j in i])).upper())
            need(found <= claimed <= found * SLACK + floor, f"{name}: found {found}")
    return f"outputs within their bounds at {len(item['points'])} points"


# Further kinds register here: a function of the item that returns a line, or raises.
KINDS: dict[str, Callable[[dict], str]] = {"region": check_region, "kernel": check_kernel}


def check(item: dict) -> str:
    """One line about an item; raises one of FAILURES."""
    need(item["digest"] == digest(item), "digest: the item was changed")
    need(2 <= item["bits"] <= 8192, "bits: out of range")
    with ctx.workprec(2 * item["bits"]):
        return KINDS[item["kind"]](item)


def main(paths: Sequence[str]) -> int:
    """Check all items of all files; 0 if every one holds."""
    lines = []
    for item in (x for p in paths for x in json.loads(Path(p).read_text("utf-8"))["items"]):
        try:
            lines.append(f"ok    {item['kind']} {item['title']}: {check(item)}")
        except FAILURES as error:
            lines.append(f"FAIL  {item.get('kind')} {item.get('title')}: {error!r}")
        print(lines[-1], flush=True)
    return 0 if lines and all(line.startswith("ok") for line in lines) else 1


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
