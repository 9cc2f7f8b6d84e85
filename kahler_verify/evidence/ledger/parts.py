"""Evidence for one part of a claim, under a case's assumptions."""

from __future__ import annotations

from collections.abc import Mapping

from sympy import Add, Expr, Rational, simplify

from kahler_verify.calculus.claims import Case, Derived, Formula, Gram, Part, Positive, Vanishing
from kahler_verify.calculus.definition import Covariance, Expected, assume, derive
from kahler_verify.calculus.letters import Jet
from kahler_verify.calculus.mixture import Centred, Moment, factors_of
from kahler_verify.calculus.words import adjoint, distribute
from kahler_verify.errors import EvidenceError
from kahler_verify.evidence.ledger.items import Item
from kahler_verify.evidence.proofs.positivity import enclose
from kahler_verify.evidence.proofs.schwartz_zippel import vanishes

SIZES = {
    "default": ({"d": 1, "n": 1, "K": 1}, {"d": 2, "n": 3, "K": 3}, {"d": 3, "n": 4, "K": 5}),
    "thorough": (
        {"d": 1, "n": 1, "K": 1},
        {"d": 2, "n": 3, "K": 3},
        {"d": 3, "n": 5, "K": 5},
        {"d": 3, "n": 16, "K": 8},
        {"d": 2, "n": 32, "K": 16},
    ),
}
MOST_ENTRIES = {"default": 8, "thorough": 16}
WIDE = {
    "d": 2,
    "n": 32,
    "K": 16,
}  # one wide trial for kernels, on one entry, in the default profile
INTERVALS = "interval arithmetic"
MOST_NORMAL = 16  # entries of a normal vector that means are taken over


# ---------------------------------------------------------------- parts


def _normal_form(part: Vanishing, traits: tuple[tuple[Jet, str], ...]) -> Item:
    left = assume(derive(part.expr), *traits)
    terms = 0 if left == 0 else len(Add.make_args(left))
    outcome = "zero" if left == 0 else f"{terms} terms are left"
    return Item("normal form", part.what, outcome, left == 0, 1)


def _numbers(part: Vanishing, case: Case, profile: str) -> list[Item]:
    """Schwartz-Zippel at several sizes; a case of fixed sizes at one choice of the others."""
    most = MOST_ENTRIES[profile]
    plan = [(sizes, most) for sizes in SIZES[profile]]
    if case.sizes:
        plan = [({**SIZES[profile][1], **case.sizes}, most)]
    elif profile == "default":
        plan.append((WIDE, 1))
    plan = [(s, m) for s, m in plan if is_affordable(part.expr, s)]
    items = []
    for sizes, entries in plan:
        trial = vanishes(
            part.expr, part.indices, sizes, assumptions=case.traits, most_entries=entries
        )
        shown = ", ".join(f"{k} = {v}" for k, v in sizes.items())
        items.append(
            Item(
                "Schwartz-Zippel",
                f"{part.what} at {shown}",
                "zero" if trial.equal else "not zero",
                trial.equal,
                trial.entries,
                trial.error_log2,
                {"degree": trial.degree, "trials": trial.trials},
            )
        )
        if not trial.equal:
            break  # larger sizes could only say the same
    return items


def is_affordable(expr: Expr, sizes: Mapping[str, int]) -> bool:
    """Evidence takes means over normal vectors node by node, of which there are 2n² + 2n + 1."""
    return sizes["n"] <= MOST_NORMAL or not expr.has(Expected, Covariance)


def _gram(part: Gram) -> Item:
    """Whether each term is a positive multiple of E[X_a X̄_b]."""
    a, b = part.indices
    for term in Add.make_args(derive(part.expr)):
        coefficient, rest = term.as_coeff_Mul()
        factors = factors_of(rest.args[1]) if isinstance(rest, Moment) else []
        square = len(factors) == 2 and all(isinstance(f, Centred) for f in factors)
        if square:
            other = adjoint(factors[0]).xreplace({a: b, b: a})
            square = other == factors[1]
        if not (square and coefficient > 0):
            return Item("Gram form", part.what, f"{term} is not a square", False, 1)
    return Item("Gram form", part.what, "a mean of squares with positive weights", True, 1)


def _formula(part: Formula) -> Item:
    symbols = sorted(part.left.free_symbols | part.right.free_symbols, key=str)
    if not symbols:
        raise EvidenceError(f"{part.what}: both sides are constants, there is nothing to check")
    zero = simplify(part.left - part.right) == 0
    points, agree = 20, True
    for n in range(points):
        # positive and far apart, so that logarithms and square roots stay real
        values = {
            s: Rational(7 + 3 * i + 5 * n, 11 + 2 * i) / (1 + i) for i, s in enumerate(symbols)
        }
        left, right = (side.subs(values).evalf(50) for side in (part.left, part.right))
        agree = agree and abs(left - right) < Rational(1, 10**40) * (1 + abs(left))
    if zero != agree:
        raise EvidenceError(
            f"{part.what}: simplification and evaluation at {points} points disagree"
        )
    outcome = "equal" if zero else "not equal"
    return Item("SymPy and 50 digits", part.what, outcome, zero, points)


def _positive(part: Positive) -> Item:
    """Whether intervals show an expression to be positive on the whole box, or a point refutes it.

    Raises:
        EvidenceError: neither.
    """
    found = enclose(part)
    outcome = f"positive on {found.boxes} boxes that cover it"
    if not found.passed:
        if not found.at:
            raise EvidenceError(f"{part.what}: {found.boxes} boxes do not decide it")
        at = ", ".join(f"{s} = {x}" for s, x in found.at.items())
        outcome = f"at most {found.value:.2g} at {at}"
    return Item(INTERVALS, part.what, outcome, found.passed, found.boxes)


def judge_part(part: Part, case: Case, profile: str) -> list[Item]:
    """All evidence for one part under a case's assumptions.

    Raises:
        EvidenceError: two routes contradict each other.
    """
    if isinstance(part, Formula):
        return [_formula(part)]
    if isinstance(part, Derived):
        left = distribute(part.left - part.right)
        outcome = "one normal form" if left == 0 else f"they differ by {left}"
        return [Item("two derivations", part.what, outcome, left == 0, 2)]
    if isinstance(part, Gram):
        return [_gram(part)]
    if isinstance(part, Positive):
        return [_positive(part)]
    if part.expr == 0:
        raise EvidenceError(f"{part.what}: it is zero as written, there is nothing to check")
    items = _numbers(part, case, profile)
    if part.normal_form and not case.sizes:
        form = _normal_form(part, case.traits)
        if form.passed and not all(i.passed for i in items):
            raise EvidenceError(f"{part.what}: the normal form is zero, and numbers are not")
        if not form.passed and all(i.passed for i in items):
            form = Item(form.route, form.what, "not simplified, numbers decide", True, 1)
        items.insert(0, form)
    return items


# ---------------------------------------------------------------- claims

EVERYWHERE = Case("")
