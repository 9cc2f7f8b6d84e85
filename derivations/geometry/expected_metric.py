"""The metric that a stochastic generator x = μ(z) + S(z)ε has in the mean.

|dx|² is a quadratic form in dz with random coefficients ∂_ax·∂_bx; its mean over ε ~ N(0, 1) is
J_μᵀJ_μ + J_σᵀJ_σ for a diagonal S, and its variance is the sum of the pairings that connect two
copies of it, so that no digits cancel.
"""

from kahler_verify.calculus import (
    Covariance,
    Derivation,
    Expected,
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
mu, S = field("mu", n, real=True), field("S", n, n, symmetric=True)
eps = field("eps", n, real=True, constant=True)

x = mu + S * eps
g = Tr(adjoint(Partial(x, a)) * Partial(x, b))  # |dx|², as a form
M = Expected(g, eps)
variance = Covariance(g, g, eps)

layout = {"S": "diagonal"}

expected_metric = Derivation(
    name="expected_metric",
    title="The expected pull-back metric of a stochastic generator, and its exact variance",
    source="Arvanitidis, Hansen, Hauberg, arXiv 1710.11379",
    assumptions=("S is diagonal, and μ and S are three times differentiable",),
    latent=d,
    definition=M,
    routes=("autograd", "mpmath", "exact"),
    kernels=(
        Kernel("metric", {"g": Output(M, (a, b))}, layout),
        Kernel("metric_d", {"g_d": Output(Partial(M, c), (c, a, b))}, layout),
        Kernel("metric_dd", {"g_dd": Output(Partial(M, c, e), (c, e, a, b))}, layout),
        Kernel("variance", {"variance": Output(variance, (a, b))}, layout),
    ),
)
