"""From Points to Spheres (Shi, arXiv 2507.17255): variational autoencoders as balls of codes."""

from sympy import (
    Expr,
    Matrix,
    Rational,
    conjugate,
    exp,
    gamma,
    integrate,
    log,
    oo,
    pi,
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
from kahler_verify.calculus.claims import Comparison
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

# ---------------------------------------------------------------- VQ-VAE as a limit (P3)

# Posterior N(c_k, s²1), prior the mean of N(c_j, s²1) over K codes, r_j = N(c_j)/N(c_k):
# log K - KL = E log(1 + Σ_{j≠k} r_j) ≤ Σ E log(1 + r_j) ≤ Σ E√r_j = Σ exp(-|c_j - c_k|²/(8s²))
r1, r2, r3, root, s, gap = symbols("r_1 r_2 r_3 t s delta", positive=True)
t = symbols("u", real=True)
all_at_once, one_by_one = 1 + r1 + r2 + r3, (1 + r1) * (1 + r2) * (1 + r3)
below_root = root - log(1 + root**2)  # √r - log(1 + r) at r = t²
ratio = exp((t * gap - gap**2 / 2) / s**2)  # of both densities at c_k + t, along c_j - c_k
posterior = exp(-(t**2) / (2 * s**2)) / sqrt(2 * pi * s**2)
overlap = integrate(sqrt(ratio) * posterior, (t, -oo, oo))

# The prior N(0, 1) instead
centre = symbols("c", positive=True)  # |c_k|
KL_fixed = (size * s**2 + centre**2 - size) / 2 - size * log(s)

# ---------------------------------------------------------------- β → 0 (P4)

# One code for x, f(z) = w z: (x - w m)² + w²σ² + β KL(N(m, σ²) ‖ N(0, 1))
m, variance_of_code, beta, slope = symbols("m v beta w", positive=True)
target = symbols("x", positive=True)
objective = (
    (target - slope * m) ** 2
    + slope**2 * variance_of_code
    + beta * (variance_of_code + m**2 - 1 - log(variance_of_code)) / 2
)
best = {m: slope * target / (slope**2 + beta / 2), variance_of_code: beta / (2 * slope**2 + beta)}

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
        Claim(
            "P2",
            "the KL term makes codes more uniform",
            "SPHERES",
            measured=Comparison(
                results="generators.json",
                command="python -m experiments.generators",
                cell="uniformity",
                baseline="neither",
                arms=(
                    ("noise", "noise alone"),
                    ("kl", "KL alone"),
                    ("both", "both"),
                ),
                measures=(
                    ("variation", "more even codes"),
                    ("sliced", "nearer to the prior"),
                    ("holes", "fewer holes"),
                ),
            ),
        ),
        Claim(
            "P3",
            "VQ-VAE is the limit of a VAE as balls shrink to cluster centres: the objective tends "
            "to reconstruction + log K",
            "SPHERES",
            parts=(
                Formula(
                    (s * KL_fixed.diff(s)).limit(s, 0),
                    0 * size,
                    "s ∂KL/∂s as s → 0, of the prior N(0, 1), if KL has a limit",
                ),
            ),
            cases=(
                Case(
                    "the prior is the mixture of all balls, (1/K) Σ_j N(c_j, s²1): "
                    "0 ≤ log K - KL ≤ Σ_{j≠k} exp(-|c_j - c_k|²/(8s²))",
                    parts=(
                        Formula(
                            (one_by_one - all_at_once).expand(),
                            r1 * r2 + r1 * r3 + r2 * r3 + r1 * r2 * r3,
                            "1 + Σr_j ≤ Π(1 + r_j), K = 4",
                        ),
                        Formula(
                            below_root.diff(root),
                            (1 - root) ** 2 / (1 + root**2),
                            "√r - log(1 + r) rises from 0",
                        ),
                        Formula(overlap, exp(-(gap**2) / (8 * s**2)), "E√r_j"),
                    ),
                ),
            ),
            witnesses=(Witness("N(0, 1), d = 1: KL grows as -log s", at={size: 1}),),
            expected="holds under A: refuted with a fixed prior, where -d log s → ∞",
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
            "the autoencoder is recovered as β → 0: σ → 0",
            "SPHERES",
            parts=(
                Formula(
                    best[variance_of_code].subs(slope, 0).limit(beta, 0) * target,
                    0 * target,
                    "σ² x as β → 0, of a decoder that does not look at its code, w = 0",
                ),
            ),
            cases=(
                Case(
                    "the decoder depends on its code; linear, with one code",
                    parts=(
                        *[
                            Formula(objective.diff(q).subs(best), 0 * beta, f"∂/∂{name} = 0")
                            for q, name in ((m, "m"), (variance_of_code, "σ²"))
                        ],
                        Formula(
                            best[variance_of_code].limit(beta, 0) + slope,
                            slope,
                            "σ² → 0",
                        ),
                        Formula((slope * best[m]).limit(beta, 0), target, "w m → x"),
                        Formula(
                            objective.subs(best).limit(beta, 0) + beta,
                            beta,
                            "the objective tends to the autoencoder's, 0",
                        ),
                    ),
                ),
            ),
            witnesses=(Witness("w = 0: σ = 1 for every β", at={target: 1}),),
            expected="the infimum tends to the autoencoder's; σ → 0 need not follow",
        ),
    ),
)
