"""Kernels in a notebook: derive, generate and execute at once, without writing a file."""

from __future__ import annotations

from pathlib import Path
from types import SimpleNamespace
from typing import Any

from sympy import Expr, latex

from kahler_verify.calculus.derivation import Derivation, potential
from kahler_verify.codegen.module import generate_module
from kahler_verify.codegen.progress import progress_line
from kahler_verify.codegen.registry import load_file
from kahler_verify.errors import DerivationError


class Compiled(SimpleNamespace):
    """The kernels of a derivation as callables, with their source and formulas.

    Attributes are the kernels by name (``metric``, ``metric_d``, …), each taking tensors as its
    docstring says; ``source`` is the generated text.  Shown as LaTeX in a notebook.
    """

    derivation: Derivation
    source: str

    def __init__(self, derivation: Derivation, text: str):
        scope: dict[str, Any] = {"__name__": f"<kernels of {derivation.name}>"}
        exec(text, scope)
        public = {name: scope[name] for name in scope["__all__"]}
        super().__init__(
            **public,
            VANISHING=scope.get("VANISHING", []),
            DIMENSION=scope.get("DIMENSION"),
            PARAMETERS=scope.get("PARAMETERS", {}),
            HEADS=scope.get("HEADS", []),
            __all__=scope["__all__"],
            __name__=scope["__name__"],
            derivation=derivation,
            source=text,
        )

    def __reduce__(self) -> tuple[type[Compiled], tuple[Derivation, str]]:
        return Compiled, (self.derivation, self.source)

    def __repr__(self) -> str:
        return f"Compiled({self.derivation.name}: {', '.join(self.__all__)})"

    def _repr_latex_(self) -> str:
        lines = []
        for kernel in self.derivation.kernels[:3]:
            for name, out in kernel.outputs.items():
                derived = out.definition if self.derivation.coordinates else out.derived()
                indices = "".join(map(str, out.indices))
                subscript = f"_{{{indices}}}" if indices else ""
                symbol = name.replace("_", r"\_")
                lines.append(rf"\mathrm{{{symbol}}}{subscript} &= {latex(derived)}")
        return r"$$\begin{aligned}" + r" \\ ".join(lines) + r"\end{aligned}$$"


def compile(definition: Derivation | Expr, name: str = "potential", **options: Any) -> Compiled:
    """Kernels of a potential (a SymPy expression of letters, or of explicit coordinates) at once.

    ``options`` are those of :func:`kahler_verify.calculus.potential`, such as ``coordinates``.
    """
    if not isinstance(definition, Derivation | Expr):
        raise DerivationError(
            "definition: expected a SymPy expression or a Derivation, "
            f"got {type(definition).__name__}"
        )
    if isinstance(definition, Derivation):
        return Compiled(definition, generate_module(definition).text)
    definition = potential(name, definition, **options)
    with progress_line() as step:
        return Compiled(definition, generate_module(definition, step).text)


def compile_file(path: str | Path, name: str | None = None) -> Compiled:
    """Kernels of one derivation of a file; ``name`` chooses when it declares several."""
    found = {d.name: d for d in load_file(path)}
    if name is None and len(found) > 1:
        raise DerivationError(f"{path}: expected name to be one of {', '.join(found)}")
    if name is not None and name not in found:
        raise DerivationError(
            f"{path}: expected name to be one of {', '.join(found)}, got {name!r}"
        )
    chosen = found[name] if name is not None else next(iter(found.values()))
    with progress_line() as step:
        return Compiled(chosen, generate_module(chosen, step).text)
