"""Log-sum-exp mixtures of plurisubharmonic components: Φ = log Σ_k π_k e^{q_k(z)}.

The number of components stays a symbol.  Weights w_k ∝ π_k e^{q_k} favour far centres when the
q_k are squared distances.  Derivatives come out in centred moments under w; uncentred ones lose
every digit.
"""

from sympy import exp, log

from kahler_verify.calculus import (
    Bar,
    Claim,
    Contract,
    Derivation,
    Entry,
    Kernel,
    LogSumExp,
    Mean,
    Output,
    Partial,
    Tr,
    Vanishing,
    adjoint,
    coordinates,
    covariance,
    dimension,
    field,
    index,
    parameter,
    potential,
)

d = dimension("d")
a, b, c, e = index("a b c e")

q = field("q", component=True, hermitian=True)
quadratic = ((q, "quadratic"),)  # second ∂ and second ∂̄ vanish: q = (z - c)ᴴP(z - c)

Phi = LogSumExp(q)
g = Partial(Phi, a, Bar(b))

# the law of total covariance: curvature within components, and their spread
within = Mean(q, Partial(q, a, Bar(b)))
between = covariance(q, Partial(q, a), Partial(q, Bar(b)))

# Blocks.  The log-sum-exp of some components is a component itself: with q_β the log-sum-exp of
# block β, Φ = log Σ_β e^{q_β}.  A block's weight, ∂q_β and ∂∂̄q_β are all that the others have to
# know of it, and the kernel that makes them of components joins blocks too.  Here are two.
first, second = field("first", hermitian=True), field("second", hermitian=True)
both = log(exp(first) + exp(second))
share = exp(second) / (exp(first) + exp(second))
mean_of_both = (1 - share) * Partial(first, a) + share * Partial(second, a)
apart, apart_b = (Partial(second, i) - Partial(first, i) for i in (a, Bar(b)))
within_both = (1 - share) * Partial(first, a, Bar(b)) + share * Partial(second, a, Bar(b))
between_both = share * (1 - share) * apart * apart_b

# Curvature without the d⁴ tensor: G stands for g itself, whose derivatives metric_d gives; of the
# second ones only what a trace with G⁻¹ or a direction v leaves of them is ever computed.
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

kernels = [
    Kernel("metric_within", {"within": Output(within, (a, b))}),
    Kernel("metric_between", {"between": Output(between, (a, b))}),
    Kernel(
        "gradient_and_metric", {"gradient": Output(Partial(Phi, a), (a,)), "g": Output(g, (a, b))}
    ),
]
for name, assumptions in (("", quadratic), ("_general", ())):
    kernels += [
        Kernel(f"metric{name}", {"g": Output(g, (a, b))}, {}, assumptions),
        Kernel(f"metric_d{name}", {"g_d": Output(Partial(g, c), (c, a, b))}, {}, assumptions),
        Kernel(
            f"metric_db{name}",
            {"g_db": Output(Partial(g, c, Bar(e)), (c, e, a, b))},
            {},
            assumptions,
        ),
    ]
kernels = [k for k in kernels if k.name != "metric_general"]  # the same formula as metric
kernels += [
    Kernel("ricci", {"ricci": Output(ricci, (c, e))}, {}, quadratic),
    Kernel("scalar", {"scalar": Output(scalar)}, {}, quadratic),
    Kernel("holomorphic_sectional", {"curvature": Output(along_v / length**2)}, {}, quadratic),
]

mixture_potential = Derivation(
    name="mixture_potential",
    title="Metric of a log-sum-exp potential with any number of components",
    source="Gracyk, arXiv 2511.15172 (mixture potential); law of total covariance derived here",
    assumptions=(
        "the q_k are real",
        "kernels without _general: the q_k are quadratic, (z - c_k)ᴴP_k(z - c_k)",
    ),
    latent=d,
    definition=Phi,
    positive=True,  # for positive definite P_k
    kernels=tuple(kernels),
    claims=(
        Claim(
            "G4-blocks",
            "the law of total covariance over blocks: two blocks with potentials Φ₁, Φ₂ and shares "
            "1 - s, s have together ∂Φ = E_s[∂Φ_β] and ∂∂̄Φ = E_s[∂∂̄Φ_β] + s(1 - s) δ δ̄, where "
            "δ = ∂Φ₂ - ∂Φ₁, for any functions Φ₁ and Φ₂: components may be joined in any order",
            "KVAE",
            parts=(
                Vanishing(Partial(both, a) - mean_of_both, (a,), "the mean", normal_form=False),
                Vanishing(
                    Partial(both, a, Bar(b)) - within_both - between_both,
                    (a, b),
                    "the metric",
                    normal_form=False,
                ),
            ),
            kernels=("gradient_and_metric",),
            expected="holds",
        ),
    ),
)

# One component, from which the mixture's inputs q_d and q_db are computed.
z = coordinates("z", d)
centre = parameter("centre", d)
precision = parameter("precision", d, d, hermitian=True)

quadratic_form = potential(
    "quadratic_form",
    adjoint(z - centre) * precision * (z - centre),
    title="Quadratic form (z - c)ᴴP(z - c), the component of mixtures",
)

# The same of the offset z - c, which has the derivatives that z has.
centred_form = potential(
    "centred_form",
    adjoint(z) * precision * z,
    title="Quadratic form zᴴPz of an offset z from a centre",
)
