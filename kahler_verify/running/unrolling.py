"""Kernels unrolled for a small dimension: real arithmetic, one line for each shared value.

A dimension-free kernel is traced: its unpatched source runs over arrays of symbolic complex
numbers, each a pair of real ones, and what the numbers do is written down as a straight-line torch
function of real tensors, which torch can fuse into one loop (it compiles no complex arithmetic).
Latent indices are unrolled.  The points, and the components of a mixture, stay axes of tensors.

Every symbolic number carries its value at a random point of the prime field F_p, p = 2^61 - 1.
Numbers that agree there, up to sign, are computed once; those that vanish there are zero.  So
Hermitian and symmetric results need no rules: their repeated entries are recognised.  That two
different rational functions agree at a random point has a probability of about degree / p
(Schwartz 1980, Zippel 1979), and the evidence compares every variant with its source elsewhere.

Neither SymPy nor torch is imported here.
"""

from __future__ import annotations

import ast
import builtins
import hashlib
import math
import re
import textwrap
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from types import SimpleNamespace
from typing import Any

import numpy as np

from kahler_verify.errors import GenerationError

PRIME = 2**61 - 1
COMPONENTS = 7  # of a mixture at the random point: more than any moment's rank at small d
LARGE = 2**16  # integers from here on are printed as floats, or torch refuses products of them
LINE = 92  # characters, behind the indentation
LONGEST = 60  # characters of an expression before it gets a line of its own
REAL_FUNCTIONS = ("exp", "log", "sqrt", "sin", "cos", "tan", "sinh", "cosh", "tanh")

Values = tuple[int, ...]  # at the random point, for each of its components


@dataclass(frozen=True, eq=False)
class Node:
    """A real number that is computed once.

    Attributes:
        operation: "input", "number", "+", "*", "/", "sum" or "amax" over components, or the name
            of a function of torch.
        operands: what it is computed from.
        values: its values at the random point.
        over: whether it differs from component to component.
        code: the text of an input or a number.
    """

    operation: str
    operands: tuple[Real, ...]
    values: Values
    over: bool = False
    code: str = ""


@dataclass(frozen=True, eq=False)
class Real:
    """A node, or its negative."""

    node: Node
    sign: int = 1

    @property
    def values(self) -> Values:
        """Values at the random point."""
        return tuple(self.sign * v % PRIME for v in self.node.values)

    def __neg__(self) -> Real:
        return Real(self.node, -self.sign)


class Tape:
    """All nodes by their values, so that none is computed twice."""

    def __init__(self) -> None:
        self._known: dict[Values, Node] = {}
        self.zero, self.one = self.number(0), self.number(1)

    def _real(self, node: Node) -> Real:
        """The node, or what was known before and has its values up to sign."""
        for sign in (1, -1):
            known = self._known.get(tuple(sign * v % PRIME for v in node.values))
            if known is not None:
                return Real(known, sign)
        self._known[node.values] = node
        return Real(node)

    def input(self, code: str, *, over: bool = False) -> Real:
        """A real argument."""
        points = range(COMPONENTS) if over else [0] * COMPONENTS
        values = tuple(_random(f"input {code} {k}") for k in points)
        return self._real(Node("input", (), values, over, code))

    def number(self, value: int | float) -> Real:
        """A constant; floats are exact binary fractions."""
        top, below = abs(value).as_integer_ratio()
        residue = top * pow(below, -1, PRIME) % PRIME
        size = abs(value) if abs(value) < LARGE else float(abs(value))
        node = Node("number", (), (residue,) * COMPONENTS, code=repr(size))
        found = self._real(node)
        return -found if value < 0 else found

    def add(self, a: Real, b: Real) -> Real:
        """a + b."""
        if a.node is self.zero.node:
            return b
        if b.node is self.zero.node:
            return a
        sign = -1 if a.sign == b.sign == -1 else 1
        if sign < 0:
            a, b = -a, -b
        if a.sign < 0:
            a, b = b, a
        values = tuple((x + y) % PRIME for x, y in zip(a.values, b.values, strict=True))
        out = self._real(Node("+", (a, b), values, a.node.over or b.node.over))
        return Real(out.node, sign * out.sign)

    def multiply(self, a: Real, b: Real) -> Real:
        """A product; signs are kept outside."""
        sign, x, y = a.sign * b.sign, Real(a.node), Real(b.node)
        if self.zero.node in (x.node, y.node):
            return self.zero
        if x.node is self.one.node:
            return Real(y.node, sign)
        if y.node is self.one.node:
            return Real(x.node, sign)
        values = tuple(v * w % PRIME for v, w in zip(x.values, y.values, strict=True))
        out = self._real(Node("*", (x, y), values, x.node.over or y.node.over))
        return Real(out.node, sign * out.sign)

    def reciprocal(self, a: Real) -> Real:
        """1 / a."""
        if a.node is self.one.node:
            return a
        if a.node is self.zero.node:
            raise GenerationError("a kernel divides by an expression that is zero")
        values = tuple(pow(v, -1, PRIME) for v in a.node.values)
        out = self._real(Node("/", (self.one, Real(a.node)), values, a.node.over))
        return Real(out.node, a.sign * out.sign)

    def function(self, name: str, *arguments: Real) -> Real:
        """A function of torch; of numbers, its value."""
        numbers = [known for a in arguments if (known := _constant(a)) is not None]
        if len(numbers) == len(arguments):
            return self.number(getattr(math, name)(*numbers))
        keys = zip(*[a.values for a in arguments], strict=True)
        values = tuple(_random(f"{name} {key}") for key in keys)
        return self._real(Node(name, arguments, values, any(a.node.over for a in arguments)))

    def largest(self, a: Real) -> Real:
        """The maximum over components."""
        return self._real(Node("amax", (a,), (_random(f"amax {a.values}"),) * COMPONENTS))

    def total(self, a: Real) -> Real:
        """The sum over components; what is the same for all of them is taken out."""
        if not a.node.over:
            raise GenerationError("a sum over components of what none of them has")
        common, rest = self._split(a)
        values = (sum(rest.node.values) % PRIME,) * COMPONENTS
        out = self._real(Node("sum", (Real(rest.node),), values))
        return self.multiply(common, Real(out.node, rest.sign * out.sign))

    def _split(self, a: Real) -> tuple[Real, Real]:
        """``a`` as (a factor that all components share) × (the rest)."""
        if not a.node.over:
            return a, self.one
        if a.node.operation in "+*":
            (c, x), (e, y) = [self._split(part) for part in a.node.operands]
            if a.node.operation == "*" and (c.node, e.node) != (self.one.node,) * 2:
                common, rest = self.multiply(c, e), self.multiply(x, y)
                return common, rest if a.sign > 0 else -rest
            if a.node.operation == "+" and c.node is e.node and c.node is not self.one.node:
                rest = self.add(x, y if c.sign == e.sign else -y)
                return c, rest if a.sign > 0 else -rest
        return self.one, a


def _constant(a: Real) -> float | None:
    """The value of a number, or of sums, products and quotients of numbers."""
    if a.node.operation == "number":
        return a.sign * float(a.node.code)
    if a.node.operation not in ("+", "*", "/"):
        return None
    x, y = (_constant(operand) for operand in a.node.operands)
    if x is None or y is None:
        return None
    return a.sign * {"+": x + y, "*": x * y, "/": x / (y or math.nan)}[a.node.operation]


def _random(key: str) -> int:
    """A residue that depends on the key alone, and is not zero."""
    return 1 + int.from_bytes(hashlib.sha256(key.encode()).digest()[:16]) % (PRIME - 1)


# ---------------------------------------------------------------------- complex numbers


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


# ---------------------------------------------------------------------- arrays of them


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


class _Namespace(SimpleNamespace):
    """The functions that may be called, and an error for all others."""

    def __getattr__(self, name: str) -> Any:
        raise GenerationError(f"torch.{name} is not unrolled")


class Tracer:
    """Runs the text of kernels on symbolic tensors, and writes down what they compute."""

    def __init__(self) -> None:
        self.tape = Tape()
        self.arguments: dict[str, Argument] = {}

    def namespace(self) -> SimpleNamespace:
        """The stand-in for torch."""
        functions = {
            name: lambda x, name=name: x.map(lambda v: v.function(name)) for name in REAL_FUNCTIONS
        }
        return _Namespace(
            einsum=einsum,
            linalg=_Namespace(solve_triangular=solve_triangular),
            eye=self._eye,
            cat=lambda parts, axis: _joined(np.concatenate, parts, axis),
            stack=lambda parts, axis: _joined(np.stack, parts, axis),
            reciprocal=lambda x: 1 / x,
            zeros_like=lambda x: x - x,
            pow=lambda x, e: x._combined(e, "power"),
            **functions,
        )

    def _eye(self, n: int, **_: Any) -> Traced:
        zero, one = self.tape.zero, self.tape.one
        values = np.empty((n, n), dtype=object)
        for i, j in np.ndindex(n, n):
            values[i, j] = Pair(self.tape, one if i == j else zero, zero)
        return Traced(values)

    def run(self, text: str) -> dict[str, Any]:
        """Execute the unpatched source of a generated module; its functions take traced arrays."""
        namespace = self.namespace()

        def stand_in(name: str, *args: Any, **kwargs: Any) -> Any:
            return namespace if name == "torch" else builtins.__import__(name, *args, **kwargs)

        scope: dict[str, Any] = {"__builtins__": {**vars(builtins), "__import__": stand_in}}
        exec(compile(text, "<traced kernel>", "exec"), scope)
        return scope

    def argument(
        self,
        name: str,
        shape: tuple[int, ...],
        *,
        over: bool = False,
        hermitian: bool = False,
        triangular: bool = False,
        imaginary: bool = True,
        real: bool = False,
    ) -> Traced:
        """A symbolic argument.

        Args:
            name: of the argument.
            shape: behind the batch and the components.
            over: whether there is one for each component.
            hermitian: whether its last two axes make Hermitian matrices.
            triangular: whether they make lower triangular ones with a real diagonal.
            imaginary: whether it has an imaginary part.
            real: whether it is stored as real numbers.
        """
        values = np.empty(shape, dtype=object)
        rows: dict[str, int] = {}
        separator = "x" if max(shape, default=0) > 10 else ""  # not _, which ends the name
        for flat, place in enumerate(np.ndindex(*shape)):
            if hermitian and place[-1] < place[-2]:
                values[place] = values[(*place[:-2], place[-1], place[-2])].conjugate()
                continue
            code = name if real and not place else f"{name}_{separator.join(map(str, place))}"
            if triangular and place[-1] > place[-2]:
                values[place] = Pair(self.tape, self.tape.zero, self.tape.zero)
                continue
            diagonal = (hermitian or triangular) and place[-1] == place[-2]
            re = self.tape.input(code if real else f"{code}r", over=over)
            im = self.tape.zero
            rows[re.node.code] = flat if real else 2 * flat
            if imaginary and not real and not diagonal:
                im = self.tape.input(f"{code}i", over=over)
                rows[im.node.code] = 2 * flat + 1
            values[place] = Pair(self.tape, re, im)
        self.arguments[name] = Argument(name, shape, over, real, rows)
        return Traced(values[None] if over else values, (over,) * over + (False,) * len(shape))

    def diagonal(self, name: str, d: int) -> Traced:
        """Matrices, one for each component, of which the real diagonal is given."""
        entries = self.argument(name, (d,), over=True, real=True).values[0]
        values = self._eye(d).values
        values[range(d), range(d)] = entries
        return Traced(values[None], (True, False, False))

    def softmax(self, x: Traced) -> Traced:
        """exp(x) / Σ exp(x) over the only axis, that over components; x is real."""
        if x.marks != (True,):
            raise GenerationError("a softmax runs over components alone")
        tape, logit = self.tape, x.values[0].re
        weight = tape.function("exp", tape.add(logit, -tape.largest(logit)))
        normalised = tape.multiply(weight, tape.reciprocal(tape.total(weight)))
        return x.map(lambda v: Pair(tape, normalised, v.tape.zero))


def _joined(join: Any, parts: Sequence[Traced], axis: int) -> Traced:
    if any(any(p.marks) for p in parts):
        raise GenerationError("tensors with components are not joined")
    return Traced(join([p.values for p in parts], axis=axis))


# ---------------------------------------------------------------------- the function


@dataclass(frozen=True)
class Argument:
    """How an argument is taken: as rows of real numbers.

    Attributes:
        name: of the argument.
        shape: behind the batch and the components.
        over: whether there is one for each component.
        real: whether it is real; otherwise real and imaginary parts take turns.
        rows: by the name of a real number, its position among all entries (of both parts).
    """

    name: str
    shape: tuple[int, ...]
    over: bool
    real: bool
    rows: Mapping[str, int]


@dataclass(frozen=True)
class Unrolled:
    """A straight-line torch function of real tensors.

    Attributes:
        name: of the function in ``text``.
        text: its source.
        arguments: in order; rows that it does not need are left out.
        shapes: of the complex results behind the batch; the function returns all their entries.
        over: whether it takes an ``axis`` over components.
        operations: how many real operations its text has.
    """

    name: str
    text: str
    arguments: tuple[Argument, ...]
    shapes: tuple[tuple[int, ...], ...]
    over: bool
    operations: int


def unroll(text: str, kernel: str, sizes: Mapping[str, int], point: str | None = None) -> Unrolled:
    """Unroll a kernel of a generated module, in complex coordinates.

    Args:
        text: the module's source.
        kernel: the kernel's name; heads that it takes are computed first.
        sizes: what each dimension in the shapes of its arguments is, except K: that stays an axis.
        point: an argument that has the batch's shape for sure; by default all of them have.

    Raises:
        GenerationError: the text has no such kernel, or it calls something that has no rule, or
            does not depend on the point.
    """
    tracer = Tracer()
    scope, shapes = tracer.run(text), argument_shapes(text)
    if kernel not in shapes:
        raise GenerationError(f"expected one of the kernels {', '.join(shapes)}, got {kernel!r}")
    known: dict[str, Traced] = {}

    def given(function: str) -> list[Traced]:
        for name, shape in shapes[function].items():
            if name in known:
                continue
            if name in scope.get("HEADS", ()):
                known.update(scope["heads"](*given("heads")))
                continue
            missing = [s for s in shape if not s.isdecimal() and s not in sizes and s != "K"]
            if missing:
                raise GenerationError(f"{name}: expected the size of {missing[0]} to be given")
            inner = tuple(int(s) if s.isdecimal() else sizes[s] for s in shape if s != "K")
            _, traits = scope.get("PARAMETERS", {}).get(name, ((), ()))
            known[name] = tracer.argument(
                name,
                inner,
                over="K" in shape,
                hermitian="hermitian" in traits and len(inner) == 2,
                triangular=name in _factors(text) and len(inner) == 2,
                imaginary="real" not in traits,
            )
        return [known[name] for name in shapes[function]]

    result = scope[kernel](*given(kernel))
    results = result if isinstance(result, tuple) else (result,)
    used = {s for shape in shapes[kernel].values() for s in shape}
    at = ", ".join(f"{name} = {size}" for name, size in sizes.items() if name in used)
    return written(tracer, kernel, results, f"unrolled at {at}", point)


def unroll_mixture(
    component: str, mixture: str, kernel: str, d: int, sign: int, *, diagonal: bool = False
) -> Unrolled:
    """A kernel of a mixture of quadratic forms as one function of the point and the parameters.

    What else the kernel takes, such as a Cholesky factor of the metric, are arguments as well.

    The logits log π_k ± q_k, their softmax w, the derivatives of q_k and the mixture's kernel are
    traced together.  A quadratic form depends on z - c alone, so that it is traced at that point
    with the centre 0, where most of its terms vanish.  Derivatives of the metric see differences of
    the ∂∂̄q_k alone: their variants take P_k up to a common term as ``deviation``, which leaves less
    to cancel.

    Args:
        component: source of the module quadratic_form.
        mixture: source of the module of the mixture.
        kernel: which of its kernels.
        d: dimension of the latent space.
        sign: of q_k in the logits: 1 for a potential, -1 for a density.
        diagonal: whether precisions are given by their real diagonals.

    Raises:
        GenerationError: a kernel calls something that has no rule.
    """
    tracer = Tracer()
    own, outer = tracer.run(component), tracer.run(mixture)

    def matrices(name: str) -> Traced:
        if diagonal:
            return tracer.diagonal(name, d)
        return tracer.argument(name, (d, d), over=True, hermitian=True)

    z = tracer.argument("z", (d,))
    centre = tracer.argument("centre", (d,), over=True)
    known = {
        "z": z - centre,
        "centre": centre - centre,
        "precision": matrices("precision"),
    }
    log_weights = tracer.argument("log_weights", (), over=True, real=True)

    def of_component(name: str) -> Traced:
        return own[name](*[known[a] for a in argument_shapes(component)[name]])

    value = of_component("value")
    jets = {"q_d": of_component("gradient")}
    if kernel != "metric":
        known["precision"] = matrices("deviation")
    jets["q_db"] = of_component("metric")
    jets["w"] = tracer.softmax(log_weights + sign * value)
    for name, shape in argument_shapes(mixture)[kernel].items():
        if name not in jets:
            triangular = name in _factors(mixture)
            jets[name] = tracer.argument(name, (d,) * len(shape), triangular=triangular)
    result = outer[kernel](*[jets[a] for a in argument_shapes(mixture)[kernel]])
    title = f"a mixture of quadratic forms, unrolled at d = {d}"
    return written(tracer, kernel, [result], title, "z")


def argument_shapes(text: str) -> dict[str, dict[str, tuple[str, ...]]]:
    """By function and argument, the sizes behind the batch as docstrings of kernels give them."""
    found: dict[str, dict[str, tuple[str, ...]]] = {}
    for function in ast.parse(text).body:
        if isinstance(function, ast.FunctionDef):
            matches = map(_SHAPE.match, (ast.get_docstring(function) or "").splitlines())
            shapes = {m[1]: tuple(m[2].split(", ")[1:]) for m in matches if m is not None}
            names = [a.arg for a in function.args.args]
            if not set(names) <= set(shapes):
                raise GenerationError(f"{function.name}: the docstring gives no shapes")
            found[function.name] = {n: shapes[n] for n in names}
    return found


def _factors(text: str) -> set[str]:
    """The arguments that are Cholesky factors."""
    return set(re.findall(r"(\w+): \[[^\]]*\] .*lower triangular", text))


_SHAPE = re.compile(r"\s*(\w+): \[(\.\.\.(?:, \w+)*)\]")


# ---------------------------------------------------------------------- printing


def written(
    tracer: Tracer, name: str, results: Sequence[Traced], title: str, point: str | None
) -> Unrolled:
    """The function of the traced arguments that computes the results, without dead lines.

    Raises:
        GenerationError: results run over components, or do not depend on the point.
    """
    parts = [part for r in results for x in r.values.ravel() for part in (x.re, x.im)]
    if any(any(r.marks) for r in results) or any(part.node.over for part in parts):
        raise GenerationError(f"{name}: the result has an axis over components")
    order = _in_order(parts)
    live = {n.code for n in order if n.operation == "input"}
    arguments = tuple(
        Argument(a.name, a.shape, a.over, a.real, {c: r for c, r in a.rows.items() if c in live})
        for a in tracer.arguments.values()
        if live & set(a.rows)
    )
    points = {c for a in arguments if point in (a.name, None) for c in a.rows}
    moving = _depending(order, points)
    base = next((part.node for part in parts if part.node in moving), None)
    if base is None:
        raise GenerationError(f"{name}: the result does not depend on {point or 'its arguments'}")
    over = any(a.over for a in arguments)
    lines, texts = _lines(order, parts)
    codes, constant = [], False
    for part in parts:
        code = texts[part.node] if part.sign > 0 else f"-{texts[part.node]}"
        if part.node not in moving:
            zero = part.node is tracer.tape.zero.node
            code, constant = "zero" if zero else f"zero + {code}".replace("+ -", "- "), True
        codes.append(code)
    if constant:
        lines.append(f"zero = torch.zeros_like({texts[base]})")
    # no row is named so, whatever the arguments are called
    given = {a.name: f"{a.name}_rows" for a in arguments}
    head = [line for a in arguments for line in _bracketed("(", a.rows, f",) = {given[a.name]}")]
    end = _bracketed("return torch.stack([", codes, "], -1)")
    signature = ", ".join([*given.values(), *["axis"] * over])
    work = [n for n in order if n.operation not in ("input", "number")]
    body = [*_docstring(title, work, over), *head, *lines, *end]
    indented = [f"    {line}" if line else "" for line in body]
    text = "\n".join(["import torch", "", "", f"def {name}({signature}):", *indented, ""])
    shapes = tuple(r.shape for r in results)
    return Unrolled(name, text, arguments, shapes, over, len(work))


def _docstring(title: str, work: Sequence[Node], over: bool) -> list[str]:
    each = sum(n.over for n in work)
    count = f"{each} for each component, {len(work) - each} more" if over else f"{len(work)}"
    rows = "Arguments are rows of real numbers, named below"
    return [
        f'"""Return real and imaginary parts in turn: {title}.',
        "",
        f"{rows}; names with k are of each component." if over else f"{rows}.",
        f"Real operations for each point: {count}",
        '"""',
    ]


def _bracketed(start: str, items: Iterable[str], end: str) -> list[str]:
    """``start item, item end`` in one line, or in several."""
    inner = ", ".join(items)
    if len(start + inner + end) <= LINE:
        return [f"{start}{inner}{end}"]
    indent = " " * 4
    rows = textwrap.wrap(inner, LINE, initial_indent=indent, subsequent_indent=indent)
    return [start, *rows, end]


def _in_order(parts: Iterable[Real]) -> list[Node]:
    """All nodes that results depend on, operands first."""
    order: list[Node] = []
    seen: set[Node] = set()
    stack = [(part.node, False) for part in reversed(list(parts))]
    while stack:
        node, ready = stack.pop()
        if ready:
            order.append(node)
        elif node not in seen:
            seen.add(node)
            stack.append((node, True))
            stack += [(x.node, False) for x in reversed(node.operands) if x.node not in seen]
    return order


def _depending(order: Sequence[Node], codes: set[str]) -> set[Node]:
    """The nodes that depend on any of these inputs."""
    out: set[Node] = set()
    for node in order:
        if node.code in codes or any(x.node in out for x in node.operands):
            out.add(node)
    return out


def _lines(order: Sequence[Node], parts: Sequence[Real]) -> tuple[list[str], dict[Node, str]]:
    """Assignments, and by node the name or the atom that stands for it.

    What is used once is written where it is used, unless that line gets long.
    """
    uses: dict[Node, int] = {}
    for x in [*parts, *[x for node in order for x in node.operands]]:
        uses[x.node] = uses.get(x.node, 0) + 1
    results = {part.node for part in parts}
    texts: dict[Node, str] = {}
    inline: set[Node] = set()
    lines: list[str] = []
    for node in order:
        if node.operation in ("input", "number"):
            texts[node] = node.code
            continue
        code = _expression(node, texts, inline)
        if (
            node.operation in "+*"
            and uses[node] == 1
            and node not in results
            and len(code) < LONGEST
        ):
            texts[node] = code
            inline.add(node)
            continue
        texts[node] = f"{'k' if node.over else 't'}{len(lines)}"
        lines.append(f"{texts[node]} = {code}")
    return lines, texts


def _expression(node: Node, texts: Mapping[Node, str], inline: set[Node]) -> str:
    """The right-hand side; what is written in place gets brackets where they change the order."""

    def code(x: Real, *bracketed: str) -> str:
        loose = x.node in inline and x.node.operation in bracketed
        return f"({texts[x.node]})" if loose else texts[x.node]

    if node.operation == "+":
        first, second = node.operands
        return f"{code(first)} {'+' if second.sign > 0 else '-'} {code(second, '+')}"
    if node.operation == "*":
        first, second = node.operands
        return f"{code(first, '+')} * {code(second, '+', '*')}"
    if node.operation == "/":
        return f"1 / {code(node.operands[1], '+', '*')}"
    codes = [code(x) if x.sign > 0 else f"-({code(x)})" for x in node.operands]
    if node.operation in ("sum", "amax"):
        return f"torch.{node.operation}({codes[0]}, axis, True)"
    return f"torch.{node.operation}({', '.join(codes)})"
