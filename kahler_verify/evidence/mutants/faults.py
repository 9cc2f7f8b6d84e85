"""What a planted fault is: its class, where it was planted, and the kernel that came of it."""

from __future__ import annotations

import ast
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

from sympy import Expr

from kahler_verify.calculus.derivation import Derivation, Kernel
from kahler_verify.codegen import kernel as printing
from kahler_verify.errors import EvidenceError, KahlerVerifyError

SIGN = "sign"
CONJUGATE = "conjugate dropped or moved"
TRANSPOSED = "transposed index"
FACTOR = "factor 2"
LOST = "lost term"
AXIS = "swapped contraction axis"
UNCENTRED = "uncentred moment"
TRIANGLE = "wrong triangle"
REAL = "real part too early"
WEIGHT = "weight not normalised"
BATCH = "batch axis mixed up"
POWER = "half a whitening"
SWAPPED = "swapped arguments"  # these two in ``heads`` alone: kernels call no functions
FUNCTION = "wrong function"
FAULTS = (
    SIGN,
    CONJUGATE,
    TRANSPOSED,
    FACTOR,
    LOST,
    AXIS,
    SWAPPED,
    FUNCTION,
    UNCENTRED,
    TRIANGLE,
    REAL,
    WEIGHT,
    BATCH,
    POWER,
)
PLACES = ("derivation", "generator", "kernel", "evidence", "geometry")

# How a mutated source may fail when it is printed or run.
FAILURES = (
    KahlerVerifyError,
    ArithmeticError,
    AssertionError,
    AttributeError,
    IndexError,
    KeyError,
    NameError,
    RuntimeError,
    SyntaxError,
    TypeError,
    ValueError,
)
LONGEST_BODY = 40  # lines of a kernel that is printed anew; text is mutated at any length


@dataclass(frozen=True)
class Body:
    """A kernel's source, one assignment a line; the last line is ("return", …)."""

    name: str
    arguments: tuple[str, ...]
    lines: tuple[tuple[str, str], ...]

    @property
    def text(self) -> str:
        """A module that holds this kernel alone."""
        out = ["import torch", "", "", f"def {self.name}({', '.join(self.arguments)}):"]
        out += [f"    return {c}" if n == "return" else f"    {n} = {c}" for n, c in self.lines]
        return "\n".join(out) + "\n"

    def with_line(self, n: int, code: str) -> Body:
        """The same with other code in line n."""
        lines = list(self.lines)
        lines[n] = (lines[n][0], code)
        return replace(self, lines=tuple(lines))


@dataclass(frozen=True)
class Target:
    """A shipped kernel: its derivation, its source, and the shapes of its tensors at one point."""

    derivation: Derivation
    kernel: Kernel
    body: Body
    shapes: Mapping[str, tuple[int, ...]] = field(default_factory=dict)

    @property
    def name(self) -> str:
        """``derivation.kernel``."""
        return f"{self.derivation.name}.{self.kernel.name}"


@dataclass(frozen=True)
class Mutant:
    """One planted fault: where, in which kernel, and the source that came of it.

    ``definition`` is the mutated derivation where the definition itself was edited: then the kernel
    and its definition agree, and only what stands outside of both can tell.
    """

    id: str
    fault: str
    place: str
    kernel: str
    description: str
    text: str
    definition: Derivation | None = None


def body_of_kernel(text: str, name: str) -> Body:
    """The source of one kernel of a generated module."""
    for node in ast.parse(text).body:
        if isinstance(node, ast.FunctionDef) and node.name == name:
            lines = []
            for statement in node.body:
                if isinstance(statement, ast.Assign):
                    (to,) = statement.targets
                    lines.append((ast.unparse(to), ast.unparse(statement.value)))
                elif isinstance(statement, ast.Return) and statement.value is not None:
                    lines.append(("return", ast.unparse(statement.value)))
            return Body(name, tuple(a.arg for a in node.args.args), tuple(lines))
    raise EvidenceError(f"the generated text has no kernel {name!r}")


def printed_body(
    target: Target, derived: Mapping[str, Expr], heads: Mapping[Expr, str] | None = None
) -> Body:
    """A kernel printed from derived expressions by the generator as it stands now."""
    outputs = {n: (derived[n], o.indices) for n, o in target.kernel.outputs.items()}
    latent, layout = target.derivation.latent, target.kernel.layout
    printed = printing.print_kernel(outputs, latent, layout, dict(heads or {}))
    lines = [*printed.lines, ("return", ", ".join(printed.results))]
    plain = tuple((n, ast.unparse(ast.parse(c, mode="eval"))) for n, c in lines)
    return Body(target.kernel.name, printed.arguments, plain)


def difference(old: Body, new: Body) -> str:
    """The first line that differs."""
    for (name, before), (_, after) in zip(old.lines, new.lines, strict=False):
        if before != after:
            return f"{name} = {before} → {after}"
    return f"{len(old.lines)} lines → {len(new.lines)} lines"


def spread(candidates: Sequence[Any], most: int) -> list[Any]:
    """At most so many, evenly spaced."""
    if len(candidates) <= most:
        return list(candidates)
    return [candidates[(2 * i + 1) * len(candidates) // (2 * most)] for i in range(most)]
