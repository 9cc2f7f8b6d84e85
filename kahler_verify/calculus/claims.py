"""Claims as data: what a paper says, and what evidence has to find out.

A claim's verdict is never written here.  It is computed: a statement whose expressions vanish
identically *holds*; one that fails, with an exact witness, is *refuted*; one that fails in general
and vanishes under a listed assumption *holds under* it.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

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
class Positive:
    """A plain SymPy expression (real symbols, no letters) claimed to be > 0 on a box.

    ``box`` gives each symbol a closed interval of exact numbers.  Interval arithmetic decides, by
    bisection: no sample is taken.
    """

    expr: Expr
    box: Mapping[Symbol, tuple[Expr | int, Expr | int]]
    what: str = ""


@dataclass(frozen=True)
class Gram(Vanishing):
    """A matrix [a, b] of letters claimed to be positive semidefinite by its form Σ X_a X̄_b.

    The calculus' result must be a sum of such terms with positive coefficients and weights.
    """


Part = Vanishing | Formula | Derived | Positive


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
    gives the values of its symbols; for a :class:`Positive` too, whose value there is zero or less.
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
    box is not written here: :mod:`kahler_verify.evidence.proofs.regions` decides it.
    """

    distance: str
    weights: tuple[str, ...] = ("1/2", "1/2")
    dimension: int = 1


@dataclass(frozen=True, kw_only=True)
class Measured:
    """An empirical statement, about which a benchmark or an experiment has something to say.

    ``command`` writes the file ``results``, in a checkout of this repository.  What it says is not
    written here: :mod:`kahler_verify.evidence.ledger.measurements` reads it.
    """

    results: str
    command: str


@dataclass(frozen=True, kw_only=True)
class Speed(Measured):
    """Times of rivals over ours; ``defining`` begin the names of autograd of the definition."""

    defining: tuple[str, ...]


@dataclass(frozen=True, kw_only=True)
class Comparison(Measured):
    """Arms of an experiment, each with its meaning, against a baseline in one of its cells.

    ``measures`` are pairs: a measure, and what the statement calls a lower value of it.
    ``references`` are arms that the statement is not about, but that it has to stand beside.
    """

    cell: str
    baseline: str
    arms: tuple[tuple[str, str], ...]
    measures: tuple[tuple[str, str], ...]
    references: tuple[tuple[str, str], ...] = ()


@dataclass(frozen=True)
class Claim:
    """A statement to judge, with its source and what would decide it.

    Without ``parts``, ``waits_for`` and ``measured`` a claim is malformed.  With ``waits_for`` it
    is open; with ``measured`` results decide, and where there are none it is open.
    """

    id: str
    statement: str
    source: str
    parts: tuple[Part, ...] = ()
    cases: tuple[Case, ...] = ()
    witnesses: tuple[Witness, ...] = ()
    regions: tuple[Region, ...] = ()
    kernels: tuple[str, ...] = ()  # that must equal their definition
    of: Any = None  # the derivation whose kernels these are: by default, the one that has the claim
    assumptions: str = ""
    expected: str = ""
    waits_for: str = ""
    measured: Measured | None = None
