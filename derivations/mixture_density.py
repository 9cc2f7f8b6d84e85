"""Minus the log density of a complex Gaussian mixture: Ψ = -log Σ_k π_k det P_k e^{-q_k}.

The same calculus as the log-sum-exp potential with the sign of q turned: weights favour near
centres, and the covariance term is subtracted, so that Ψ need not be plurisubharmonic.
"""

from kahler_verify.calculus import (
    Bar,
    Case,
    Claim,
    Derivation,
    Kernel,
    LogSumExp,
    Mean,
    Output,
    Partial,
    Region,
    Vanishing,
    covariance,
    dimension,
    field,
    index,
)

d = dimension("d")
a, b, c, e = index("a b c e")

q = field("q", component=True, hermitian=True)
quadratic = ((q, "quadratic"),)

Psi = -LogSumExp(-q)
g = Partial(Psi, a, Bar(b))

mixture_density = Derivation(
    name="mixture_density",
    title="∂∂̄ of minus the log density of a complex Gaussian mixture",
    source="Gracyk, arXiv 2511.15172; sign of the covariance derived here",
    assumptions=("the q_k = (z - c_k)ᴴP_k(z - c_k) are quadratic; P_k is positive definite",),
    latent=d,
    definition=Psi,
    kernels=(
        Kernel("metric", {"g": Output(g, (a, b))}, {}, quadratic),
        Kernel("metric_d", {"g_d": Output(Partial(g, c), (c, a, b))}, {}, quadratic),
        Kernel("metric_db", {"g_db": Output(Partial(g, c, Bar(e)), (c, e, a, b))}, {}, quadratic),
    ),
    claims=(
        Claim(
            "G5-form",
            "∂∂̄ of minus the log density of a complex Gaussian mixture is E_w[∂∂̄q] - Cov_w(∂q, ∂̄q)",
            "KVAE",
            parts=(
                Vanishing(
                    g
                    - Mean(-q, Partial(q, a, Bar(b)))
                    + covariance(-q, Partial(q, a), Partial(q, Bar(b))),
                    (a, b),
                    "the covariance is subtracted",
                ),
            ),
            kernels=("metric",),
            expected="holds",
        ),
        Claim(
            "G5",
            "minus the log density of a complex Gaussian mixture is plurisubharmonic",
            "KVAE",
            cases=(
                Case(
                    "K = 1",
                    sizes={"K": 1},
                    parts=(Vanishing(g - Mean(-q, Partial(q, a, Bar(b))), (a, b), "g = P"),),
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
    ),
)
