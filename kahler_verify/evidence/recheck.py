"""Re-check evidence files: python recheck.py FILE.json, with python-flint and the standard library alone.

Nothing here comes from the project that wrote the file.  Definitions (divergence, potential, curvature)
are differentiated again with nilpotent ε's over complex balls; boxes, witnesses and bounds are evaluated
again.  A file is {"format": 1, "items": [{"kind": …, "digest": …}, …]}; numbers are strings "p/q".
"""

from __future__ import annotations

import hashlib
import json
import sys
from collections.abc import Callable, Iterator, Sequence
from functools import reduce
from itertools import product
from math import prod
from pathlib import Path
from typing import Any

from flint import acb, acb_mat, arb, ctx, fmpq

MOST_BITS = 4096
UNIT = {"complex64": -23, "float32": -23, "complex128": -52, "float64": -52}


class Refuted(Exception):  # noqa: N818
    """What an item says is not what its numbers give."""


def need(condition: Any, message: str) -> None:
    """Stop the item unless the condition is certainly true."""
    if condition is not True:
        raise Refuted(message)


def digest(item: dict) -> str:
    """A seal against accidents; every claim is also evaluated again."""
    body = {k: v for k, v in item.items() if k != "digest"}
    text = json.dumps(body, sort_keys=True, ensure_ascii=True)
    return hashlib.sha256(text.encode()).hexdigest()


def rational(text: str) -> fmpq:
    """The number of a string p or p/q."""
    top, _, bottom = text.partition("/")
    return fmpq(int(top), int(bottom or 1))


def ball(re: str, im: str = "0") -> Any:
    """A ball around re + i·im."""
    return acb(arb(rational(re)), arb(rational(im)))


def interval(lo: fmpq, hi: fmpq) -> Any:
    """A real ball that contains [lo, hi]."""
    return arb(lo).union(arb(hi))


class Nil:
    """Σ over sets of ε's (bit masks, ε² = 0) of numbers or of square matrices; absent parts are zero."""

    def __init__(self, parts: dict[int, Any]):
        self.parts = parts

    def __add__(self, other: Nil) -> Nil:
        out = dict(self.parts)
        for m, x in other.parts.items():
            out[m] = out[m] + x if m in out else x
        return Nil(out)

    def __mul__(self, other: Nil) -> Nil:
        out: dict[int, Any] = {}
        for m, x in self.parts.items():
            for k, y in other.parts.items():
                if not m & k:
                    out[m | k] = out[m | k] + x * y if m | k in out else x * y
        return Nil(out)

    def each(self, change: Callable[[Any], Any]) -> Nil:
        """Apply a linear map to every part."""
        return Nil({m: change(x) for m, x in self.parts.items()})

    def __neg__(self) -> Nil:
        return self.each(lambda x: -x)

    def powers(self) -> Iterator[tuple[int, Nil]]:
        """(j, N^j) for j = 1, 2, … with N the nilpotent part, until it vanishes."""
        step = Nil({m: x for m, x in self.parts.items() if m})
        power, j = step, 1
        while power.parts:
            yield j, power
            power, j = power * step, j + 1

    def taylor(self, coefficient: Callable[[Any, int], Any]) -> Nil:
        """Σ_j coefficient(x, j) N^j for a number x + N."""
        x, out = self.parts[0], Nil({0: coefficient(self.parts[0], 0)})
        for j, power in self.powers():
            out = out + power.each(lambda y, c=coefficient(x, j): c * y)
        return out

    def inverse(self) -> Nil:
        """(X + N)⁻¹ = Y Σ_j (-N Y)^j with Y = X⁻¹; X a number or a matrix."""
        x = self.parts[0]
        y = Nil({0: x.inv() if hasattr(x, "inv") else 1 / x})
        out = y
        for _, power in (-self * y).powers():
            out = out + y * power
        return out

    def log_det(self) -> Nil:
        """Log det of a matrix, without its constant part."""
        out = Nil({})
        for j, power in (Nil({0: self.parts[0].inv()}) * self).powers():
            out = out + power.each(lambda x, j=j: x.trace() * (-1) ** (j + 1) / j)
        return out


def exp(s: Nil) -> Nil:
    """Exp of a number."""
    return s.taylor(lambda x, j: x.exp() / prod(range(1, j + 1)))


def log(s: Nil) -> Nil:
    """Log of a number."""
    return s.taylor(lambda x, j: -((-1 / x) ** j) / j if j else x.log())


def power(s: Nil, e: fmpq) -> Nil:
    """s^e of a number, e rational."""

    def coefficient(x: Any, j: int) -> Any:
        binomial = prod([(e - i) / (i + 1) for i in range(j)], start=fmpq(1))
        return binomial * (x ** int((e - j).p) if e.q == 1 else (x.log() * (e - j)).exp())

    return s.taylor(coefficient)


def evaluate(tree: Any, names: dict[str, tuple[Any, Any]], bar: bool = False) -> Any:
    """The value of ["+", …], ["*", …], ["^", x, "p/q"], ["exp", x], ["log", x], ["conj", x], a name, "I" or "p/q".

    ``names`` gives for every coordinate the pair (z, z̄), independent of each other.
    """
    if isinstance(tree, str):
        if tree in names:
            return names[tree][bar]
        return Nil({0: ball("0", "-1" if bar else "1") if tree == "I" else ball(tree)})
    op, *args = tree
    if op == "conj":
        return evaluate(args[0], names, not bar)
    if op == "^":
        return power(evaluate(args[0], names, bar), rational(args[1]))
    values = [evaluate(a, names, bar) for a in args]
    if op in ("+", "*"):
        return reduce(lambda x, y: x + y if op == "+" else x * y, values)
    return {"exp": exp, "log": log}[op](values[0])


def differential(tree: Any, z: Sequence[Any], by: Sequence[tuple[int, bool]]) -> Any:
    """∂… of a potential at balls z, by pairs (coordinate, is it ∂̄); ``by`` = [(a, False), (b, True)] is g_{ab̄}."""

    def coordinate(i: int, value: Any, bar: bool) -> Nil:
        return Nil({0: value} | {1 << j: acb(1) for j, e in enumerate(by) if e == (i, bar)})

    names = {
        f"z{i + 1}": (coordinate(i, x, False), coordinate(i, x.conjugate(), True))
        for i, x in enumerate(z)
    }
    return top(evaluate(tree, names), by)


def top(value: Nil, eps: Sequence) -> Any:
    """The coefficient of the product of all ε's."""
    return value.parts.get((1 << len(eps)) - 1, acb(0))


# ---------------------------------------------------------------------- positivity and regions


def adjoint(m: Any) -> Any:
    """The conjugate transpose."""
    return m.conjugate().transpose()


def positive(rows: Sequence[Sequence[Any]]) -> bool | None:
    """LDLᴴ of a Hermitian ball matrix: True if positive definite, False if not, None if balls cannot tell."""
    a, n = [list(r) for r in rows], len(rows)
    for k in range(n):
        pivot = a[k][k].real
        if not pivot > 0:
            return False if pivot < 0 else None
        for i in range(k + 1, n):
            for j in range(k + 1, n):
                a[i][j] = a[i][j] - a[i][k] / pivot * a[k][j]
    return True


class Mixture:
    """±log Σ_k π_k … e^{±q_k}, q_k = (z-c_k)ᴴP_k(z-c_k): "log_sum_exp", or "density" (weights π_k det P_k)."""

    def __init__(self, data: dict):
        self.sign = {"log_sum_exp": 1, "density": -1}[data["type"]]
        weights = [rational(w) for w in data["weights"]]
        need(
            sum(weights, fmpq(0)) == 1 and all(w > 0 for w in weights),
            "weights: not a distribution",
        )
        self.centres = [acb_mat([[ball(*x)] for x in c]) for c in data["centres"]]
        self.precisions = [
            acb_mat([[ball(*x) for x in row] for row in p]) for p in data["precisions"]
        ]
        for p in data["precisions"]:
            need(all(rational(p[i][j][0]) == rational(p[j][i][0])
                     and rational(p[i][j][1]) == -rational(p[j][i][1])
                     for i in range(len(p)) for j in range(len(p))), "precision: not Hermitian")  # fmt: skip
        if self.sign < 0:
            need(
                all(positive(p.tolist()) for p in self.precisions),
                "precision: not positive definite",
            )
        scale = [p.det().real if self.sign < 0 else arb(1) for p in self.precisions]
        self.log_weights = [(arb(w) * s).log() for w, s in zip(weights, scale, strict=True)]
        self.d, self.count = len(data["centres"][0]), len(weights)

    def gap(self, k: int, m: int, z: Any) -> Any:
        """a_k - a_m of the log-weights at z, their common quadratic part cancelled exactly."""
        bent = self.precisions[k] - self.precisions[m]
        linear = self.moved_centre(k) - self.moved_centre(m)
        constant = [(adjoint(self.centres[i]) * self.moved_centre(i))[0, 0].real for i in (k, m)]
        q = constant[0] - constant[1] - 2 * (adjoint(z) * linear)[0, 0].real
        for i in range(self.d):
            q += bent[i, i].real * (z[i, 0].real ** 2 + z[i, 0].imag ** 2)
            for j in range(i):
                q += 2 * (z[i, 0].conjugate() * bent[i, j] * z[j, 0]).real
        return self.log_weights[k] - self.log_weights[m] + self.sign * q

    def metric(self, z_entries: Sequence[Any], below: bool = False) -> list[list[Any]]:
        """g over balls; with ``below`` a matrix ⪯ g in Löwner's order, which is all that positivity needs.

        g = P_1ᵀ + Σ w_k (P_k - P_1)ᵀ ± Σ_{k<m} w_k w_m δδᴴ.  As δδᴴ ⪰ 0, the range of w_k w_m may be
        replaced by its upper end where it is subtracted and by its lower end where it is added.
        """
        z, each = acb_mat([[x] for x in z_entries]), range(self.count)
        gaps = [[self.gap(m, k, z) for m in each] for k in each]  # a_m - a_k
        low = [1 / sum((gaps[k][m].upper().exp() for m in each if m != k), arb(1)) for k in each]
        high = [1 / sum((gaps[k][m].lower().exp() for m in each if m != k), arb(1)) for k in each]
        g = self.precisions[0]
        for k in each[1:]:
            g = g + (self.precisions[k] - self.precisions[0]) * acb(low[k].union(high[k]))
        g = g.transpose()
        for k, m in ((k, m) for k in each for m in range(k)):
            factor = (low[k] * low[m]).union((high[k] * high[m]).upper().min(peak(gaps[k][m])))
            if below:
                factor = factor.lower() if self.sign > 0 else factor.upper()
            bent = self.precisions[k] - self.precisions[m]
            delta = (bent * z - (self.moved_centre(k) - self.moved_centre(m))).conjugate()
            g = g + delta * adjoint(delta) * acb(self.sign * factor)
        return g.tolist()

    def moved_centre(self, k: int) -> Any:
        """P_k c_k."""
        return self.precisions[k] * self.centres[k]


def peak(x: Any) -> Any:
    """An upper bound of 1/((1 + e^x)(1 + e^-x)) ≤ 1/4, which decreases with |x|."""
    nearest = x.abs_lower()
    return (1 / ((1 + nearest.exp()) * (1 + (-nearest).exp()))).upper()


class Expression:
    """A potential written as a tree in z1, z2, …"""

    def __init__(self, data: dict):
        self.tree, self.d = data["tree"], data["d"]

    def metric(self, z: Sequence[Any], below: bool = False) -> list[list[Any]]:  # noqa: ARG002
        """g over balls."""
        each = range(self.d)
        return [[differential(self.tree, z, [(a, False), (b, True)]) for b in each] for a in each]


def potential_of(data: dict) -> Mixture | Expression:
    """The potential that an item is about."""
    return Expression(data) if data["type"] == "expression" else Mixture(data)


Box = tuple[tuple[fmpq, fmpq], ...]


def box_of(data: list) -> Box:
    """[[lo, hi], …] for Re z1, Im z1, Re z2, …"""
    return tuple((rational(lo), rational(hi)) for lo, hi in data)


def over(box: Box) -> list[Any]:
    """Complex balls that contain the box."""
    sides = [interval(lo, hi) for lo, hi in box]
    return [acb(x, y) for x, y in zip(sides[::2], sides[1::2], strict=True)]


def tiles(box: Box, leaves: list[Box]) -> bool:
    """Do the leaves fill the box, each point of it once up to faces?  They must come from halvings."""
    if len(leaves) <= 1:
        return leaves == [box]
    for axis, (lo, hi) in enumerate(box):
        middle = (lo + hi) / 2
        lower = [b for b in leaves if b[axis][1] <= middle]
        upper = [b for b in leaves if b[axis][0] >= middle]
        if lo < hi and lower and upper and len(lower) + len(upper) == len(leaves):
            halves = [
                (*box[:axis], side, *box[axis + 1 :]) for side in ((lo, middle), (middle, hi))
            ]
            return tiles(halves[0], lower) and tiles(halves[1], upper)
    return False


def volume(box: Box) -> fmpq:
    """The product of the sides."""
    return prod([hi - lo for lo, hi in box], start=fmpq(1))


def check_region(item: dict) -> str:
    """Plurisubharmonicity on a box: certified leaves that fill it, or a point and v with vᴴgv < 0."""
    ctx.prec = item["bits"]
    potential, box = potential_of(item["potential"]), box_of(item["box"])
    need(len(box) == 2 * potential.d and all(lo < hi for lo, hi in box), "box: malformed")
    if item["verdict"] == "refuted":
        point = [ball(*x) for x in item["point"]]
        sides = [rational(x) for pair in item["point"] for x in pair]
        need(
            all(lo <= x <= hi for x, (lo, hi) in zip(sides, box, strict=True)),
            "point: outside the box",
        )
        need(len(item["vector"]) == potential.d, "vector: wrong length")
        upper = rayleigh(potential, point, [ball(*x) for x in item["vector"]])
        claimed = rational(item["value"])
        need(claimed < 0 and bool(upper <= claimed), f"value: found at most {upper}")
        need(bool(claimed * fmpq(257, 256) <= upper), "value: far above what is found")
        return f"refuted: vᴴgv/vᴴv < {float(arb(claimed)):.3g} at an exact point"
    leaves, left = [box_of(b) for b in item["leaves"]], [box_of(b) for b in item["leftover"]]
    need(tiles(box, leaves + left), "leaves: do not fill the box")
    for leaf in leaves:
        need(positive(potential.metric(over(leaf), below=True)), f"leaf {leaf}: not certified")
    need(item["verdict"] == ("undecided" if left else "proved"), "verdict: not what the leaves say")
    need(sum(map(volume, left), fmpq(0)) == rational(item["leftover_volume"]), "leftover_volume")
    return f"{item['verdict']}: {len(leaves)} leaves certified, {len(left)} left over"


def rayleigh(potential: Mixture | Expression, point: list[Any], v: list[Any]) -> Any:
    """An upper bound of vᴴ gᵀ v/vᴴv (= Σ g_{ab̄} v_a v̄_b/|v|²) at a point."""
    g, each = potential.metric(point), range(len(v))
    norm = sum((abs(x) ** 2 for x in v), arb(0))
    value = sum((g[a][b] * v[a] * v[b].conjugate() for a in each for b in each), acb(0))
    return (value.real / norm).upper()


# ---------------------------------------------------------------------- kernels at a point


class Jets:
    """The tensors of a point, as jets of fields: Sigma and g (matrices), mu (column), q (numbers)."""

    def __init__(self, tensors: dict, layout: str):
        self.tensors, self.layout = tensors, layout
        self.flat = {
            n: [ball(*x) for x in zip(t["re"], t["im"], strict=True)] for n, t in tensors.items()
        }
        for name, t in tensors.items():
            need(len(self.flat[name]) == prod(t["shape"]), f"{name}: malformed")
        vector = [t["shape"][-1] for n, t in tensors.items() if n.startswith(("mu", "g_factor"))]
        self.n = vector[0] if vector else 1

    def block(self, name: str, index: tuple[int, ...]) -> Any:
        """What is left of a tensor after its first indices: a number, a column or a matrix."""
        shape = self.tensors[name]["shape"]
        need(len(index) <= len(shape), f"{name}: malformed")
        size, start = prod(shape[len(index) :]), 0
        for i, s in zip(index, shape, strict=False):
            start = start * s + i
        part, n = self.flat[name][start * size : (start + 1) * size], self.n
        if name[0] in "qwz":
            return part[0]
        if name[0] in "mv":
            return acb_mat(n, 1, part)
        if name[0] == "g" or self.layout == "full":
            return acb_mat(n, n, part)
        diagonal = part if self.layout == "diagonal" else part * n
        return acb_mat([[diagonal[i] if i == j else 0 for j in range(n)] for i in range(n)])

    def value(self, name: str, lead: tuple, hol: tuple, anti: tuple) -> Any:
        """A derivative of a field, None where it is not given: zero, or cancelled in what is asked."""
        order = "d" * len(hol) + "b" * len(anti)
        key = f"{name}_{order}" if order else name
        if not order and f"{name}_factor" in self.tensors:
            factor = self.block(f"{name}_factor", ())
            upper = [factor[i, j] for j in range(factor.ncols()) for i in range(j)]
            need(all(x == 0 for x in upper), f"{name}_factor: not lower triangular")
            return factor * adjoint(factor)
        if key in self.tensors:
            return self.block(key, (*lead, *hol, *anti))
        if name[0] != "m" and len(hol) < len(anti):  # Hermitian
            swapped = self.value(name, lead, anti, hol)
            return None if swapped is None else (swapped.conjugate() if lead else adjoint(swapped))
        return None

    def nil(
        self, name: str, eps: Sequence, dagger: bool = False, lead: tuple = (), hol: tuple = ()
    ) -> Nil:
        """The Taylor polynomial of a field, or of its adjoint, in the ε's."""
        parts = {}
        for mask in range(1 << len(eps)):
            chosen = [e for j, e in enumerate(eps) if mask >> j & 1]
            d = [i for i, bar in chosen if bar == dagger]
            value = self.value(
                name, lead, (*hol, *d), tuple(i for i, bar in chosen if bar != dagger)
            )
            if value is not None:
                parts[mask] = adjoint(value) if dagger else value
        return Nil(parts)


def gaussian(jets: Jets, eps: list, pair: list, base: list | None) -> Any:
    """∂… KL(p_0‖p) = log det Σ + tr Σ⁻¹Σ_0 + (μ-μ_0)ᴴΣ⁻¹(μ-μ_0); ε's of ``base`` move p_0 too (None: never)."""
    moved, mark = eps + pair, "0" if base is None else ""
    sigma, start = jets.nil("Sigma", moved), jets.nil("Sigma" + mark, base or [])
    p = sigma.inverse()
    m = jets.nil("mu", moved) + -jets.nil("mu" + mark, base or [])
    m_dagger = jets.nil("mu", moved, True) + -jets.nil("mu" + mark, base or [], True)
    kl = sigma.log_det() + (p * start + m * m_dagger * p).each(lambda x: x.trace())
    return top(kl, moved)


def mixture(jets: Jets, moved: list, sign: int) -> Any:
    """∂… of ± log Σ_k w_k e^{±(q_k - q_k(z))}."""
    total = Nil({})
    for k, w in enumerate(jets.flat["w"]):
        q = jets.nil("q", moved, lead=(k,)).each(lambda x: sign * x)
        total = total + Nil({0: w}) * exp(Nil({**q.parts, 0: acb(0)}))
    return sign * top(log(total), moved)


def hermitian(jets: Jets, name: str, index: tuple[int, ...]) -> Any:
    """Chern's connection and curvature of g = L Lᴴ by their definitions."""

    def gamma(c: int, eps: list) -> Nil:
        return jets.nil("g", eps, hol=(c,)) * jets.nil("g", eps).inverse()

    def curvature(c: int, e: int) -> Any:
        return -(top(gamma(c, [(e, True)]), [e]) * jets.value("g", (), (), ()))

    def ricci(c: int, e: int) -> Any:
        return -top(jets.nil("g", [(c, False), (e, True)]).log_det(), [c, e])

    each = range(jets.n)
    if name == "gamma":
        return top(gamma(index[0], []), [])[index[1:]]
    if name == "R":
        return curvature(*index[2:])[index[:2]]
    if name == "ricci":
        return ricci(*index)
    if name == "gradient":
        return top(jets.nil("g", [(index[0], False)]).log_det(), index)
    if name == "defect":
        c, a, b = index
        return jets.block("g_d", (c,))[a, b] - jets.block("g_d", (a,))[c, b]
    if name == "scalar":
        inverse = jets.value("g", (), (), ()).inv()
        return sum((inverse[e, c] * ricci(c, e) for c in each for e in each), acb(0))
    need(name == "curvature", f"{name}: not known here")
    v = jets.block("v", ())
    vv = v.conjugate() * v.transpose()  # vv[b, a] = v̄_b v_a
    length = (jets.block("g", ()) * vv).trace()
    return (
        sum(((curvature(c, e) * vv).trace() * vv[e, c] for c in each for e in each), acb(0))
        / length**2
    )


# The ε's of an output's indices: True for an antiholomorphic one.
BARS = {"g": (False, True), "hessian": (False, True), "k": (False, False), "phi_d": (False,),
        "g_d": (False, False, True), "g_db": (False, True, False, True)}  # fmt: skip


def entry(item: dict, jets: Jets, name: str, index: tuple[int, ...]) -> Any:
    """One entry of an output, from the definition."""
    if item["formula"] == "hermitian":
        return hermitian(jets, name, index)
    need(name in BARS and len(BARS[name]) == len(index), f"{name}: not known here")
    eps = list(zip(index, BARS[name], strict=True))
    if item["formula"] in ("gaussian", "gaussian0"):
        base = eps[:-2] if item["formula"] == "gaussian" else None
        return gaussian(jets, eps[:-2], eps[-2:], base)
    if item["formula"] in ("log_sum_exp", "density"):
        return mixture(jets, eps, 1 if item["formula"] == "log_sum_exp" else -1)
    return differential(item["formula"], jets.flat["z"], eps)


def check_point(item: dict, point: dict) -> str:
    """A kernel's outputs at one point lie within the bound of the definition, in the g-normalised frame."""
    jets = Jets(point["inputs"], item["layout"])
    scale: list = []
    if "metric" in point or any(out["shape"] for out in point["outputs"].values()):
        if "metric" in point:
            g = Jets({"g": point["metric"], "g_factor": point["metric"]}, "full").block("g", ())
        elif item["formula"] == "hermitian":
            g = jets.value("g", (), (), ())
        else:
            d = next(out["shape"][0] for out in point["outputs"].values() if out["shape"])
            g = acb_mat([[entry(item, jets, "g", (a, b)) for b in range(d)] for a in range(d)])
        scale = check_metric(g.tolist(), point)
    worst = {}
    for name, out in point["outputs"].items():
        values = [ball(*x) for x in zip(out["re"], out["im"], strict=True)]
        index = list(product(*map(range, out["shape"])))
        need(len(values) == len(index), f"{name}: malformed")
        errors = []
        for i, computed in zip(index, values, strict=True):
            weight = [
                scale[j] if (name, at) != ("gamma", 2) else 1 / scale[j] for at, j in enumerate(i)
            ]
            errors.append(
                (abs(computed - entry(item, jets, name, i)) / prod(weight, start=arb(1))).upper()
            )
        worst[name] = reduce(lambda x, y: x.max(y), errors)
        claimed = rational(out["bound"])
        slack = arb(2) ** (UNIT[item["dtype"]] - 16)
        need(bool(worst[name] <= claimed), f"{name}: error up to {worst[name]}, more than claimed")
        need(bool(claimed <= worst[name] * fmpq(257, 256) + slack), f"{name}: bound far too large")
    return ", ".join(f"{n} within {float(x):.2g}" for n, x in worst.items())


def check_metric(g: list[list[Any]], point: dict) -> list[Any]:
    """Positive definiteness and bounds of the eigenvalues; returns √g_aa."""
    claim, low, high = (point.get(k) for k in ("positive_definite", "lambda_min", "lambda_max"))
    need(all(row[i].real > 0 for i, row in enumerate(g)), "metric: diagonal not positive")
    if claim is not None:
        need(positive(g) is claim, f"positive_definite: not {claim}")
    need(
        (low is not None) is (claim is True) and (high is None) is (low is None),
        "lambda: not known",
    )
    if claim:
        for sign, text, slack in ((1, low, fmpq(17, 16)), (-1, high, fmpq(15, 16))):
            need(positive(shifted(g, sign, rational(text))), f"eigenvalues: not bounded by {text}")
            need(
                positive(shifted(g, sign, rational(text) * slack)) is not True, "eigenvalues: loose"
            )
    return [row[i].real.sqrt() for i, row in enumerate(g)]


def shifted(g: list[list[Any]], sign: int, t: fmpq) -> list[list[Any]]:
    """±(g - t): positive when all eigenvalues are above t, or below it."""
    return [[sign * (x - (t if i == j else 0)) for j, x in enumerate(r)] for i, r in enumerate(g)]


def check_kernel(item: dict) -> str:
    """A certificate: one point or a batch of points of one kernel."""
    need(item["verdict"] == "certified" and len(item["points"]) > 0, "nothing is certified")
    ctx.prec = 2 * item["bits"]
    return "; ".join(check_point(item, point) for point in item["points"])


# Further kinds of items register here: name → function of the item that raises Refuted or returns a line.
KINDS: dict[str, Callable[[dict], str]] = {"region": check_region, "kernel": check_kernel}


def check(item: dict) -> str:
    """One line on an item; raises Refuted, or what malformed input raises."""
    need(item.get("digest") == digest(item), "digest: the item was changed")
    need(item.get("kind") in KINDS, f"kind: {item.get('kind')!r} is not known here")
    need(1 < item.get("bits", 64) <= MOST_BITS, f"bits: expected at most {MOST_BITS}")
    before = ctx.prec
    try:
        return KINDS[item["kind"]](item)
    except (
        KeyError,
        IndexError,
        TypeError,
        ValueError,
        ZeroDivisionError,
        AttributeError,
    ) as error:
        raise Refuted(f"malformed: {type(error).__name__}: {error}") from error
    finally:
        ctx.prec = before


def main(arguments: Sequence[str]) -> int:
    """Check every item of the files; 0 if all hold."""
    failures = count = 0
    for path in arguments:
        document = json.loads(Path(path).read_text(encoding="utf-8"))
        for item in document["items"]:
            count += 1
            try:
                line = f"ok    {item.get('kind')} {item.get('title', '')}: {check(item)}"
            except Refuted as error:
                failures += 1
                line = f"FAIL  {item.get('kind')} {item.get('title', '')}: {error}"
            print(line)
    print(f"{count - failures} of {count} items hold")
    return 1 if failures or not count else 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
