"""Functions of one complex variable, applied entry by entry (see derivations/activations.py).

A function is a SymPy expression in ``z``, ``re(z)``, ``im(z)`` and ``conjugate(z)``, and in real
parameters; it is holomorphic exactly if z̄ drops out.  Two functions are added to SymPy's own.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from sympy import Expr, Function, Symbol
from sympy.core.function import ArgumentIndexError

from kahler_verify.errors import DerivationError


class sigmoid(Function):
    """1/(1 + exp(-t)), meromorphic in the plane."""

    def fdiff(self, argindex: int = 1) -> Expr:
        if argindex != 1:
            raise ArgumentIndexError(self, argindex)
        return self * (1 - self)


class softplus(Function):
    """log(1 + exp(t)) for real t."""

    def fdiff(self, argindex: int = 1) -> Expr:
        if argindex != 1:
            raise ArgumentIndexError(self, argindex)
        return sigmoid(self.args[0])


class logistic(Function):
    """1/(1 + exp(-t)) for real t; its slope keeps its digits where one of two outcomes is sure."""

    def fdiff(self, argindex: int = 1) -> Expr:
        if argindex != 1:
            raise ArgumentIndexError(self, argindex)
        return self * logistic(-self.args[0])


class log1pexp(Function):
    """log(1 + exp(t)) for real t, the log-partition of a Bernoulli variable with logit t."""

    def fdiff(self, argindex: int = 1) -> Expr:
        if argindex != 1:
            raise ArgumentIndexError(self, argindex)
        return logistic(self.args[0])


@dataclass(frozen=True)
class Pointwise:
    """A family of functions of one complex variable, to be generated with its derivatives.

    Attributes:
        name: of the module that is generated.
        title: its first line.
        variable: the symbol z.
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
        if self.order < 0:
            raise DerivationError(f"order: expected a whole number ≥ 0, got {self.order}")
