"""Kernels unrolled for a small dimension: real arithmetic, one line for each shared value.

A dimension-free kernel is traced: its unpatched source runs over arrays of symbolic complex
numbers, each a pair of real ones, and what the numbers do is written down as a straight-line torch
function of real tensors, which torch can fuse into one loop (it compiles no complex arithmetic).
Latent indices are unrolled.  The points, and the components of a mixture, stay axes of tensors.

Every symbolic number carries its value at a random point of the prime field F_p, p = 2^61 - 1.
Numbers that agree there, up to sign, are computed once; those that vanish there are zero.  So
Hermitian and symmetric results need no rules: their repeated entries are recognised.  That two
different rational functions agree at a random point has a probability of about degree / p
(Schwartz 1980, Zippel 1979), and the evidence compares every variant with its source elsewhere.

:mod:`tape` has the numbers, :mod:`arrays` what stands in for tensors, :mod:`tracer` runs kernels on
those, :mod:`printing` writes the function; :mod:`kernels` is the whole way for a kernel.  Neither
SymPy nor torch is imported here.
"""

from kahler_verify.running.unrolling.kernels import unroll, unroll_mixture
from kahler_verify.running.unrolling.printing import Unrolled
from kahler_verify.running.unrolling.tape import Tape
from kahler_verify.running.unrolling.tracer import Argument, Tracer, argument_shapes

__all__ = ["Argument", "Tape", "Tracer", "Unrolled", "argument_shapes", "unroll", "unroll_mixture"]
