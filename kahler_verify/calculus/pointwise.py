"""Functions of one variable, applied entry by entry (see derivations/functions/activations.py).

Of a complex variable, a function is a SymPy expression in ``z``, ``re(z)``, ``im(z)`` and
``conjugate(z)``, and in real parameters; it is holomorphic exactly if z̄ drops out.  Of a real one
it is an expression in that variable (see derivations/functions/real_functions.py).  What SymPy
lacks, or would write in a form that loses digits or joins pieces wrongly, is added here.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from sympy import Expr, Function, Integer, Symbol, exp
from sympy.core.function import ArgumentIndexError

from kahler_verify.errors import DerivationError


class sigmoid(Function):
    """1/(1 + exp(-t)), meromorphic in the plane."""

    def fdiff(self, argindex: int = 1) -> Expr:
        _only_argument(self, argindex)
        return self * (1 - self)


class softplus(Function):
    """log(1 + exp(t)) for real t."""

    def fdiff(self, argindex: int = 1) -> Expr:
        _only_argument(self, argindex)
        return sigmoid(self.args[0])


HIGHEST_ORDER = 8  # of derivatives: each one more makes expressions several times as long


class logistic(Function):
    """1/(1 + exp(-t)) for real t; its slope keeps its digits where one of two outcomes is sure."""

    def fdiff(self, argindex: int = 1) -> Expr:
        _only_argument(self, argindex)
        return self * logistic(-self.args[0])


class log1pexp(Function):
    """log(1 + exp(t)) for real t, the log-partition of a Bernoulli variable with logit t."""

    def fdiff(self, argindex: int = 1) -> Expr:
        _only_argument(self, argindex)
        return logistic(self.args[0])


class log1p(Function):
    """log(1 + t)."""

    def fdiff(self, argindex: int = 1) -> Expr:
        _only_argument(self, argindex)
        return 1 / (1 + self.args[0])


class expm1(Function):
    """exp(t) - 1."""

    def fdiff(self, argindex: int = 1) -> Expr:
        _only_argument(self, argindex)
        return exp(self.args[0])


class power(Function):
    """t^c with a constant c: SymPy's own differentiates to c t^c/t, which is 0/0 at 0."""

    def fdiff(self, argindex: int = 1) -> Expr:
        _only_argument(self, argindex)
        base, exponent = self.args
        return exponent * power(base, exponent - 1)


class positive(Function):
    """max(t, 0)."""

    def fdiff(self, argindex: int = 1) -> Expr:
        _only_argument(self, argindex)
        return step(self.args[0])


class absolute(Function):
    """|t| of a real t."""

    def fdiff(self, argindex: int = 1) -> Expr:
        _only_argument(self, argindex)
        return signum(self.args[0])


class _Jump(Function):
    """Constant but for a jump at 0, which derivatives do not see."""

    def fdiff(self, argindex: int = 1) -> Expr:
        _only_argument(self, argindex)
        return Integer(0)


class step(_Jump):
    """1 where t > 0, and 0 elsewhere."""


class signum(_Jump):
    """The sign of t."""


def _only_argument(function: Function, argindex: int) -> None:
    if argindex != 1:
        raise ArgumentIndexError(function, argindex)


@dataclass(frozen=True)
class Pointwise:
    """A family of functions of one variable, to be generated with its derivatives.

    Attributes:
        name: of the module that is generated.
        title: its first line.
        variable: the symbol z, or a real symbol x.
        functions: expressions by name.
        order: the highest total order of the derivatives that are wanted.
        source: where the functions are from.
    """

    name: str
    title: str
    variable: Symbol
    functions: Mapping[str, Expr]
    order: int = 3
    source: str = ""

    def __post_init__(self) -> None:
        for name in (self.name, *self.functions):
            if not name.isidentifier():
                raise DerivationError(f"name: expected a Python identifier, got {name!r}")
        if self.order not in range(HIGHEST_ORDER + 1):
            raise DerivationError(
                f"order: expected a whole number from 0 to {HIGHEST_ORDER}, got {self.order}"
            )
