"""Faults in kernels' own text: rules that run over all shipped kernels, the same in every run."""

from __future__ import annotations

import ast
import re
from collections.abc import Callable, Iterator, Mapping, Sequence
from itertools import combinations

from kahler_verify.evidence.mutants.faults import (
    AXIS,
    BATCH,
    CONJUGATE,
    FACTOR,
    FAULTS,
    LOST,
    POWER,
    REAL,
    SIGN,
    TRANSPOSED,
    TRIANGLE,
    UNCENTRED,
    WEIGHT,
    Body,
    Mutant,
    Target,
    spread,
)

MOST_SITES = 2  # of one fault in one kernel's text


Edit = tuple[int, str]  # line number, new code
Operator = Callable[[Body, Mapping[str, tuple[int, ...]]], Iterator[Edit]]
EINSUM = re.compile(r"torch\.einsum\('([^']*)', (.*)\)$")
OPERATORS: list[tuple[str, Operator]] = []


def operator(fault: str) -> Callable[[Operator], Operator]:
    """Register an operator of a fault class."""

    def register(function: Operator) -> Operator:
        OPERATORS.append((fault, function))
        return function

    return register


def terms_of(code: str) -> list[tuple[str, str]]:
    """A sum as (sign, term); a product is one term."""

    def split(node: ast.expr) -> list[tuple[str, str]]:
        if isinstance(node, ast.BinOp) and isinstance(node.op, ast.Add | ast.Sub):
            sign = "+" if isinstance(node.op, ast.Add) else "-"
            return [*split(node.left), (sign, ast.unparse(node.right))]
        if isinstance(node, ast.UnaryOp) and isinstance(node.op, ast.USub):
            return [("-", ast.unparse(node.operand))]
        return [("+", ast.unparse(node))]

    return split(ast.parse(code, mode="eval").body)


def sum_of(terms: Sequence[tuple[str, str]]) -> str:
    """Code of a sum."""
    out = " ".join(f"{sign} {term}" for sign, term in terms)
    return out.removeprefix("+ ") if out.startswith("+ ") else f"-{out.removeprefix('- ')}"


def _sums(body: Body) -> Iterator[tuple[int, list[tuple[str, str]]]]:
    for n, (_, code) in enumerate(body.lines):
        terms = terms_of(code)
        if len(terms) > 1 or terms[0][0] == "-":
            yield n, terms


def _einsums(body: Body) -> Iterator[tuple[int, list[str], str, list[str]]]:
    """Line, subscripts of the operands (without dots), target, operands."""
    for n, (_, code) in enumerate(body.lines):
        found = EINSUM.match(code)
        if found:
            sources, target = found[1].replace("...", "").split("->")
            yield n, sources.split(","), target, found[2].split(", ")


def einsum_code(
    sources: Sequence[str], target: str, operands: Sequence[str], dots: str = "..."
) -> str:
    """Code of an einsum; ``dots`` stands before the target."""
    left = ",".join("..." + s for s in sources)
    return f"torch.einsum('{left}->{dots}{target}', {', '.join(operands)})"


def _sizes(
    sources: Sequence[str], operands: Sequence[str], shapes: Mapping[str, tuple[int, ...]]
) -> dict[str, int]:
    """How long each subscript is, where the operand's shape is known."""
    sizes: dict[str, int] = {}
    for source, code in zip(sources, operands, strict=True):
        shape = shapes.get(code.removesuffix(".conj()"), ())
        sizes |= dict(zip(source, shape, strict=False))
    return sizes


def _swapped(text: str, i: str, j: str) -> str:
    return text.translate(str.maketrans(i + j, j + i))


@operator(SIGN)
def _flip_sign(body: Body, _shapes: Mapping[str, tuple[int, ...]]) -> Iterator[Edit]:
    for n, terms in _sums(body):
        for i, (sign, term) in enumerate(terms):
            if i or sign == "-":
                other = "-" if sign == "+" else "+"
                yield n, sum_of([*terms[:i], (other, term), *terms[i + 1 :]])


@operator(CONJUGATE)
def _drop_conjugate(body: Body, _shapes: Mapping[str, tuple[int, ...]]) -> Iterator[Edit]:
    for n, (_, code) in enumerate(body.lines):
        for found in re.finditer(r"\.conj\(\)|\.mH", code):
            plain = "" if found[0] == ".conj()" else ".mT"
            yield n, code[: found.start()] + plain + code[found.end() :]


@operator(CONJUGATE)
def _move_conjugate(body: Body, _shapes: Mapping[str, tuple[int, ...]]) -> Iterator[Edit]:
    for n, sources, target, operands in _einsums(body):
        flipped = [
            x if x == "w" else x.removesuffix(".conj()") if x.endswith(".conj()") else f"{x}.conj()"
            for x in operands
        ]
        if any(x.endswith(".conj()") for x in operands) and "w" not in operands:
            yield n, einsum_code(sources, target, flipped)
        for i, x in enumerate(operands):
            if not x.endswith(".conj()") and x != "w":
                yield (
                    n,
                    einsum_code(sources, target, [*operands[:i], flipped[i], *operands[i + 1 :]]),
                )


@operator(TRANSPOSED)
def _transpose(body: Body, shapes: Mapping[str, tuple[int, ...]]) -> Iterator[Edit]:
    for n, sources, target, operands in _einsums(body):
        sizes = _sizes(sources, operands, shapes)
        for i, j in combinations(target, 2):
            if sizes.get(i) == sizes.get(j):
                yield n, einsum_code(sources, _swapped(target, i, j), operands)
    n, (_, result) = len(body.lines) - 1, body.lines[-1]
    for found in re.finditer(r"\w+", result):
        shape = shapes.get(found[0], ())
        if len(shape) > 1 and shape[-1] == shape[-2]:
            yield n, f"{result[: found.end()]}.mT{result[found.end() :]}"


@operator(FACTOR)
def _double(body: Body, _shapes: Mapping[str, tuple[int, ...]]) -> Iterator[Edit]:
    for n, terms in _sums(body):
        for i, (sign, term) in enumerate(terms):
            known = re.match(r"(\d+) \* (.*)", term)
            new = known[2] if known else f"2 * {term}"
            yield n, sum_of([*terms[:i], (sign, new), *terms[i + 1 :]])


@operator(FACTOR)
def _double_whole(body: Body, _shapes: Mapping[str, tuple[int, ...]]) -> Iterator[Edit]:
    for n, (name, code) in enumerate(body.lines[:-1]):
        if name[0] in "tpsx" and len(terms_of(code)) == 1:
            yield n, f"2 * ({code})" if " @ " in code else f"2 * {code}"


@operator(LOST)
def _lose_term(body: Body, _shapes: Mapping[str, tuple[int, ...]]) -> Iterator[Edit]:
    for n, terms in _sums(body):
        if len(terms) > 1:
            for i, (sign, term) in enumerate(terms):
                rest = sum_of([*terms[:i], *terms[i + 1 :]])
                if not re.search("[a-z]", rest):  # keep a tensor
                    rest = sum_of([*terms[:i], (sign, f"0 * {term}"), *terms[i + 1 :]])
                yield n, rest


@operator(AXIS)
def _swap_axis(body: Body, shapes: Mapping[str, tuple[int, ...]]) -> Iterator[Edit]:
    for n, sources, target, operands in _einsums(body):
        sizes = _sizes(sources, operands, shapes)
        for k, source in enumerate(sources):
            for i, j in combinations(sorted(set(source)), 2):
                contracted = i not in target or j not in target
                if contracted and i in sizes and sizes[i] == sizes.get(j):
                    other = [*sources[:k], _swapped(source, i, j), *sources[k + 1 :]]
                    yield n, einsum_code(other, target, operands)


CENTRED = re.compile(r"(\w+) - (\w+)\.unsqueeze\(-\d\)$")


@operator(UNCENTRED)
def _leave_mean(body: Body, _shapes: Mapping[str, tuple[int, ...]]) -> Iterator[Edit]:
    for n, (_, code) in enumerate(body.lines):
        found = CENTRED.match(code)
        if found:
            yield n, found[1]


@operator(UNCENTRED)
def _leave_mean_once(body: Body, _shapes: Mapping[str, tuple[int, ...]]) -> Iterator[Edit]:
    raw = {name: m[1] for name, code in body.lines if (m := CENTRED.match(code))}
    for n, (_, code) in enumerate(body.lines):
        for found in re.finditer(r"\bu\d+\b", code):
            if found[0] in raw:
                yield n, code[: found.start()] + raw[found[0]] + code[found.end() :]


@operator(TRIANGLE)
def _other_triangle(body: Body, _shapes: Mapping[str, tuple[int, ...]]) -> Iterator[Edit]:
    for n, (_, code) in enumerate(body.lines):
        if "upper=" in code:
            yield n, re.sub("upper=(False|True)", lambda m: f"upper={m[1] == 'False'}", code)


@operator(TRIANGLE)
def _other_half(body: Body, _shapes: Mapping[str, tuple[int, ...]]) -> Iterator[Edit]:
    for n, (_, code) in enumerate(body.lines):
        found = re.search(r"solve_triangular\((\w+)(\.mH)?, (.*), upper=(False|True)\)", code)
        if found:
            first = found[1] if found[2] else f"{found[1]}.mH"
            call = f"solve_triangular({first}, {found[3]}, upper={not found[2]})"
            yield n, code[: found.start()] + call + code[found.end() :]


@operator(REAL)
def _real_part(body: Body, shapes: Mapping[str, tuple[int, ...]]) -> Iterator[Edit]:
    for n, _, _, operands in _einsums(body):
        for x in operands:
            if x != "w":
                code = body.lines[n][1]
                yield n, code.replace(x, f"({x} + {x}.conj()) / 2", 1)
    for n, (_, code) in enumerate(body.lines):
        if re.fullmatch(r"\w+", code) and code in shapes:
            yield n, f"({code} + {code}.conj()) / 2"


@operator(WEIGHT)
def _weights(body: Body, _shapes: Mapping[str, tuple[int, ...]]) -> Iterator[Edit]:
    for n, sources, target, operands in _einsums(body):
        if "w" not in operands:
            continue
        i = operands.index("w")
        relative = "w / w.select(-1, 0).unsqueeze(-1)"
        yield n, einsum_code(sources, target, [*operands[:i], relative, *operands[i + 1 :]])
        rest = [*sources[:i], *sources[i + 1 :]]
        yield n, einsum_code(rest, target, [*operands[:i], *operands[i + 1 :]])
        yield n, einsum_code(sources, target, [*operands[:i], "w * w", *operands[i + 1 :]])


@operator(WEIGHT)
def _lose_denominator(body: Body, _shapes: Mapping[str, tuple[int, ...]]) -> Iterator[Edit]:
    for n, (name, code) in enumerate(body.lines):
        found = re.match(r"(.*) / \(?([a-z]\w*)( \* \w+)*\)?$", code)
        if found and name[0] in "st" and "einsum" not in code:
            yield n, f"{found[1]} * {found[2]} / {found[2]}" if found[1] == "1" else found[1]
        found = re.match(r"torch\.reciprocal\((\w+)\)$", code)
        if found:
            yield n, found[1]


@operator(BATCH)
def _lead_axis(body: Body, _shapes: Mapping[str, tuple[int, ...]]) -> Iterator[Edit]:
    for n, (_, code) in enumerate(body.lines):
        for found in re.finditer(r"\.unsqueeze\(-\d\)", code):
            yield n, code[: found.start()] + ".unsqueeze(0)" + code[found.end() :]


@operator(BATCH)
def _sum_over_batch(body: Body, _shapes: Mapping[str, tuple[int, ...]]) -> Iterator[Edit]:
    for n, sources, target, operands in _einsums(body):
        yield n, einsum_code(sources, target, operands, dots="")


@operator(POWER)
def _whiten_once(body: Body, _shapes: Mapping[str, tuple[int, ...]]) -> Iterator[Edit]:
    for n, (name, code) in enumerate(body.lines):
        if name[0] == "r" and re.fullmatch(r"(\w+) \* \1", code):
            yield n, code.split(" * ")[0]
        elif name[0] == "y" and "upper=True" in code:
            inner = re.search(r"solve_triangular\([\w.]+, (\w+), upper=True\)", code)
            if inner:
                yield n, inner[1] + code[inner.end() :]


def kernel_mutants(target: Target, most: int = MOST_SITES) -> Iterator[Mutant]:
    """Textual faults of one shipped kernel."""
    for fault in FAULTS:
        number = 0
        for function in [f for name, f in OPERATORS if name == fault]:
            for n, code in spread(list(function(target.body, target.shapes)), most):
                number += 1
                body = target.body.with_line(n, code)
                where = f"{target.body.lines[n][0]} = {target.body.lines[n][1]}"
                yield Mutant(
                    f"kernel/{target.name}/{fault}/{number}",
                    fault,
                    "kernel",
                    target.name,
                    f"{where} → {code}",
                    body.text,
                )
