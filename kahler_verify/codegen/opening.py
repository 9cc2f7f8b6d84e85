"""Terms that hold a sum, as the sums of products that they are."""

from __future__ import annotations

from collections.abc import Callable

from sympy import Expr, Mul, S, Symbol
from sympy.utilities.iterables import subsets

from kahler_verify.calculus.indexed import Contract, free_indices
from kahler_verify.calculus.letters import Index, Jet, is_real_index
from kahler_verify.calculus.mixture import Mean, Moment, factors_of
from kahler_verify.calculus.words import distribute


def opened(term: Expr, fresh: Callable[[Symbol], Index]) -> tuple[Expr, tuple[Symbol, ...]] | None:
    """A term that holds a sum as (the sum of products that it is, what they are summed over).

    Such are sums over indices, but for numbers, and moments of what does not depend on the
    point; None for all other terms.  ``fresh`` gives an index of the same size and another name.
    """
    for factor in Mul.make_args(term):
        if isinstance(factor, Contract) and free_indices(factor):
            rest = term / factor
            inner, indices = factor.args[0], factor.indices
            if set(indices) & rest.free_symbols:  # a summed index has no meaning outside
                renamed = {i: fresh(i) for i in indices}
                inner, indices = inner.xreplace(renamed), tuple(renamed.values())
            return distribute(rest * inner), indices
        if isinstance(factor, Moment) and any(
            is_constant(f.args[1]) for f in factors_of(factor.args[1])
        ):
            terms = with_constants_outside(factor)
            return distribute(term / factor * terms), ()
    return None


def with_constants_outside(moment: Moment) -> Expr:
    """E[X° Y°] as E[X Y°], E[X° Y° Z°] as E[X Y° Z°] - E[X] E[Y° Z°], for constants X.

    All points share one tensor of what does not depend on them, such as ∂∂̄ of quadratic q_k, and
    to centre it would make a copy for each.
    """
    q, product = moment.args
    factors = factors_of(product)
    constants = [f.args[1] for f in factors if is_constant(f.args[1])]
    centred = [f for f in factors if not is_constant(f.args[1])]
    out = S.Zero
    for taken in subsets(range(len(constants))):
        inside = [x for n, x in enumerate(constants) if n not in taken]
        if not inside and len(centred) == 1:
            continue  # E[Y°] = 0
        means = [-Mean(q, constants[n]) for n in taken]
        whole = Mean(q, Mul(*inside, *centred)) if inside else Moment(q, Mul(*centred))
        out += Mul(*means, whole)
    return out


def is_constant(expr: Expr) -> bool:
    """The second derivative of a component that has no further ones."""
    if not isinstance(expr, Jet) or "quadratic" not in expr.field.traits:
        return False
    mixed = len(expr.hol) == len(expr.anti) == 1
    real = len(expr.hol) == 2 and all(map(is_real_index, expr.hol))
    return "component" in expr.field.traits and (mixed or real)
