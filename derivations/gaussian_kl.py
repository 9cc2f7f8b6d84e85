"""The divergence between circular complex Gaussians, and the Fisher metric that is its Hessian.

p_z = CN(μ(z), Σ(z)), with n outputs, d latents, and any dependence of μ and Σ on z and z̄.  Every
kernel below is the divergence differentiated: nothing is typed by hand.
"""

from sympy import Expr, Integer, Matrix, conjugate, exp, eye

from kahler_verify.calculus import (
    Bar,
    Case,
    Claim,
    Derivation,
    Derived,
    Kernel,
    LogDet,
    OnDiagonal,
    Output,
    Partial,
    Tr,
    Vanishing,
    Witness,
    adjoint,
    at_base,
    derive,
    dimension,
    explicit_coordinates,
    field,
    gaussian_mean,
    index,
    map_letters,
    scalars,
    wirtinger,
)
from kahler_verify.calculus.claims import Comparison, Speed

n, d = dimension("n"), dimension("d")
a, b, c, e = index("a b c e")

mu = field("mu", n)
Sigma = field("Sigma", n, n, hermitian=True, positive=True)
mu0, Sigma0 = mu.at_base(), Sigma.at_base()

# KL(p_{z₀} ‖ p_z)
KL = scalars(
    LogDet(Sigma)
    - LogDet(Sigma0)
    - n
    + Tr(Sigma**-1 * Sigma0)
    + adjoint(mu - mu0) * Sigma**-1 * (mu - mu0)
)

# Its Hessian in z at z = z₀ is the Fisher metric g with the complementary part k.
g = OnDiagonal(Partial(KL, a, Bar(b)))
k = OnDiagonal(Partial(KL, a, b))

metric = {"g": Output(g, (a, b)), "k": Output(k, (a, b))}
metric_d = {"g_d": Output(Partial(g, c), (c, a, b))}
metric_db = {"g_db": Output(Partial(g, c, Bar(e)), (c, e, a, b))}
hessian = {"hessian": Output(Partial(KL, a, Bar(b)), (a, b))}

layouts = [{"Sigma": layout} for layout in ("full", "diagonal", "scalar")]
flat_kaehler = ((mu, "holomorphic"), (Sigma, "constant"))

kernels = [
    Kernel(f"{name}_{layout['Sigma']}", outputs, layout)
    for layout in layouts
    for name, outputs in (
        ("fisher_metric", metric),
        ("fisher_metric_d", metric_d),
        ("fisher_metric_db", metric_db),
        ("kl_hessian", hessian),
    )
]
kernels += [
    Kernel(f"{name}_{layout['Sigma']}_holomorphic", outputs, layout, flat_kaehler)
    for layout in layouts
    for name, outputs in (
        ("fisher_metric", {"g": metric["g"]}),
        ("fisher_metric_d", metric_d),
        ("fisher_metric_db", metric_db),
    )
]
# The metric's two summands by themselves: each can be stored, and reduced, in its own width n.
kernels += [
    Kernel(f"{name}_diagonal_constant_{constant}", outputs, layouts[1], ((letter, "constant"),))
    for constant, letter in (("mean", mu), ("covariance", Sigma))
    for name, outputs in (("fisher_metric", metric), ("hermitian_part", {"g": metric["g"]}))
]

# The same divergence a second way: the mean of log p_{z₀} - log p_z over x = μ₀ + r, r ~ CN(0, Σ₀).
x, r = field("x", n, constant=True), field("r", n, constant=True)
log_p = scalars(-LogDet(Sigma) - adjoint(x - mu) * Sigma**-1 * (x - mu))  # without n log π
log_p0 = scalars(-LogDet(Sigma0) - adjoint(x - mu0) * Sigma0**-1 * (x - mu0))


def mean(expr: Expr, m: Expr, S: Expr) -> Expr:
    """E over x ~ CN(m, S), by Wick's rule."""
    values = {x: m + r, x.H: adjoint(m + r)}
    return gaussian_mean(map_letters(expr, lambda letter: values.get(letter, letter)), r, S)


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
cubic = OnDiagonal(Partial(KL, a, c, Bar(b)))

# Constant mean and Σ = e^φ I with φ = f + f̄ pluriharmonic: KL needs φ alone.
f = field("f", holomorphic=True)
phi = f + f.H
KL_phi = n * (phi - at_base(phi) - 1 + exp(at_base(phi) - phi))
defect_phi = Partial(OnDiagonal(Partial(KL_phi, a, Bar(b))), c) - Partial(
    OnDiagonal(Partial(KL_phi, c, Bar(b))), a
)

z1, z2 = explicit_coordinates("z1 z2")
modulus2 = z1 * conjugate(z1)
somewhere = {z1: 2, z2: 3}
one = Matrix([[1]])
flat_kaehler_case = Case("μ holomorphic and Σ constant", flat_kaehler)

claims = (
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
        kernels=("fisher_metric_full", "fisher_metric_diagonal", "fisher_metric_scalar"),
        expected="holds",
    ),
    Claim(
        "G2",
        "that Hessian is the Fisher information E[∂_aℓ ∂_b̄ℓ], and the (2,0) block is "
        "(∂_āμ)ᴴΣ⁻¹∂_bμ + (∂_b̄μ)ᴴΣ⁻¹∂_aμ + tr(Σ⁻¹∂_aΣ Σ⁻¹∂_bΣ)",
        "KVAE",
        parts=(
            Derived(mean(score_a * score_b_bar, mu, Sigma), derive(printed_g), "E[∂_aℓ ∂_b̄ℓ] = g"),
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
        "PB1-likelihoods",
        "the same for Bernoulli, categorical, Beta, Dirichlet and von Mises-Fisher likelihoods",
        "PULLBACK",
        waits_for="divergences of these families as derivations",
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
            command="python -m benchmarks.kahler_vae",
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
)

gaussian_kl = Derivation(
    name="gaussian_kl",
    title="Fisher metric of a circular complex Gaussian, from its Kullback-Leibler divergence",
    source="Gracyk, arXiv 2511.15172; Hessian in all Wirtinger blocks derived here",
    assumptions=(
        "the relation matrix is zero (circular Gaussians)",
        "Σ(z) is Hermitian and positive definite; μ and Σ are three times differentiable",
        "kernels ending in _holomorphic: μ holomorphic and Σ constant",
    ),
    latent=d,
    definition=KL,
    routes=("autograd", "mpmath", "exact", "componentwise", "torch_kl", "monte_carlo", "known"),
    kernels=tuple(kernels),
    claims=claims,
)
