"""Complex VAEs and their Kähler structure (Gracyk, arXiv 2511.15172).

What the paper says of the Fisher metric of a circular complex Gaussian, of mixtures' potentials, of
curvature, and of what closed forms and log-det terms are good for.
"""

from sympy import Integer, Matrix, conjugate, exp, eye

from kahler_verify.calculus import (
    Bar,
    Case,
    Claim,
    Derived,
    Formula,
    Gram,
    LogDet,
    OnDiagonal,
    Partial,
    Region,
    Tr,
    Vanishing,
    Witness,
    adjoint,
    at_base,
    derive,
    explicit_coordinates,
    field,
    paper,
    scalars,
    wirtinger,
)
from kahler_verify.calculus.claims import Comparison, Speed
from kahler_verify.derivations.geometry import hermitian_geometry as hermitian
from kahler_verify.derivations.likelihoods import improper_gaussian as improper
from kahler_verify.derivations.likelihoods.gaussian_kl import (
    KL,
    Sigma,
    Sigma0,
    a,
    b,
    c,
    flat_kaehler,
    g,
    gaussian_kl,
    k,
    log_p,
    log_p0,
    mean,
    mu,
    mu0,
    n,
)
from kahler_verify.derivations.potentials import mixture_density as density
from kahler_verify.derivations.potentials import mixture_potential as potential

score_a, score_b = wirtinger(log_p, a), wirtinger(log_p, b)
score_b_bar = wirtinger(log_p, b, True)

# The metric as the paper prints it, with the trace terms that its n makes room for.
P = Sigma**-1
dmu_a, dmu_b, dmu_abar, dmu_bbar = (Partial(mu, i) for i in (a, b, Bar(a), Bar(b)))
dS_a, dS_b, dS_bbar = (Partial(Sigma, i) for i in (a, b, Bar(b)))
printed_g = scalars(
    adjoint(dmu_b) * P * dmu_a + adjoint(dmu_abar) * P * dmu_bbar + Tr(P * dS_a * P * dS_bbar)
)
printed_k = scalars(
    adjoint(dmu_abar) * P * dmu_b + adjoint(dmu_bbar) * P * dmu_a + Tr(P * dS_a * P * dS_b)
)

g_cb = OnDiagonal(Partial(KL, c, Bar(b)))
defect = Partial(g, c) - Partial(g_cb, a)

# Constant mean and Σ = e^φ I with φ = f + f̄ pluriharmonic: KL needs φ alone.
f = field("f", holomorphic=True)
phi = f + f.H
KL_phi = n * (phi - at_base(phi) - 1 + exp(at_base(phi) - phi))
defect_phi = Partial(OnDiagonal(Partial(KL_phi, a, Bar(b))), c) - Partial(
    OnDiagonal(Partial(KL_phi, c, Bar(b))), a
)

# Witnesses.
z1, z2 = explicit_coordinates("z1 z2")
modulus2 = z1 * conjugate(z1)
somewhere = {z1: 2, z2: 3}
one = Matrix([[1]])
flat_kaehler_case = Case("μ holomorphic and Σ constant", flat_kaehler)

J = field("J", hermitian.d, hermitian.d, holomorphic=True)  # of a change of chart

complex_vae = paper(
    "complex_vae",
    "Complex VAEs and Kähler structure",
    "Gracyk, arXiv 2511.15172",
    claims=(
        Claim(
            "G1",
            "KL's mixed Hessian in z' at z' = z is (∂_bμ)ᴴΣ⁻¹∂_aμ + (∂_āμ)ᴴΣ⁻¹∂_b̄μ + tr(Σ⁻¹∂_aΣ "
            "Σ⁻¹∂_b̄Σ), "
            "and KL is the mean of log p - log p' under p, for every n and d",
            "KVAE",
            parts=(
                Vanishing(g - printed_g, (a, b), "Hessian of KL = printed g"),
                Derived(KL, mean(log_p0 - log_p, mu0, Sigma0), "KL = E[log p₀ - log p] by Wick"),
            ),
            of=gaussian_kl,
            kernels=("fisher_metric_full", "fisher_metric_diagonal", "fisher_metric_scalar"),
            expected="holds",
        ),
        Claim(
            "G2",
            "that Hessian is the Fisher information E[∂_aℓ ∂_b̄ℓ], and the (2,0) block is "
            "(∂_āμ)ᴴΣ⁻¹∂_bμ + (∂_b̄μ)ᴴΣ⁻¹∂_aμ + tr(Σ⁻¹∂_aΣ Σ⁻¹∂_bΣ)",
            "KVAE",
            parts=(
                Derived(
                    mean(score_a * score_b_bar, mu, Sigma), derive(printed_g), "E[∂_aℓ ∂_b̄ℓ] = g"
                ),
                Derived(mean(score_a * score_b, mu, Sigma), derive(printed_k), "E[∂_aℓ ∂_bℓ] = k"),
                Derived(mean(score_a, mu, Sigma), Integer(0), "E[∂_aℓ] = 0"),
                Vanishing(k - printed_k, (a, b), "(2,0) Hessian of KL = printed k"),
            ),
            expected="holds",
        ),
        Claim(
            "G3",
            "the Fisher metric of a complex decoder is Kähler: ∂_c g_{ab̄} = ∂_a g_{cb̄}",
            "KVAE",
            parts=(Vanishing(defect, (c, a, b), "closedness defect"),),
            cases=(
                Case("d = 1", sizes={"d": 1}),
                flat_kaehler_case,
                Case(
                    "μ constant and Σ = e^φ I with φ pluriharmonic",
                    parts=(Vanishing(defect_phi, (c, a, b), "closedness defect"),),
                ),
            ),
            witnesses=(
                Witness(
                    "μ = (z₁z̄₂, z₂), Σ = I",
                    coordinates=(z1, z2),
                    fields={mu: Matrix([z1 * conjugate(z2), z2]), Sigma: eye(2)},
                    at=somewhere,
                ),
                Witness(
                    "μ = (z₁, z₂), Σ = (1 + |z₁|²) I",
                    coordinates=(z1, z2),
                    fields={mu: Matrix([z1, z2]), Sigma: (1 + modulus2) * eye(2)},
                    at=somewhere,
                ),
                Witness(
                    "one output, μ = z₁, Σ = e^{2 Re z₂}",
                    coordinates=(z1, z2),
                    fields={mu: Matrix([z1]), Sigma: exp(z2 + conjugate(z2)) * one},
                    at={z1: 2, z2: 0},
                ),
            ),
            expected="holds for d = 1, and for holomorphic μ with constant Σ; refuted in general",
        ),
        Claim(
            "G3b",
            "KL(z₀‖·) is a Kähler potential of the Fisher metric",
            "KVAE",
            parts=(Vanishing(Partial(KL, a, Bar(b)) - g, (a, b), "∂∂̄KL(z₀‖z) = g(z)"),),
            cases=(
                Case("z = z₀", parts=(Vanishing(g - printed_g, (a, b), "∂∂̄KL at z₀ = g"),)),
                flat_kaehler_case,
            ),
            witnesses=(
                Witness(
                    "μ = |z₁|², Σ = 1, z₀ = 0",
                    coordinates=(z1,),
                    fields={mu: Matrix([modulus2]), Sigma: one},
                    at={z1: 2},
                    base={z1: 0},
                ),
            ),
            expected="holds at z₀ only; refuted in any neighbourhood in general",
        ),
        Claim(
            "G4",
            "∂∂̄ log Σ_k π_k e^{q_k} = E_w[∂∂̄q] + Cov_w(∂q, ∂̄q), the law of total covariance; the "
            "covariance is positive semidefinite, so that λ_min(g) ≥ min_k λ_min(∂∂̄q_k), "
            "for every K and d",
            "KVAE",
            parts=(
                Vanishing(
                    potential.g - potential.within - potential.between,
                    (a, b),
                    "law of total covariance",
                ),
                Gram(potential.between, (a, b), "Cov_w(∂q, ∂̄q) ⪰ 0"),
            ),
            of=potential.mixture_potential,
            kernels=("metric", "metric_within", "metric_between"),
            expected="holds; note that the weights favour far centres",
        ),
        Claim(
            "G5",
            "minus the log density of a complex Gaussian mixture is plurisubharmonic",
            "KVAE",
            cases=(
                Case(
                    "K = 1",
                    sizes={"K": 1},
                    parts=(Vanishing(density.g - density.within, (a, b), "g = P"),),
                ),
            ),
            regions=(
                Region("4.1"),
                Region("3.9"),
                Region("3.5", dimension=2),
                Region("3.9", weights=("1/3", "2/3")),
                Region("4.1", weights=("1/3", "2/3")),
            ),
            expected="refuted; holds for K = 1, and for two equal components iff δᴴPδ ≤ 4",
        ),
        Claim(
            "G5-form",
            "∂∂̄ of minus the log density of a complex Gaussian mixture is E_w[∂∂̄q] - Cov_w(∂q, ∂̄q)",
            "KVAE",
            parts=(
                Vanishing(
                    density.g - density.within - density.between,
                    (a, b),
                    "the covariance is subtracted",
                ),
            ),
            of=density.mixture_density,
            kernels=("metric", "metric_within", "metric_between"),
            expected="holds",
        ),
        Claim(
            "G6",
            "the Chern-Ricci form tr(G⁻¹R_{cē}) is -∂_c∂_ē log det g, and a holomorphic "
            "change of chart, "
            "G ↦ J G Jᴴ, does not change it",
            "KVAE",
            parts=(
                Vanishing(
                    Tr(hermitian.G**-1 * hermitian.R) - hermitian.ricci,
                    (c, hermitian.e),
                    "trace of the curvature = -∂∂̄ log det",
                ),
                Vanishing(
                    Partial(LogDet(J * hermitian.G * J.H), c, Bar(hermitian.e))
                    - Partial(LogDet(hermitian.G), c, Bar(hermitian.e)),
                    (c, hermitian.e),
                    "∂∂̄ log det is the same in every chart",
                    normal_form=False,
                ),
            ),
            of=hermitian.hermitian_geometry,
            kernels=("chern_ricci", "chern_scalar", "chern_curvature"),
            expected="holds",
        ),
        Claim(
            "G7",
            "closed forms move the cost of differentiation from large to small scale",
            "KVAE",
            measured=Speed(
                results="cpu.json",
                command="kahler-verify bench --json benchmarks/results/cpu.json",
                defining=("KL Hessian", "Hessian, ", "nested Hessians"),
            ),
        ),
        Claim(
            "G8",
            "log-det regularisation and volume sampling give smoother samples, fewer outliers, "
            "less variety",
            "KVAE",
            measured=Comparison(
                results="kahler_vae.json",
                command="python -m experiments.kahler_vae",
                cell="kspace-4",
                baseline="vanilla",
                arms=(
                    ("regularised+", "regularisation, λ > 0"),
                    ("weighted+", "volume sampling, γ > 0"),
                    ("regularised+weighted+", "both"),
                ),
                measures=(
                    ("total_variation", "smoother"),
                    ("outliers", "fewer outliers"),
                    ("coverage", "less coverage"),
                    ("recall", "less recall"),
                    ("class_entropy", "less class entropy"),
                ),
                references=(("mixture", "a Gaussian mixture of encoded data, without geometry,"),),
            ),
        ),
        Claim(
            "G9",
            "KL per dimension of CN(μ, σ, δ) from CN(0, 1) is |μ|² + σ - 1 - ½ log(σ² - |δ|²)",
            "KVAE",
            parts=(
                Formula(
                    improper.covariance.det(),
                    improper.gap / 4,
                    "det of the real covariance = (σ² - |δ|²)/4",
                ),
                Formula(
                    improper.KL, improper.printed, "KL of real Gaussians = the printed formula"
                ),
                Formula(
                    improper.KL_general,
                    improper.computed,
                    "KL from CN(0, σ', δ') = what the package computes",
                ),
            ),
            assumptions="|δ| < σ (otherwise the covariance is not positive definite)",
            expected="holds; needs |δ| < σ, else a clear error",
        ),
    ),
)
