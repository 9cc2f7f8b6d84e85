"""Functions of one complex variable, printed as real torch code of x = Re z and y = Im z.

torch's complex ``tanh`` and ``exp`` cost 15 to 30 times their real twins, so that every complex
value is a pair (re, im) here, and a function of a complex argument is one of the identities below.
Derivatives are taken in z and z̄ before anything is split into pairs, and stay short.
"""

from kahler_verify.codegen.pointwise.module import derivative_types, generate_pointwise
from kahler_verify.codegen.pointwise.printing import print_pointwise

__all__ = ["derivative_types", "generate_pointwise", "print_pointwise"]
