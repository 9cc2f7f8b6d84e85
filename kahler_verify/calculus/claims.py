"""Claims as data: what a paper says, and what evidence has to find out.

A claim's verdict is never written here.  It is computed: a statement whose expressions vanish
identically *holds*; one that fails, with an exact witness, is *refuted*; one that fails in general
and vanishes under a listed assumption *holds under* it.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

from sympy import Expr, Matrix, Symbol

from kahler_verify.calculus.letters import Jet

VERDICTS = ("holds", "holds under A", "refuted", "measured", "open")


@dataclass(frozen=True)
class Vanishing:
    """An expression of letters that is claimed to vanish for all values of its free indices.

    It is put into normal form by the calculus, and tested over F_p[i] without the calculus.
    ``normal_form=False`` leaves the first out, for what the calculus cannot simplify.
    """

    expr: Expr
    indices: tuple[Symbol, ...] = ()
    what: str = ""
    normal_form: bool = True


@dataclass(frozen=True)
class Formula:
    """Two plain SymPy expressions (real symbols, no letters) that are claimed to be equal.

    They are kept apart, so that evidence evaluates both, not what SymPy makes of a difference.
    """

    left: Expr
    right: Expr
    what: str = ""


@dataclass(frozen=True)
class Derived:
    """Two derivations whose results, both already derived, are claimed to be one normal form."""

    left: Expr
    right: Expr
    what: str = ""


@dataclass(frozen=True)
class Gram(Vanishing):
    """A matrix [a, b] of letters claimed to be positive semidefinite by its form Σ X_a X̄_b.

    The calculus' result must be a sum of such terms with positive coefficients and weights.
    """


Part = Vanishing | Formula | Derived


@dataclass(frozen=True)
class Case:
    """An assumption under which a statement is claimed: traits of fields, sizes, other parts."""

    what: str
    traits: tuple[tuple[Jet, str], ...] = ()
    sizes: Mapping[str, int] = field(default_factory=dict)
    parts: tuple[Part, ...] = ()  # instead of the statement's own


@dataclass(frozen=True)
class Witness:
    """An exact point at which the statement's expression is not zero.

    ``fields`` are given as SymPy matrices in ``coordinates`` (with ``conjugate``), evaluated with
    all their derivatives at ``at``; ``indices`` choose the entry
    (by default the first that is not zero).  For a :class:`Formula`, ``at`` alone
    gives the values of its symbols.
    """

    what: str
    part: int = 0  # which of the statement's parts
    coordinates: tuple[Symbol, ...] = ()
    fields: Mapping[Jet, Matrix] = field(default_factory=dict)
    at: Mapping[Symbol, Expr] = field(default_factory=dict)
    base: Mapping[Symbol, Expr] = field(
        default_factory=dict
    )  # z₀, where the part has frozen fields
    indices: Mapping[Symbol, int] = field(default_factory=dict)


@dataclass(frozen=True)
class Region:
    """Where minus the log density of two equal components is plurisubharmonic.

    ``distance`` is δᴴPδ of the components in C^dimension.  The verdict on the mixture's critical
    box is not written here: :mod:`kahler_verify.evidence.regions` decides it.
    """

    distance: str
    weights: tuple[str, ...] = ("1/2", "1/2")
    dimension: int = 1


@dataclass(frozen=True)
class Claim:
    """A statement to judge, with its source and what would decide it.

    Without ``parts`` and without ``waits_for`` a claim is malformed; with ``waits_for`` it is open.
    """

    id: str
    statement: str
    source: str
    parts: tuple[Part, ...] = ()
    cases: tuple[Case, ...] = ()
    witnesses: tuple[Witness, ...] = ()
    regions: tuple[Region, ...] = ()
    kernels: tuple[str, ...] = ()  # kernels of the same derivation that must equal their definition
    assumptions: str = ""
    expected: str = ""
    waits_for: str = ""
