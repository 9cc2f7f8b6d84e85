"""Sampling from latent spaces by their volume (Chadebec & Allassonnière, arXiv 2209.07370).

The metric G(z) = Σ_i M_i e^{-|z - c_i|²/ρ²} + λ e^{-τ|z|²} 1, and the sampler that is widely used
for its volume √det G.
"""

from sympy import Matrix, Rational, exp, eye, integrate, oo, pi, sqrt, symbols

from kahler_verify.calculus import Case, Claim, Formula, Witness, paper

half = Rational(1, 2)

# ---------------------------------------------------------------- is it a law at all? (C1)

lam, tau, d, rho, R = symbols("lambda tau d rho R", positive=True)
x = symbols("x", real=True)
of_a_coordinate = integrate(exp(-tau * d * x**2 / 2), (x, -oo, oo))  # of √det λe^{-τ|z|²}1

# In the plane: M_i = L Lᵀ at one centre, times its weight w
l11, l12, l22, w = symbols("l_11 l_12 l_22 w", positive=True)
L = Matrix([[l11, 0], [l12, l22]])
G = w * L * L.T + lam * eye(2)
excess = w * lam * (L * L.T).trace() + w**2 * L.det() ** 2  # det G - λ², all of it positive
g11, g12, g22 = symbols("g_11 g_12 g_22", real=True)
trace_bound = ((g11 + g22) / 2) ** 2 - (g11 * g22 - g12**2)
of_a_weight = integrate(2 * pi * R * exp(-(R**2) / rho**2), (R, 0, oo))

# ---------------------------------------------------------------- which law? (C2)

# U = -log √det G.  A trajectory follows the gradient of γU, so that γU + |p|²/2 stays; momenta are
# drawn with the deviation s; a step is accepted with probability min(1, e^{-ΔU - Δ|p|²/2}).
gamma, s, U, U_new, p2 = symbols("gamma s U V q", positive=True)
p2_new = p2 + 2 * gamma * (U - U_new)
power = symbols("k", positive=True)  # the law (√det G)^k = e^{-kU}
accepted = -(U_new - U) - (p2_new - p2) / 2  # log of the ratio of both ways' probabilities
log_ratio = -power * (U_new - U) - (p2_new - p2) / (2 * s**2)  # of e^{-kU - |p|²/(2s²)}
printed_power = gamma / s**2 + 1 - gamma

geometry_aware_vae = paper(
    "geometry_aware_vae",
    "Sampling from the volume of a latent space",
    "Chadebec, Allassonnière, arXiv 2209.07370",
    claims=(
        Claim(
            "C1",
            "√det G has finite volume iff τ > 0; the term of λ alone has λ^{d/2} (2π/(dτ))^{d/2}",
            "GPVAE",
            parts=(
                Formula(of_a_coordinate, sqrt(2 * pi / (d * tau)), "one coordinate of λ's term"),
                Formula(
                    G.det() - lam**2,
                    excess,
                    "τ = 0: det G - λ² is a sum of positive terms, so √det G ≥ λ everywhere",
                ),
                Formula(
                    trace_bound,
                    ((g11 - g22) / 2) ** 2 + g12**2,
                    "τ > 0: √det G ≤ ½ tr G, by a sum of squares",
                ),
                Formula(of_a_weight, pi * rho**2, "whose terms have finite integrals"),
            ),
            assumptions=(
                "λ > 0, as without it the volume is finite for any τ; bounds are written out for "
                "d = 2, and are those between geometric and arithmetic means for any d"
            ),
            expected="holds for λ > 0",
        ),
        Claim(
            "C2",
            "the widely used HMC sampler (momenta of deviation ½, and a gradient that is twice too "
            "large) targets √det G",
            "GPVAE",
            parts=(Formula(printed_power, 1 + 0 * s, "the power of √det G that is sampled"),),
            cases=(
                Case(
                    "momenta of deviation 1, whatever the gradient's factor is",
                    parts=(
                        Formula(
                            printed_power.subs(s, 1) * U, U, "the power of √det G that is sampled"
                        ),
                    ),
                ),
            ),
            witnesses=(
                Witness("s = ½ with the right gradient: (√det G)⁴", at={s: half, gamma: 1}),
                Witness("s = ½ with twice the gradient: (√det G)⁷", at={s: half, gamma: 2}),
            ),
            expected="refuted: its law is (√det G)⁷ (measured 7.2 ± .4); right for s = 1",
        ),
        Claim(
            "C2-form",
            "with momenta of deviation s and γ times the gradient the law is (√det G)^k, "
            "k = γ/s² + 1 - γ, by detailed balance",
            "GPVAE",
            parts=(
                Formula(
                    log_ratio.subs(power, printed_power),
                    accepted,
                    "e^{-kU - |p|²/(2s²)} is in balance with the probabilities of acceptance",
                ),
            ),
            assumptions="trajectories keep γU + |p|²/2, as they do in the limit of small steps",
            expected="holds",
        ),
    ),
)
