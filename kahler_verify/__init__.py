"""kahler_verify: verified torch kernels for the complex geometry of decoders.

Write a divergence or a potential once, in SymPy; get kernels for its metric, volume, connection and
curvature, with evidence that they are right.  Importing this package does not import SymPy.
"""

from typing import TYPE_CHECKING, Any

from kahler_verify.distributions import ComplexNormal
from kahler_verify.geometry import FisherMetric, MixtureMetric, PotentialMetric

if TYPE_CHECKING:
    from kahler_verify.codegen.compiled import compile

__version__ = "0.1.0"

__all__ = ["ComplexNormal", "FisherMetric", "MixtureMetric", "PotentialMetric", "compile"]


def __getattr__(name: str) -> Any:
    if name == "compile":  # derives with SymPy, so it is loaded when it is first used
        from kahler_verify.codegen.compiled import compile

        return compile
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
