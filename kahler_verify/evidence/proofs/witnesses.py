"""Exact witnesses: a point with explicit fields at which an expression is not zero.

Fields are SymPy matrices in coordinates; their derivatives are evaluated at rational points,
where they are Gaussian rationals, and the claim's expression is then evaluated over Q(i) without
any tolerance.
"""

from __future__ import annotations

import random
from collections.abc import Mapping
from itertools import product
from typing import Any

import flint
from sympy import Expr, I, Matrix, Symbol, im, nsimplify, re

from kahler_verify.calculus.claims import Formula, Positive, Vanishing, Witness
from kahler_verify.calculus.derivation import Kernel, Output
from kahler_verify.calculus.letters import Field, Jet, parameter
from kahler_verify.errors import EvidenceError
from kahler_verify.evidence.numbers.arithmetic import rational
from kahler_verify.evidence.numbers.arrays import Array, array
from kahler_verify.evidence.numbers.functions import Functions
from kahler_verify.evidence.numbers.gaussian import Gaussian
from kahler_verify.evidence.numbers.points import Point, Scope
from kahler_verify.evidence.numbers.readings import derivative_order
from kahler_verify.evidence.numbers.samples import draw
from kahler_verify.evidence.numbers.series import evaluate
from kahler_verify.evidence.numbers.trees import witness_of


def evaluate_witness(part: Vanishing, witness: Witness) -> dict[str, Any]:
    """The value of a part's expression at a witness: the first entry that is not zero.

    Raises:
        EvidenceError: every entry is zero, or a value is not a Gaussian rational.
    """
    point = explicit_point(part.expr, witness)
    d = len(witness.coordinates)
    places = (
        [tuple(witness.indices[i] for i in part.indices)]
        if witness.indices
        else list(product(range(d), repeat=len(part.indices)))
    )
    for place in places:
        scope = Scope(dict(zip(part.indices, place, strict=True)))
        value = evaluate(part.expr, point, scope).base[0, 0]
        if value != 0:
            entry = dict(zip(part.indices, place, strict=True))
            text = gaussian_text(value)
            return {
                "at": {str(z): str(v) for z, v in witness.at.items()},
                "entry": {str(i): p + 1 for i, p in entry.items()},
                "value": text,
                **_for_the_rechecker(part.expr, entry, point, text, witness.what),
            }
    raise EvidenceError(f"witness “{witness.what}”: the expression is zero there")


def _for_the_rechecker(
    expr: Expr, entry: Mapping[Symbol, int], point: Point, value: list[str], title: str
) -> dict[str, Any]:
    """The re-checker's item; the point alone where a user's expression is more than it can read."""
    jets = jets_json(point)
    try:
        return {"recheck": witness_of(expr, entry, jets, value, title)}
    except EvidenceError:
        return {"jets": jets}


def explicit_point(expr: Expr, witness: Witness) -> Point:
    """Exact derivatives of explicit fields at a rational point, as far as the expression needs."""
    coordinates = witness.coordinates
    highest = max(derivative_order(expr)) if derivative_order(expr) != (0, 0) else 0
    total = sum(derivative_order(expr))
    sizes: dict[Symbol, int] = {}
    jets: dict[Field, dict[tuple[int, int], Array]] = {}
    for letter, matrix in witness.fields.items():
        shape = zip(letter.field.shape, matrix.shape, strict=True)
        sizes |= {size: count for size, count in shape if isinstance(size, Symbol)}
        jets[letter.field] = _jets(matrix, coordinates, witness.at, highest, total)
        if witness.base:
            frozen = letter.field.with_traits("frozen")
            jets[frozen] = _jets(matrix, coordinates, witness.base, 0, 0)
    missing = {j.field.without_traits("frozen").name for j in expr.atoms(Jet)} - {
        f.name for f in jets
    }
    if missing:
        raise EvidenceError(f"witness “{witness.what}”: expected the fields {sorted(missing)}")
    sizes[Symbol("d", integer=True, positive=True)] = len(coordinates)
    return Point(rational, sizes, jets, functions=Functions(rational, random.Random(0)))


def _jets(
    matrix: Matrix,
    coordinates: tuple[Symbol, ...],
    at: Mapping[Symbol, Expr],
    highest: int,
    total: int,
) -> dict[tuple[int, int], Array]:
    """All ∂^hol ∂̄^anti of every entry at a point: coefficients of ε's."""
    values = {z: gaussian(at[z]) for z in coordinates}
    point = Point(rational, {}, {}, coordinates=coordinates, values=values)
    d = len(coordinates)
    out = {}
    for hol, anti in product(range(highest + 1), repeat=2):
        if hol + anti > total:
            continue
        every = (1 << (hol + anti)) - 1
        zero = rational.zeros(1, 1)
        numbers = []
        for place in product(range(d), repeat=hol + anti):
            epsilons = tuple((i, n >= hol) for n, i in enumerate(place))
            found = [evaluate(entry, point, Scope({}, epsilons)) for entry in matrix]
            numbers += [x.parts.get(every, zero)[0, 0] for x in found]
        out[hol, anti] = array(numbers, (*[d] * (hol + anti), *matrix.shape))
    return out


def gaussian(value: Expr) -> Gaussian:
    """A SymPy number as an element of Q(i)."""
    value = nsimplify(value)
    parts = re(value), im(value)
    if not all(p.is_Rational for p in parts) or (parts[0] + I * parts[1] - value) != 0:
        raise EvidenceError(f"expected a Gaussian rational, got {value}")
    return Gaussian(*[flint.fmpq(int(p.p), int(p.q)) for p in parts])


def gaussian_text(value: Gaussian) -> list[str]:
    """Real and imaginary part as fractions."""
    return [str(value.x), str(value.y)]


def jets_json(point: Point) -> dict[str, Any]:
    """All derivatives of all fields, as nested lists of fractions."""

    def nested(x: Any) -> Any:
        return gaussian_text(x) if isinstance(x, Gaussian) else [nested(y) for y in x]

    return {
        f.name + ("0" if "frozen" in f.traits else ""): {
            "d" * hol + "b" * anti: nested(values.tolist()) for (hol, anti), values in table.items()
        }
        for f, table in point.jets.items()
    }


def plain_witness(part: Formula | Positive, witness: Witness) -> dict[str, Any]:
    """The exact value, at a witness, of what a formula says is zero, or what is said positive.

    Raises:
        EvidenceError: the value does not refute the part, or is no rational number.
    """
    formula = isinstance(part, Formula)
    expr = part.left - part.right if isinstance(part, Formula) else part.expr
    value = expr.subs(witness.at)
    if not value.is_Rational or (value == 0 if formula else value > 0):
        expected = "≠ 0" if formula else "≤ 0"
        raise EvidenceError(
            f"witness “{witness.what}”: expected a rational number {expected}, got {value}"
        )
    text = [str(value), "0"]
    letters = {s: parameter(s.name) for s in expr.free_symbols}
    numbers = {s.name: {"": [[[str(witness.at[s]), "0"]]]} for s in expr.free_symbols}
    item = witness_of(expr.xreplace(letters), {}, numbers, text, witness.what)
    return {
        "at": {str(s): str(v) for s, v in witness.at.items()},
        "value": text,
        "recheck": item,
    }


def random_witness(
    part: Vanishing, assumptions: tuple[tuple[Jet, str], ...] = ()
) -> dict[str, Any]:
    """A random exact point at which the expression is not zero, for claims that declare none."""
    sizes = {"d": 2, "n": 2, "K": 2}
    kernel = Kernel("claim", {"zero": Output(part.expr, part.indices)}, {}, assumptions)
    for seed in range(5):
        sample = draw(kernel, rational, random.Random(seed), sizes)
        for place in product(range(sizes["d"]), repeat=len(part.indices)):
            scope = Scope(dict(zip(part.indices, place, strict=True)))
            value = evaluate(part.expr, sample.point, scope).base[0, 0]
            if value != 0:
                return {
                    "at": {"random derivatives, seed": str(seed)},
                    "entry": {str(i): p + 1 for i, p in zip(part.indices, place, strict=True)},
                    "value": gaussian_text(value),
                    "jets": jets_json(sample.point),
                }
    raise EvidenceError("the expression is zero at every random point, and yet not identically")
