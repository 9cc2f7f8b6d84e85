"""Fisher-Rao metric of von Mises-Fisher laws: directions x on the unit sphere in R^n.

p(x) ∝ exp(κ m·x) with a unit vector m has η = κm as its natural parameter, the log-partition
Ψ(κ) = log(I_{n/2-1}(κ)/κ^{n/2-1}), and the mean E[x] = A m of length A(κ) = Ψ′(κ) =
I_{n/2}(κ)/I_{n/2-1}(κ).  The metric pairs natural with mean parameters, ∂η·∂(Am).  As |m| = 1, that
is ∂κ ∂A + κA ∂m·∂m, in which nothing cancels: A is a letter with derivatives of its own, which
kahler_verify/bessel.py computes to their digits.  n = 2 is von Mises' law on the circle.
"""

from sympy import Rational, besseli, cos, log, symbols

from kahler_verify.calculus import (
    Claim,
    Derivation,
    Formula,
    Kernel,
    Output,
    Partial,
    Tr,
    adjoint,
    dimension,
    field,
    index,
)

n, d = dimension("n"), dimension("d")
a, b, c, e = index("a b c e", d, real=True)

concentration = field("concentration", real=True)  # κ
resultant = field("resultant", real=True)  # A(κ)
direction = field("direction", n, real=True)  # m

both_ways = (
    Partial(concentration, a) * Partial(resultant, b)
    + Partial(concentration, b) * Partial(resultant, a)
) / 2
turning = Tr(adjoint(Partial(direction, a)) * Partial(direction, b))
g = both_ways + concentration * resultant * turning

# On the circle, to second order in the step κ′ = κ + κ_a s + κ_b t, θ′ likewise: KL is Bregman's
# divergence of Ψ(|η|), Ψ(κ′) - Ψ(κ) - Ψ′(κ)(κ′ cos(θ′ - θ) - κ), with any Ψ.
kappa, first, second = symbols("kappa A slope", positive=True)  # κ, Ψ′ and Ψ″ at κ
kappa_a, kappa_b, theta_a, theta_b = symbols("kappa_a kappa_b theta_a theta_b", real=True)
s, t = symbols("s t", real=True)
step, turn = kappa_a * s + kappa_b * t, theta_a * s + theta_b * t
KL = first * step + second * step**2 / 2 - first * ((kappa + step) * cos(turn) - kappa)
hessian = KL.diff(s, t).subs({s: 0, t: 0})
A_a, A_b = second * kappa_a, second * kappa_b  # ∂A by the chain rule
paired = Rational(1, 2) * (kappa_a * A_b + kappa_b * A_a) + kappa * first * theta_a * theta_b

von_mises_fisher = Derivation(
    name="von_mises_fisher",
    title="Fisher-Rao metric of a von Mises-Fisher law, with its mean resultant length",
    source="Mardia, Jupp, Directional Statistics, 2000, sections 3.5 and 9.3",
    assumptions=(
        "direction is a unit vector, and resultant is A(concentration)",
        "all three are three times differentiable",
    ),
    latent=d,
    routes=("autograd", "mpmath", "exact"),
    kernels=(
        Kernel("fisher_metric", {"g": Output(g, (a, b))}),
        Kernel("fisher_metric_d", {"g_d": Output(Partial(g, c), (c, a, b))}),
        Kernel("fisher_metric_dd", {"g_dd": Output(Partial(g, c, e), (c, e, a, b))}),
    ),
    claims=(
        Claim(
            "PB1-von_mises_fisher",
            "KL between neighbouring outputs gives the pulled-back Fisher metric to second order "
            "(von Mises-Fisher): ∂κ ∂A + κA ∂m·∂m",
            "PULLBACK",
            parts=(
                Formula(hessian, paired, "Hessian of KL on the circle = ∂κ ∂A + κA ∂θ ∂θ"),
                Formula(
                    log(besseli(0, kappa)).diff(kappa),
                    besseli(1, kappa) / besseli(0, kappa),
                    "A = Ψ′ on the circle",
                ),
            ),
            kernels=("fisher_metric", "fisher_metric_d", "fisher_metric_dd"),
            expected="holds",
        ),
    ),
)
