"""What a point gives to a series: the Taylor polynomials of fields and of coordinates."""

from __future__ import annotations

import numpy as np
from sympy import Symbol

from kahler_verify.calculus.letters import Jet, is_real_index
from kahler_verify.errors import EvidenceError
from kahler_verify.evidence.numbers.arrays import array
from kahler_verify.evidence.numbers.nilpotent import Coefficients, Series, number
from kahler_verify.evidence.numbers.points import Point, Scope


def field_of(jet: Jet, point: Point, scope: Scope) -> Series:
    """The Taylor polynomial of a field's derivative in the ε's; indices add directions."""
    own, seen = jet.field, scope.epsilons
    if "frozen" in own.traits:  # on the diagonal z₀ is z
        seen = () if scope.shared is None else seen[: scope.shared]
        own = own if scope.shared is None else own.without_traits("frozen")
    table = point.jets[own]
    hol = [scope.values[i] for i in jet.hol] + [
        scope.values[i] for i in jet.anti if is_real_index(i)
    ]
    anti = [scope.values[i] for i in jet.anti if not is_real_index(i)]
    parts: Coefficients = {}
    for mask in range(1 << len(seen)):
        chosen = [seen[j] for j in range(len(seen)) if mask >> j & 1]
        where = [*hol, *[i for i, bar in chosen if not bar]]
        barred = [*anti, *[i for i, bar in chosen if bar]]
        order = (len(where), len(barred))
        if order not in table:
            continue
        value = table[order]
        if "component" in own.traits:
            if scope.component is None:
                raise EvidenceError(f"{jet} depends on the component k outside of a mean")
            value = value[scope.component]
        parts[mask] = array(np.asarray(value)[(*where, *barred)])
    return Series(parts, point.ring)


def symbol_of(symbol: Symbol, point: Point, scope: Scope) -> Series:
    """A coordinate, moved by its own ε's, a parameter, or a dimension."""
    ring = point.ring
    if symbol not in point.values:
        if symbol not in point.sizes:
            raise EvidenceError(f"the symbol {symbol} has no value at this point")
        return number(ring.number(point.sizes[symbol]), ring)
    out = number(point.values[symbol], ring)
    if symbol not in point.coordinates:
        return out
    own = point.coordinates.index(symbol)
    for j, (direction, bar) in enumerate(scope.epsilons):
        if direction == own and not bar:
            out.parts[1 << j] = ring.eye(1)
    return out
