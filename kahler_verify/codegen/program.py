"""A straight-line program: named tensors, each computed once, with its operation count.

Every line is kept under its own text, so that a subexpression that occurs twice is computed once.
``einsum`` renames indices, orders operands and folds a conjugate of everything, so that sharing
works up to index renaming and conjugation.
"""

from __future__ import annotations

import re
from collections.abc import Iterable
from dataclasses import dataclass, field, replace
from functools import cache
from itertools import product
from math import prod

import opt_einsum
from sympy import Basic, Expr, Integer, Mul, S, Symbol

from kahler_verify.errors import GenerationError

LETTERS = "abcdefghijklmnopqrstuvwxyz"

# The regime that contraction orders are planned for: sizes of the dimensions by name.
NOMINAL_SIZE = {"d": 8, "n": 784, "K": 128, "batch": 64}
COMPONENTS = Symbol("K", integer=True, positive=True)  # how many a mixture has
WRITTEN = 10
COMPLEX_MULTIPLY_ADD = 8  # real operations
REAL_MULTIPLY_ADD = 2
EXHAUSTIVE = 7  # contraction orders of more operands than this are planned by dynamic programming


Tree = int | tuple["Tree", "Tree"]  # an operand by its number, or what two trees contract to


@dataclass(frozen=True)
class Axis:
    """One index of an operand: a unique name and the dimension that it runs over."""

    name: str
    size: Expr


@dataclass(frozen=True)
class Operand:
    """A named tensor with one axis for each index behind the batch, perhaps conjugated."""

    tensor: str
    axes: tuple[Axis, ...]
    conj: bool = False
    real: bool = False  # equals its own conjugate
    symmetric: bool = False  # in its last two axes

    @property
    def code(self) -> str:
        return f"{self.tensor}.conj()" if self.conj else self.tensor


@dataclass(frozen=True)
class Input:
    """A kernel's argument: its name, the sizes behind the batch, and what it means."""

    name: str
    sizes: tuple[Expr, ...]
    meaning: str


def nominal(size: Expr) -> int:
    """The size that a dimension is planned for."""
    return int(size) if size.is_Integer else NOMINAL_SIZE.get(str(size), 8)


@dataclass
class Program:
    """Lines of the kernel body, its inputs and its operation counts for one batch element."""

    inputs: dict[str, Input] = field(default_factory=dict)
    lines: list[tuple[str, str]] = field(default_factory=list)
    work: dict[str, Expr] = field(default_factory=dict)  # real operations of a line
    operations: Expr | None = None  # of the whole body, where lines are not counted one by one
    draft: bool = False  # a first pass, which only finds out what the inputs are
    owners: dict[str, Basic | None] = field(default_factory=dict)  # what an input holds
    constants: set[str] = field(default_factory=set)  # inputs that users give without a batch
    _known: dict[str, str] = field(default_factory=dict)

    def let(self, code: str, hint: str = "t", operations: Expr = S.Zero) -> str:
        """The name of the tensor that ``code`` computes; a new line only when it is new."""
        if code.isidentifier():
            return code
        if code not in self._known:
            used = {name for name, _ in self.lines} | set(self.inputs)
            number = 0
            while f"{hint}{number}" in used:
                number += 1
            self._known[code] = f"{hint}{number}"
            self.lines.append((f"{hint}{number}", code))
            self.work[f"{hint}{number}"] = operations
        return self._known[code]

    def size_code(self, size: Expr) -> str:
        """Code for a dimension, read off an input's shape."""
        for each in sorted(self.inputs.values(), key=lambda i: i.name):
            if size in each.sizes:
                position = each.sizes.index(size) - len(each.sizes)
                return f"{each.name}.shape[{position}]"
        if self.draft:
            return "1"
        raise GenerationError(f"no input of this kernel has an axis of dimension {size}")

    def eye(self, size: Expr) -> str:
        """The identity matrix of a dimension."""
        for each in sorted(self.inputs.values(), key=lambda i: i.name):
            if size in each.sizes:
                like = f"dtype={each.name}.dtype, device={each.name}.device"
                return self.let(f"torch.eye({self.size_code(size)}, {like})", "identity")
        if self.draft:
            return "identity"
        raise GenerationError(f"no input of this kernel has an axis of dimension {size}")

    def is_batched(self, name: str) -> bool:
        """Does a tensor have the batch dimensions of the point (for sure)?"""
        words = set(re.findall(r"\w+", dict(self.lines).get(name, "")))
        if name in self.inputs:
            return name not in self.constants
        return any(self.is_batched(w) for w in words & (set(self.inputs) | set(dict(self.lines))))

    def contract(self, operands: list[Operand], out: tuple[Axis, ...]) -> Operand:
        """The product of all operands summed over every axis not in ``out``, pair by pair.

        Operands that share summed axes are joined first, so that factors such as zᴴBᴴB∂_az, which
        occur in many terms, are computed once; only then are the results multiplied.
        """
        kept = set(out)
        joined = [self._contract(group, kept) for group in _groups(operands, kept)]
        only = self._contract(joined, kept)
        return only if set(only.axes) == kept else self._einsum([only], kept)

    def _contract(self, operands: list[Operand], out: set[Axis]) -> Operand:
        operands = sorted(operands, key=lambda o: (o.tensor, o.conj, [a.name for a in o.axes]))
        if any(a.size == COMPONENTS for o in operands for a in o.axes):
            return self._contract_components(operands, out)
        for step in _steps(operands, out):
            taken = [operands.pop(i) for i in sorted(step, reverse=True)][::-1]
            kept = {a for o in operands for a in o.axes} | out
            operands.append(self._einsum(taken, kept))
        (only,) = operands
        return only

    def _contract_components(self, operands: list[Operand], out: set[Axis]) -> Operand:
        """In the cheapest order of all, where an axis over components joins many operands.

        opt_einsum's search may miss it there: it remembers what a pair of operands contracts to,
        whatever else is left that needs their axes.
        """
        every = sorted({a for o in operands for a in o.axes}, key=lambda a: a.name)
        bit = {a: 1 << n for n, a in enumerate(every)}
        tree = _cheapest(
            tuple(sum(bit[a] for a in set(o.axes)) for o in operands),
            tuple(self.is_batched(o.tensor) for o in operands),
            sum(bit[a] for a in every if a in out),
            tuple(nominal(a.size) for a in every),
        )

        def walk(node: Tree) -> Operand:
            if isinstance(node, int):
                return operands[node]
            inside = _leaves(node)
            outside = {a for n, o in enumerate(operands) if n not in inside for a in o.axes}
            return self._einsum([walk(node[0]), walk(node[1])], outside | out)

        return walk(tree)

    def arranged(self, operand: Operand, out: tuple[Axis, ...]) -> str:
        """Code for the operand with its axes in the order of ``out``."""
        code = operand.code
        if operand.axes != out:
            names = {a: LETTERS[i] for i, a in enumerate(operand.axes)}
            source = "".join(names[a] for a in operand.axes)
            target = "".join(names[a] for a in out)
            code = self.let(f'torch.einsum("...{source}->...{target}", {code})', "p")
        return code

    def _einsum(self, operands: list[Operand], kept: set[Axis]) -> Operand:
        ways = product(*[(o, replace(o, axes=(*o.axes[:-2], o.axes[-1], o.axes[-2]))) if o.symmetric
                         else (o,) for o in operands])  # fmt: skip
        orders = [order for way in ways for order in (list(way), list(way)[::-1])]
        candidates = [_spell(order, kept, flip) for order in orders for flip in (False, True)]
        _, code, axes, flip = min(candidates, key=lambda c: c[:2])
        sizes = {a: a.size for o in operands for a in o.axes}
        work = multiply_add(operands) * Mul(*sizes.values()) if len(operands) > 1 else Integer(0)
        real = all(o.real for o in operands)
        return Operand(self.let(code, "t", work), axes, flip and not real, real)


def multiply_add(operands: Iterable[Operand]) -> int:
    """Real operations of one multiply-add of these tensors."""
    real = all(o.real for o in operands)  # torch's products take tensors of one dtype
    return REAL_MULTIPLY_ADD if real else COMPLEX_MULTIPLY_ADD


def _groups(operands: list[Operand], out: set[Axis]) -> list[list[Operand]]:
    """Operands that are connected by summed axes."""
    groups: list[tuple[set[Axis], list[Operand]]] = []
    for operand in operands:
        summed, members = set(operand.axes) - out, [operand]
        touching = [g for g in groups if g[0] & summed]
        for axes, others in touching:
            summed, members = summed | axes, others + members
        groups = [g for g in groups if not any(g is t for t in touching)] + [(summed, members)]
    return [members for _, members in groups]


def _steps(operands: list[Operand], out: set[Axis]) -> list[tuple[int, ...]]:
    """Which one or two operands to contract, step by step."""
    if len(operands) < 2:
        return []
    axes = sorted({a for o in operands for a in o.axes}, key=lambda a: a.name)
    letter = {a: opt_einsum.get_symbol(i) for i, a in enumerate(axes)}
    terms = ["".join(letter[a] for a in o.axes) for o in operands]
    target = "".join(letter[a] for a in axes if a in out)
    shapes = tuple(tuple(nominal(a.size) for a in o.axes) for o in operands)
    return _path(f"{','.join(terms)}->{target}", shapes)


@cache
def _path(equation: str, shapes: tuple[tuple[int, ...], ...]) -> list[tuple[int, ...]]:
    """The cheapest order; the same products come up in many kernels, and a search takes seconds."""
    optimize = "optimal" if len(shapes) <= EXHAUSTIVE else "dp"  # the former tries n! orders
    path, _ = opt_einsum.contract_path(equation, *shapes, shapes=True, optimize=optimize)
    if any(len(step) > 2 for step in path):
        raise GenerationError(f"expected a path of pairs, got {path}")
    return [tuple(step) for step in path]


def _leaves(tree: Tree) -> set[int]:
    return {tree} if isinstance(tree, int) else _leaves(tree[0]) | _leaves(tree[1])


@cache
def _cheapest(
    axes: tuple[int, ...], batched: tuple[bool, ...], out: int, sizes: tuple[int, ...]
) -> Tree:
    """The order of pairwise contractions with the least cost, by dynamic programming over subsets.

    Costs are in multiply-adds of a matrix product.  Many small products, one for each point or
    component, run at half of its rate, and a number that goes to memory costs as much as
    ``WRITTEN`` multiply-adds.  Sets of axes are written as the bits of a number.
    """
    many, count = NOMINAL_SIZE["batch"], len(axes)
    subsets = range(1 << count)
    inside, points = [0] * len(subsets), [1] * len(subsets)
    for subset in subsets[1:]:
        lowest = (subset & -subset).bit_length() - 1
        rest = subset & (subset - 1)
        inside[subset] = inside[rest] | axes[lowest]
        points[subset] = many if batched[lowest] else points[rest]
    kept = [inside[s] & (out | inside[subsets[-1] ^ s]) for s in subsets]

    @cache
    def size(some: int) -> int:
        return prod(n for bit, n in enumerate(sizes) if some >> bit & 1)

    costs: list[float] = [0.0] * len(subsets)
    trees: list[Tree] = [subset.bit_length() - 1 for subset in subsets]
    for subset in subsets[1:]:
        if subset & (subset - 1) == 0:
            continue
        least, part = float("inf"), (subset - 1) & subset
        while part > subset ^ part:
            other = subset ^ part
            before = costs[part] + costs[other]
            if before < least:
                several = kept[part] & kept[other] & kept[subset] or points[part] == points[other]
                rate = 2 if several and points[subset] > 1 else 1
                cost = before + rate * points[subset] * size(kept[part] | kept[other])
                found = (trees[other], trees[part])
                if cost < least or (cost == least and str(found) < str(trees[subset])):
                    least, trees[subset] = cost, found
            part = (part - 1) & subset
        costs[subset] = least + WRITTEN * many * size(kept[subset])  # room counts, shared or not
    return trees[-1]


def _spell(
    operands: list[Operand], kept: set[Axis], flip: bool
) -> tuple[int, str, tuple[Axis, ...], bool]:
    """One way to write an einsum: (conjugates, code, axes of the result, is it conjugated)."""
    letter: dict[Axis, str] = {}
    for axis in (a for o in operands for a in o.axes):
        letter.setdefault(axis, LETTERS[len(letter)])
    axes = tuple(a for a in letter if a in kept)
    sources = ",".join("..." + "".join(letter[a] for a in o.axes) for o in operands)
    target = "..." + "".join(letter[a] for a in axes)
    written = [Operand(o.tensor, o.axes, o.conj != flip and not o.real) for o in operands]
    code = f'torch.einsum("{sources}->{target}", {", ".join(o.code for o in written)})'
    return sum(o.conj for o in written), code, axes, flip


def dimension_symbols(sizes: tuple[Expr, ...]) -> set[Symbol]:
    """The symbols among sizes."""
    return {s for size in sizes for s in size.free_symbols}
