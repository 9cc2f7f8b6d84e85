"""Points at which definitions are evaluated, and what is in force at a place of a definition."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from typing import Any

from sympy import Expr, Symbol

from kahler_verify.calculus.indexed import Contract
from kahler_verify.calculus.letters import Field
from kahler_verify.evidence.numbers.arithmetic import Arithmetic
from kahler_verify.evidence.numbers.arrays import Array
from kahler_verify.evidence.numbers.functions import Functions


@dataclass
class Point:
    """Values of all fields and their derivatives at one point, in one arithmetic.

    ``jets[field][h, a]`` is an array [d × h, d × a, rows, cols], with a leading axis K for
    component fields; ``weights`` [K] are normalised.  ``functions`` has the values of
    transcendental functions, drawn on demand where the arithmetic cannot compute them.
    """

    ring: Arithmetic
    sizes: Mapping[Symbol, int]
    jets: Mapping[Field, Mapping[tuple[int, int], Array]]
    weights: Array | None = None
    functions: Functions = field(default=None)  # type: ignore[assignment]
    coordinates: tuple[Symbol, ...] = ()  # of explicit potentials
    values: Mapping[Symbol, Any] = field(default_factory=dict)  # of coordinates and parameters
    averaged: frozenset[Field] = frozenset()  # normal vectors that stand at a node of their mean
    # inverses and log-determinants of letters, by what moves, and derivatives of what does not
    # depend on a node: they come up many times
    known: dict[Any, Any] = field(default_factory=dict, init=False, repr=False, compare=False)

    def __post_init__(self) -> None:
        if self.functions is None:
            self.functions = Functions(self.ring)


@dataclass(frozen=True)
class Scope:
    """Index values, the ε's in force (direction, is it antiholomorphic), and which move z₀ too."""

    values: Mapping[Symbol, int]
    epsilons: tuple[tuple[int, bool | None], ...] = ()  # None: of a real coordinate
    shared: int | None = None  # inside OnDiagonal: how many ε's move z₀ together with z
    component: int | None = None

    def mirrored(self) -> Scope:
        """∂ and ∂̄ exchanged; a real direction is its own conjugate."""
        turned = [(i, bar if bar is None else not bar) for i, bar in self.epsilons]
        return replace(self, epsilons=tuple(turned))

    @property
    def still(self) -> Scope:
        """Nothing moves."""
        return replace(self, epsilons=())


def extent(i: Symbol, sizes: Mapping[Symbol, int]) -> int:
    """How many values an index takes."""
    size = getattr(i, "size", None)
    if size is not None:
        return int(size.subs(dict(sizes)))
    return next((n for s, n in sizes.items() if s.name == "d"), 1)


def free_indices(expr: Expr) -> set[Symbol]:
    """Indices that are not summed inside the expression."""
    if isinstance(expr, Contract):
        return free_indices(expr.args[0]) - set(expr.indices)
    if isinstance(expr, Symbol):
        return {expr}
    return set().union(*[free_indices(a) for a in expr.args])
