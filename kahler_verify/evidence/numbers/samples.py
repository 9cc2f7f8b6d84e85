"""Random points for a kernel: fields with consistent derivatives, in any arithmetic.

A kernel's inputs and the definition's fields are drawn together, so that the kernel's result and
the definition differentiated by numbers can be compared on the same point.
"""

from __future__ import annotations

import random
from collections.abc import Mapping
from dataclasses import dataclass
from itertools import permutations, product
from typing import Any

import numpy as np
from sympy import Abs, E, Expr, Pow, Symbol, cos, cosh, cot, coth, exp, sin, sinh, tan, tanh

from kahler_verify.calculus.definition import OnDiagonal, Partial
from kahler_verify.calculus.derivation import Kernel
from kahler_verify.calculus.letters import Field, Jet, dimension
from kahler_verify.calculus.mixture import LogSumExp, Mean, Moment
from kahler_verify.calculus.pointwise import sigmoid, softplus
from kahler_verify.errors import EvidenceError
from kahler_verify.evidence.numbers.arithmetic import Arithmetic, NotASquare, prime_field, rational
from kahler_verify.evidence.numbers.arrays import Array, array
from kahler_verify.evidence.numbers.functions import Functions
from kahler_verify.evidence.numbers.points import Point, Scope, extent, free_indices
from kahler_verify.evidence.numbers.readings import (
    Order,
    derivative_order,
    fields_of,
    is_real_latent,
)
from kahler_verify.evidence.numbers.series import head_values, value_of

K = dimension("K")  # of a mixture's components
EXPONENTIAL = (exp, sin, cos, tan, cot, sinh, cosh, tanh, coth, sigmoid, softplus)
ATTEMPTS = 4096  # one number in 240 has roots of every order


@dataclass(frozen=True)
class Sample:
    """A point, and the tensors that hold the same numbers under the names kernels use."""

    point: Point
    tensors: Mapping[str, Array]


def draw(
    kernel: Kernel,
    arithmetic: Arithmetic,
    rng: random.Random,
    sizes: Mapping[str, int],
    head_exprs: Mapping[Expr, str] | None = None,
) -> Sample:
    """Draw a point and the tensors of a kernel; ``sizes`` gives d, n, K by name.

    Sizes below those that the kernel needs are raised to them.

    For a potential in explicit coordinates d is their number, whatever ``sizes`` says.
    """
    sizes = {name: max(size, kernel.least.get(name, 0)) for name, size in sizes.items()}
    for _ in range(ATTEMPTS):
        try:
            return _draw(kernel, arithmetic, rng, sizes, head_exprs)
        except NotASquare:  # half of a prime field's elements have no square root
            continue
    raise EvidenceError(f"{kernel.name}: no drawn point has the square roots that it needs")


def _draw(
    kernel: Kernel,
    arithmetic: Arithmetic,
    rng: random.Random,
    sizes: Mapping[str, int],
    head_exprs: Mapping[Expr, str] | None,
) -> Sample:
    if kernel.coordinates:
        sizes = {**sizes, "d": len(kernel.coordinates)}
    symbols = {s for f in fields_of(kernel) for size in f.shape for s in size.free_symbols}
    for out in kernel.outputs.values():  # dimensions written in a definition, such as KL's n
        symbols |= {s for s in out.definition.free_symbols if s.is_integer and s.name in sizes}
    # a dimension of another name is the latent one if a coordinate has it, or else another n
    latents = {f.shape[0] for f in fields_of(kernel) if "coordinate" in f.traits}
    table = {s: sizes.get(s.name, sizes["n"]) for s in symbols}
    table |= {s: sizes["d"] for s in latents if isinstance(s, Symbol)}
    extra: dict[Field, tuple[str, ...]] = {}
    for letter, trait in kernel.assumptions:
        extra[letter.field] = (*extra.get(letter.field, ()), trait)
    orders = [derivative_order(out.definition) for out in kernel.outputs.values()]
    highest = (max(o[0] for o in orders), max(o[1] for o in orders))
    has_components = any("component" in f.traits for f in fields_of(kernel))
    count = sizes["K"] if has_components else 0
    if has_components:
        table[K] = count
    latent = next((s for s in table if s.name == "d"), Symbol("d", integer=True, positive=True))
    table.setdefault(latent, sizes["d"])
    jets: dict[Field, dict[Order, Array]] = {}
    tensors: dict[str, Array] = {}
    for field in fields_of(kernel):
        traits = field.traits.union(extra.get(field.without_traits("frozen"), ()))
        layout = kernel.layout.get(field.name, "full") if 1 not in field.shape else "full"
        drawn = _Drawer(
            field, traits, layout, arithmetic, rng, table, latent, highest, count,
            is_real_latent(kernel),
        )  # fmt: skip
        jets[field] = drawn.jets
        tensors |= drawn.tensors
    weights = None
    if has_components:
        raw = [arithmetic.draw_positive(rng) for _ in range(count)]
        total = raw[0]
        for x in raw[1:]:
            total = total + x
        weights = array([x / total for x in raw], (count,))
        tensors["w"] = weights
    values = _explicit_values(kernel, arithmetic, rng, set(head_exprs or {}), set(table))
    if kernel.coordinates:
        tensors["z"] = array([values[z] for z in kernel.coordinates], (len(kernel.coordinates),))
        own = set(kernel.coordinates)
        tensors |= {s.name: array(x) for s, x in values.items() if s not in own}
    point = Point(
        arithmetic,
        table,
        jets,
        weights,
        Functions(arithmetic, rng),
        kernel.coordinates,
        values,
    )
    for out in kernel.outputs.values():
        _look_for_roots(out.definition, point)
    for expr, name in (head_exprs or {}).items():
        if not _fits(expr, jets):
            continue
        tensors[name] = head_values(expr, point)
    return Sample(point, tensors)


def has_roots(definition: Expr) -> bool:
    """Whether a definition has fractional powers, which few numbers of Q(i) have."""
    return definition.has(Abs) or any(not p.exp.is_Integer for p in definition.atoms(Pow))


def exact_ring(kernel: Kernel) -> Arithmetic:
    """Q(i), or a prime field for definitions with roots, or exponentials, whose powers are such."""
    written = [out.definition for out in kernel.outputs.values()]
    return prime_field if any(has_roots(e) or e.has(E, *EXPONENTIAL) for e in written) else rational


def _look_for_roots(definition: Expr, point: Point) -> None:
    """Meet every root of a definition, so that a point without one is not kept."""
    while isinstance(definition, Partial | OnDiagonal):
        definition = definition.args[0]
    if not has_roots(definition):
        return
    known = set(point.values) | set(point.sizes)
    indices = sorted(free_indices(definition) - known, key=str)
    for entry in product(*[range(extent(i, point.sizes)) for i in indices]):
        value_of(definition, point, Scope(dict(zip(indices, entry, strict=True))))


def _explicit_values(
    kernel: Kernel, arithmetic: Arithmetic, rng: random.Random, heads: set[Expr], sizes: set[Symbol]
) -> dict[Symbol, Any]:
    """Values of the coordinates and of all parameters."""
    if not kernel.coordinates:
        return {}
    values = {z: arithmetic.draw(rng) for z in kernel.coordinates}
    definitions = [out.definition for out in kernel.outputs.values()]
    indices = {i for out in kernel.outputs.values() for i in out.indices}
    free = set().union(*[e.free_symbols for e in definitions], *[h.free_symbols for h in heads])
    for parameter in sorted(free - set(values) - indices - sizes, key=str):
        values[parameter] = arithmetic.draw_positive(rng)
    return values


def _fits(expr: Expr, jets: Mapping[Field, Any]) -> bool:
    fields = {j.field for j in expr.atoms(Jet) if not j.field.abbreviated}
    return fields <= set(jets) and not expr.has(LogSumExp, Mean, Moment)


class _Drawer:
    """Draws one field's derivatives, obeying its traits and its layout."""

    def __init__(
        self,
        field: Field,
        traits: frozenset[str],
        layout: str,
        arithmetic: Arithmetic,
        rng: random.Random,
        table: Mapping[Symbol, int],
        latent: Symbol,
        highest: Order,
        count: int,
        real_latent: bool = False,
    ):
        self.real_latent = real_latent
        self.field, self.traits, self.layout = field, traits, layout
        self.ring, self.rng = arithmetic, rng
        self.d = table[latent]
        self.shape = tuple(int(size.subs(table)) for size in field.shape)
        self.lead = (count,) if "component" in traits else ()
        self.jets: dict[Order, Array] = {}
        self.tensors: dict[str, Array] = {}
        name = field.name + ("0" if "frozen" in traits else "")
        self.name = name
        each = range(max(highest) + 1)  # an adjoint swaps the two orders
        for order in sorted(product(each, each), key=lambda o: (sum(o), -o[0])):
            if sum(order) <= sum(highest) and not (real_latent and order[1]):
                self._draw_order(order)

    def _draw_order(self, order: Order) -> None:
        hol, anti = order
        if sum(order) and self._vanishes(order):
            return
        if "coordinate" in self.traits:
            unit = self.ring.eye(self.d).reshape(self.d, self.d, 1)
            unit = array(np.broadcast_to(np.asarray(unit), (*self.lead, *unit.shape)).copy())
            value = unit if hol else self._numbers((*self.lead, *self.shape))
        elif order == (0, 0) and "positive" in self.traits:
            value = self._positive() if self._is_matrix else self._positive_numbers()
        else:
            value = self._random(order)
        value = self._mirrored(value, order)
        self.jets[order] = array(np.asarray(value))
        marks = "d" * hol + "b" * anti
        self.tensors[f"{self.name}_{marks}" if marks else self.name] = self._stored(value)

    def _mirrored(self, value: Array, order: Order) -> Array:
        """Make a derivative what conjugation makes of it: of real fields, and of Hermitian ones."""
        hol, anti = order
        real, hermitian = "real" in self.traits, "hermitian" in self.traits
        settled = order == (0, 0) and "positive" in self.traits
        if self.real_latent:  # ∂_a is its own conjugate
            return array(value + value.mH) if hermitian and not settled else value
        if real and hermitian and order != (0, 0):
            value = array(value + value.mT)
        if real and not hermitian and hol <= anti:
            other = self._swapped(self.jets[anti, hol] if hol < anti else value, anti, hol).mT
            return array(other if hol < anti else value + other)
        if hermitian and hol < anti:
            return self._swapped(self.jets[anti, hol], anti, hol)
        if hermitian and hol == anti and not settled:
            return array(value + self._swapped(value, hol, anti))
        return value

    def _vanishes(self, order: Order) -> bool:
        hol, anti = order
        traits = self.traits
        return (
            bool(traits & {"constant", "frozen"})
            or (anti > 0 and bool(traits & {"holomorphic", "coordinate"}))
            or (hol > 1 and "coordinate" in traits)
            or (max(order) > 1 + self.real_latent and "quadratic" in traits)
        )

    @property
    def _is_matrix(self) -> bool:
        return 1 not in self.field.shape

    def _positive_numbers(self) -> Array:
        shape = (*self.lead, *self.shape)
        total = int(np.prod(shape, dtype=int))
        return array([self.ring.draw_positive(self.rng) for _ in range(total)], shape)

    def _numbers(self, shape: tuple[int, ...]) -> Array:
        total = int(np.prod(shape, dtype=int))
        return array([self._number() for _ in range(total)], shape)

    def _number(self) -> Any:
        x = self.ring.draw(self.rng)
        plain = "real" in self.traits and (self.real_latent or "coordinate" in self.traits)
        return x + x.conjugate() if plain else x

    def _random(self, order: Order) -> Array:
        """Symmetric in the ∂ indices and in the ∂̄ indices."""
        hol, anti = order
        lead = len(self.lead)
        raw = np.asarray(self._numbers((*self.lead, *[self.d] * (hol + anti), *self.shape)))
        total = None
        for p in permutations(range(hol)):
            for q in permutations(range(anti)):
                axes = [
                    *range(lead),
                    *[lead + i for i in p],
                    *[lead + hol + i for i in q],
                    raw.ndim - 2,
                    raw.ndim - 1,
                ]
                turned = raw.transpose(axes)
                total = turned if total is None else total + turned
        return array(self._shaped(array(np.asarray(total))))

    def _shaped(self, value: Array) -> Array:
        """Zero what the layout leaves out."""
        if self.layout == "full":
            return value
        n = self.shape[0]
        mask = self.ring.eye(n)
        if self.layout == "scalar":
            return array(np.asarray(value)[..., :1, :1] * np.asarray(mask))
        return array(np.asarray(value) * np.asarray(mask))

    def _positive(self) -> Array:
        """L Lᴴ with L lower triangular, its diagonal positive."""
        n = self.shape[0]
        factor = self.ring.zeros(n, n)
        scale = self.ring.draw_positive(self.rng)
        for i in range(n):
            factor[i, i] = scale if self.layout == "scalar" else self.ring.draw_positive(self.rng)
            for j in range(i if self.layout == "full" else 0):
                x = self.ring.draw(self.rng)
                factor[i, j] = x + x.conjugate() if "real" in self.traits else x
        stored = {"full": factor, "diagonal": np.diagonal(factor), "scalar": factor[0, 0]}[
            self.layout
        ]
        self.tensors[f"{self.name}_factor"] = array(stored)
        return self.ring.product(factor, factor.mH)

    def _swapped(self, value: Array, hol: int, anti: int) -> Array:
        """The adjoint's jets: ∂ and ∂̄ change places, and every matrix is daggered."""
        lead = len(self.lead)
        axes = [*range(lead), *range(lead + hol, lead + hol + anti), *range(lead, lead + hol)]
        axes += [lead + hol + anti, lead + hol + anti + 1]
        return array(np.asarray(value).transpose(axes)).mH

    def _stored(self, value: Array) -> Array:
        """The tensor as kernels take it: vectors and scalars without their axes of length one."""
        rows, cols = self.field.shape
        out = np.asarray(value)
        if self.layout == "diagonal":
            return array(np.diagonal(out, axis1=-2, axis2=-1))
        if self.layout == "scalar" or (rows == 1 and cols == 1):
            return array(out[..., 0, 0])
        if cols == 1:
            return array(out[..., 0])
        return array(out[..., 0, :]) if rows == 1 else array(out)
