"""The divergence between circular complex Gaussians, and the Fisher metric that is its Hessian.

p_z = CN(μ(z), Σ(z)), with n outputs, d latents, and any dependence of μ and Σ on z and z̄.  Every
kernel below is the divergence differentiated: nothing is typed by hand.
"""

from sympy import Expr

from kahler_verify.calculus import (
    Bar,
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
    gaussian_mean,
    index,
    map_letters,
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
)
