"""What the definitions of a kernel say of its letters, coordinates and orders."""

from __future__ import annotations

from functools import lru_cache

from sympy import Expr

from kahler_verify.calculus.definition import Partial
from kahler_verify.calculus.derivation import Derivation, Kernel
from kahler_verify.calculus.letters import Field, Jet, is_real_index

Order = tuple[int, int]


def fields_of(kernel: Kernel) -> list[Field]:
    """All fields in a kernel's definitions, with the traits that its assumptions add."""
    return sorted({j.field for j in kernel.letters if not j.field.abbreviated}, key=str)


@lru_cache(maxsize=1024)
def fields_within(expr: Expr) -> frozenset[Field]:
    """All fields of an expression, those too that its abbreviations stand for."""
    found = set()
    for jet in expr.atoms(Jet):
        found.add(jet.field)
        if jet.field.abbreviated:
            found |= fields_within(jet.field.abbreviated[0])
    return frozenset(found)


def is_real_latent(kernel: Kernel) -> bool:
    """Whether a kernel's definitions are about real coordinates."""
    return any(is_real_index(i) for i in kernel.indices)


def derivative_order(expr: Expr) -> Order:
    """The highest number of ∂ and of ∂̄ that a definition takes of anything inside."""
    if isinstance(expr, Jet) and expr.field.abbreviated:
        hol, anti = derivative_order(expr.field.abbreviated[0])
        return hol + len(expr.hol), anti + len(expr.anti)
    if isinstance(expr, Jet):
        return len(expr.hol), len(expr.anti)
    inner = [derivative_order(a) for a in expr.args if isinstance(a, Expr)]
    hol, anti = max((i[0] for i in inner), default=0), max((i[1] for i in inner), default=0)
    if isinstance(expr, Partial):
        return hol + len(expr.hol), anti + len(expr.anti)
    return hol, anti


def kernel_of(derivation: Derivation, name: str) -> Kernel:
    """The kernel of that name."""
    return next(k for k in derivation.kernels if k.name == name)


def coordinate_of(derivation: Derivation) -> Field | None:
    """The coordinate z of a potential in any dimension."""
    letters = derivation.definition.atoms(Jet) if derivation.definition is not None else ()
    return next((j.field for j in letters if "coordinate" in j.field.traits), None)
