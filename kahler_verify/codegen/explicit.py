"""Potentials in explicit coordinates of a fixed dimension: every component unrolled and shared.

z̄ is a symbol of its own (polarisation), so that SymPy's ``diff`` is a Wirtinger derivative.
"""

from __future__ import annotations

from collections.abc import Mapping
from itertools import product

from sympy import (
    Abs,
    Add,
    Basic,
    Derivative,
    Expr,
    Function,
    I,
    Integer,
    NumberSymbol,
    Pow,
    Symbol,
    conjugate,
    cse,
    im,
    log,
    re,
    sqrt,
    sympify,
)

from kahler_verify.codegen.kernel import Printed, finish_program
from kahler_verify.codegen.lowering import HEADS, Lowering, check_name, normal_head
from kahler_verify.codegen.program import Input, Program
from kahler_verify.errors import GenerationError


def bar(z: Symbol) -> Symbol:
    """The symbol that stands for z̄."""
    return Symbol(f"{z.name}_bar", complex=True)


def polarised(expr: Expr, coordinates: tuple[Symbol, ...]) -> Expr:
    """The expression in z and z̄ as independent symbols, without conjugate, re, im or Abs."""
    expr = sympify(expr)
    if isinstance(expr, conjugate):
        return conjugated(polarised(expr.args[0], coordinates), coordinates)
    if isinstance(expr, re | im | Abs):
        inner = polarised(expr.args[0], coordinates)
        other = conjugated(inner, coordinates)
        if isinstance(expr, re):
            return (inner + other) / 2
        return (inner - other) / (2 * I) if isinstance(expr, im) else sqrt(inner * other)
    if isinstance(expr, Pow) and isinstance(expr.base, Abs):  # |f|² is a polynomial, |f| is not
        inner = polarised(expr.base.args[0], coordinates)
        return (inner * conjugated(inner, coordinates)) ** (expr.exp / 2)
    if expr.is_Float:
        raise GenerationError(f"expected exact numbers, got {expr}: write it as a Rational")
    if expr.is_Atom:
        return expr
    return expr.func(*[polarised(a, coordinates) for a in expr.args])


def conjugated(expr: Expr, coordinates: tuple[Symbol, ...]) -> Expr:
    """The conjugate of a polarised expression; other symbols must be declared real."""
    if isinstance(expr, Symbol):
        for z in coordinates:
            if expr == z:
                return bar(z)
            if expr == bar(z):
                return z
        if expr.is_real:
            return expr
        raise GenerationError(f"declare the parameter {expr} real=True, or write its conjugate out")
    if expr.is_number:
        return conjugate(expr)
    if isinstance(expr, log) or (expr.is_Pow and not expr.exp.is_Integer):
        raise GenerationError(
            f"conjugate, re, im and Abs of {expr} would be wrong across its cut, on the negative "
            "reals; write the real expression out"
        )
    if expr.is_Add or expr.is_Mul or expr.is_Pow:
        return expr.func(*[conjugated(a, coordinates) for a in expr.args])
    if isinstance(expr, Function) and type(expr).__name__ in HEADS:
        return expr.func(*[conjugated(a, coordinates) for a in expr.args])
    raise GenerationError(f"no conjugate is known for {type(expr).__name__}: {expr}")


def components(
    phi: Expr, coordinates: tuple[Symbol, ...], hol: int, anti: int, order: tuple[int, ...]
) -> dict[tuple[int, ...], Expr]:
    """All ∂^hol ∂̄^anti Φ; ``order`` says which derivative each output axis belongs to."""
    out = {}
    for entry in product(range(len(coordinates)), repeat=hol + anti):
        by = [entry[order.index(n)] for n in range(hol + anti)]
        symbols = [coordinates[i] for i in by[:hol]]
        symbols += [bar(coordinates[i]) for i in by[hol:]]
        value = phi.diff(*symbols) if symbols else phi
        if value.has(Derivative, conjugate, re, im, Abs):
            raise GenerationError(f"SymPy left a derivative unevaluated in {value}")
        out[entry] = value
    return out


class _Coordinates(Lowering):
    """Lowering in which symbols are coordinates and parameters instead of dimensions."""

    def __init__(self, program: Program, names: Mapping[Symbol, str], heads: dict[Expr, str]):
        super().__init__(program, Integer(len(names)), heads=heads)
        self.names = names

    def symbol(self, symbol: Symbol) -> str:
        return self.names[symbol]


def with_heads(expr: Expr, heads: dict[Expr, str]) -> Expr:
    """Replace transcendental parts by symbols for their values; ``heads`` collects them."""
    if isinstance(expr, Function | NumberSymbol) or (expr.is_Pow and not expr.exp.is_Integer):
        if normal_head(expr) != expr:
            return with_heads(normal_head(expr), heads)
        probe = Lowering(Program(), Integer(1), heads=heads)
        return Symbol(probe.head(expr), complex=True)
    if expr.is_Atom or not isinstance(expr, Basic):
        return expr
    return expr.func(*[with_heads(a, heads) for a in expr.args])


def print_explicit(
    entries: Mapping[tuple[int, ...], Expr],
    coordinates: tuple[Symbol, ...],
    heads: dict[Expr, str],
) -> Printed:
    """Print all components of one derivative as one tensor over the trailing axes."""
    d = len(coordinates)
    values = [with_heads(v, heads) for v in entries.values()]
    shared, reduced = cse(values, order="canonical")
    program, names = begin(coordinates, values, heads)
    lowering = _Coordinates(program, names, heads)
    for symbol, value in shared:
        names[symbol] = program.let(lowering.scalar(value), "c")
    codes = []
    running = {*coordinates, *[bar(z) for z in coordinates]}
    for entry, value in zip(entries.values(), reduced, strict=True):
        if entry.free_symbols & running:
            codes.append(lowering.scalar(value))
            continue
        code = program.let("torch.zeros_like(z.select(-1, 0))", "o")  # it has the batch of z
        if value != 0:
            above, below = value.as_numer_denom() if value.is_number else (value, Integer(1))
            code = program.let(f"{code} + {lowering.scalar(above)}")
            code = lowering.times(1 / below, code)
        codes.append(code)
    axes = len(next(iter(entries)))
    if axes == 0:
        result = codes[0]
    else:
        result = f"torch.stack([{', '.join(codes)}], -1)"
        if axes > 1:
            result += f".unflatten(-1, ({', '.join([str(d)] * axes)}))"
    result = program.let(result, "out")
    program.operations = Integer(8) * Add(
        *[v.count_ops(visual=False) for _, v in shared],
        *[v.count_ops(visual=False) for v in reduced],
    )
    return finish_program(program, [result])


def begin(
    coordinates: tuple[Symbol, ...], values: list[Expr], heads: dict[Expr, str]
) -> tuple[Program, dict[Symbol, str]]:
    """A program whose first lines split z into its coordinates, and the names of all symbols."""
    program = Program()
    d = Integer(len(coordinates))
    names: dict[Symbol, str] = {}
    used: set[Symbol] = set().union(*[v.free_symbols for v in values])
    for symbol in sorted(used - {*coordinates, *map(bar, coordinates)}, key=str):
        names[symbol] = symbol.name
        check_name(symbol.name)
        if symbol.name == "z" or symbol.name in program.inputs:
            raise GenerationError(f"two inputs would be named {symbol.name}: rename the parameter")
        meaning = next(
            (f"the value of {e}" for e, n in heads.items() if n == symbol.name), "parameter"
        )
        program.inputs[symbol.name] = Input(symbol.name, (), meaning)
    program.inputs["z"] = Input(
        "z", (d,), "the point, coordinates " + ", ".join(map(str, coordinates))
    )
    for i, z in enumerate(coordinates):
        names[z] = program.let(f"z.select(-1, {i})", "z")
        names[bar(z)] = program.let(f"{names[z]}.conj()", "zb")
    return program, names
