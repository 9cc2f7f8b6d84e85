"""Potentials in explicit coordinates of a fixed dimension: every component unrolled and shared.

z̄ is a symbol of its own (polarisation), so that a derivative by z is a Wirtinger derivative.  The
potential is read into an arithmetic circuit, and the circuit is differentiated: see
:mod:`kahler_verify.codegen.circuit`.
"""

from kahler_verify.codegen.explicit.conjugation import Conjugate, bar, conjugated, polarised
from kahler_verify.codegen.explicit.printing import print_explicit, print_heads
from kahler_verify.codegen.explicit.reading import Reading

__all__ = [
    "Conjugate",
    "Reading",
    "bar",
    "conjugated",
    "polarised",
    "print_explicit",
    "print_heads",
]
