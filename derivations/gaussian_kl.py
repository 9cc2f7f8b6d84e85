"""The divergence between circular complex Gaussians, and the Fisher metric that is its Hessian.

p_z = CN(μ(z), Σ(z)), with n outputs, d latents, and any dependence of μ and Σ on z and z̄.  Every
kernel below is the divergence differentiated: nothing is typed by hand.
"""

from kahler_verify.calculus import (
    Bar,
    Claim,
    Derivation,
    Kernel,
    LogDet,
    OnDiagonal,
    Output,
    Partial,
    Tr,
    adjoint,
    dimension,
    field,
    index,
    scalars,
)

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
    kernels=tuple(kernels),
    claims=(
        Claim(
            "G1",
            "KL's mixed Hessian at z' = z is (∂_bμ)ᴴΣ⁻¹∂_aμ + (∂_āμ)ᴴΣ⁻¹∂_b̄μ + tr(Σ⁻¹∂_aΣ Σ⁻¹∂_b̄Σ)",
            "KVAE",
        ),
    ),
)
