"""Names that users give, kept apart from those that the package uses itself.

A parameter becomes an argument of kernels and of ``PotentialMetric``, next to the point, to
transcendental values and to derivatives of fields.  A name that could be taken for one of these is
refused when kernels are generated.
"""

from __future__ import annotations

import re
import unicodedata
from collections.abc import Iterable, Mapping, Sequence
from keyword import iskeyword

from sympy import Basic, Symbol

from kahler_verify.calculus.derivation import Derivation
from kahler_verify.calculus.letters import Field, Jet
from kahler_verify.calculus.mixture import LogSumExp
from kahler_verify.codegen.heads import HEADS, REAL_HEADS
from kahler_verify.errors import GenerationError

POINT = "z"
MOST_COORDINATES = 12  # explicit ones: the kernels of 12 take 10 seconds
# What `PotentialMetric` and `PotentialMetric.from_file` take besides parameters.
OF_METRICS = (
    "cls",
    "compile",
    "kernels",
    "memory_budget",
    "name",
    "path",
    "self",
    "validate_args",
)
# What a generated module has at its top level besides its kernels, and what kernels call.
OF_MODULES = (
    "DIMENSION",
    "FUNCTIONS",
    "HEADS",
    "PARAMETERS",
    "VANISHING",
    "annotations",
    "heads",
    "torch",
)
# What `kahler_verify.compile` gives besides the kernels.
OF_COMPILED = ("derivation", "source")
_KINDS = "|".join([*HEADS, *REAL_HEADS, "power", "constant", "log_det", "log_sum_exp"])
_HEAD = re.compile(rf"({_KINDS})_\d+")


def check_argument(name: str, what: str) -> None:
    """A name that Python takes for an argument, and that no other argument has.

    Raises:
        GenerationError: it is not.
    """
    check_identifier(name, what)
    if name in (*OF_METRICS, "torch", "delta"):
        raise GenerationError(
            f"{what}: {name!r} cannot name an argument: kernels or metrics use it"
        )
    if _HEAD.fullmatch(name):
        raise GenerationError(
            f"{what}: {name!r} cannot name an argument: transcendental values go by such names"
        )


def check_identifier(name: str, what: str) -> None:
    """A name that Python takes, and does not change.

    Raises:
        GenerationError: it is not.
    """
    usual = unicodedata.normalize("NFKC", name)
    if not name.isidentifier() or iskeyword(name) or name == "__debug__":
        raise GenerationError(f"{what}: {name!r} cannot name an argument in Python: rename it")
    if usual != name:
        raise GenerationError(f"{what}: Python reads {name!r} as {usual!r}: write it so")


def check_functions(module: str, functions: Sequence[str]) -> None:
    """The name of a module, and those of its functions.

    Raises:
        GenerationError: one is no name, two are the same, or generated modules use it themselves.
    """
    check_identifier(module, "name")
    for name in functions:
        check_identifier(name, "kernel")
        if name in (*OF_MODULES, *OF_COMPILED) or name.startswith("__"):
            raise GenerationError(f"kernel: {name!r} is a name of generated modules: rename it")
        if functions.count(name) > 1:
            raise GenerationError(f"kernel: two functions would be named {name!r}: rename one")


def check_names(derivation: Derivation) -> None:
    """The names of a derivation, its kernels, its fields, its coordinates and its parameters.

    Raises:
        GenerationError: one is no name, or could be taken for another.
    """
    check_functions(derivation.name, [kernel.name for kernel in derivation.kernels])
    for kernel in derivation.kernels:
        for output in kernel.outputs:
            check_identifier(output, "output")
    outputs = [out.definition for k in derivation.kernels for out in k.outputs.values()]
    if derivation.coordinates:
        indices = {i for k in derivation.kernels for out in k.outputs.values() for i in out.indices}
        _check_symbols(
            derivation.coordinates, set().union(*[e.free_symbols for e in outputs]) - indices
        )
        return
    for field in sorted({j.field for e in outputs for j in e.atoms(Jet)}, key=str):
        check_argument(field.name, "field")
        if (
            field.name == POINT
            and "coordinate" not in field.traits
            and derivation.definition is not None
        ):
            raise GenerationError(f"field: two inputs would be named {POINT}: rename the field")
        if derivation.definition is None:
            continue
        if "coordinate" in field.traits and field.name != POINT:
            raise GenerationError(
                f"coordinates: expected the name {POINT!r}, by which metrics pass the point, "
                f"got {field.name!r}"
            )
        if field.name == "w" and any(e.has(LogSumExp) for e in outputs):
            raise GenerationError("field: 'w' names the weights of the mixture: rename the field")


def _check_symbols(coordinates: tuple[Symbol, ...], symbols: Iterable[Symbol]) -> None:
    if len(coordinates) > MOST_COORDINATES:
        raise GenerationError(
            f"coordinates: expected at most {MOST_COORDINATES}, got {len(coordinates)}: the fourth "
            "derivatives have d⁴ entries; potentials of letters hold in every dimension"
        )
    names = [z.name for z in coordinates]
    if len(set(names)) < len(names):
        raise GenerationError(f"coordinates: expected different names, got {', '.join(names)}")
    known: dict[str, Symbol] = {z.name: z for z in coordinates}
    for symbol in sorted(symbols, key=lambda s: (s.name, str(s.assumptions0))):
        if symbol in coordinates:
            continue
        if symbol.name in names:
            raise GenerationError(
                f"parameter: {symbol.name!r} is named like a coordinate and is another symbol: use "
                "the one of explicit_coordinates, or rename it"
            )
        if symbol.name == POINT:
            raise GenerationError(
                f"parameter: two inputs would be named {POINT}: rename the parameter"
            )
        if known.setdefault(symbol.name, symbol) != symbol:
            raise GenerationError(
                f"parameter: two inputs would be named {symbol.name} (symbols with different "
                "assumptions): rename one of them"
            )
        check_argument(symbol.name, "parameter")


def check_owners(owners: Iterable[Mapping[str, Basic | None]]) -> None:
    """One argument holds the same thing in all kernels of a potential.

    Raises:
        GenerationError: two fields would be passed under one name.
    """
    known: dict[str, str] = {}
    for each in owners:
        for name, owner in each.items():
            what = str(owner)
            if isinstance(owner, Field):
                what = owner.name + " at z₀" * ("frozen" in owner.traits)
            if known.setdefault(name, what) != what:
                raise GenerationError(
                    f"two different fields, {known[name]} and {what}, would be passed as the "
                    f"argument {name}: rename one of them"
                )
