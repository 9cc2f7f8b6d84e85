"""Pulling back information geometry (Arvanitidis et al., arXiv 2106.05367).

Every family of derivations/likelihoods/ has the same claim beside it, for its own law.
"""

from sympy import Matrix, conjugate

from kahler_verify.calculus import (
    Bar,
    Claim,
    OnDiagonal,
    Partial,
    Vanishing,
    Witness,
    explicit_coordinates,
    paper,
)
from kahler_verify.derivations.likelihoods.gaussian_kl import KL, Sigma, a, b, c, g, k, mu
from kahler_verify.derivations.papers.complex_vae import printed_g, printed_k

cubic = OnDiagonal(Partial(KL, a, c, Bar(b)))
(z1,) = explicit_coordinates("z1")
modulus2 = z1 * conjugate(z1)
one = Matrix([[1]])

pulling_back_information = paper(
    "pulling_back_information",
    "Pulling back information geometry",
    "Arvanitidis et al., arXiv 2106.05367",
    claims=(
        Claim(
            "PB1",
            "KL between neighbouring decoder outputs gives the pulled-back Fisher metric to "
            "second order "
            "(circular complex Gaussian likelihood)",
            "PULLBACK",
            parts=(
                Vanishing(OnDiagonal(KL), (), "KL(z‖z) = 0"),
                Vanishing(OnDiagonal(Partial(KL, a)), (a,), "∂KL(z‖z) = 0"),
                Vanishing(g - printed_g, (a, b), "mixed second order = g"),
                Vanishing(k - printed_k, (a, b), "(2,0) second order = k"),
            ),
            expected="holds",
        ),
        Claim(
            "PB1-cubic",
            "the one-sided difference KL(z‖z+ε) has no cubic term",
            "PULLBACK",
            parts=(Vanishing(cubic, (a, c, b), "∂_a∂_c∂_b̄ KL on the diagonal"),),
            witnesses=(
                Witness(
                    "one output, μ = z₁, Σ = 1 + |z₁|²",
                    coordinates=(z1,),
                    fields={mu: Matrix([z1]), Sigma: (1 + modulus2) * one},
                    at={z1: 1},
                ),
            ),
            expected="refuted: it has a cubic bias, which KL(z‖z+ε) + KL(z‖z-ε) cancels by parity",
        ),
    ),
)
