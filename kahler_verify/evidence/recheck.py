"""Re-check evidence: python recheck.py FILE.json, with python-flint and the standard library alone.

Nothing is taken from the project that wrote the file {"format": 1, "items": [{"kind": …}, …]}.
Definitions are differentiated again, by nilpotent ε's over complex balls; every box, witness and
bound is evaluated again.  Rationals are strings "p/q", complex numbers pairs.
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
        return acb_mat([[data if isinstance(data, acb) else acb(*map(arb, map(rational, data)))]])
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
        pairs = product(self.parts.items(), other.parts.items())
        terms = [Nil({m | k: x * y}) for (m, x), (k, y) in pairs if not m & k]
        return reduce(Nil.__add__, terms, Nil({}))

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
        return Nil({0: acb_mat([[self.parts[0].det().log()]])}) + terms.each(
            lambda x: acb_mat([[x.trace()]])
        )

    def exp(self) -> Nil:
        """Exp of a number."""
        start = Nil({0: self.parts.get(0, acb_mat([[0]])).exp()})
        return start + start * self.powers(lambda j: fmpq(1, factorial(j)))


def evaluate(tree: Any, lookup: Callable[[str], Nil]) -> Nil:
    """A tree: a name, ["number", re, im], or "+", "*", inverse, exp, log, trace of trees."""
    if isinstance(tree, str):
        return lookup(tree)
    if tree[0] == "number":
        return Nil({0: numbers(tree[1:])})
    first, *rest = [evaluate(x, lookup) for x in tree[1:]]
    if tree[0] in ("+", "*"):
        return reduce(Nil.__add__ if tree[0] == "+" else Nil.__mul__, rest, first)
    trace = lambda: first.each(lambda x: acb_mat([[x.trace()]]))  # noqa: E731
    return {"inverse": first.inverse, "exp": first.exp, "log": first.log, "trace": trace}[tree[0]]()


def derivative(tree: Any, tensors: dict, eps: Sequence, hermitian: Sequence[str] = ()) -> Any:
    """∂… of a tree of fields, by ε's (coordinate, is it ∂̄): [(a, 0), (b, 1)] gives g_{ab̄}.

    Names are Sigma, its adjoint Sigma~, q:k for component k; "!" holds z against the last two ε's.
    Sigma_db is ∂∂̄Σ, Sigma_factor L of Σ = L Lᴴ.  What is absent is zero, or may be shifted to it.
    """

    def lookup(name: str) -> Nil:
        stem, _, component = name.rstrip("~!").partition(":")
        known, lead = {}, [int(component)] if component else []
        for mask in range(1 << (len(eps) - 2 * ("!" in name))):
            chosen = [e for j, e in enumerate(eps) if mask >> j & 1]
            hol, anti = ([i for i, bar in chosen if bar == side ^ ("~" in name)] for side in (0, 1))
            swap = stem in hermitian and len(hol) < len(anti)
            hol, anti = (anti, hol) if swap else (hol, anti)
            key = f"{stem}_{'d' * len(hol)}{'b' * len(anti)}".rstrip("_")
            if key == stem and f"{stem}_factor" in tensors:
                factor = numbers(tensors[f"{stem}_factor"])
                known[mask] = factor * adjoint(factor)
            elif key in tensors:
                value = numbers(reduce(lambda t, i: t[i], [*lead, *hol, *anti], tensors[key]))
                known[mask] = adjoint(value) if swap != ("~" in name) else value
        return Nil(known)

    return evaluate(tree, lookup).parts.get((1 << len(eps)) - 1, acb_mat([[0]]))[0, 0]


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
    """g over balls: "log_sum_exp" log Σ π_k e^{q_k}, "density" -log Σ π_k det P_k e^{-q_k}.

    With q_k = (z-c_k)ᴴP_k(z-c_k): g = P_1ᵀ + Σ w_k (P_k - P_1)ᵀ ± Σ_{k<m} w_k w_m δδᴴ.  As δδᴴ ⪰ 0,
    w_k w_m ≤ 1/(2 + 2 cosh log(w_k/w_m)) may give way to its upper end where it is subtracted, and
    to its lower end where it is added: that leaves a matrix ``below`` g, enough for g ≻ 0.
    """
    sign = {"log_sum_exp": 1, "density": -1}[data["type"]]
    c, p = [numbers(x) for x in data["centres"]], [numbers(x) for x in data["precisions"]]
    p = [(x + adjoint(x)) / 2 for x in p]  # the Hermitian part is meant
    pc, each = [x * y for x, y in zip(p, c, strict=True)], range(len(p))
    dets = [x.det().real if sign < 0 else arb(1) for x in p]
    scale = [rational(w) * dets[k] for k, w in enumerate(data["weights"])]
    start = [arb(s).log() + (adjoint(c[k]) * pc[k])[0, 0].real * sign for k, s in enumerate(scale)]

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


def tiles(box: tuple, leaves: list[tuple]) -> bool:
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


def check_region(item: dict) -> str:
    """Is a potential plurisubharmonic on a box?  Leaves that fill it, or z and v with vᴴgv < 0."""
    metric = POTENTIALS[item["potential"]["type"]](item["potential"])
    boxes = [item["box"], *item["leaves"]]
    box, *leaves = (tuple(tuple(map(rational, side)) for side in sides) for sides in boxes)
    if item["verdict"] == "refuted":
        where = [rational(x) for pair in item["point"] for x in pair]
        inside = [lo <= x <= hi for (lo, hi), x in zip(box, where, strict=True)]
        g, v = acb_mat(metric(numbers(item["point"]).entries())), numbers(item["vector"])
        form, claimed = v.transpose() * g * v.conjugate(), rational(item["value"])
        found = (form[0, 0].real / (adjoint(v) * v)[0, 0].real).upper()
        need(all(inside), "point: outside the box")
        need(claimed * fmpq(257, 256) <= found <= claimed < 0, f"value: found {found}")
        return f"refuted, vᴴgv/vᴴv ≤ {float(arb(claimed)):.3g} at an exact point"
    need(item["verdict"] == "proved" and tiles(box, leaves), "leaves: do not fill the box")
    for leaf in leaves:
        sides = [arb(lo).union(arb(hi)) for lo, hi in leaf]
        z = list(map(acb, sides[::2], sides[1::2]))
        need(positive(metric(z, below=True)), f"leaf: no proof on {leaf}")
    return f"proved, {len(leaves)} leaves certified"


def check_kernel(item: dict) -> str:
    """Are outputs within bounds of a definition's derivatives?  ``bars`` tells which are ∂̄.

    Errors are in the frame where g (given, or the definition's) has diagonal 1.
    """
    floor, tree, hermitian = rational(item["floor"]), item["definition"], item["hermitian"]
    need(item["verdict"] == "certified" and 0 < floor < fmpq(1, 2**30), "nothing is certified")
    for point in item["points"]:
        fields, claim = point["inputs"], point["positive_definite"]
        each = range(len(next(iter(point["outputs"].values()))["computed"]))
        g = [[derivative(tree, fields, [(a, 0), (b, 1)], hermitian) for b in each] for a in each]
        g = acb_mat(g) if point["metric"] is None else numbers(point["metric"])
        g = ((g + adjoint(g)) / 2).tolist()
        need(claim is None or positive(g) is claim, f"positive_definite: not {claim}")
        for sign, more in product((1, -1), (0, 1)) if claim else ():
            t = rational(point["lambda_min" if sign > 0 else "lambda_max"])
            t *= fmpq(16 + sign * more, 16)  # no bound any more if tightened
            rows = [[sign * (g[i][j] - t * (i == j)) for j in each] for i in each]
            need((positive(rows) is True) is (more == 0), f"eigenvalues: {t} is no tight bound")
        for name, out in point["outputs"].items():
            found, claimed = arb(0), rational(out["bound"])
            for i in product(each, repeat=len(item["bars"][name])):
                eps = list(zip(i, item["bars"][name], strict=True))
                computed = numbers(reduce(lambda t, j: t[j], i, out["computed"]))[0, 0]
                error = abs(computed - derivative(tree, fields, eps, hermitian))
                found = found.max((error / prod([g[j][j].real.sqrt() for j in i])).upper())
            need(found <= claimed <= found * fmpq(257, 256) + floor, f"{name}: found {found}")
    return f"outputs within their bounds at {len(item['points'])} points"


def check_witness(item: dict) -> str:
    """Σ coefficient · ∂… of definitions has this value, to 100 bits, at a point given by jets."""
    value = -numbers(item["value"])[0, 0]
    for coefficient, tree, eps in item["terms"]:
        term = derivative(tree, item["inputs"], eps, item["hermitian"])
        value += numbers(coefficient)[0, 0] * term
    need(abs(value).upper() < arb(2) ** -100, f"value: off by {value}")
    return " + i·".join(item["value"])


POTENTIALS = {"expression": expression, "log_sum_exp": mixture, "density": mixture}
KINDS = {"region": check_region, "kernel": check_kernel, "witness": check_witness}


def check(item: dict) -> str:
    """One line about an item; raises where it does not hold."""
    need(item["digest"] == digest(item), "digest: the item was changed")
    with ctx.workprec(2 * item["bits"]):
        return KINDS[item["kind"]](item)


def main(paths: Sequence[str]) -> int:
    """Check all items of all files; 0 if every one holds."""
    lines = []
    for item in (x for p in paths for x in json.loads(Path(p).read_text("utf-8"))["items"]):
        try:
            lines.append(f"ok    {item['kind']} {item['title']}: {check(item)}")
        except (LookupError, TypeError, ValueError, ArithmeticError, AttributeError) as error:
            lines.append(f"FAIL  {item.get('kind')} {item.get('title')}: {error!r}")
        print(lines[-1], flush=True)
    return 0 if lines and all(line.startswith("ok") for line in lines) else 1


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
