"""What runs the text of kernels on symbolic arrays, and what these are arguments of."""

from __future__ import annotations

import ast
import builtins
import re
from collections.abc import Mapping
from dataclasses import dataclass
from types import SimpleNamespace
from typing import Any

import numpy as np

from kahler_verify.errors import GenerationError
from kahler_verify.running.unrolling.arrays import Pair, Traced, einsum, joined, solve_triangular
from kahler_verify.running.unrolling.tape import Tape

REAL_FUNCTIONS = ("exp", "log", "sqrt", "sin", "cos", "tan", "sinh", "cosh", "tanh")


class _Namespace(SimpleNamespace):
    """The functions that may be called, and an error for all others."""

    def __getattr__(self, name: str) -> Any:
        raise GenerationError(f"torch.{name} is not unrolled")


class Tracer:
    """Runs the text of kernels on symbolic tensors, and writes down what they compute."""

    def __init__(self) -> None:
        self.tape = Tape()
        self.arguments: dict[str, Argument] = {}

    def namespace(self) -> SimpleNamespace:
        """The stand-in for torch."""
        functions = {
            name: lambda x, name=name: x.map(lambda v: v.function(name)) for name in REAL_FUNCTIONS
        }
        return _Namespace(
            einsum=einsum,
            linalg=_Namespace(solve_triangular=solve_triangular),
            eye=self._eye,
            cat=lambda parts, axis: joined(np.concatenate, parts, axis),
            stack=lambda parts, axis: joined(np.stack, parts, axis),
            reciprocal=lambda x: 1 / x,
            zeros_like=lambda x: x - x,
            pow=lambda x, e: x._combined(e, "power"),
            **functions,
        )

    def _eye(self, n: int, **_: Any) -> Traced:
        zero, one = self.tape.zero, self.tape.one
        values = np.empty((n, n), dtype=object)
        for i, j in np.ndindex(n, n):
            values[i, j] = Pair(self.tape, one if i == j else zero, zero)
        return Traced(values)

    def run(self, text: str) -> dict[str, Any]:
        """Execute the unpatched source of a generated module; its functions take traced arrays."""
        namespace = self.namespace()

        def stand_in(name: str, *args: Any, **kwargs: Any) -> Any:
            return namespace if name == "torch" else builtins.__import__(name, *args, **kwargs)

        scope: dict[str, Any] = {"__builtins__": {**vars(builtins), "__import__": stand_in}}
        exec(compile(text, "<traced kernel>", "exec"), scope)
        return scope

    def argument(
        self,
        name: str,
        shape: tuple[int, ...],
        *,
        over: bool = False,
        hermitian: bool = False,
        triangular: bool = False,
        imaginary: bool = True,
        real: bool = False,
    ) -> Traced:
        """A symbolic argument.

        Args:
            name: of the argument.
            shape: behind the batch and the components.
            over: whether there is one for each component.
            hermitian: whether its last two axes make Hermitian matrices.
            triangular: whether they make lower triangular ones with a real diagonal.
            imaginary: whether it has an imaginary part.
            real: whether it is stored as real numbers.
        """
        values = np.empty(shape, dtype=object)
        rows: dict[str, int] = {}
        separator = "x" if max(shape, default=0) > 10 else ""  # not _, which ends the name
        for flat, place in enumerate(np.ndindex(*shape)):
            if hermitian and place[-1] < place[-2]:
                values[place] = values[(*place[:-2], place[-1], place[-2])].conjugate()
                continue
            code = name if real and not place else f"{name}_{separator.join(map(str, place))}"
            if triangular and place[-1] > place[-2]:
                values[place] = Pair(self.tape, self.tape.zero, self.tape.zero)
                continue
            diagonal = (hermitian or triangular) and place[-1] == place[-2]
            re = self.tape.input(code if real else f"{code}r", over=over)
            im = self.tape.zero
            rows[re.node.code] = flat if real else 2 * flat
            if imaginary and not real and not diagonal:
                im = self.tape.input(f"{code}i", over=over)
                rows[im.node.code] = 2 * flat + 1
            values[place] = Pair(self.tape, re, im)
        self.arguments[name] = Argument(name, shape, over, real, rows)
        return Traced(values[None] if over else values, (over,) * over + (False,) * len(shape))

    def diagonal(self, name: str, d: int) -> Traced:
        """Matrices, one for each component, of which the real diagonal is given."""
        entries = self.argument(name, (d,), over=True, real=True).values[0]
        values = self._eye(d).values
        values[range(d), range(d)] = entries
        return Traced(values[None], (True, False, False))

    def softmax(self, x: Traced) -> Traced:
        """exp(x) / Σ exp(x) over the only axis, that over components; x is real."""
        if x.marks != (True,):
            raise GenerationError("a softmax runs over components alone")
        tape, logit = self.tape, x.values[0].re
        weight = tape.function("exp", tape.add(logit, -tape.largest(logit)))
        normalised = tape.multiply(weight, tape.reciprocal(tape.total(weight)))
        return x.map(lambda v: Pair(tape, normalised, v.tape.zero))


@dataclass(frozen=True)
class Argument:
    """How an argument is taken: as rows of real numbers.

    Attributes:
        name: of the argument.
        shape: behind the batch and the components.
        over: whether there is one for each component.
        real: whether it is real; otherwise real and imaginary parts take turns.
        rows: by the name of a real number, its position among all entries (of both parts).
    """

    name: str
    shape: tuple[int, ...]
    over: bool
    real: bool
    rows: Mapping[str, int]


def argument_shapes(text: str) -> dict[str, dict[str, tuple[str, ...]]]:
    """By function and argument, the sizes behind the batch as docstrings of kernels give them."""
    found: dict[str, dict[str, tuple[str, ...]]] = {}
    for function in ast.parse(text).body:
        if isinstance(function, ast.FunctionDef):
            matches = map(_SHAPE.match, (ast.get_docstring(function) or "").splitlines())
            shapes = {m[1]: tuple(m[2].split(", ")[1:]) for m in matches if m is not None}
            names = [a.arg for a in function.args.args]
            if not set(names) <= set(shapes):
                raise GenerationError(f"{function.name}: the docstring gives no shapes")
            found[function.name] = {n: shapes[n] for n in names}
    return found


def cholesky_factors(text: str) -> set[str]:
    """The arguments that are Cholesky factors."""
    return set(re.findall(r"(\w+): \[[^\]]*\] .*lower triangular", text))


_SHAPE = re.compile(r"\s*(\w+): \[(\.\.\.(?:, \w+)*)\]")
