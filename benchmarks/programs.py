"""Metrics as one program: ours, and layer-wise Jacobians traced like it."""

from __future__ import annotations

import warnings
from collections.abc import Callable
from functools import partial
from typing import Any

import torch
from torch import Tensor

from benchmarks.problem import Rival
from benchmarks.timing import Run
from kahler_verify.geometry import FisherMetric
from kahler_verify.geometry.traced import Compile, traced

COMPILED, FROZEN = "ours, compile=True", "ours, compile='frozen'"
BY_LAYERS = "layer-wise Jacobians, such a program"
FOLDED = "closed form by hand, last layer folded"
PROGRAMS = (COMPILED, FROZEN, BY_LAYERS)


def compiled_programs(
    decoder: Any, z: Tensor, layerwise: Callable[[Tensor], Tensor], x: Tensor
) -> dict[str, Rival]:
    """Ours with ``compile``, and layer-wise Jacobians x ↦ g traced and compiled so."""

    def ours(compiled: Compile) -> Run:
        metric = FisherMetric(decoder, check=False, validate_args=False, compile=compiled)

        def run() -> Tensor:
            with torch.no_grad():
                return metric.metric_matrix(z)

        try:
            with warnings.catch_warnings():
                warnings.filterwarnings("error", message="compile: ")
                run()
        except UserWarning as warning:  # else the plain way would be timed
            raise RuntimeError(str(warning)) from warning
        return run

    def by_layers() -> Run:
        found = traced(lambda: lambda x: (layerwise(x),), x)
        assert found is not None
        program = found

        def run() -> Tensor:
            with torch.no_grad():
                return program(x)[0]

        return run

    return {
        COMPILED: Rival(partial(ours, True), compiled=True),
        FROZEN: Rival(partial(ours, "frozen"), compiled=True),
        BY_LAYERS: Rival(by_layers, compiled=True),
    }
