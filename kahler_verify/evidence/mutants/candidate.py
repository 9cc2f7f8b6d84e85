"""A kernel's source on trial, in torch or in another arithmetic, and how results are compared."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import numpy as np
import torch
from torch import Tensor

from kahler_verify.evidence.mutants.faults import FAILURES
from kahler_verify.evidence.numbers.arithmetic import Arithmetic, run_text
from kahler_verify.evidence.numbers.arrays import array

Sizes = Mapping[str, int]
Tensors = Mapping[str, Any]
Test = Callable[["Candidate"], bool]  # whether the candidate passes
FLOAT64, FLOAT32 = 1e-9, 1e-3  # relative to the largest entry, at well-conditioned points


@dataclass(frozen=True)
class Candidate:
    """A kernel's source on trial."""

    name: str
    text: str

    @cached_property
    def function(self) -> Callable[..., Any]:
        """The kernel as torch runs it."""
        scope: dict[str, Any] = {}
        exec(compile(self.text, f"<mutant of {self.name}>", "exec"), scope)
        function: Callable[..., Any] = scope[self.name]
        return function

    def outputs(self, tensors: Tensors, arithmetic: Arithmetic | None = None) -> list[Any]:
        """Its results on named tensors, in torch or in another arithmetic."""
        function = self.function
        if arithmetic is not None:
            function = run_text(self.text, arithmetic)[self.name]
        code = function.__code__
        out = function(*[tensors[a] for a in code.co_varnames[: code.co_argcount]])
        return list(out) if isinstance(out, tuple) else [out]


def equal(found: Sequence[Any], truth: Sequence[Any]) -> bool:
    """Equality of object arrays, entry by entry."""
    pairs = [(np.asarray(f), np.asarray(t)) for f, t in zip(found, truth, strict=True)]
    return all(f.shape == t.shape for f, t in pairs) and all(
        x == y for f, t in pairs for x, y in zip(f.ravel(), t.ravel(), strict=True)
    )


def close(found: Sequence[Tensor], truth: Sequence[Tensor], tolerance: float) -> bool:
    """Whether shapes agree, and entries to ``tolerance`` times the largest one, or one."""
    for f, t in zip(found, truth, strict=True):
        scale = max(1.0, float(t.abs().max()))
        if f.shape != t.shape or not float((f - t).abs().max()) <= tolerance * scale:
            return False
    return True


def to_torch(values: Any) -> Tensor:
    """Numbers of any arithmetic rounded to complex128."""
    flat = [complex(x) for x in np.asarray(values).ravel()]
    return torch.tensor(flat, dtype=torch.complex128).reshape(np.shape(values))


def stacked(samples: Sequence[Tensors]) -> dict[str, Any]:
    """Points as one batch, by name."""
    return {n: array(np.stack([np.asarray(s[n]) for s in samples])) for n in samples[0]}


def passes(test: Test, candidate: Candidate) -> bool:
    """Whether a route accepts a candidate; one that cannot be run is not accepted."""
    try:
        return test(candidate)
    except FAILURES:
        return False
