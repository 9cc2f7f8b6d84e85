"""One rule for each torch function: how a value with its derivatives goes through it.

A new function is one rule, in the file of its kind:

    @rule("sinc")
    def sinc(call, x):
        return chain(x, call(x.value), slope, curvature)
"""

from kahler_verify.rules import (  # noqa: F401  (each file registers its rules)
    activations,
    arithmetic,
    attention,
    complex_parts,
    convolution,
    linear,
    matrices,
    normalisation,
    pointwise,
    reductions,
    resampling,
    selection,
    shapes,
)
from kahler_verify.rules.expansion import Expansion, Head
from kahler_verify.rules.frame import Frame, Record
from kahler_verify.rules.registry import RULES, NotCovered, Rule, find, rule

__all__ = ["RULES", "Expansion", "Frame", "Head", "NotCovered", "Record", "Rule", "find", "rule"]
