"""Code of transcendental values, of which every number is exact in whatever arithmetic runs it.

A rounded literal, 2 / 3 in Python or 3.14159, would be rounded in exact and in 50-digit arithmetic
too.  Roots of an odd power of a number are square roots, other exponents are tensors.
"""

from __future__ import annotations

from collections.abc import Sequence

from sympy import E, Expr, GoldenRatio, NumberSymbol, Pow, S, pi, sqrt

from kahler_verify.codegen.heads import head_call
from kahler_verify.codegen.program import Program
from kahler_verify.errors import GenerationError


def head_code(head: Expr, arguments: Sequence[str], program: Program) -> str:
    """Code of a function or a power of arguments that are tensors by name."""
    if not isinstance(head, Pow):
        return head_call(head, list(arguments))
    if head.exp.is_Rational and head.exp.q == 2:
        root = program.let(f"torch.sqrt({arguments[0]})", "root")
        whole, below = abs(int(head.exp.p)) // 2, head.exp < 0
        power = " * ".join([root, *[arguments[0]] * whole])
        return f"torch.reciprocal({power})" if below else power
    return f"torch.pow({', '.join(arguments)})"


def constant_code(number: Expr, program: Program, like: str) -> str:
    """Code of a number as a tensor of the batch of ``like``.

    Raises:
        GenerationError: it is no composition of the functions that kernels call.
    """
    code = lambda e: program.let(constant_code(e, program, like), "k")  # noqa: E731
    one = program.let(f"torch.zeros_like({like}) + 1", "one")
    if number.is_Rational:
        above = f"{number.p} * {one}" if number.p != 1 else one
        return above if number.q == 1 else f"{above} / {number.q}"
    if number is S.ImaginaryUnit:
        return f"1j * {one}"
    if number is pi:  # log i = iπ/2
        logarithm = program.let(f"torch.log({program.let(f'1j * {one}', 'k')})", "k")
        return f"-2j * {logarithm}"
    if number is E:
        return f"torch.exp({one})"
    if number is GoldenRatio:
        return f"({one} + {code(sqrt(5))}) / 2"
    if isinstance(number, NumberSymbol):
        raise GenerationError(
            f"the constant {number} is no composition of functions that are listed"
        )
    arguments = [code(a) for a in number.args]
    if number.is_Add or number.is_Mul:
        return (" + " if number.is_Add else " * ").join(arguments)
    if isinstance(number, Pow) and number.exp.is_Integer:
        power = " * ".join([arguments[0]] * abs(int(number.exp)))
        return power if number.exp > 0 else f"torch.reciprocal({power})"
    return head_code(number, arguments, program)
