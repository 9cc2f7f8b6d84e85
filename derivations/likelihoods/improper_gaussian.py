"""Improper complex Gaussians: a relation matrix δ ≠ 0, one dimension.

x = CN(μ, σ, δ) with E|x - μ|² = σ and E(x - μ)² = δ is a real Gaussian of (Re x, Im x) with
covariance ½ [[σ + Re δ, Im δ], [Im δ, σ - Re δ]], positive definite if and only if |δ| < σ.
"""

from sympy import Matrix, Rational, eye, log, symbols

from kahler_verify.calculus import Derivation, dimension

m_re, m_im, d_re, d_im = symbols("m_re m_im delta_re delta_im", real=True)
sigma = symbols("sigma", positive=True)
half = Rational(1, 2)

mean = Matrix([m_re, m_im])
covariance = half * Matrix([[sigma + d_re, d_im], [d_im, sigma - d_re]])
target = half * eye(2)

# KL of real Gaussians N(mean, covariance) from N(0, target), determinants under one logarithm each
gap = sigma**2 - d_re**2 - d_im**2
KL = half * ((target.inv() * covariance).trace() + (mean.T * target.inv() * mean)[0] - 2) + half * (
    log(target.det()) - log(Rational(1, 4)) - log(gap)
)
printed = m_re**2 + m_im**2 + sigma - 1 - half * log(gap)

# The same from CN(0, σ', δ'), as torch.distributions.kl_divergence computes it
e_re, e_im = symbols("epsilon_re epsilon_im", real=True)
tau = symbols("tau", positive=True)
general = half * Matrix([[tau + e_re, e_im], [e_im, tau - e_re]])
gap_q = tau**2 - e_re**2 - e_im**2
KL_general = half * (
    (general.inv() * covariance).trace() + (mean.T * general.inv() * mean)[0] - 2
) + half * (log(gap_q) - log(gap))
square_re, square_im = m_re**2 - m_im**2, 2 * m_re * m_im
computed = (
    half * (log(gap_q) - log(gap))
    - 1
    + (tau * (sigma + m_re**2 + m_im**2) - e_re * (d_re + square_re) - e_im * (d_im + square_im))
    / gap_q
)

improper_gaussian = Derivation(
    name="improper_gaussian",
    title="Complex Gaussians with a relation",
    source="Gracyk, arXiv 2511.15172",
    assumptions=("|δ| < σ",),
    latent=dimension("d"),
    kernels=(),
)
