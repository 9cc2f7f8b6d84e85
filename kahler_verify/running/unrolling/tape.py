"""Real numbers that are computed once, with their values at a random point of a prime field."""

from __future__ import annotations

import hashlib
import math
from dataclasses import dataclass

from kahler_verify.errors import GenerationError

PRIME = 2**61 - 1
COMPONENTS = 7  # of a mixture at the random point: more than any moment's rank at small d
LARGE = 2**16  # integers from here on are printed as floats, or torch refuses products of them
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
