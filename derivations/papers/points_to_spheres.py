"""From Points to Spheres (Shi, arXiv 2507.17255): variational autoencoders as balls of codes."""

from sympy import (
    Expr,
    Matrix,
    Rational,
    conjugate,
    exp,
    gamma,
    integrate,
    oo,
    sqrt,
    symbols,
)

from kahler_verify.calculus import (
    Bar,
    Case,
    Claim,
    Formula,
    Partial,
    Positive,
    Vanishing,
    Witness,
    adjoint,
    explicit_coordinates,
    paper,
    scalars,
)
from kahler_verify.derivations.geometry.reparametrisation import a, b, f, loss, metric, x

printed_metric = scalars(
    adjoint(Partial(f, b)) * Partial(f, a) + adjoint(Partial(f, Bar(a))) * Partial(f, Bar(b))
)

(z1,) = explicit_coordinates("z1")

# The radius of ε ~ N(0, 1) in d dimensions has the density ∝ r^{d-1} e^{-r²/2}.
size, radius = symbols("d r", positive=True)


def moment(power: int) -> Expr:
    """E|ε|^power, of which both integrals are Euler's."""
    weight = radius ** (size - 1) * exp(-(radius**2) / 2)
    above, below = (integrate(radius**k * weight, (radius, 0, oo)) for k in (power, 0))
    return above / below


mean_radius, mean_square = moment(1), moment(2)
printed_mean = sqrt(2) * gamma((size + 1) / 2) / gamma(size / 2)
variance = size - printed_mean**2
half = Rational(1, 2)

points_to_spheres = paper(
    "points_to_spheres",
    "From points to spheres",
    "Shi, arXiv 2507.17255",
    claims=(
        Claim(
            "P1",
            "to second order, reparametrisation noise adds the trace of the pulled-back "
            "metric to the "
            "reconstruction loss",
            "SPHERES",
            parts=(
                Vanishing(Partial(loss, a, Bar(b)) - metric, (a, b), "∂∂̄ of the loss = metric"),
            ),
            cases=(
                Case("f holomorphic, circular noise", ((f, "holomorphic"),)),
                Case(
                    "zero residual, where the metric is (∂_bf)ᴴ∂_af + (∂_āf)ᴴ∂_b̄f",
                    parts=(Vanishing(metric - printed_metric, (a, b), "∂∂̄ of the loss at x = f"),),
                ),
            ),
            witnesses=(
                Witness(
                    "f = (|z|², Re z), x = (5, 1) at z = 1",
                    coordinates=(z1,),
                    fields={
                        f: Matrix([z1 * conjugate(z1), (z1 + conjugate(z1)) / 2]),
                        x: Matrix([5, 1]),
                    },
                    at={z1: 1},
                ),
            ),
            expected="holds under zero residual, or for holomorphic f with circular noise",
        ),
        Claim("P2", "the KL term makes codes more uniform", "SPHERES", waits_for="the ablation"),
        Claim(
            "P3",
            "VQ-VAE is an autoencoder constrained to cluster centres",
            "SPHERES",
            waits_for="VQ-VAE",
        ),
        Claim(
            "P4",
            "a Gaussian ball's radius concentrates at √d σ: with m_d = E|ε|, m_d m_{d+1} = d, so "
            "that d - 1 ≤ m_d² ≤ d and the deviation of |ε| is at most 1",
            "SPHERES",
            parts=(
                Formula(mean_radius, printed_mean, "E|ε| = √2 Γ((d+1)/2)/Γ(d/2)"),
                Formula(printed_mean * printed_mean.subs(size, size + 1), size, "m_d m_{d+1} = d"),
                Formula(mean_square, size, "E|ε|² = d"),
                *[
                    Positive(bound, {size: (d, d)}, f"½ - 1/(7d) < Var |ε| < ½ at d = {d}")
                    for d in (2, 64, 4096)
                    for bound in (half - variance, variance - half + 1 / (7 * size))
                ],
            ),
            assumptions="that the deviation tends to 1/√2 is enclosed at d = 2, 64 and 4096",
            expected="holds: E|ε| = √2 Γ((d+1)/2)/Γ(d/2), deviation → 1/√2",
        ),
        Claim(
            "P4-limit",
            "the autoencoder is recovered as β → 0",
            "SPHERES",
            waits_for="an infimum over encoders; σ → 0 need not follow for a fixed decoder",
        ),
    ),
)
