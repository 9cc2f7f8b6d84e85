"""Hermitian geometry from the derivatives of a metric g_{ab̄}: volume, Chern connection, curvature.

As matrices, G[a, b] = g_{ab̄}: Γ_c = ∂_cG G⁻¹ with Γ_c[a, e] = Γ^e_{ca}, R_{cē} = -∂_ē(Γ_c) G,
and Ric_{cē} = -∂_c∂_ē log det G.  For a Kähler metric these are the Levi-Civita ones; otherwise
they are Chern's.
"""

from kahler_verify.calculus import (
    Bar,
    Claim,
    Contract,
    Derivation,
    Entry,
    Kernel,
    LogDet,
    Output,
    Partial,
    Tr,
    Vanishing,
    dimension,
    field,
    index,
    pullback,
)

d = dimension("d")
a, b, c, e = index("a b c e")

G = field("g", d, d, hermitian=True, positive=True)
v = field("v", d, constant=True)
J = field("J", d, d, holomorphic=True)

Gamma = Partial(G, c) * G**-1
R = -Partial(Gamma, Bar(e)) * G
ricci = -Partial(LogDet(G), c, Bar(e))
P = pullback(LogDet(G), G)

# g^{cē} is (G⁻¹)[e, c]
scalar = Contract(Entry(G**-1, e, c) * ricci, c, e)
along_v = Contract(
    Entry(R, a, b) * Entry(v, a) * Entry(v.H, b) * Entry(v, c) * Entry(v.H, e), a, b, c, e
)
length = Contract(Entry(G, a, b) * Entry(v, a) * Entry(v.H, b), a, b)
defect = Entry(Partial(G, c), a, b) - Entry(Partial(G, a), c, b)

hermitian_geometry = Derivation(
    name="hermitian_geometry",
    title="Chern connection and curvature of a Hermitian metric",
    source=(
        "Kobayashi & Nomizu, Foundations of Differential Geometry II, ch. IX; signs as in CLAIMS"
    ),
    assumptions=("g is positive definite and twice differentiable",),
    latent=d,
    kernels=(
        Kernel("log_det_gradient", {"gradient": Output(Partial(LogDet(G), c), (c,))}),
        Kernel("log_det_pullback", {"pullback": Output(Entry(P, a, b), (a, b), upper=(a, b))}),
        Kernel(
            "log_det_pullback_d",
            {"pullback_d": Output(Entry(Partial(P, c), a, b), (c, a, b), upper=(a, b))},
        ),
        Kernel("chern_connection", {"gamma": Output(Entry(Gamma, a, e), (c, a, e), upper=(e,))}),
        Kernel("chern_curvature", {"R": Output(Entry(R, a, b), (a, b, c, e))}),
        Kernel("chern_ricci", {"ricci": Output(ricci, (c, e))}),
        Kernel("chern_scalar", {"scalar": Output(scalar)}),
        Kernel("holomorphic_sectional", {"curvature": Output(along_v / length**2)}),
        Kernel("kahler_defect", {"defect": Output(defect, (c, a, b))}),
    ),
    claims=(
        Claim(
            "G8-gradient",
            "∂ log det g = Tr(P ∂g) with P = g⁻¹, and ∂P = -P ∂g P: the gradients of log-det "
            "regularisation",
            "KVAE",
            parts=(
                Vanishing(Partial(LogDet(G), c) - Tr(P * Partial(G, c)), (c,), "first order"),
                Vanishing(
                    Entry(Partial(P, c) + P * Partial(G, c) * P, a, b), (c, a, b), "second order"
                ),
            ),
            kernels=("log_det_pullback", "log_det_pullback_d"),
            expected="holds",
        ),
    ),
)
