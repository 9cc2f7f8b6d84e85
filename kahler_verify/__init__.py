"""kahler_verify: verified torch kernels for the complex geometry of decoders.

Write a divergence or a potential once, in SymPy; get kernels for its metric, volume, connection and
curvature, with evidence that they are right.  Names are loaded when they are first used: importing
this package imports neither SymPy nor the kernels, so that `generate` works without any kernels.
"""

import sys
from importlib import import_module
from typing import TYPE_CHECKING, Any

from kahler_verify.moved import Moved

if TYPE_CHECKING:
    from kahler_verify.codegen.compiled import compile
    from kahler_verify.distributions import ComplexNormal
    from kahler_verify.geometry import (
        ExpectedMetric,
        FisherMetric,
        FisherRaoMetric,
        LocalVarianceMetric,
        MixtureMetric,
        PotentialMetric,
        PrecisionWeightedMetric,
        PulledBackMetric,
        RiemannianMetric,
    )

__version__ = "0.1.0"

__all__ = [
    "ComplexNormal",
    "ExpectedMetric",
    "FisherMetric",
    "FisherRaoMetric",
    "LocalVarianceMetric",
    "MixtureMetric",
    "PotentialMetric",
    "PrecisionWeightedMetric",
    "PulledBackMetric",
    "RiemannianMetric",
    "compile",
]

_HOMES = {
    "ComplexNormal": "distributions",
    "ExpectedMetric": "geometry",
    "FisherMetric": "geometry",
    "FisherRaoMetric": "geometry",
    "LocalVarianceMetric": "geometry",
    "MixtureMetric": "geometry",
    "PotentialMetric": "geometry",
    "PrecisionWeightedMetric": "geometry",
    "PulledBackMetric": "geometry",
    "RiemannianMetric": "geometry",
    "compile": "codegen.compiled",
}


def __getattr__(name: str) -> Any:
    if name in _HOMES:
        return getattr(import_module(f"{__name__}.{_HOMES[name]}"), name)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")


sys.meta_path.append(Moved())
