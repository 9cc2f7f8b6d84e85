"""Minus the log density of a complex Gaussian mixture: Ψ = -log Σ_k π_k det P_k e^{-q_k}.

The same calculus as the log-sum-exp potential with the sign of q turned: weights favour near
centres, and the covariance term is subtracted, so that Ψ need not be plurisubharmonic.
"""

from kahler_verify.calculus import (
    Bar,
    Contract,
    Derivation,
    Entry,
    Kernel,
    LogSumExp,
    Mean,
    Output,
    Partial,
    Tr,
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

within = Mean(-q, Partial(q, a, Bar(b)))
between = -covariance(-q, Partial(q, a), Partial(q, Bar(b)))

# Curvature without the d⁴ tensor, as for the log-sum-exp potential.
G = field("g", d, d, hermitian=True, positive=True)
v = field("v", d, constant=True)
g_db = Partial(g, c, Bar(e))
vvvv = Entry(v, a) * Entry(v.H, b) * Entry(v, c) * Entry(v.H, e)

slopes = Tr(G**-1 * Partial(G, c) * G**-1 * Partial(G, Bar(e)))
ricci = slopes - Contract(Entry(G**-1, b, a) * g_db, a, b)
scalar = Contract(Entry(G**-1, e, c) * ricci, c, e)
slopes_along = Entry(Partial(G, c) * G**-1 * Partial(G, Bar(e)), a, b) * vvvv
length = Contract(Entry(G, a, b) * Entry(v, a) * Entry(v.H, b), a, b)
along_v = Contract(slopes_along, a, b, c, e) - Contract(g_db * vvvv, a, b, c, e)

mixture_density = Derivation(
    name="mixture_density",
    title="∂∂̄ of minus the log density of a complex Gaussian mixture",
    source="Gracyk, arXiv 2511.15172; sign of the covariance derived here",
    assumptions=("the q_k = (z - c_k)ᴴP_k(z - c_k) are quadratic; P_k is positive definite",),
    latent=d,
    definition=Psi,
    kernels=(
        Kernel("metric_within", {"within": Output(within, (a, b))}),
        Kernel("metric_between", {"between": Output(between, (a, b))}),
        Kernel(
            "gradient_and_metric",
            {"gradient": Output(Partial(Psi, a), (a,)), "g": Output(g, (a, b))},
        ),
        Kernel("metric", {"g": Output(g, (a, b))}, {}, quadratic),
        Kernel("metric_d", {"g_d": Output(Partial(g, c), (c, a, b))}, {}, quadratic),
        Kernel("metric_db", {"g_db": Output(g_db, (c, e, a, b))}, {}, quadratic),
        Kernel("ricci", {"ricci": Output(ricci, (c, e))}, {}, quadratic),
        Kernel("scalar", {"scalar": Output(scalar)}, {}, quadratic),
        Kernel("holomorphic_sectional", {"curvature": Output(along_v / length**2)}, {}, quadratic),
    ),
)
