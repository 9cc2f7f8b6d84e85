"""Latent Space Oddity: the expected metric of x = μ(z) + σ(z) ε, and the Fisher-Rao metric.

One output and two real latent coordinates a, b suffice for identities between forms; outputs add
up.
"""

from sympy import Rational, expand, log, symbols

from kahler_verify.calculus import Claim, Derivation, Formula, Witness, dimension

mu_a, mu_b, sigma_a, sigma_b = symbols("mu_a mu_b sigma_a sigma_b", real=True)  # ∂_a, ∂_b
sigma, eps = symbols("sigma epsilon", real=True)

# J = ∂x = ∂μ + ε ∂σ with E ε = 0, E ε² = 1
JTJ = expand((mu_a + eps * sigma_a) * (mu_b + eps * sigma_b))
expected_metric = sum(JTJ.coeff(eps, power) * moment for power, moment in ((0, 1), (1, 0), (2, 1)))

# KL(N(μ, σ²) ‖ N(μ', σ'²)) to second order in the step: μ' = μ + μ_a s + μ_b t, σ' likewise
s, t = symbols("s t", real=True)
other_mu, other_sigma = mu_a * s + mu_b * t, sigma + sigma_a * s + sigma_b * t
# KL = log(σ'/σ) + (σ² + (μ' - μ)²)/(2σ'²) - ½; its Hessian is the Fisher-Rao metric

KL = log(other_sigma / sigma) + (sigma**2 + other_mu**2) / (2 * other_sigma**2) - Rational(1, 2)
fisher_rao = KL.diff(s, t).subs({s: 0, t: 0})

latent_oddity = Derivation(
    name="latent_oddity",
    title="Expected pull-back metric of a stochastic generator",
    source="Arvanitidis, Hansen, Hauberg, arXiv 1710.11379",
    latent=dimension("d"),
    kernels=(),
    claims=(
        Claim(
            "O1",
            "x = μ(z) + σ(z) ε gives E[JᵀJ] = J_μᵀJ_μ + J_σᵀJ_σ",
            "ODDITY",
            parts=(Formula(expected_metric, mu_a * mu_b + sigma_a * sigma_b, "E[JᵀJ]"),),
            expected="holds",
        ),
        Claim(
            "O9",
            "this expected metric is the decoder's Fisher-Rao metric",
            "ODDITY",
            parts=(
                Formula(
                    fisher_rao, mu_a * mu_b + sigma_a * sigma_b, "Fisher-Rao = expected metric"
                ),
            ),
            witnesses=(
                Witness(
                    "σ = 2, ∂μ = ∂σ = 1",
                    at={sigma: 2, mu_a: 1, mu_b: 1, sigma_a: 1, sigma_b: 1},
                ),
            ),
            expected="refuted: Fisher-Rao has 1/σ² weights and a factor 2 on the σ term",
        ),
        Claim(
            "O9-form",
            "the Fisher-Rao metric is (J_μᵀJ_μ + 2 J_σᵀJ_σ)/σ²",
            "ODDITY",
            parts=(Formula(fisher_rao, (mu_a * mu_b + 2 * sigma_a * sigma_b) / sigma**2, "form"),),
            expected="holds",
        ),
        *[
            Claim(name, statement, "ODDITY", waits_for=waits)
            for name, statement, waits in (
                ("O2", "the metric's relative variance vanishes as D → ∞", "stochastic metrics"),
                ("O3", "geodesics solve the paper's second-order ODE", "geodesics"),
                ("O4", "the metric is smooth for C² activations", "a smoothness check of decoders"),
                ("O5", "an RBF precision head makes σ grow away from data", "the RBF head"),
                ("O6", "steps U Λ^{-1/2} ε simulate Brownian motion of the metric", "samplers"),
                ("O7", "Riemannian k-means beats Euclidean k-means in latent space", "geodesics"),
                ("O8", "RBF variance gives a better test marginal likelihood", "the RBF head"),
            )
        ],
    ),
)
