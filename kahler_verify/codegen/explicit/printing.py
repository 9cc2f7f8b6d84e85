"""All components of a derivative as one kernel, and heads as one function."""

from __future__ import annotations

from collections.abc import Collection, Iterable, Mapping
from dataclasses import replace

from sympy import Integer

from kahler_verify.codegen.circuit import Node, Term
from kahler_verify.codegen.circuit import conjugate as conjugate_residue
from kahler_verify.codegen.circuit_printer import CircuitPrinter, live, operations_of
from kahler_verify.codegen.explicit.conjugation import Conjugate, bar
from kahler_verify.codegen.explicit.reading import Reading
from kahler_verify.codegen.heads import tensors_of
from kahler_verify.codegen.kernel import Printed, finish_program
from kahler_verify.codegen.program import Input, Program
from kahler_verify.codegen.transcendental import constant_code, head_code

LIKE = "z.select(-1, 0)"  # a tensor of the point's batch


def print_explicit(
    reading: Reading, entries: Mapping[tuple[int, ...], Term], dimension: int
) -> Printed:
    """Print all components of one derivative as one tensor over the trailing axes.

    Of two entries that are conjugates of each other, as those of g, one is computed.
    """
    own = {term.value: term for term in entries.values()}
    for value in list(own):
        mirrored = conjugate_residue(value)
        if value in own and mirrored != value:
            own.pop(mirrored, None)
    program, names = begin(reading, own.values())
    printer = CircuitPrinter(program, names, LIKE, [term.node for term in own.values()])
    codes = {value: _entry(reading, printer, term) for value, term in own.items()}
    for term in entries.values():
        if term.value not in codes:
            code = codes[conjugate_residue(term.value)]
            codes[term.value] = program.let(f"{program.let(code, 'e')}.conj()", "e")
    axes = len(next(iter(entries)))
    if axes == 0:
        (result,) = codes.values()
    else:
        result = f"torch.stack([{', '.join(codes[t.value] for t in entries.values())}], -1)"
        if axes > 1:
            result += f".unflatten(-1, ({', '.join([str(dimension)] * axes)}))"
    printed = finish_program(program, [program.let(result, "out")])
    return replace(printed, operations=Integer(operations_of(printed.lines)))


def _entry(reading: Reading, printer: CircuitPrinter, term: Term) -> str:
    """Code of an entry, which has the batch of z even where it does not move with it."""
    program = printer.program
    if reading.is_running(term):
        return program.let(printer.code(term), "e")
    zero = program.let(f"torch.zeros_like({LIKE})", "zero")
    return zero if term.is_zero else program.let(f"{zero} + {printer.code(term)}", "e")


def begin(reading: Reading, terms: Iterable[Term]) -> tuple[Program, dict[Node, str]]:
    """A program whose first lines split z into its coordinates, and the names of all inputs."""
    program, names = Program(), {}
    coordinates = reading.coordinates
    needed = [n for n in live(term.node for term in terms) if n in reading.inputs]
    for node in needed:
        expr = reading.inputs[node]
        if expr in reading.heads:
            names[node], meaning = reading.heads[expr], f"the value of {expr}"
        elif expr not in coordinates and not isinstance(expr, Conjugate):
            names[node], meaning = expr.name, "parameter"
        else:
            continue
        program.inputs[names[node]] = Input(names[node], (), meaning)
    described = "the point, coordinates " + ", ".join(map(str, coordinates))
    program.inputs["z"] = Input("z", (Integer(len(coordinates)),), described)
    for i, z in enumerate(coordinates):
        names[reading.node(z)] = program.let(f"z.select(-1, {i})", "z")
        names[reading.node(bar(z))] = program.let(f"{names[reading.node(z)]}.conj()", "zb")
    return program, names


def print_heads(reading: Reading, used: Collection[str]) -> tuple[Printed, dict[str, str]]:
    """The function that computes transcendental values, and which variable holds which.

    ``used`` are those that kernels take; they are computed from z, parameters, and each other.
    """
    terms = {expr: reading.term(expr).node for expr in reading.heads}
    order = sorted(terms, key=lambda e: terms[e].number)
    wanted = {e for e in order if reading.heads[e] in used}
    arguments = {e: [] if e.is_number else [reading.term(a) for a in tensors_of(e)] for e in order}
    for e in reversed(order):  # a head is made after those in its arguments
        if e in wanted:
            inside = live(a.node for a in arguments[e])
            wanted |= {reading.inputs[n] for n in inside if n in reading.inputs} & set(order)
    order = [e for e in order if e in wanted]
    program, names = begin(reading, [a for e in order for a in arguments[e]])
    given = {reading.heads[e] for e in order}
    program.inputs = {n: i for n, i in program.inputs.items() if n not in given}
    computed: dict[str, str] = {}
    for e in order:
        printer = CircuitPrinter(program, names, LIKE, [a.node for a in arguments[e]])
        if e.is_number:
            value = constant_code(e, program, LIKE)
        else:
            codes = [program.let(printer.code(a), "x") for a in arguments[e]]
            value = head_code(e, codes, program)
        names[terms[e]] = computed[reading.heads[e]] = program.let(value, f"{reading.heads[e]}_")
    return finish_program(program, list(computed.values())), computed
