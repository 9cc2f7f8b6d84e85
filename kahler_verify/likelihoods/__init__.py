"""The laws that decoders return, and what the kernels of each family take of them.

A family is one derivation and one file here: it registers, for a type of torch distribution, the
generated module and the fields whose derivatives its kernels take.
"""

from kahler_verify.likelihoods import (  # noqa: F401  (each registers its families)
    bernoulli,
    beta,
    categorical,
    complex_normal,
    dirichlet,
    exponential,
    gamma,
    laplace,
    multivariate_normal,
    negative_binomial,
    normal,
    poisson,
    student_t,
    von_mises,
)
from kahler_verify.likelihoods.register import FAMILIES, Fields, Likelihood, fields_of, likelihood

__all__ = ["FAMILIES", "Fields", "Likelihood", "fields_of", "likelihood"]
