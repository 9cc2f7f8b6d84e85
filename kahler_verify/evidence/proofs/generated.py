"""Generated kernels by name: their text over balls, their shapes, and the metric to measure in."""

from __future__ import annotations

import importlib
import inspect
import re
import sys
from collections.abc import Callable, Mapping
from functools import cache
from typing import Any

import numpy as np
from torch import Tensor

from kahler_verify.calculus.derivation import Derivation, Kernel
from kahler_verify.codegen.registry import shipped
from kahler_verify.errors import EvidenceError, InputError
from kahler_verify.evidence.numbers.arithmetic import ball, run_text
from kahler_verify.evidence.numbers.arrays import Array, array

METRIC = "(metric)"
PREAMBLE = "from __future__ import annotations\nimport torch\n"


# ---------------------------------------------------------------------- the frame


def measure_of(
    function: Callable[..., Any], given: Mapping[str, Tensor], outputs: tuple[str, ...]
) -> Callable[[Mapping[str, Array]], Array]:
    """How g is computed in balls from a point's inputs and the kernel's outputs."""
    if METRIC in given:
        return lambda x: array((np.asarray(x[METRIC]) + np.asarray(x[METRIC].mH)) / 2)
    if "g" in (*outputs, *given):
        return lambda x: x["g"]
    if "g_factor" in given:
        return lambda x: array(np.asarray(x["g_factor"]) @ np.asarray(x["g_factor"].mH))
    stem = re.sub(r"_db?(?=_|$)", "", function.__name__)
    module = sys.modules.get(function.__module__)
    for name in (stem, stem.removesuffix("_general")):
        sister = getattr(module, name, None)
        if sister is None:
            continue
        shapes, names = declared(sister)
        if names[0] == "g" and set(shapes) <= set(given):
            return _first_output(ball_function(sister), tuple(shapes))

    def refuse(_: Mapping[str, Array]) -> Array:
        raise InputError(
            f"metric: expected g [..., d, d] for the errors of {function.__name__}, got None"
        )

    return refuse


def _first_output(
    text: Callable[..., Any], names: tuple[str, ...]
) -> Callable[[Mapping[str, Array]], Array]:
    def first(x: Mapping[str, Array]) -> Array:
        out = text(**{n: x[n] for n in names})
        return out[0] if isinstance(out, tuple) else out

    return first


# ---------------------------------------------------------------------- kernels and their text


@cache
def _shipped() -> dict[str, Derivation]:
    return shipped()


def declared_kernel(name: str, derivation: Derivation | None) -> Kernel | None:
    """What ``module.kernel`` was derived as, by a derivation or by one that is shipped."""
    module, _, own = name.rpartition(".")
    derivation = derivation if derivation is not None else _shipped().get(module)
    kernels = [] if derivation is None else derivation.kernels
    return next((k for k in kernels if k.name == own), None)


def upper_axes(kernel: Kernel | None) -> dict[str, set[int]]:
    """Of each output, the axes of its upper indices."""
    outputs = {} if kernel is None else kernel.outputs
    return {n: {out.indices.index(i) for i in out.upper} for n, out in outputs.items()}


def resolve(kernel: Callable[..., Any] | str) -> Callable[..., Any]:
    """The generated function of a qualified name."""
    if callable(kernel):
        return kernel
    module, _, name = kernel.rpartition(".")
    try:
        found = getattr(importlib.import_module(f"kahler_verify.kernels.{module}"), name, None)
    except ModuleNotFoundError:
        found = None
    if not callable(found):
        raise InputError(f"kernel: expected a name such as flat.metric, got {kernel!r}")
    return found


def declared(function: Callable[..., Any]) -> tuple[dict[str, list[str]], tuple[str, ...]]:
    """Dimensions of each argument, and names of outputs, from a generated docstring."""
    text = function.__doc__ or ""
    shapes = dict(re.findall(r"^\s+(\w+): \[\.\.\.((?:, [^\]]*)?)\]", text, re.MULTILINE))
    returned = re.match(r"Return ([\w, ]+)\.", text)
    names = list(inspect.signature(function).parameters)
    if returned is None or set(names) != set(shapes):
        raise InputError(f"kernel: expected a generated kernel, got {function!r}")
    return {n: shapes[n].split(", ")[1:] for n in names}, tuple(returned[1].split(", "))


def ball_function(function: Callable[..., Any]) -> Callable[..., Any]:
    """The very text of a kernel, to be called with object arrays of complex balls.

    Raises:
        EvidenceError: the source cannot be read.
    """
    try:
        text = inspect.getsource(function)
    except (OSError, TypeError) as error:
        raise EvidenceError(f"the source of {function!r} cannot be read: {error}") from error
    found: Callable[..., Any] = run_text(PREAMBLE + text, ball)[function.__name__]
    return found
