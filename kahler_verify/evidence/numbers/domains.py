"""Points inside a derivation's domain, wherever it lies.

Most domains hold 0; half-planes, Siegel domains and shifted balls do not.  A search that climbs the
``domain`` expression, which is positive inside, finds them; a derivation may name a point instead.
"""

from __future__ import annotations

import cmath
import math
import random
from collections.abc import Callable, Sequence

from sympy import Min

from kahler_verify.calculus.derivation import Derivation
from kahler_verify.errors import EvidenceError
from kahler_verify.evidence.numbers.arithmetic import Arithmetic
from kahler_verify.evidence.numbers.arrays import array
from kahler_verify.evidence.numbers.points import Point, Scope
from kahler_verify.evidence.numbers.readings import coordinate_of
from kahler_verify.evidence.numbers.series import value_of

Place = list[complex]
DIRECTIONS = 8  # tried from the centre before a new one is looked for
STARTS, STEPS = 20, 200  # of a search
MARGIN = 0.1  # of its distance from the centre, by which a point is to be inside

double = Arithmetic(
    "double",
    complex,
    lambda rng: complex(rng.gauss(0, 1), rng.gauss(0, 1)),
    lambda rng: complex(rng.uniform(0.5, 2)),
    lambda name, x: getattr(cmath, name)(x),
)


def domain_value(derivation: Derivation, drawn: Point, z: Sequence[complex]) -> float:
    """The derivation's ``domain`` at z: positive inside, infinite where there is none.

    ``drawn`` has the parameters' values.  Where the expression is not defined, the value is NaN.
    """
    if derivation.domain is None:
        return math.inf
    if derivation.coordinates:
        at = {**drawn.values, **dict(zip(derivation.coordinates, z, strict=True))}
        point = Point(double, drawn.sizes, {}, coordinates=derivation.coordinates, values=at)
    else:
        coordinate = coordinate_of(derivation)
        jets = dict(drawn.jets)
        if coordinate is not None:
            jets[coordinate] = {(0, 0): array(list(z), (len(z), 1))}
        point = Point(double, drawn.sizes, jets)
    conditions = (
        derivation.domain.args if isinstance(derivation.domain, Min) else (derivation.domain,)
    )
    try:
        return min(complex(value_of(e, point, Scope({}))).real for e in conditions)
    except (ArithmeticError, ValueError):
        return math.nan


def declared_point(derivation: Derivation, d: int) -> Place | None:
    """The point that a derivation names, if it does."""
    inside = derivation.inside
    if inside is None:
        return None
    numbers = [complex(x) for x in (inside if isinstance(inside, tuple) else (inside,) * d)]
    if len(numbers) != d:
        raise EvidenceError(
            f"{derivation.name}: inside: expected {d} numbers, or one, got {len(numbers)}"
        )
    return numbers


def centre(derivation: Derivation, drawn: Point, rng: random.Random, d: int) -> Place:
    """The point that a derivation names, 0 if it is inside, or one that a search finds.

    Raises:
        EvidenceError: the named point is outside, or no point is found.
    """
    named = declared_point(derivation, d)
    value = lambda z: domain_value(derivation, drawn, z)  # noqa: E731
    if named is not None:
        if not value(named) > 0:
            raise EvidenceError(f"{derivation.name}: the point inside={named} is not in its domain")
        return named
    start = [0j] * d
    if value(start) > 0:
        return start
    for n in range(STARTS):
        found = _climb(value, [x * 2.0 ** (n % 5) for x in numbers(rng, d)], rng)
        if found is not None:
            return found
    raise EvidenceError(
        f"{derivation.name}: no point of the domain was found; name one by inside=(…)"
    )


def _climb(value: Callable[[Place], float], z: Place, rng: random.Random) -> Place | None:
    """Random steps that raise the value: longer after a success, shorter after a failure."""
    best, step, beyond = value(z), 1.0, 0
    for _ in range(STEPS):
        tried = [x + step * e for x, e in zip(z, numbers(rng, len(z)), strict=True)]
        now = value(tried)
        if now > best or (math.isnan(best) and not math.isnan(now)):
            z, best, step = tried, now, step if now > 0 else 1.5 * step
        else:
            step *= 0.8
        beyond += best > 0
        if beyond > STEPS // 10:  # some steps more, away from the edge
            return z
    return z if best > 0 else None


def point_inside(derivation: Derivation, drawn: Point, rng: random.Random, d: int) -> Place:
    """A random point of the domain, with room around it.

    Raises:
        EvidenceError: none is found.
    """
    middle = centre(derivation, drawn, rng, d)
    inside = lambda z: domain_value(derivation, drawn, z) > 0  # noqa: E731
    for _ in range(DIRECTIONS):
        towards = direction(rng, d)
        size = rng.uniform(0.3, 1.5)
        for n in (0, -1, 1, -2, 2, -3, 3, -4, 4, -6, 6, -9, -12):
            t = size * 2.0**n
            if inside(along(middle, t, towards)) and inside(
                along(middle, (1 + MARGIN) * t, towards)
            ):
                return along(middle, t, towards)
    raise EvidenceError(f"{derivation.name}: no point of the domain was found around {middle}")


def point_towards_edge(
    derivation: Derivation, drawn: Point, rng: random.Random, d: int, reach: float
) -> Place:
    """The point at ``reach`` in (0, 1) of the way from the centre to the edge, somewhere.

    Raises:
        EvidenceError: the domain has no edge in any direction that was tried.
    """
    middle = centre(derivation, drawn, rng, d)
    inside = lambda t, u: domain_value(derivation, drawn, along(middle, t, u)) > 0  # noqa: E731
    for _ in range(4 * DIRECTIONS):
        towards, low, high = direction(rng, d), 0.0, 1e8
        if inside(high, towards):
            continue
        for _ in range(200):
            half = (low + high) / 2
            low, high = (half, high) if inside(half, towards) else (low, half)
        return along(middle, reach * low, towards)
    raise EvidenceError(f"{derivation.name}: its domain has no boundary to reach for")


def numbers(rng: random.Random, d: int) -> Place:
    """Complex normal numbers, E|x|² = 2."""
    return [double.draw(rng) for _ in range(d)]


def direction(rng: random.Random, d: int) -> Place:
    """A random unit vector."""
    v = numbers(rng, d)
    length = math.sqrt(sum(abs(x) ** 2 for x in v))
    return [x / length for x in v]


def along(z: Place, t: float, towards: Place) -> Place:
    """Z + t u."""
    return [x + t * u for x, u in zip(z, towards, strict=True)]
