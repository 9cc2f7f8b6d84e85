"""Latent Space Oddity (Arvanitidis, Hansen, Hauberg, arXiv 1710.11379).

The metric that x = μ(z) + S(z) ε has in the mean, beside the decoder's Fisher-Rao metric; its
variance; its geodesics; and a precision of radial basis functions, which falls away from data.
With S = diag(σ) the forms are sums over outputs, so that one output and two coordinates a, b say
what they are; the same is judged for full S, where Σ = S².
"""

from functools import partial

from sympy import (
    Expr,
    Function,
    Matrix,
    Rational,
    Symbol,
    cos,
    exp,
    expand,
    eye,
    integrate,
    log,
    oo,
    pi,
    simplify,
    sin,
    sqrt,
    symbols,
)

from kahler_verify.calculus import (
    Case,
    Claim,
    Contract,
    Covariance,
    Entry,
    Expected,
    Formula,
    OnDiagonal,
    Partial,
    Positive,
    Tr,
    Vanishing,
    Witness,
    adjoint,
    coordinates,
    explicit_coordinates,
    paper,
    parameter,
)
from kahler_verify.calculus.claims import Comparison
from kahler_verify.derivations.geometry import real_geometry as levi_civita
from kahler_verify.derivations.geometry.expected_metric import (
    M,
    S,
    a,
    b,
    c,
    d,
    e,
    eps,
    expected_metric,
    g,
    mu,
    n,
    variance,
    x,
)
from kahler_verify.derivations.likelihoods.real_gaussian_kl import divergence

half = Rational(1, 2)

on_digits = partial(
    Comparison, results="generators.json", command="python -m experiments.generators"
)

k_means = (
    ("riemannian", "geodesic k-means on the same codes"),
    ("euclidean_mlp", "Euclidean k-means on the codes of an MLP-variance VAE"),
)

# ---------------------------------------------------------------- the expected metric (O1, O9)

# One output: J = ∂x = ∂μ + ε ∂σ with E ε = 0, E ε² = 1
mu_a, mu_b, sigma_a, sigma_b = symbols("mu_a mu_b sigma_a sigma_b", real=True)  # ∂_a, ∂_b
sigma, epsilon = symbols("sigma epsilon", real=True)
JTJ = expand((mu_a + epsilon * sigma_a) * (mu_b + epsilon * sigma_b))
of_one = sum(JTJ.coeff(epsilon, power) * moment for power, moment in ((0, 1), (1, 0), (2, 1)))
printed_of_one = mu_a * mu_b + sigma_a * sigma_b

# Its Fisher-Rao metric: KL(N(μ, σ²) ‖ N(μ', σ'²)) = log(σ'/σ) + (σ² + (μ' - μ)²)/(2σ'²) - ½ to
# second order in the step, μ' = μ + μ_a s + μ_b t and σ' likewise
s, t = symbols("s t", real=True)
other_mu, other_sigma = mu_a * s + mu_b * t, sigma + sigma_a * s + sigma_b * t
KL_of_one = log(other_sigma / sigma) + (sigma**2 + other_mu**2) / (2 * other_sigma**2) - half
fisher_rao_of_one = KL_of_one.diff(s, t).subs({s: 0, t: 0})

# Any number of outputs, S symmetric and full
mu_1, mu_2, S_1, S_2 = Partial(mu, a), Partial(mu, b), Partial(S, a), Partial(S, b)
printed = Tr(adjoint(mu_1) * mu_2) + Tr(S_1 * S_2)
norm = Tr(adjoint(eps) * eps)
fisher_rao = OnDiagonal(Partial(divergence(mu, S * S, half), a, b))
printed_fisher_rao = (
    Tr(adjoint(mu_1) * S**-2 * mu_2)
    + Tr(S**-1 * S_1 * S**-1 * S_2)
    + Tr(S**-2 * S_1 * S_2) / 2
    + Tr(S**-2 * S_2 * S_1) / 2
)

# ---------------------------------------------------------------- its variance (O2)

mu_3, mu_4, S_3, S_4 = Partial(mu, c), Partial(mu, e), Partial(S, c), Partial(S, e)
g_ce = Tr(adjoint(Partial(x, c)) * Partial(x, e))
covariance = Covariance(g, g_ce, eps)
printed_covariance = Tr(adjoint(S_2 * mu_1 + S_1 * mu_2) * (S_4 * mu_3 + S_3 * mu_4)) + Tr(
    S_1 * S_2 * (S_3 * S_4 + S_4 * S_3)
)

# Along one direction, output i adds m_i = α_i² + β_i² to the mean and 4α_i²β_i² + 2β_i⁴ to the
# variance, where α_i and β_i are the slopes of μ_i and σ_i.
alpha, beta = symbols("alpha beta", positive=True)
mean_of_row = alpha**2 + beta**2
variance_of_row = 4 * alpha**2 * beta**2 + 2 * beta**4


def series(ratio: Expr) -> Expr:
    """Σ_i ratioⁱ over all outputs."""
    return 1 / (1 - ratio)


r = Symbol("r", positive=True)
# outputs with m_i = rⁱ, half of it from σ: Σ variances / (Σ means)²
equal_shares = {alpha: 1, beta: 1}
row = variance_of_row.subs(equal_shares) / mean_of_row.subs(equal_shares) ** 2
of_decaying_rows = row * series(r**2) / series(r) ** 2
of_shared_noise = variance_of_row / mean_of_row**2  # one ε for all, equal rows: for every D

# ---------------------------------------------------------------- geodesics (O3)

G, v, f = levi_civita.G, levi_civita.v, levi_civita.f
i, j = levi_civita.a, levi_civita.b
velocities = Entry(v, i) * Entry(v, j)
# ½ [2 (1 ⊗ ẋᵀ)(∂vec M) ẋ - (∂vec M)ᵀ(ẋ ⊗ ẋ)], of which -M⁻¹ times is ẍ
printed_force = Contract(velocities * Entry(Partial(G, i), f, j), i, j) - half * Contract(
    velocities * Entry(Partial(G, f), i, j), i, j
)

# In two dimensions, from the energy ½ ẋᵀM(x)ẋ: d/dt ∂L/∂ẋ = ∂L/∂x
x1, x2, v1, v2 = symbols("x_1 x_2 v_1 v_2", real=True)
at = Matrix([x1, x2])
velocity = Matrix([v1, v2])
m11, m12, m22 = (Function(name)(x1, x2) for name in ("m_11", "m_12", "m_22"))
M2 = Matrix([[m11, m12], [m12, m22]])
energy = (velocity.T * M2 * velocity)[0] / 2
slope = Matrix([energy.diff(each) * 2 for each in at])  # (∂vec M)ᵀ(ẋ ⊗ ẋ)
stretch = M2.diff(x1) * v1 + M2.diff(x2) * v2  # Ṁ
acceleration = -M2.adjugate() * (2 * stretch * velocity - slope) / (2 * M2.det())
as_symbols = {
    value: Symbol(f"M{number}", positive=True)
    for number, value in enumerate(
        [m.diff(each) for m in (m11, m12, m22) for each in at] + [m11, m12, m22]
    )
}


def free(expr: Expr) -> Expr:
    """Entries of M and of its derivatives as symbols of their own."""
    for value, symbol in as_symbols.items():
        expr = expr.subs(value, symbol)
    return expr


momentum_rate = stretch * velocity + M2 * acceleration

# ---------------------------------------------------------------- smoothness (O4)

# Beside the identity an activation f, C² at 0, where f‴ is p before and q behind: M = 1 + f′²
f0, f1, f2, p_before, p_behind = symbols("f_0 f_1 f_2 p q", real=True)


def derivative_at_kink(third: Expr, order: int) -> Expr:
    """∂^order M at 0, from the side where f‴ = third."""
    activation = f0 + f1 * s + f2 * s**2 / 2 + third * s**3 / 6
    return (1 + activation.diff(s) ** 2).diff(s, order).subs(s, 0)


first_of_M = Tr(adjoint(Partial(mu, a, c)) * mu_2) + Tr(adjoint(mu_1) * Partial(mu, b, c))
first_of_M += Tr(Partial(S, a, c) * S_2) + Tr(S_1 * Partial(S, b, c))

# Where a piecewise linear decoder has no kink, (μ, σ) = Az + h
A, h = parameter("A", n, d, real=True), parameter("h", n, real=True)
piece = A * coordinates("z", d, real=True) + h
M_of_piece = Tr(adjoint(Partial(piece, a)) * Partial(piece, b))

# (max(z₁, k z₁), z₂) with a kink at z₁ = 0: from (-1, 0) to (1, 1), crossing it at the height y
k, y = symbols("k y", positive=True)
across = sqrt(1 + y**2) + sqrt(k**2 + (1 - y) ** 2)

# ---------------------------------------------------------------- Brownian motion (O6)

# Its generator is ½Δ, that of the steps ½ g^{ij}∂_i∂_j: what they lack is a drift.
drift = Contract(
    Entry(G, f, i)
    * (Partial(Entry(G**-1, i, j), j) + Entry(G**-1, i, j) * Partial(levi_civita.log_volume, j)),
    i,
    j,
)  # g_fi (1/√g) ∂_j(√g g^{ij}), twice the drift with its index down

# The sphere in the chart (θ, φ), M = diag(1, sin²θ): E cos θ
theta, cosine = symbols("theta c", real=True)
of_steps = cos(theta).diff(theta, 2) / 2
of_motion = (sin(theta) * cos(theta).diff(theta)).diff(theta) / (2 * sin(theta))
z1, z2 = explicit_coordinates("z1 z2")
by_height = Matrix([[1 / (1 - z1**2), 0], [0, 1 - z1**2]])  # the chart (cos θ, φ)

# A torus: E cos y under its volume R + cos y, and under the uniform law that steps keep
R, angle = symbols("R y", positive=True)
mean_cosine = integrate(cos(angle) * (R + cos(angle)), (angle, 0, 2 * pi)) / (2 * pi * R)

# g^{ab}Γ_{f,ab} = g^{ab}∂_a g_fb - ½ g^{ab}∂_f g_ab, in conformal charts of the plane, M = φ1
phi, phi_1, phi_2 = symbols("phi phi_1 phi_2", positive=True)
slopes = (phi_1, phi_2)


def divergence_of_metric(g: Matrix, dg: tuple[Matrix, ...], f: int) -> Expr:
    """g^{ab}∂_a g_fb."""
    return sum(g.inv()[p, q] * dg[p][f, q] for p in (0, 1) for q in (0, 1))


conformal, d_conformal = phi * eye(2), tuple(slope * eye(2) for slope in slopes)

# ---------------------------------------------------------------- radial basis functions (O5)

# One centre: β = w e^{-λs} + ζ at the squared distance s, and σ = β^{-½}
w, rate, zeta = symbols("w lambda zeta", positive=True)
distance = Symbol("s", positive=True)
deviation = (w * exp(-rate * distance) + zeta) ** -half
kernel = w * exp(-rate * distance)
bend = rate**2 * kernel * (kernel - 2 * zeta) / (4 * (kernel + zeta) ** (5 * half))
height = deviation.limit(distance, oo) - deviation.subs(distance, 0)

# Four centres in the unit disc, and the ray (3/5, 4/5) R from its middle
R = Symbol("R", positive=True)
centres = (
    (0, 0),
    (Rational(4, 5), Rational(1, 5)),
    (-half, half),
    (Rational(1, 4), -Rational(3, 4)),
)
weights = (2, 1, 3, 1)
ray = (3 * R / 5, 4 * R / 5)
precision = sum(
    weight * exp(-((ray[0] - p) ** 2 + (ray[1] - q) ** 2))
    for weight, (p, q) in zip(weights, centres, strict=True)
) + Rational(1, 1000)

latent_space_oddity = paper(
    "latent_space_oddity",
    "Latent space oddity",
    "Arvanitidis, Hansen, Hauberg, arXiv 1710.11379",
    claims=(
        Claim(
            "O1",
            "x = μ(z) + σ(z) ε gives E[JᵀJ] = J_μᵀJ_μ + J_σᵀJ_σ",
            "ODDITY",
            parts=(
                Formula(of_one, printed_of_one, "E[JᵀJ], one output"),
                Vanishing(M - printed, (a, b), "E[JᵀJ], full S"),
            ),
            of=expected_metric,
            kernels=("metric", "metric_d", "metric_dd"),
            expected="holds",
        ),
        Claim(
            "O1-form",
            "x = μ(z) + S(z) ε gives E[JᵀJ]_ab = ∂_aμ·∂_bμ + tr(∂_aS ∂_bS) in every dimension, and "
            "Var |ε|² = 2n",
            "ODDITY",
            parts=(
                Vanishing(M - printed, (a, b), "E[JᵀJ]"),
                Vanishing(Covariance(norm, norm, eps) - 2 * n, (), "Var |ε|²"),
                Vanishing(
                    variance - (Expected(g**2, eps) - M**2), (a, b), "Cov(x, x) = E[x²] - E[x]²"
                ),
            ),
            of=expected_metric,
            kernels=("metric",),
            expected="holds",
        ),
        Claim(
            "O2",
            "the expected metric's relative variance vanishes as the number of outputs grows",
            "ODDITY",
            parts=(
                Formula(of_decaying_rows, 0 * r, "outputs of decreasing share, m_i = rⁱ"),
                Formula(of_shared_noise, 0 * alpha, "one ε for all outputs, equal rows"),
            ),
            cases=(
                Case(
                    "independent ε_i, and no output dominates: max m_i/Σm → 0, for CV² ≤ "
                    "2 Σ(m_i/Σm)² ≤ 2 max m_i/Σm",
                    parts=(
                        Formula(
                            2 * mean_of_row**2 - variance_of_row,
                            2 * alpha**4,
                            "2 m_i² - Var_i = 2α_i⁴ ≥ 0",
                        ),
                    ),
                ),
            ),
            witnesses=(
                Witness("m_i = 2^{-i}, half of each from σ: the limit of CV²", at={r: half}),
                Witness("one ε, α = β = 1: CV² for every D", part=1, at={alpha: 1, beta: 1}),
            ),
            expected="holds under A (no row dominates); rows 2^{-i} keep CV² = ½",
        ),
        Claim(
            "O2-form",
            "Cov(JᵀJ_ab, JᵀJ_ce) = (∂_bS ∂_aμ + ∂_aS ∂_bμ)·(∂_eS ∂_cμ + ∂_cS ∂_eμ) + "
            "tr(∂_aS ∂_bS (∂_cS ∂_eS + ∂_eS ∂_cS)); for S = diag(σ) that is Σ_i [s_ab s_ce + "
            "2 q_ab q_ce]",
            "ODDITY",
            parts=(Vanishing(covariance - printed_covariance, (a, b, c, e), "Cov"),),
            of=expected_metric,
            kernels=("variance",),
            expected="holds",
        ),
        Claim(
            "O3",
            "geodesics solve ẍ = -½ M⁻¹[2 (1 ⊗ ẋᵀ)(∂vec M) ẋ - (∂vec M)ᵀ(ẋ ⊗ ẋ)], which is "
            "ẍ^e = -Γ^e_ab ẋ^a ẋ^b",
            "ODDITY",
            parts=(
                Vanishing(levi_civita.force - printed_force, (f,), "the equation = -Γẋẋ"),
                Formula(free(momentum_rate[0]), free(slope[0] / 2), "Euler-Lagrange, D = 2, first"),
                Formula(
                    free(momentum_rate[1]), free(slope[1] / 2), "Euler-Lagrange, D = 2, second"
                ),
            ),
            of=levi_civita.real_geometry,
            kernels=("geodesic_acceleration", "christoffel"),
            expected="holds",
        ),
        Claim(
            "O4",
            "the metric is smooth for C² activations",
            "ODDITY",
            parts=(
                Formula(
                    derivative_at_kink(p_before, 2),
                    derivative_at_kink(p_behind, 2),
                    "∂∂M before and behind a jump of f‴",
                ),
            ),
            cases=(
                Case(
                    "smooth means C¹, all that Christoffel symbols need",
                    parts=(
                        Vanishing(
                            Partial(M, c) - first_of_M,
                            (a, b, c),
                            "∂M has derivatives of μ and S up to the second",
                        ),
                        Formula(
                            derivative_at_kink(p_before, 1),
                            derivative_at_kink(p_behind, 1),
                            "∂M before and behind a jump of f‴",
                        ),
                    ),
                ),
            ),
            witnesses=(
                Witness("f = t + |t|³/6 at 0", at={f1: 1, f2: 0, p_before: -1, p_behind: 1}),
            ),
            expected="refuted: C² gives M in C¹ only",
        ),
        Claim(
            "O4-ReLU",
            "with ReLU every Christoffel symbol vanishes where it exists, so that straight lines "
            "solve the geodesic equation almost everywhere; across a kink they are not shortest",
            "ODDITY",
            parts=(
                Vanishing(Partial(M_of_piece, c), (a, b, c), "∂M = 0 on a piece, so Γ = 0"),
                Positive(
                    across.subs(y, half) - across.subs(y, 1 / (1 + k)),
                    {k: (2, 8)},
                    "the straight line is longer than one that bends at the kink",
                ),
            ),
            assumptions="μ and σ are piecewise linear; lengths are enclosed for slopes 1 and 2 … 8",
            expected="holds: solvers of that equation return straight lines in silence",
        ),
        Claim(
            "O5",
            "an RBF precision head makes σ grow away from data, up to a wall of finite height "
            "ζ^{-½} - (w + ζ)^{-½}, steepest in r² at r² = ln(w/2ζ)/λ",
            "ODDITY",
            parts=(
                Positive(-precision.diff(R), {R: (1, 5)}, "dσ/dR > 0 from R = 1 to 5"),
                Formula(height, zeta**-half - (w + zeta) ** -half, "the wall's height"),
                Formula(
                    deviation.diff(distance, 2),
                    bend,
                    "∂²σ/∂(r²)² changes its sign where w e^{-λr²} = 2ζ",
                ),
            ),
            assumptions=(
                "growth is enclosed on one ray, for four centres in the unit disc, λ = 1, "
                "ζ = 1/1000"
            ),
            expected="holds; that a standard head does not is measured",
        ),
        Claim(
            "O6",
            "steps U Λ^{-1/2} ε simulate Brownian motion of the metric",
            "ODDITY",
            parts=(
                Formula(
                    of_steps.subs(cos(theta), cosine),
                    simplify(of_motion).subs(cos(theta), cosine),
                    "d/dt E cos θ on the sphere, chart (θ, φ)",
                ),
                Vanishing(levi_civita.trace, (f,), "the drift -½ g^{ab}Γ_{f,ab} is zero"),
                Formula(0 * R, mean_cosine, "E cos y of the stationary law on a torus"),
            ),
            cases=(
                Case(
                    "∂_j(√g g^{ij}) = 0, of which the drift is a multiple: all conformal charts of "
                    "the plane, where no experiment can tell steps from Brownian motion",
                    parts=(
                        Vanishing(
                            drift + levi_civita.trace,
                            (f,),
                            "g_fi ∂_j(√g g^{ij})/√g = -g^{ab}Γ_{f,ab}",
                            normal_form=False,
                        ),
                        *[
                            Formula(
                                divergence_of_metric(conformal, d_conformal, each),
                                (conformal.inv() * d_conformal[each]).trace() / 2,
                                f"g^{{ab}}Γ_{{{each + 1},ab}} = 0 for M = φ1 in the plane",
                            )
                            for each in (0, 1)
                        ],
                    ),
                ),
            ),
            witnesses=(
                Witness("at θ = 0: E cos θ falls as e^{-t/2}, not as e^{-t}", at={cosine: 1}),
                Witness(
                    "the chart (cos θ, φ) at cos θ = ½",
                    part=1,
                    coordinates=(z1, z2),
                    fields={G: by_height},
                    at={z1: half, z2: 0},
                ),
                Witness("R = 2: 0, where the volume has ¼", part=2, at={R: 2}),
            ),
            expected="refuted in general; holds iff ∂_j(√g g^{ij}) = 0",
        ),
        Claim(
            "O5-trained",
            "trained on digits, a standard head's σ does not rise away from data, an RBF's does",
            "ODDITY",
            measured=on_digits(
                cell="variance",
                baseline="mlp",
                arms=(("rbf", "an RBF precision"), ("constant", "a constant σ")),
                measures=(("rise", "less rise"),),
            ),
        ),
        Claim(
            "O7",
            "Riemannian k-means beats Euclidean k-means in latent space",
            "ODDITY",
            measured=on_digits(
                cell="clusters",
                baseline="euclidean",
                arms=k_means,
                measures=(("f", "a lower F"),),
            ),
        ),
        Claim(
            "O7-mnist",
            "it does on the published triples of MNIST's classes",
            "ODDITY",
            measured=Comparison(
                results="oddity.json",
                command="python -m experiments.oddity",
                cell="clusters",
                baseline="euclidean",
                arms=k_means,
                measures=tuple((f"f_{triple}", "a lower F") for triple in ("012", "347", "569")),
            ),
        ),
        Claim(
            "O8",
            "RBF variance gives a better test marginal likelihood",
            "ODDITY",
            measured=on_digits(
                cell="variance",
                baseline="mlp",
                arms=(
                    ("rbf", "an RBF precision"),
                    ("constant", "a constant σ"),
                ),
                measures=(("log_likelihood", "a lower likelihood"),),
            ),
        ),
        Claim(
            "O9",
            "this expected metric is the decoder's Fisher-Rao metric",
            "ODDITY",
            parts=(
                Formula(fisher_rao_of_one, printed_of_one, "Fisher-Rao = expected metric"),
                Vanishing(fisher_rao - M, (a, b), "the same for full S"),
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
            "the Fisher-Rao metric is (J_μᵀJ_μ + 2 J_σᵀJ_σ)/σ²; for Σ = S² with full S it is "
            "∂_aμᵀΣ⁻¹∂_bμ + tr(S⁻¹∂_aS S⁻¹∂_bS) + ½ tr(Σ⁻¹(∂_aS ∂_bS + ∂_bS ∂_aS))",
            "ODDITY",
            parts=(
                Formula(
                    fisher_rao_of_one,
                    (mu_a * mu_b + 2 * sigma_a * sigma_b) / sigma**2,
                    "one output",
                ),
                Vanishing(fisher_rao - printed_fisher_rao, (a, b), "full S"),
            ),
            expected="holds",
        ),
    ),
)
