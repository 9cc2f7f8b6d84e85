"""Definitions as the trees that the independent re-checker reads: see ``recheck.evaluate``."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from fractions import Fraction
from typing import Any

from sympy import Add, Expr, I, Pow, Symbol, conjugate, exp, log

from kahler_verify.calculus.definition import OnDiagonal, Partial
from kahler_verify.calculus.derivation import Kernel
from kahler_verify.calculus.letters import Jet
from kahler_verify.calculus.mixture import LogSumExp
from kahler_verify.calculus.words import LogDet, Tr
from kahler_verify.errors import EvidenceError
from kahler_verify.evidence.recheck import digest

OPERATIONS = {exp: "exp", log: "log", LogDet: "log", Tr: "trace"}


@dataclass(frozen=True)
class Definition:
    """A scalar whose derivatives are a kernel's outputs.

    ``bars`` says of each index of an output whether it is antiholomorphic; ``hermitian`` lists the
    fields that equal their adjoints.
    """

    tree: Any
    bars: Mapping[str, tuple[int, ...]]
    hermitian: tuple[str, ...]
    fields: frozenset[str]


def definition_of(kernel: Kernel, sizes: Mapping[str, int]) -> Definition:
    """The definition behind a kernel, at given dimensions n, d and K.

    Raises:
        EvidenceError: an output is no derivative of one scalar, or has what no tree can say.
    """
    found, bars = set(), {}
    for name, out in kernel.outputs.items():
        expr, on_diagonal = out.definition, False
        marks: dict[Symbol, int] = {}
        inner: tuple[Symbol, ...] = ()
        while isinstance(expr, Partial | OnDiagonal):
            if isinstance(expr, Partial):
                marks |= dict.fromkeys(expr.hol, 0) | dict.fromkeys(expr.anti, 1)
                inner = (*expr.hol, *expr.anti)
            on_diagonal |= isinstance(expr, OnDiagonal)
            expr = expr.args[0]
        last = set(out.indices[-2:]) if on_diagonal else set(inner)
        if set(out.indices) != set(marks) or not out.indices or set(inner) != last:
            raise EvidenceError(f"{kernel.name}: {name} is not the derivative of a scalar")
        found.add((expr, on_diagonal))
        bars[name] = tuple(marks[i] for i in out.indices)
    if len(found) != 1:
        raise EvidenceError(f"{kernel.name}: its outputs have different definitions")
    ((expr, on_diagonal),) = found
    letters = {j.field for j in expr.atoms(Jet)}
    tree = tree_of(expr, sizes, on_diagonal=on_diagonal)
    if tree[0] == "+":  # constants, and what is held at z_0, have no derivative
        tree = ["+", *[t for t in tree[1:] if _varies(t)]]
    return Definition(
        tree,
        bars,
        tuple(sorted({f.name for f in letters if "hermitian" in f.traits})),
        frozenset({f.name for f in letters} or {"z"}),
    )


def witness_of(
    expr: Expr, values: Mapping[Symbol, int], jets: Mapping[str, Any], value: list[str], title: str
) -> dict[str, Any]:
    """An item for an evidence file: Σ coefficient · ∂… of scalars has this value at these jets.

    Args:
        expr: a sum of derivatives of scalars, as in a claim.
        values: coordinate by index.
        jets: for every field its derivatives by "", "d", "b", "db", …, as nested lists of pairs.
        value: real and imaginary part.
        title: a line about the item.

    Raises:
        EvidenceError: a term is not the derivative of a scalar.
    """
    fields = {
        f"{name}_{order}".rstrip("_"): data
        for name, table in jets.items()
        for order, data in table.items()
    }
    base = next(iter(jets.values()))[""]
    for name in jets:  # what is held at z_0 = z
        fields.setdefault(f"{name}0", jets[name][""])
    terms = []
    for term in Add.make_args(expr):
        coefficient, node = term.as_coeff_Mul()
        eps: list[list[int]] = []
        outer = None  # ε's outside OnDiagonal
        while isinstance(node, Partial | OnDiagonal):
            if isinstance(node, Partial):
                own = [[values[i], 0] for i in node.hol] + [[values[i], 1] for i in node.anti]
                eps = [*eps, *own]
            else:
                outer = len(eps)
            node = node.args[0]
        held = outer is not None and len(eps) - outer == 2
        if outer is not None and not held and (outer or any(n.endswith("0") for n in jets)):
            raise EvidenceError(f"{title}: the re-checker holds z_0 against two derivatives only")
        tree = tree_of(node, {"n": len(base)}, on_diagonal=held)
        terms.append([[str(Fraction(int(coefficient.p), int(coefficient.q))), "0"], tree, eps])
    item = {
        "kind": "witness",
        "title": title,
        "terms": terms,
        "inputs": fields,
        "hermitian": [],
        "bits": 128,
        "value": value,
    }
    return {**item, "digest": digest(item)}


def tree_of(
    expr: Expr, sizes: Mapping[str, int], *, on_diagonal: bool = False, component: int | None = None
) -> Any:
    """The tree of an expression of letters, or of coordinates z1, z2, …, which become z:0, z:1, ….

    Frozen letters move with z_0 where ``on_diagonal`` is set, and are constants otherwise.

    Raises:
        EvidenceError: the expression has a node that the re-checker does not know.
    """

    def inner(e: Expr, k: int | None = component) -> Any:
        return tree_of(e, sizes, on_diagonal=on_diagonal, component=k)

    if isinstance(expr, Jet) and not (expr.hol or expr.anti):
        return _name(expr, on_diagonal, component)
    if expr == I:
        return ["number", "0", "1"]
    if expr.is_Rational:
        return ["number", str(Fraction(int(expr.p), int(expr.q))), "0"]
    if isinstance(expr, Symbol):
        if expr.name in sizes:
            return ["number", str(sizes[expr.name]), "0"]
        if expr.name[0] == "z" and expr.name[1:].isdigit():
            return f"z:{int(expr.name[1:]) - 1}"
    if isinstance(expr, conjugate):
        return _conjugated(inner(expr.args[0]))
    if isinstance(expr, LogSumExp):
        terms = [["*", f"w:{k}", ["exp", inner(expr.args[0], k)]] for k in range(sizes["K"])]
        return ["log", ["+", *terms]]
    if expr.is_Add or expr.is_Mul:
        # numbers first: a 1 × 1 factor is a matrix to the re-checker, and multiplies as one
        return ["+" if expr.is_Add else "*", *[inner(a) for a in expr.args]]
    if isinstance(expr, Pow) and expr.exp.is_Integer:
        base = inner(expr.base)
        return ["*", *[base if expr.exp > 0 else ["inverse", base]] * abs(int(expr.exp))]
    if isinstance(expr, Pow) and expr.exp.is_Rational:
        return ["exp", ["*", inner(expr.exp), ["log", inner(expr.base)]]]
    if type(expr) in OPERATIONS:
        return [OPERATIONS[type(expr)], inner(expr.args[0])]
    raise EvidenceError(f"the re-checker does not know {type(expr).__name__} in {expr}")


def _name(jet: Jet, on_diagonal: bool, component: int | None) -> str:
    traits = jet.field.traits
    frozen = "frozen" in traits
    stem = jet.field.name + ("0" if frozen and not on_diagonal else "")
    place = f":{component}" if "component" in traits else ""
    return stem + place + ("~" if jet.dagger else "") + ("!" if frozen and on_diagonal else "")


def _varies(tree: Any) -> bool:
    """Does a tree depend on a field that is not held at z_0?"""
    if isinstance(tree, str):
        return not ("!" in tree or tree.partition(":")[0].rstrip("~").endswith("0"))
    return tree[0] != "number" and any(_varies(x) for x in tree[1:])


def _conjugated(tree: Any) -> Any:
    """The tree with conjugates at its names and numbers."""
    if isinstance(tree, str):
        return tree.removesuffix("~") if tree.endswith("~") else f"{tree}~"
    if tree[0] == "number":
        return ["number", tree[1], str(-Fraction(tree[2]))]
    return [tree[0], *[_conjugated(x) for x in tree[1:]]]
