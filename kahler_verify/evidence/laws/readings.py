"""What laws read off a derivation and its kernels.

Fields with the traits assumed of them, the coordinate, the stages of derivatives that make an
output, which of its indices are antiholomorphic, and the kinds of the axes of every input.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from itertools import product

import torch
from sympy import Add, Basic, Expr, Pow, Symbol
from torch import Tensor

from kahler_verify.calculus.definition import OnDiagonal, Partial
from kahler_verify.calculus.derivation import Derivation, Kernel, Output
from kahler_verify.calculus.indexed import Contract, Entry
from kahler_verify.calculus.letters import Field, Jet
from kahler_verify.calculus.words import adjoint
from kahler_verify.evidence.numbers.readings import coordinate_of, fields_of


def assumed_fields(kernel: Kernel) -> list[Field]:
    """Fields of a kernel, with the traits that its assumptions add."""
    extra: dict[str, tuple[str, ...]] = {}
    for letter, trait in kernel.assumptions:
        extra[letter.field.name] = (*extra.get(letter.field.name, ()), trait)
    return [f.with_traits(*extra.get(f.name, ())) for f in fields_of(kernel)]


def is_divergence(derivation: Derivation) -> bool:
    """Whether the definition compares z with a base point z₀."""
    definition = derivation.definition
    if definition is None or derivation.coordinates:
        return False
    return any("frozen" in j.field.traits for j in definition.atoms(Jet))


def is_divergence_metric(der: Derivation, k: Kernel) -> bool:
    """Whether a kernel gives both halves, g and k, of a divergence's Hessian."""
    return is_divergence(der) and {"g", "k"} <= set(k.outputs)


def output_dimensions(derivation: Derivation, kernel: Kernel) -> set[Symbol]:
    """Symbolic dimensions of fields other than the latent one (the n of n outputs)."""
    if derivation.coordinates:
        return set()
    sizes = {s for f in fields_of(kernel) for size in f.shape for s in size.free_symbols}
    return sizes - {derivation.latent}


@dataclass(frozen=True)
class Stage:
    """Indices that derivatives took of the same function, before the next restriction to z₀ = z."""

    hol: tuple[Symbol, ...]
    anti: tuple[Symbol, ...]


def _stages(output: Output) -> tuple[Expr, list[Stage]] | None:
    """What an output differentiates, and in which stages; None for other kinds of outputs."""
    expr, stages = output.definition, []
    hol: tuple[Symbol, ...] = ()
    anti: tuple[Symbol, ...] = ()
    while isinstance(expr, Partial | OnDiagonal):
        if isinstance(expr, OnDiagonal):
            stages.append(Stage(hol, anti))
            hol, anti = (), ()
        else:
            hol, anti = (*hol, *expr.hol), (*anti, *expr.anti)
        expr = expr.args[0]
    stages.append(Stage(hol, anti))
    if expr.has(Entry, Contract):
        return None
    taken = {i for s in stages for i in (*s.hol, *s.anti)}
    return (expr, stages) if taken == set(output.indices) else None


def stages_of(kernel: Kernel) -> dict[str, tuple[Expr, list[Stage]]]:
    """By output, what it differentiates and in which stages; other kinds are left out."""
    found = {name: _stages(out) for name, out in kernel.outputs.items()}
    return {name: stages for name, stages in found.items() if stages is not None}


def is_real(derivation: Derivation, expr: Expr) -> bool:
    """Whether a definition is real by the calculus (potentials are by their meaning)."""
    if derivation.coordinates or (expr == derivation.definition and coordinate_of(derivation)):
        return True
    return bool(adjoint(expr) == expr)


def barred_indices(output: Output) -> dict[Symbol, bool] | None:
    """For each index of an output whether it is antiholomorphic; None where it is no such tensor.

    Those are where entries are taken, and where an index stands twice, as in a variance.
    """
    definition = output.definition
    if definition.has(Entry) or any(_degree(definition, i) > 1 for i in output.indices):
        return None
    bars: dict[Symbol, bool] = {}
    for node in output.definition.atoms(Partial):
        bars |= dict.fromkeys(node.hol, False) | dict.fromkeys(node.anti, True)
    return bars if set(bars) >= set(output.indices) else None


def _degree(expr: Basic, index: Symbol) -> int:
    """How often an index stands in the factors of a term, at most."""
    if isinstance(expr, Jet):
        return (*expr.hol, *expr.anti).count(index)
    if isinstance(expr, Partial):
        return (*expr.hol, *expr.anti).count(index) + _degree(expr.args[0], index)
    parts = [_degree(a, index) for a in expr.args]
    if isinstance(expr, Pow):
        return parts[0] * max(int(expr.exp), 1) if expr.exp.is_Integer else parts[0]
    return max(parts, default=0) if isinstance(expr, Add) else sum(parts)


def axes_of(kernel: Kernel, fields: list[Field]) -> dict[str, list[str]]:
    """The kind of every axis of every input: K, hol, anti, or a dimension with its side.

    A dimension's name alone marks rows, with ``*`` columns, with ``=`` both (diagonal layout).
    """
    axes: dict[str, list[str]] = {}
    for f in fields:
        lead = ["K"] if "component" in f.traits else []
        rows, cols = f.shape
        layout = kernel.layout.get(f.name, "full") if 1 not in f.shape else "full"
        own = {
            "full": [str(s) + mark for s, mark in ((rows, ""), (cols, "*")) if s != 1],
            "diagonal": [f"{rows}="],
            "scalar": [],
        }[layout]
        name = f.name + ("0" if "frozen" in f.traits else "")
        axes[f"{name}_factor"] = own
        for hol, anti in product(range(5), range(5)):
            marks = "d" * hol + "b" * anti
            axes[f"{name}_{marks}" if marks else name] = [
                *lead, *["hol"] * hol, *["anti"] * anti, *own
            ]  # fmt: skip
    axes["w"] = ["K"]
    return axes


def multiply_axes(x: Tensor, kinds: list[str], maps: Mapping[str, Tensor]) -> Tensor:
    """Multiply every axis whose kind has a matrix: x'[…, i, …] = Σ_j M[i, j] x[…, j, …]."""
    for axis, kind in enumerate(kinds):
        if kind in maps:
            x = torch.tensordot(maps[kind], x, dims=([1], [axis])).movedim(0, axis)
    return x
