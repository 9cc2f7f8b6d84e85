"""Probabilistic proof: a kernel equals its definition, differentiated, as rational functions.

Both sides are rational functions of the sampled numbers (real and imaginary parts).  If they
differ, their difference has a numerator of degree at most N, and vanishes at a uniformly random
point of a set of size p - 1 with probability at most N / (p - 1) (Schwartz 1980, Zippel 1979).
Independent trials multiply.  The degree bound is computed, not guessed: :data:`degrees` is one
more arithmetic, under which the same kernel text and the same definition return bounds on their
own degrees.
"""

from __future__ import annotations

import inspect
import math
import random
from collections.abc import Mapping
from dataclasses import dataclass
from functools import reduce
from itertools import compress, product
from operator import add
from typing import Any

import numpy as np
from sympy import Expr, Symbol

from kahler_verify.calculus.derivation import Derivation, Kernel, Output
from kahler_verify.calculus.letters import Jet
from kahler_verify.errors import EvidenceError
from kahler_verify.evidence.numbers.arithmetic import PRIME, Arithmetic, prime_field, run_text
from kahler_verify.evidence.numbers.arrays import Array, array
from kahler_verify.evidence.numbers.functions import Functions
from kahler_verify.evidence.numbers.points import Scope, extent
from kahler_verify.evidence.numbers.samples import Sample, draw
from kahler_verify.evidence.numbers.series import evaluate, value_of

Atoms = dict[int, tuple[int, int]]  # denominators: key → (degree, exponent)


class Degree:
    """A bound on the degree of a numerator, and the denominators that stand under it."""

    __slots__ = ("below", "top")

    def __init__(self, top: int | None, below: Atoms | None = None):
        self.top = top  # None: identically zero
        self.below = below or {}

    def _over(self, common: Atoms) -> int:
        """The numerator's degree over a larger denominator."""
        assert self.top is not None
        extra = sum(degree * exponent for degree, exponent in common.values())
        return self.top + extra - sum(degree * exponent for degree, exponent in self.below.values())

    def __add__(self, other: Any) -> Degree:
        o = other if isinstance(other, Degree) else Degree(0 if other else None)
        if self.top is None or o.top is None:
            return o if self.top is None else self
        if self.below == o.below:
            return Degree(max(self.top, o.top), self.below)  # a number of its own
        common = dict(self.below)
        for key, (degree, exponent) in o.below.items():
            common[key] = (degree, max(exponent, common.get(key, (0, 0))[1]))
        return Degree(max(self._over(common), o._over(common)), common)

    __radd__ = __sub__ = __rsub__ = __add__

    def __mul__(self, other: Any) -> Degree:
        o = other if isinstance(other, Degree) else Degree(0 if other else None)
        if self.top is None or o.top is None:
            return Degree(None)
        if not (self.below and o.below):
            return Degree(self.top + o.top, self.below or o.below)
        below = dict(self.below)
        for key, (degree, exponent) in o.below.items():
            below[key] = (degree, exponent + below.get(key, (0, 0))[1])
        return Degree(self.top + o.top, below)

    __rmul__ = __mul__

    def __truediv__(self, other: Any) -> Degree:
        o = other if isinstance(other, Degree) else Degree(0)
        if self.top is None or o.top is None:
            return Degree(None)
        if o.top == 0 and not o.below:
            return self
        # x / (n / e) = x e / n: e's degree comes up, n goes under as an atom of its own
        lifted = self.top + sum(d * e for d, e in o.below.values())
        return Degree(lifted, self.below) * Degree(0, {id_of(o): (o.top, 1)})

    def __rtruediv__(self, other: Any) -> Degree:
        return Degree(0) / self

    def __neg__(self) -> Degree:
        return self

    def conjugate(self) -> Degree:
        """Conjugation is linear in real and imaginary parts."""
        return self

    def __eq__(self, other: object) -> bool:
        return self.top is None and other == 0

    def __hash__(self) -> int:
        return id(self)

    @property
    def bound(self) -> int:
        """Degree of the numerator plus that of the denominator, which must not vanish."""
        return (self.top or 0) + sum(d * e for d, e in self.below.values())


_kept: list[Degree] = []  # denominators stay alive, so that their ids stay theirs


def id_of(x: Degree) -> int:
    """A key for a denominator."""
    _kept.append(x)
    return id(x)


def _product_of_degrees(x: Array, y: Array) -> Array:
    """X Y, by which kinds of degrees meet in an entry: in a sum each kind counts once."""
    (left, at_left), (right, at_right) = _kinds(x), _kinds(y)
    pairs = [(a, b) for a in range(len(left)) for b in range(len(right))]
    meet = np.stack(
        [(at_left == a).astype(int) @ (at_right == b).astype(int) > 0 for a, b in pairs], -1
    )
    patterns, which = np.unique(meet.reshape(-1, len(pairs)), axis=0, return_inverse=True)
    products = [left[a] * right[b] for a, b in pairs]
    sums = [reduce(add, compress(products, pattern)) for pattern in patterns]
    # entries are numbers of their own, which may become denominators of their own
    entries = [Degree(sums[i].top, sums[i].below) for i in which.ravel()]
    return array(entries, meet.shape[:-1])


def _kinds(x: Array) -> tuple[list[Degree], np.ndarray]:
    """One entry for each kind of degree in a matrix, and for each entry its kind."""
    number: dict[Any, int] = {}
    found: list[Degree] = []
    where: list[int] = []
    for entry in np.asarray(x).ravel():
        kind = (entry.top, tuple(sorted(entry.below.items())))
        if kind not in number:
            number[kind] = len(found)
            found.append(entry)
        where.append(number[kind])
    return found, np.array(where).reshape(x.shape)


def _inverse_degrees(matrix: Array) -> Array:
    """X⁻¹ = adj X / det X."""
    n = len(matrix)
    entries = [x for x in np.asarray(matrix).ravel() if x.top is not None]
    common: Atoms = {}
    for x in entries:
        for key, (degree, exponent) in x.below.items():
            common[key] = (degree, max(exponent, common.get(key, (0, 0))[1]))
    top = max(x._over(common) for x in entries)
    under = sum(d * e for d, e in common.values())
    det = {id_of(Degree(0)): (n * top, 1)}
    inverse = Degree((n - 1) * top + under, det)
    return array([inverse] * (n * n), (n, n))


degrees = Arithmetic(
    "degree bounds",
    lambda value: Degree(0 if value else None),
    lambda _rng: Degree(1),
    lambda _rng: Degree(1),
    inverse=_inverse_degrees,
    matmul=_product_of_degrees,
    root=lambda x, _: Degree(x.top, x.below),
    bound=lambda power: Degree(math.ceil(abs(power))),
)


@dataclass(frozen=True)
class Trial:
    """What was tested: sizes, how many entries of each output, the degree bound, the outcome."""

    sizes: Mapping[str, int]
    entries: int
    degree: int
    trials: int
    equal: bool

    @property
    def error_log2(self) -> float:
        """log₂ of the probability that a wrong kernel passes all trials."""
        return self.trials * (math.log2(max(self.degree, 1)) - math.log2(PRIME - 1))


def compare(
    kernel: Kernel,
    text: str,
    arithmetic: Arithmetic,
    sizes: Mapping[str, int],
    seed: int,
    heads: Mapping[Expr, str] | None = None,
    most_entries: int | None = None,
) -> tuple[int, list[tuple[Any, Any]]]:
    """Entries of a kernel's text and of its definition, both under one arithmetic.

    Returns how many entries were compared and the pairs (kernel, definition).  ``most_entries``
    limits them to a random choice for each output, where the definition is expensive.
    """
    pairs, _ = _compared(kernel, text, arithmetic, sizes, seed, heads, most_entries)
    return len(pairs), pairs


def _compared(
    kernel: Kernel,
    text: str,
    arithmetic: Arithmetic,
    sizes: Mapping[str, int],
    seed: int,
    heads: Mapping[Expr, str] | None,
    most_entries: int | None,
) -> tuple[list[tuple[Any, Any]], Functions]:
    """The pairs, and the functions of the point where they were had."""
    rng = random.Random(seed)
    sample = draw(kernel, arithmetic, rng, sizes, heads)
    scope = run_text(text, arithmetic)
    results = call(scope, kernel.name, sample)
    pairs = []
    for result, out in zip(results, kernel.outputs.values(), strict=True):
        shape = tuple(extent(i, sample.point.sizes) for i in out.indices)
        places = list(product(*map(range, shape)))
        if most_entries is not None and len(places) > most_entries:
            places = rng.sample(places, most_entries)
        if np.asarray(result).shape != shape:
            raise EvidenceError(
                f"{kernel.name}: expected shape {shape}, got {np.asarray(result).shape}"
            )
        for place in places:
            values: dict[Symbol, int] = dict(zip(out.indices, place, strict=True))
            expected = evaluate(out.definition, sample.point, Scope(values)).base[0, 0]
            pairs.append((np.asarray(result)[place], expected))
    return pairs, sample.point.functions


def call(scope: Mapping[str, Any], name: str, sample: Sample) -> tuple[Array, ...]:
    """A kernel of an executed module, on a sample's tensors."""
    function = scope[name]
    names = list(inspect.signature(function).parameters)
    missing = [n for n in names if n not in sample.tensors]
    if missing:
        raise EvidenceError(f"{name}: the sample has no tensors {missing}")
    result = function(*[sample.tensors[n] for n in names])
    return result if isinstance(result, tuple) else (result,)


def schwartz_zippel(
    kernel: Kernel,
    text: str,
    sizes: Mapping[str, int],
    *,
    trials: int = 3,
    seed: int = 0,
    heads: Mapping[Expr, str] | None = None,
    most_entries: int | None = None,
) -> Trial:
    """Test a kernel against its definition over F_p[i], with the computed degree bound.

    Every trial draws a new point; with ``most_entries`` the entries are drawn anew as well.
    """
    _kept.clear()
    bounds, _ = _compared(kernel, text, degrees, sizes, seed, heads, most_entries)
    entries, degree = len(bounds), max((x - y).bound for x, y in bounds)
    _kept.clear()
    equal, conjugates = True, 1
    for trial in range(trials):
        pairs, functions = _compared(
            kernel, text, prime_field, sizes, seed + trial, heads, most_entries
        )
        entries, conjugates = max(entries, len(pairs)), max(conjugates, functions.conjugates)
        equal = equal and all(x == y for x, y in pairs)
    if not entries:
        raise EvidenceError(f"{kernel.name}: no entry was compared")
    return Trial(dict(sizes), entries, degree * conjugates, trials, equal)


def vanishes(
    expr: Expr,
    indices: tuple[Symbol, ...],
    sizes: Mapping[str, int],
    *,
    assumptions: tuple[tuple[Jet, str], ...] = (),
    trials: int = 3,
    seed: int = 0,
    most_entries: int | None = None,
) -> Trial:
    """Test that an expression of letters is zero at these sizes, without the calculus."""
    kernel = Kernel("identity", {"zero": Output(expr, indices)}, {}, assumptions)

    def entries(arithmetic: Arithmetic, trial: int) -> tuple[list[Any], Functions]:
        rng = random.Random(seed + trial)
        sample = draw(kernel, arithmetic, rng, sizes)
        places = list(product(*[range(extent(i, sample.point.sizes)) for i in indices]))
        if most_entries is not None and len(places) > most_entries:
            places = rng.sample(places, most_entries)
        return [
            evaluate(expr, sample.point, Scope(dict(zip(indices, place, strict=True)))).base[0, 0]
            for place in places
        ], sample.point.functions

    _kept.clear()
    degree = max(x.bound for x in entries(degrees, 0)[0])
    _kept.clear()
    found = [entries(prime_field, trial) for trial in range(trials)]
    degree *= max(functions.conjugates for _, functions in found)
    values = [x for each, _ in found for x in each]
    return Trial(dict(sizes), len(values), degree, trials, all(x == 0 for x in values))


def reads_as_written(derivation: Derivation, sizes: Mapping[str, int], trials: int = 3) -> bool:
    """Whether a definition's normal form has the values of what its user wrote, over F_p[i].

    Both are functions of z and z̄ at random points, so that their derivatives agree as well.
    """
    definition, written = derivation.definition, derivation.written
    if definition is None or written is None:
        raise EvidenceError(f"{derivation.name}: no definition was written")
    outputs = {"definition": Output(definition)}
    kernel = Kernel("value", outputs, coordinates=derivation.coordinates)
    for trial in range(trials):
        point = draw(kernel, prime_field, random.Random(trial), sizes).point
        if value_of(definition, point, Scope({})) != value_of(written, point, Scope({})):
            return False
    return True
