"""One kernel: a straight-line torch function for the outputs that a derivation asked for."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass, field

from sympy import Add, Basic, Expr, Mul, Rational, S, Symbol, factor_terms

from kahler_verify.codegen.contraction import Monomial
from kahler_verify.codegen.lowering import Lowering
from kahler_verify.codegen.numbers import signed_sum
from kahler_verify.codegen.program import Axis, Operand, Program, multiply_add
from kahler_verify.errors import GenerationError

Meaning = tuple[str, str, str]  # of an input: its name, its shape, what it is


@dataclass(frozen=True)
class Printed:
    """A printed function: its arguments, body lines, results and operation count."""

    arguments: tuple[str, ...]
    meanings: tuple[Meaning, ...]
    lines: tuple[tuple[str, str], ...]
    results: tuple[str, ...]
    operations: Expr
    owners: Mapping[str, Basic | None] = field(
        default_factory=dict
    )  # what each argument holds, where that has a name


def print_kernel(
    outputs: Mapping[str, tuple[Expr, tuple[Symbol, ...]]],
    latent: Expr,
    layouts: Mapping[str, str] | None = None,
    heads: dict[Expr, str] | None = None,
) -> Printed:
    """Print derived expressions; each output is given with the order of its latent indices.

    ``heads`` collects the transcendental heads met, so that kernels of one module share names.
    """
    heads = heads if heads is not None else {}
    draft = Program(draft=True)  # dimensions are read off inputs, so inputs must be known first
    for expr, indices in outputs.values():
        print_output(Lowering(draft, latent, layouts, heads), expr, indices)
    program = Program(inputs=draft.inputs)
    lowering = Lowering(program, latent, layouts, heads)
    results = []
    for name, (expr, indices) in outputs.items():
        results.append(program.let(print_output(lowering, expr, indices), f"{name}_"))
    return finish_program(program, results)


def finish_program(program: Program, results: list[str]) -> Printed:
    """Drop dead lines and unused inputs."""
    live = _live(program, results)
    used = set().union(*[_words(code) for _, code in live], results)
    operations = program.operations
    if operations is None:
        operations = Add(*[program.work.get(name, S.Zero) for name, _ in live])
    inputs = [program.inputs[n] for n in sorted(program.inputs) if n in used]
    return Printed(
        arguments=tuple(i.name for i in inputs),
        meanings=tuple((i.name, shape_text(i.sizes), i.meaning) for i in inputs),
        lines=tuple(live),
        results=tuple(results),
        operations=factor_terms(operations),
        owners={i.name: program.owners[i.name] for i in inputs if i.name in program.owners},
    )


def print_output(lowering: Lowering, expr: Expr, indices: tuple[Symbol, ...]) -> str:
    """Code of one output: its terms contracted, permuted and summed."""
    if not indices:
        return lowering.scalar(expr)
    out = tuple(lowering.axis(i) for i in indices)
    program = lowering.program
    monomials = lowering.monomials(expr, indices)
    if not monomials:
        raise GenerationError("an output that is identically zero has no kernel")
    products, rest = _split_matrix_products(program, monomials, out)
    terms = [(number, _matrix_product(lowering, x, y, out)) for number, x, y in products]
    for monomial in rest:
        code = program.arranged(program.contract(list(monomial.operands), out), out)
        number, symbols = monomial.coefficient.as_coeff_Mul()
        terms.append((number, Symbol(lowering.times(symbols, code))))
    return signed_sum(terms, str)


def _split_matrix_products(
    program: Program, monomials: list[Monomial], out: tuple[Axis, ...]
) -> tuple[list[tuple[Rational, Operand, Operand]], list[Monomial]]:
    """Terms c X[a, …] Y[b, …] with everything else summed, as (c, X, Y), and the others."""
    products, rest = [], []
    if len(out) == 2:
        for m in monomials:
            pair = _as_pair(m, out)
            if pair is None or not all(program.is_batched(x.tensor) for x in pair):
                rest.append(m)  # only batches of one shape can be concatenated
            else:
                products.append((m.coefficient, *pair))
    if len(products) < 2 and not any(_is_of_one(x, y) for _, x, y in products):
        return [], monomials
    return products, rest


def _as_pair(monomial: Monomial, out: tuple[Axis, ...]) -> tuple[Operand, Operand] | None:
    if not monomial.coefficient.is_Rational or len(monomial.operands) != 2:
        return None
    a, b = out
    x, y = monomial.operands
    if a not in x.axes:
        x, y = y, x
    summed = [axis for axis in x.axes if axis != a]
    if x.axes[:1] != (a,) or y.axes[:1] != (b,) or set(y.axes) - {b} != set(summed):
        return None
    return (x, y) if summed else None


def _is_of_one(x: Operand, y: Operand) -> bool:
    return x.tensor == y.tensor and x.axes[1:] == y.axes[1:]


def _matrix_product(lowering: Lowering, x: Operand, y: Operand, out: tuple[Axis, ...]) -> Symbol:
    """x yᵀ, where x and y may be conjugates.

    Written as a product of plain tensors in one order, of which the rest is a transpose or a
    conjugate: Gram matrices stay Gram matrices, nothing wide is conjugated, and terms are shared.
    """
    program = lowering.program
    summed = x.axes[1:]
    left, right = (_rows(program, operand, summed) for operand in (x, y))
    swapped = left > right
    if swapped:
        x, y, left, right = y, x, right, left
    work = multiply_add((x, y)) * Mul(*[axis.size for axis in x.axes]) * out[1].size
    product = program.let(f"{left} @ {right}.{'mT' if x.conj == y.conj else 'mH'}", "t", work)
    back = {(False, False): "", (True, False): ".mT", (False, True): ".conj()", (True, True): ".mH"}
    return Symbol(product + back[swapped, x.conj])


def _rows(program: Program, operand: Operand, summed: tuple[Axis, ...]) -> str:
    """A tensor, without its conjugate, as rows for the first axis."""
    plain = Operand(operand.tensor, operand.axes)
    code = program.arranged(plain, (operand.axes[0], *summed))
    return f"{code}.flatten(-{len(summed)})" if len(summed) > 1 else code


def _live(program: Program, results: list[str]) -> list[tuple[str, str]]:
    """The lines that results depend on, in order."""
    needed = set().union(*[_words(r) for r in results])
    out = []
    for name, code in reversed(program.lines):
        if name in needed:
            needed |= _words(code)
            out.append((name, code))
    return out[::-1]


def _words(code: str) -> set[str]:
    return set(re.findall(r"\w+", code))


def shape_text(sizes: tuple[Expr, ...]) -> str:
    """A shape as in docstrings: ``[..., d, n]``."""
    return "[" + ", ".join(["...", *[str(s) for s in sizes]]) + "]"
