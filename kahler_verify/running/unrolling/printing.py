"""What was traced as a straight-line torch function, without dead lines."""

from __future__ import annotations

import textwrap
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass

from kahler_verify.errors import GenerationError
from kahler_verify.running.unrolling.arrays import Traced
from kahler_verify.running.unrolling.tape import Node, Real
from kahler_verify.running.unrolling.tracer import Argument, Tracer

LINE = 92  # characters, behind the indentation
LONGEST = 60  # characters of an expression before it gets a line of its own


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
