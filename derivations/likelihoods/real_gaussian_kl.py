"""The divergence between Gaussians where something is real, and the Fisher metric it gives.

p_z = N(μ(z), Σ(z)) over R^n at real latents z ∈ R^d: the ordinary decoder of a VAE.  The same text
gives the two mixed kinds: a circular complex likelihood CN(μ, Σ) at real latents, and a real
likelihood at complex ones.  What is real is said where letters and indices are made, and only
there; the case of complex likelihood and complex latents is gaussian_kl's.
"""

from sympy import Expr, Rational

from kahler_verify.calculus import (
    Bar,
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
    adjoint,
    at_base,
    derive,
    dimension,
    field,
    gaussian_mean,
    index,
    map_letters,
    scalars,
    wirtinger,
)

n, d = dimension("n"), dimension("d")
LAYOUTS = ("full", "diagonal", "scalar")


def log_density(x: Expr, mu: Expr, Sigma: Expr, weight: Expr) -> Expr:
    """Log p(x) without its constant; ``weight``: ½ for a real Gaussian, 1 for a complex one."""
    return scalars(weight * (-LogDet(Sigma) - adjoint(x - mu) * Sigma**-1 * (x - mu)))


def divergence(mu: Expr, Sigma: Expr, weight: Expr) -> Expr:
    """KL(p_{z₀} ‖ p_z)."""
    mu0, Sigma0 = at_base(mu), at_base(Sigma)
    return scalars(
        weight
        * (
            LogDet(Sigma)
            - LogDet(Sigma0)
            - n
            + Tr(Sigma**-1 * Sigma0)
            + adjoint(mu - mu0) * Sigma**-1 * (mu - mu0)
        )
    )


def real_latent_kernels(KL: Expr, layouts: tuple[str, ...]) -> tuple[Kernel, ...]:
    """The metric g_ab = ∂_a∂_b KL at z = z₀, its first and its second derivatives."""
    a, b, c, e = index("a b c e", d, real=True)
    g = OnDiagonal(Partial(KL, a, b))
    outputs = {
        "fisher_metric": {"g": Output(g, (a, b))},
        "fisher_metric_d": {"g_d": Output(Partial(g, c), (c, a, b))},
        "fisher_metric_dd": {"g_dd": Output(Partial(g, c, e), (c, e, a, b))},
    }
    return tuple(
        Kernel(f"{name}_{layout}", out, {"Sigma": layout})
        for layout in layouts
        for name, out in outputs.items()
    )


def complex_latent_kernels(KL: Expr, layouts: tuple[str, ...]) -> tuple[Kernel, ...]:
    """The blocks g_{ab̄} and k_{ab} of KL's Hessian at z = z₀, and g's derivatives."""
    a, b, c, e = index("a b c e")
    g, k = OnDiagonal(Partial(KL, a, Bar(b))), OnDiagonal(Partial(KL, a, b))
    outputs = {
        "fisher_metric": {"g": Output(g, (a, b)), "k": Output(k, (a, b))},
        "fisher_metric_d": {"g_d": Output(Partial(g, c), (c, a, b))},
        "fisher_metric_db": {"g_db": Output(Partial(g, c, Bar(e)), (c, e, a, b))},
    }
    return tuple(
        Kernel(f"{name}_{layout}", out, {"Sigma": layout})
        for layout in layouts
        for name, out in outputs.items()
    )


# Real outputs.
half = Rational(1, 2)
mu = field("mu", n, real=True)
Sigma = field("Sigma", n, n, symmetric=True, positive=True)
KL = divergence(mu, Sigma, half)

# The same divergence a second way: E[log p_{z₀} - log p_z] over x = μ₀ + r, r ~ N(0, Σ₀).
a, b = index("a b", d, real=True)
x, r = field("x", n, constant=True, real=True), field("r", n, constant=True, real=True)
log_p = log_density(x, mu, Sigma, half)
log_p0 = log_density(x, mu.at_base(), Sigma.at_base(), half)


def mean(expr: Expr, m: Expr, S: Expr) -> Expr:
    """E over x ~ N(m, S), by Wick's rule."""
    values = {x: m + r, x.H: adjoint(m + r)}
    return gaussian_mean(map_letters(expr, lambda letter: values.get(letter, letter)), r, S)


P = Sigma**-1
printed = scalars(
    adjoint(Partial(mu, a)) * P * Partial(mu, b)
    + half * Tr(P * Partial(Sigma, a) * P * Partial(Sigma, b))
)
g = OnDiagonal(Partial(KL, a, b))

real_gaussian_kl = Derivation(
    name="real_gaussian_kl",
    title="Fisher-Rao metric of a real Gaussian, from its Kullback-Leibler divergence",
    source="Rao 1945; Skovgaard 1984, A Riemannian geometry of the multivariate normal model",
    assumptions=(
        "z is real; Σ(z) is symmetric and positive definite",
        "μ and Σ are three times differentiable, four times for the second derivatives of g",
    ),
    latent=d,
    definition=KL,
    routes=("autograd", "mpmath", "exact", "componentwise", "torch_kl", "monte_carlo"),
    kernels=real_latent_kernels(KL, LAYOUTS),
    claims=(
        Claim(
            "R1",
            "the Hessian of KL between real Gaussians is the Fisher information "
            "∂_aμᵀΣ⁻¹∂_bμ + ½ tr(Σ⁻¹∂_aΣ Σ⁻¹∂_bΣ), and KL is the mean of log p₀ - log p",
            "PULLBACK",
            parts=(
                Vanishing(g - printed, (a, b), "Hessian of KL = printed g"),
                Derived(
                    KL,
                    mean(log_p0 - log_p, mu.at_base(), Sigma.at_base()),
                    "KL = E[log p₀ - log p] by Wick",
                ),
                Derived(
                    mean(wirtinger(log_p, a) * wirtinger(log_p, b), mu, Sigma),
                    derive(printed),
                    "E[∂_aℓ ∂_bℓ] = g",
                ),
                Vanishing(OnDiagonal(KL), (), "KL(z‖z) = 0"),
                Vanishing(OnDiagonal(Partial(KL, a)), (a,), "∂KL(z‖z) = 0"),
            ),
            kernels=tuple(f"fisher_metric_{layout}" for layout in LAYOUTS),
            expected="holds",
        ),
    ),
)

# A complex likelihood at real latents.
complex_mu = field("mu", n)
complex_Sigma = field("Sigma", n, n, hermitian=True, positive=True)
KL_of_complex = divergence(complex_mu, complex_Sigma, Rational(1))

complex_gaussian_of_real = Derivation(
    name="complex_gaussian_of_real",
    title="Fisher-Rao metric of a circular complex Gaussian at real latents",
    source="the divergence of gaussian_kl, differentiated along real coordinates",
    assumptions=("z is real; Σ(z) is Hermitian and positive definite",),
    latent=d,
    definition=KL_of_complex,
    routes=("autograd", "mpmath", "exact", "torch_kl", "monte_carlo"),
    kernels=real_latent_kernels(KL_of_complex, LAYOUTS),
)

# A real likelihood at complex latents.
real_gaussian_of_complex = Derivation(
    name="real_gaussian_of_complex",
    title="Fisher metric of a real Gaussian at complex latents",
    source="the divergence of real_gaussian_kl, differentiated by Wirtinger's derivatives",
    assumptions=("z is complex; μ(z) and Σ(z) are real, Σ symmetric and positive definite",),
    latent=d,
    definition=KL,
    routes=("autograd", "mpmath", "exact", "torch_kl", "monte_carlo"),
    kernels=complex_latent_kernels(KL, LAYOUTS),
)
