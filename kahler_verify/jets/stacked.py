"""Stacked derivatives of a function of z, and the chain rule for all of them together.

A value [B, n] has its Wirtinger derivatives by z, one tensor [B, P, Q, n] for each type (p, q) of
p ∂'s and q ∂̄'s: derivatives commute, so that the rows are the multisets of p holomorphic and of q
antiholomorphic indices. What vanishes identically (∂̄ of a holomorphic function, second derivatives
of an affine one) is left out, and costs nothing.

With ∂_s(f∘h) = f_u ∂_s h + f_ū ∂_s h̄ and Leibniz's rule for the remaining indices,
∂_S ∂_s (f∘h) = Σ_{T ⊆ S} [∂_T(f_u∘h) ∂_{S∖T}∂_s h + ∂_T(f_ū∘h) ∂_{S∖T}∂_s h̄].
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, replace
from functools import cache
from itertools import combinations, combinations_with_replacement, product

import torch
from torch import Tensor

Type = tuple[int, int]  # how many ∂ and how many ∂̄
VALUE: Type = (0, 0)


@dataclass(frozen=True)
class Jets:
    """A function of z at B points, with those of its derivatives that do not vanish.

    Attributes:
        latent: d.
        wanted: the types that are propagated; closed under taking away indices.
        value: [B, n].
        parts: derivatives by type, [B, P, Q, n] each (B = 1 where all points have the same).
    """

    latent: int
    wanted: frozenset[Type]
    value: Tensor
    parts: Mapping[Type, Tensor]

    def get(self, each: Type) -> Tensor | None:
        """A derivative, or the value, as [B or 1, P, Q, n]; None where it vanishes."""
        return self.value[:, None, None] if each == VALUE else self.parts.get(each)

    def conjugate(self, each: Type) -> Tensor | None:
        """The same of the conjugate function: ∂_A ∂̄_B h̄ is the conjugate of ∂_B ∂̄_A h."""
        part = self.get(each[::-1])
        return None if part is None else part.transpose(1, 2).conj()

    def dense(self, each: Type) -> Tensor:
        """A derivative with an axis for every index, [B, d, …, d, n]."""
        hol, anti = each
        shape = (len(self.value), *[self.latent] * (hol + anti), self.value.shape[-1])
        part = self.get(each)
        if part is None:
            zero = torch.zeros((), dtype=self.value.dtype.to_complex(), device=self.value.device)
            return zero.expand(shape)
        part = selected_rows(
            selected_rows(part, 1, _unpacking(self.latent, hol)), 2, _unpacking(self.latent, anti)
        )
        part = part.reshape(len(part), *shape[1:])
        return part if len(part) == shape[0] else part.expand(shape)


def closure(types: Iterable[Type], *, holomorphic: bool) -> frozenset[Type]:
    """All types that propagation needs on the way to the given ones.

    Conjugates come in with each real part and each activation that is not holomorphic.
    """
    out = set()
    for hol, anti in types:
        for smaller in product(range(hol + 1), range(anti + 1)):
            out |= {smaller, smaller[::-1]}
    out.discard(VALUE)
    return frozenset(t for t in out if not (holomorphic and t[1]))


def coordinates(z: Tensor, wanted: frozenset[Type]) -> Jets:
    """The jets of z [B, d] by itself."""
    directions = torch.eye(z.shape[-1], dtype=z.dtype, device=z.device)[None]
    return Jets(z.shape[-1], wanted, z, {(1, 0): directions[:, :, None]})


@cache
def multisets(d: int, size: int) -> tuple[tuple[int, ...], ...]:
    """Of so many indices below d, in the order of rows."""
    return tuple(combinations_with_replacement(range(d), size))


@cache
def _selection(d: int, size: int, positions: tuple[int, ...]) -> tuple[int, ...] | None:
    """For every multiset the row of its part at some positions; None where that is itself."""
    if len(positions) == size:
        return None
    rows = {row: i for i, row in enumerate(multisets(d, len(positions)))}
    return tuple(rows[tuple(each[p] for p in positions)] for each in multisets(d, size))


@cache
def _unpacking(d: int, size: int) -> tuple[int, ...] | None:
    """For every tuple of indices the row of its multiset; None where there is nothing to do."""
    if size < 2:
        return None
    rows = {row: i for i, row in enumerate(multisets(d, size))}
    return tuple(rows[tuple(sorted(each))] for each in product(range(d), repeat=size))


def selected_rows(x: Tensor, axis: int, selection: tuple[int, ...] | None) -> Tensor:
    """The selected rows along an axis; all of them for None."""
    if selection is None or x.shape[axis] == 1:
        return x  # all rows, or one that broadcasts
    kept = x.is_cuda and not torch.compiler.is_compiling()
    index = _on_device(selection, x.device) if kept else torch.tensor(selection, device=x.device)
    return x.index_select(axis, index)


@cache
def _on_device(selection: tuple[int, ...], device: torch.device) -> Tensor:
    """Indices on a GPU, brought there once: each time a copy would wait for what runs there."""
    with torch.inference_mode(False):
        return torch.tensor(selection, device=device)


def compose(jets: Jets, derivatives: Mapping[Type, Tensor]) -> Jets:
    """f∘h from h's jets and the values [B, n] of f's derivatives by (u, ū), in any order of types.

    Those of f that are missing are taken to vanish.
    """
    chain = _Chain(jets, derivatives, {})
    parts = {each: chain.jet(VALUE, each) for each in sorted(jets.wanted, key=sum)}
    present = {each: part for each, part in parts.items() if part is not None}
    return replace(jets, value=derivatives[VALUE], parts=present)


@dataclass(frozen=True)
class _Chain:
    """The chain rule, with what it has computed. Closures would outlive it, as garbage."""

    jets: Jets
    derivatives: Mapping[Type, Tensor]
    known: dict[tuple[Type, Type], Tensor | None]

    def jet(self, f: Type, each: Type) -> Tensor | None:
        """∂ of type ``each`` of the derivative ``f`` of f, along h."""
        if f not in self.derivatives:
            return None
        if each == VALUE:
            return self.derivatives[f][:, None, None]
        if (f, each) not in self.known:
            self.known[f, each] = self._differentiate(f, each)
        return self.known[f, each]

    def _differentiate(self, f: Type, each: Type) -> Tensor | None:
        hol, anti = each
        last = (1, 0) if hol else (0, 1)
        before = (hol - last[0], anti - last[1])
        by_u, by_v = (f[0] + 1, f[1]), (f[0], f[1] + 1)
        total = None
        for left, right, inner, outer in _splittings(self.jets.latent, before, last):
            for of, factor in ((by_u, self.jets.get(outer)), (by_v, self.jets.conjugate(outer))):
                weight = self.jet(of, inner) if factor is not None else None
                if factor is None or weight is None:
                    continue
                for axis in (1, 2):
                    weight = selected_rows(weight, axis, left[axis - 1])
                    factor = selected_rows(factor, axis, right[axis - 1])
                term = weight * factor
                total = term if total is None else total + term
        return total


_Selections = tuple[tuple[int, ...] | None, tuple[int, ...] | None]


@cache
def _splittings(
    d: int, before: Type, last: Type
) -> tuple[tuple[_Selections, _Selections, Type, Type], ...]:
    """Leibniz's rule: the subsets T of ``before``, and its complement together with ``last``.

    Given as selections of rows (holomorphic, antiholomorphic) out of those of before + last.
    """
    out = []
    hol, anti = before[0] + last[0], before[1] + last[1]
    for p, q in product(range(before[0] + 1), range(before[1] + 1)):
        for inner in product(combinations(range(before[0]), p), combinations(range(before[1]), q)):
            rest = tuple(
                tuple(i for i in range(size) if i not in taken)
                for size, taken in zip((hol, anti), inner, strict=True)
            )
            left = (_selection(d, hol, inner[0]), _selection(d, anti, inner[1]))
            right = (_selection(d, hol, rest[0]), _selection(d, anti, rest[1]))
            out.append((left, right, (p, q), (len(rest[0]), len(rest[1]))))
    return tuple(out)
