"""Symbolic complex numbers, and arrays of them that behave as tensors do in generated kernels."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

import numpy as np

from kahler_verify.errors import GenerationError
from kahler_verify.running.unrolling.tape import Real, Tape


class Pair:
    """A complex number of two reals on a tape."""

    __slots__ = ("im", "re", "tape")

    def __init__(self, tape: Tape, re: Real, im: Real):
        self.tape, self.re, self.im = tape, re, im

    def _lift(self, other: Any) -> Pair:
        if isinstance(other, Pair):
            return other
        if not isinstance(other, int | float | complex):
            raise GenerationError(f"expected a number in a kernel, got {type(other).__name__}")
        parts = (other.real, other.imag) if isinstance(other, complex) else (other, 0)
        re, im = [self.tape.number(int(x) if x == int(x) else x) for x in parts]
        return Pair(self.tape, re, im)

    def __add__(self, other: Any) -> Pair:
        o = self._lift(other)
        return Pair(self.tape, self.tape.add(self.re, o.re), self.tape.add(self.im, o.im))

    __radd__ = __add__

    def __neg__(self) -> Pair:
        return Pair(self.tape, -self.re, -self.im)

    def __sub__(self, other: Any) -> Pair:
        return self + -self._lift(other)

    def __rsub__(self, other: Any) -> Pair:
        return self._lift(other) - self

    def __mul__(self, other: Any) -> Pair:
        o, add, times = self._lift(other), self.tape.add, self.tape.multiply
        re = add(times(self.re, o.re), -times(self.im, o.im))
        return Pair(self.tape, re, add(times(self.re, o.im), times(self.im, o.re)))

    __rmul__ = __mul__

    def __truediv__(self, other: Any) -> Pair:
        o, tape = self._lift(other), self.tape
        norm = tape.add(tape.multiply(o.re, o.re), tape.multiply(o.im, o.im))
        if o.im.node is tape.zero.node:
            return self * Pair(tape, tape.reciprocal(o.re), tape.zero)
        return self * o.conjugate() * Pair(tape, tape.reciprocal(norm), tape.zero)

    def __rtruediv__(self, other: Any) -> Pair:
        return self._lift(other) / self

    def conjugate(self) -> Pair:
        """The complex conjugate."""
        return Pair(self.tape, self.re, -self.im)

    def function(self, name: str) -> Pair:
        """A transcendental function, of a real number or by its real and imaginary parts.

        Raises:
            GenerationError: this function of a complex number has no rule.
        """
        tape, x, y = self.tape, self.re, self.im
        if y.node is tape.zero.node:
            return Pair(tape, tape.function(name, x), tape.zero)
        if name == "exp":
            size = tape.function("exp", x)
            parts = [tape.multiply(size, tape.function(turn, y)) for turn in ("cos", "sin")]
            return Pair(tape, parts[0], parts[1])
        if name == "log":
            if x.node is tape.zero.node and y.node is tape.one.node:  # log i, of which π is made
                return Pair(tape, tape.zero, Real(tape.number(math.pi / 2).node, y.sign))
            norm = tape.add(tape.multiply(x, x), tape.multiply(y, y))
            half = tape.multiply(tape.number(0.5), tape.function("log", norm))
            return Pair(tape, half, tape.function("atan2", y, x))
        raise GenerationError(f"{name} of a complex number is not unrolled")

    def power(self, exponent: Any) -> Pair:
        """A power of a real number with a real exponent, or exp(exponent · log)."""
        e, tape = self._lift(exponent), self.tape
        if tape.zero.node is self.im.node is e.im.node:
            return Pair(tape, tape.function("pow", self.re, e.re), tape.zero)
        return (e * self.function("log")).function("exp")


class Traced:
    """An array of pairs that behaves as a tensor does in generated kernels.

    The axis over components has length one, and a mark: sums over it are written down, not done.
    """

    def __init__(self, values: np.ndarray, marks: Sequence[bool] | None = None):
        self.values = values
        self.marks = tuple(marks) if marks is not None else (False,) * values.ndim

    dtype = device = None

    def __getattr__(self, name: str) -> Any:
        if name.startswith("__"):  # numpy asks for some
            raise AttributeError(name)
        raise GenerationError(f"a tensor's {name} is not unrolled")

    @property
    def shape(self) -> tuple[int, ...]:
        """Lengths of the axes; that over components is 1."""
        return self.values.shape

    @property
    def mT(self) -> Traced:
        """Transpose of the last two axes."""
        marks = (*self.marks[:-2], self.marks[-1], self.marks[-2])
        return Traced(self.values.swapaxes(-1, -2), marks)

    @property
    def mH(self) -> Traced:
        """Adjoint of the last two axes."""
        return self.conj().mT

    def conj(self) -> Traced:
        """Conjugate of each entry."""
        return self.map(Pair.conjugate)

    def map(self, function: Any) -> Traced:
        """A function of each entry."""
        flat = np.empty(self.values.size, dtype=object)
        flat[:] = [function(x) for x in self.values.ravel()]
        return Traced(flat.reshape(self.shape), self.marks)

    def unsqueeze(self, axis: int) -> Traced:
        """Insert an axis of length one."""
        place = axis % (len(self.marks) + 1)
        marks = (*self.marks[:place], False, *self.marks[place:])
        return Traced(np.expand_dims(self.values, place), marks)

    def squeeze(self, axis: int) -> Traced:
        """Remove an axis of length one."""
        place = self._unmarked(axis)
        marks = self.marks[:place] + self.marks[place + 1 :]
        return Traced(np.squeeze(self.values, place), marks)

    def select(self, axis: int, position: int) -> Traced:
        """One slice of an axis."""
        place = self._unmarked(axis)
        marks = self.marks[:place] + self.marks[place + 1 :]
        return Traced(np.asarray(self.values.take(position, place), dtype=object), marks)

    def flatten(self, start: int) -> Traced:
        """Join the axes from ``start`` to the last."""
        return Traced(self.values.reshape(*self.shape[:start], -1), self._without(start))

    def unflatten(self, axis: int, sizes: tuple[int, ...]) -> Traced:
        """Split the last axis."""
        marks = self._without(axis)[:-1] + (False,) * len(sizes)
        return Traced(self.values.reshape(*self.shape[:axis], *sizes), marks)

    def _unmarked(self, axis: int) -> int:
        place = axis % len(self.marks)
        if self.marks[place]:
            raise GenerationError("one component of a mixture cannot be picked out")
        return place

    def _without(self, start: int) -> tuple[bool, ...]:
        """Marks where the axes from ``start`` on become one."""
        place = start % len(self.marks)
        if any(self.marks[place:]):
            raise GenerationError("the axis over components cannot be joined with another")
        return (*self.marks[:place], False)

    def _combined(self, other: Any, operation: str) -> Traced:
        if not isinstance(other, Traced):
            return self.map(lambda x: getattr(x, operation)(other))
        marks = _broadcast_marks([self.marks, other.marks])
        left, right = np.broadcast_arrays(self.values, other.values)
        flat = np.empty(left.size, dtype=object)
        pairs = zip(left.ravel(), right.ravel(), strict=True)
        flat[:] = [getattr(x, operation)(y) for x, y in pairs]
        return Traced(flat.reshape(left.shape), marks)

    def __add__(self, other: Any) -> Traced:
        return self._combined(other, "__add__")

    def __sub__(self, other: Any) -> Traced:
        return self._combined(other, "__sub__")

    def __mul__(self, other: Any) -> Traced:
        return self._combined(other, "__mul__")

    def __truediv__(self, other: Any) -> Traced:
        return self._combined(other, "__truediv__")

    __radd__, __rmul__ = __add__, __mul__

    def __rsub__(self, other: Any) -> Traced:
        return self._combined(other, "__rsub__")

    def __rtruediv__(self, other: Any) -> Traced:
        return self._combined(other, "__rtruediv__")

    def __neg__(self) -> Traced:
        return self.map(Pair.__neg__)

    def __matmul__(self, other: Traced) -> Traced:
        return einsum("...ab,...bc->...ac", self, other)


def _broadcast_marks(marks: Sequence[tuple[bool, ...]]) -> tuple[bool, ...]:
    size = max(len(m) for m in marks)
    full = [(False,) * (size - len(m)) + m for m in marks]
    return tuple(any(each) for each in zip(*full, strict=True))


def einsum(equation: str, *operands: Traced) -> Traced:
    """torch.einsum with leading ellipses."""
    left, target = equation.split("->")
    named = [source.removeprefix("...") for source in left.split(",")]
    batch = [len(o.marks) - len(s) for o, s in zip(operands, named, strict=True)]
    letters = "ZYXWVUTSRQ"[: max(batch)]
    spelled = [letters[len(letters) - b :] + s for b, s in zip(batch, named, strict=True)]
    kept = (letters if target.startswith("...") else "") + target.removeprefix("...")
    sizes: dict[str, int] = {}
    over = set()
    for o, s in zip(operands, spelled, strict=True):
        for size, mark, letter in zip(o.shape, o.marks, s, strict=True):
            sizes[letter] = max(size, sizes.get(letter, 1))
            over |= {letter} if mark else set()
    full = [
        np.broadcast_to(o.values, [sizes[c] for c in s])
        for o, s in zip(operands, spelled, strict=True)
    ]
    out = np.asarray(np.einsum(",".join(spelled) + "->" + kept, *full), dtype=object)
    result = Traced(out, [letter in over for letter in kept])
    return result.map(_total) if over - set(kept) else result


def _total(x: Pair) -> Pair:
    """The sum over components."""
    zero = x.tape.zero
    re, im = [part if part.node is zero.node else x.tape.total(part) for part in (x.re, x.im)]
    return Pair(x.tape, re, im)


def solve_triangular(factor: Traced, right: Traced, *, upper: bool) -> Traced:
    """Forward or backward substitution."""
    if any(factor.marks + right.marks):
        raise GenerationError("triangular systems of components are not unrolled")
    n = factor.shape[-1]
    batch = np.broadcast_shapes(factor.shape[:-2], right.shape[:-2])
    triangle = np.broadcast_to(factor.values, batch + factor.shape[-2:])
    target = np.broadcast_to(right.values, batch + right.shape[-2:])
    out = np.empty(target.shape, dtype=object)
    for i in reversed(range(n)) if upper else range(n):
        rest = target[..., i, :]
        for j in range(i + 1, n) if upper else range(i):
            rest = rest - triangle[..., i, j][..., None] * out[..., j, :]
        out[..., i, :] = rest / triangle[..., i, i][..., None]
    return Traced(out)


def joined(join: Any, parts: Sequence[Traced], axis: int) -> Traced:
    """Arrays side by side, by numpy's ``concatenate`` or ``stack``."""
    if any(any(p.marks) for p in parts):
        raise GenerationError("tensors with components are not joined")
    return Traced(join([p.values for p in parts], axis=axis))
