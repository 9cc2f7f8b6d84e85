"""Products of tensors with named axes, and what the identities among them join."""

from __future__ import annotations

from dataclasses import dataclass, replace

from sympy import Expr, Integer

from kahler_verify.codegen.program import Axis, Operand, Program


@dataclass(frozen=True)
class Monomial:
    """coefficient × operands, summed over the axes that are not in the output."""

    coefficient: Expr
    operands: tuple[Operand, ...]


def contract_deltas(
    operands: list[Operand], free: set[Axis], program: Program
) -> tuple[list[Operand], Expr]:
    """Rename axes that an identity joins; an identity between two free axes stays."""
    coefficient: Expr = Integer(1)
    deltas = [o.axes for o in operands if o.tensor == "delta"]
    rest = [o for o in operands if o.tensor != "delta"]
    while deltas:
        i, j = deltas.pop()
        if i == j:
            if not any(i in axes for axes in [o.axes for o in rest] + deltas):
                coefficient *= i.size  # the trace of an identity
            continue
        if i in free and j in free:
            rest.append(Operand(program.eye(i.size), (i, j)))
            continue
        old, new = (j, i) if i in free else (i, j)
        if new not in free and not any(
            {i, j} & set(axes) for axes in [o.axes for o in rest] + deltas
        ):
            coefficient *= new.size  # Σ_ij δ_ij
        rest = [replace(o, axes=tuple(new if a == old else a for a in o.axes)) for o in rest]
        deltas = [tuple(new if a == old else a for a in axes) for axes in deltas]
    return rest, coefficient
