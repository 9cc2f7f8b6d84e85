"""The language of derivations: SymPy expressions over letters with Wirtinger jets."""

from kahler_verify.calculus.abbreviation import let, spelled_out, staged
from kahler_verify.calculus.claims import (
    Case,
    Claim,
    Derived,
    Formula,
    Gram,
    Positive,
    Region,
    Vanishing,
    Witness,
)
from kahler_verify.calculus.definition import (
    Covariance,
    Expected,
    OnDiagonal,
    Partial,
    assume,
    at_base,
    bregman,
    derive,
    map_letters,
)
from kahler_verify.calculus.derivation import (
    Derivation,
    Kernel,
    Output,
    explicit_coordinates,
    paper,
    potential,
)
from kahler_verify.calculus.indexed import Contract, Entry
from kahler_verify.calculus.letters import (
    Bar,
    Jet,
    coordinates,
    dimension,
    field,
    index,
    parameter,
)
from kahler_verify.calculus.mixture import Centred, LogSumExp, Mean, Moment, Total, covariance
from kahler_verify.calculus.pullback import pullback
from kahler_verify.calculus.wick import gaussian_mean
from kahler_verify.calculus.wirtinger import wirtinger
from kahler_verify.calculus.words import LogDet, Tr, adjoint, scalars

__all__ = [
    "Bar",
    "Case",
    "Centred",
    "Claim",
    "Contract",
    "Covariance",
    "Derivation",
    "Derived",
    "Entry",
    "Expected",
    "Formula",
    "Gram",
    "Jet",
    "Kernel",
    "LogDet",
    "LogSumExp",
    "Mean",
    "Moment",
    "OnDiagonal",
    "Output",
    "Partial",
    "Positive",
    "Region",
    "Total",
    "Tr",
    "Vanishing",
    "Witness",
    "adjoint",
    "assume",
    "at_base",
    "bregman",
    "coordinates",
    "covariance",
    "derive",
    "dimension",
    "explicit_coordinates",
    "field",
    "gaussian_mean",
    "index",
    "let",
    "map_letters",
    "paper",
    "parameter",
    "potential",
    "pullback",
    "scalars",
    "spelled_out",
    "staged",
    "wirtinger",
]
