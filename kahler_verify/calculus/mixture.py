"""Mixtures with a symbolic number of components: log Σ_k π_k e^{q_k} and its centred moments.

With w_k ∝ π_k e^{q_k} and E the mean under w, two rules differentiate everything, because
∂w_k = w_k (∂q_k - E ∂q).  With X° = X - E X:

    ∂ E[X]  = E[∂X] + E[X° ∂q°]                      (means)
    ∂ E[Y]  = E[∂Y] + E[Y ∂q°],   ∂ X° = (∂X)° - E[X° ∂q°]      (products Y of centred factors)

so derivatives come out in centred moments.  Uncentred moments lose every digit when components
agree.
"""

from __future__ import annotations

from typing import Any

from sympy import Add, Expr, Function, Mul, S

from kahler_verify.calculus.letters import Jet
from kahler_verify.calculus.words import distribute
from kahler_verify.errors import DerivationError


def is_component(expr: Expr) -> bool:
    """Whether the expression has one value for each component k (means over k have not)."""
    if isinstance(expr, Jet):
        return "component" in expr.field.traits
    if isinstance(expr, _OverK):
        return False
    return any(is_component(a) for a in expr.args)


def split_component(term: Expr) -> tuple[Expr, Expr]:
    """A monomial as (what all components share) × (what depends on k)."""
    own = [f for f in Mul.make_args(term) if is_component(f)]
    shared = [f for f in Mul.make_args(term) if f not in own]
    return Mul(*shared), Mul(*own)


class _OverK(Function):
    """Base of the heads that average over k, so that nothing outside depends on k."""

    is_commutative = True
    conjugates_its_arguments = True


class LogSumExp(_OverK):
    """log Σ_k π_k e^{q_k} of an exponent q that depends on k; π_k > 0 are the mixture's weights."""

    @classmethod
    def eval(cls, q: Expr) -> None:
        if not is_component(q):
            raise DerivationError(f"LogSumExp: expected a field with component=True, got {q}")

    def _latex(self, printer: Any, exp: Any = None) -> str:
        body = rf"\log\sum_k \pi_k e^{{{printer._print(self.args[0])}_k}}"
        return body if exp is None else rf"\left({body}\right)^{{{exp}}}"


class Total(_OverK):
    """Σ_k x of what has one value for each component k; linear."""

    @classmethod
    def eval(cls, x: Expr) -> Expr | None:
        x = distribute(x)
        if x.is_Add:
            return Add(*[cls(t) for t in x.args])
        if x == 0:
            return x
        shared, own = split_component(x)
        if own == 1:
            raise DerivationError(f"Total: expected a component field in {x}")
        return None if shared == 1 else shared * cls(own)

    def _latex(self, printer: Any, exp: Any = None) -> str:
        body = rf"\sum_k {printer._print(self.args[0])}"
        return body if exp is None else rf"\left({body}\right)^{{{exp}}}"


class Mean(_OverK):
    """E[x] under the weights w_k ∝ π_k e^{q_k}; linear."""

    @classmethod
    def eval(cls, q: Expr, x: Expr) -> Expr | None:
        x = distribute(x)
        if x.is_Add:
            return Add(*[cls(q, t) for t in x.args])
        shared, own = split_component(x)
        if own == 1 or x == 0:
            return x
        return None if shared == 1 else shared * cls(q, own)

    def _latex(self, printer: Any, exp: Any = None) -> str:
        body = rf"\mathbb{{E}}_w\left[{printer._print(self.args[1])}\right]"
        return body if exp is None else rf"{body}^{{{exp}}}"


class Centred(Function):
    """x° = x - E[x]; linear."""

    is_commutative = True
    conjugates_its_arguments = True

    @classmethod
    def eval(cls, q: Expr, x: Expr) -> Expr | None:
        x = distribute(x)
        if x.is_Add:
            return Add(*[cls(q, t) for t in x.args])
        shared, own = split_component(x)
        if own == 1 or x == 0:
            return S.Zero
        return None if shared == 1 else shared * cls(q, own)

    def _latex(self, printer: Any, exp: Any = None) -> str:
        body = rf"\left({printer._print(self.args[1])}\right)^{{\circ}}"
        return body if exp is None else rf"\left({body}\right)^{{{exp}}}"


class Moment(_OverK):
    """E of a product of centred factors; linear, and zero for a single factor."""

    @classmethod
    def eval(cls, q: Expr, y: Expr) -> Expr | None:
        y = distribute(y)
        if y.is_Add:
            return Add(*[cls(q, t) for t in y.args])
        factors = Mul.make_args(y)
        centred = [f for f in factors if isinstance(f.as_base_exp()[0], Centred)]
        shared = Mul(*[f for f in factors if f not in centred])
        if is_component(shared):
            raise DerivationError(f"Moment: expected products of Centred factors, got {y}")
        if y == 0 or not centred:
            return y
        if len(centred) == 1 and centred[0].as_base_exp()[1] == 1:
            return S.Zero
        return None if shared == 1 else shared * cls(q, Mul(*centred))

    def _latex(self, printer: Any, exp: Any = None) -> str:
        body = rf"\mathbb{{E}}_w\left[{printer._print(self.args[1])}\right]"
        return body if exp is None else rf"{body}^{{{exp}}}"


def covariance(q: Expr, x: Expr, y: Expr) -> Expr:
    """Cov_w(x, y) = E[x° y°] under the weights w_k ∝ π_k e^{q_k} (no conjugate is taken)."""
    return Moment(q, Centred(q, x) * Centred(q, y))


def factors_of(product: Expr) -> list[Expr]:
    """The factors of a commutative product, positive integer powers written out."""
    out = []
    for f in Mul.make_args(product):
        base, power = f.as_base_exp()
        out += [base] * int(power) if power.is_Integer and power > 0 else [f]
    return out
