"""The complex normal distribution, circular or not, in the style of ``torch.distributions``.

``x ~ CN(μ, Σ)`` on C^D has the density ``π^{-D} det(Σ)^{-1} exp(-(x-μ)ᴴ Σ^{-1} (x-μ))`` with
respect to Lebesgue measure on R^{2D}. ``E[(x-μ)(x-μ)ᴴ] = Σ``, and the relation matrix
``R = E[(x-μ)(x-μ)ᵀ]`` is 0: the distribution is circular. With a relation ``R ≠ 0`` it is improper.

Every formula here keeps its derivatives in every mode of autograd, because the verifier and users
differentiate through it, at ``p = q`` in particular: a squared modulus is ``(x * x.conj()).real``
(never ``abs()**2``, whose Hessian is 0 at 0), a linear system is ``solve_triangular``, and a
log-determinant is read off a Cholesky diagonal. See docs/what-autograd-gets-wrong.md.
"""

from kahler_verify.distributions.complex_normal import ComplexNormal
from kahler_verify.distributions.divergences import kl_complex_normal  # registers itself
from kahler_verify.distributions.logarithms import log_excess
from kahler_verify.distributions.structures import (
    Structure,
    complex_lower_cholesky,
    complex_vector,
)

__all__ = [
    "ComplexNormal",
    "Structure",
    "complex_lower_cholesky",
    "complex_vector",
    "kl_complex_normal",
    "log_excess",
]
