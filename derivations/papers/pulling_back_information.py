"""Pulling back information geometry (Arvanitidis et al., arXiv 2106.05367).

Every family of derivations/likelihoods/ has the same claim beside it, for its own law.
"""

from sympy import Expr, Matrix, conjugate, symbols

from kahler_verify.calculus import (
    Bar,
    Case,
    Claim,
    Formula,
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

# One natural parameter θ(z) of an exponential family with the log-partition A: Taylor coefficients
eps = symbols("epsilon", real=True)
t1, t2, t3, A1, A2, A3, A4 = symbols("t_1 t_2 t_3 A_1 A_2 A_3 A_4", real=True)


def natural(z: Expr) -> Expr:
    """θ(z) - θ(0)."""
    return t1 * z + t2 * z**2 / 2 + t3 * z**3 / 6


def log_partition(t: Expr) -> Expr:
    """A(θ(0) + t) - A(θ(0))."""
    return A1 * t + A2 * t**2 / 2 + A3 * t**3 / 6 + A4 * t**4 / 24


def family_KL(z: Expr, other: Expr) -> Expr:
    """KL(p_z‖p_other) = A(θ′) - A(θ) - A′(θ)(θ′ - θ), right to the third order in ε."""
    x, y = natural(z), natural(other)
    slope = log_partition(eps).diff(eps).subs(eps, x)
    return log_partition(y) - log_partition(x) - slope * (y - x)


def of_order(divergence: Expr, k: int) -> Expr:
    """Its coefficient of ε^k."""
    return divergence.expand().coeff(eps, k)


symmetrised = family_KL(0 * eps, eps) + family_KL(eps, 0 * eps)
both_ways = family_KL(0 * eps, eps) + family_KL(0 * eps, -eps)
about_midpoint = family_KL(-eps / 2, eps / 2) + family_KL(eps / 2, -eps / 2)

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
        Claim(
            "PB1-symmetrised",
            "the symmetrised KL(z‖z+ε) + KL(z+ε‖z) has no cubic term",
            "PULLBACK",
            parts=(
                Formula(of_order(symmetrised, 3), 0 * A2, "its ε³, one natural parameter"),
                Formula(of_order(symmetrised, 2), A2 * t1**2, "its ε² is A″θ′²"),
            ),
            cases=(
                Case(
                    "KL(z‖z+ε) + KL(z‖z-ε), or the symmetrised one about the midpoint, instead",
                    parts=(
                        Formula(of_order(both_ways, 3) + A2, A2, "ε³ of KL(z‖z+ε) + KL(z‖z-ε)"),
                        Formula(of_order(both_ways, 2), A2 * t1**2, "its ε²"),
                        Formula(of_order(about_midpoint, 3) + A2, A2, "ε³ about the midpoint"),
                        Formula(of_order(about_midpoint, 2), A2 * t1**2, "its ε²"),
                    ),
                ),
            ),
            witnesses=(Witness("θ′ = θ″ = A″ = 1, A‴ = 0", at={t1: 1, t2: 1, A2: 1, A3: 0}),),
            expected="refuted at z; about the midpoint it has none",
        ),
    ),
)
