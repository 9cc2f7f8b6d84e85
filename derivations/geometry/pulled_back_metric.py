"""The pull-back g = JᵀJ of the Euclidean metric along x = f(z), and its curvature by Gauss.

With the second fundamental form II_ab = (1 - J g⁻¹ Jᵀ) ∂_a∂_b f, Gauss' equation says
R_abce = ⟨II_ac, II_be⟩ - ⟨II_ae, II_bc⟩: curvature takes second derivatives of f, not third ones.
"""

from sympy import Expr, Symbol

from kahler_verify.calculus import (
    Claim,
    Contract,
    Derivation,
    Entry,
    Kernel,
    Output,
    Partial,
    Tr,
    Vanishing,
    dimension,
    field,
    index,
    let,
    scalars,
)

n, d = dimension("n"), dimension("d")
a, b, c, e, f = index("a b c e f", d, real=True)
mu = field("mu", n, real=True)
g = scalars(Partial(mu, a).H * Partial(mu, b))

G = field("g", d, d, symmetric=True, positive=True, constant=True)  # the value of JᵀJ
v, w = (field(name, d, real=True, constant=True) for name in ("v", "w"))

S = let("S", Tr(Partial(mu, f).H * Partial(mu, a, b)), of=(a, b), rows=f)  # Jᵀ∂_a∂_b f


def normal(a: Symbol, b: Symbol, c: Symbol, e: Symbol) -> Expr:
    """⟨II_ab, II_ce⟩."""
    whole = Tr(Partial(mu, a, b).H * Partial(mu, c, e))
    return whole - Tr(S(a, b).H * G**-1 * S(c, e))


riemann = normal(a, c, b, e) - normal(a, e, b, c)
ricci = Contract(Entry(G**-1, a, c) * riemann, a, c)
bend = let("bend", Contract(Entry(v, a) * Entry(v, b) * Entry(S(a, b), f), a, b), rows=f)
vwvw = Entry(v, a) * Entry(w, b) * Entry(v, c) * Entry(w, e)
area = Tr(v.H * G * v) * Tr(w.H * G * w) - Tr(v.H * G * w) ** 2


def metric(a: Symbol, b: Symbol) -> Expr:
    """g_ab = ∂_af·∂_bf."""
    return Tr(Partial(mu, a).H * Partial(mu, b))


def first_kind(f: Symbol, a: Symbol, b: Symbol) -> Expr:
    """Γ_{f,ab} of g = JᵀJ."""
    slopes = Partial(metric(f, b), a) + Partial(metric(f, a), b) - Partial(metric(a, b), f)
    return slopes / 2


pulled_back_metric = Derivation(
    name="pulled_back_metric",
    title="The metric pulled back along a decoder's mean, and its curvature by Gauss' equation",
    source="Arvanitidis, Hansen, Hauberg, arXiv 1710.11379; do Carmo, Riemannian Geometry, ch. 6",
    assumptions=("f is twice differentiable and an immersion (g is positive definite)",),
    latent=d,
    routes=("autograd", "mpmath", "exact"),
    kernels=(
        Kernel("metric", {"g": Output(g, (a, b))}),
        Kernel("metric_d", {"g_d": Output(Partial(g, c), (c, a, b))}),
        Kernel("metric_dd", {"g_dd": Output(Partial(g, c, e), (c, e, a, b))}),
        Kernel("christoffel", {"gamma": Output(Entry(G**-1 * S(a, b), e), (e, a, b), upper=(e,))}),
        Kernel(
            "geodesic_acceleration",
            {"acceleration": Output(-Entry(G**-1 * bend, e), (e,), upper=(e,))},
        ),
        Kernel("riemann", {"R": Output(riemann, (a, b, c, e))}),
        Kernel("ricci", {"ricci": Output(ricci, (b, e))}),
        Kernel("scalar_curvature", {"scalar": Output(Contract(Entry(G**-1, b, e) * ricci, b, e))}),
        Kernel(
            "sectional_curvature",
            {"curvature": Output(Contract(riemann * vwvw, a, b, c, e) / area)},
            least={"d": 2},
        ),
    ),
    claims=(
        Claim(
            "R3",
            "the Christoffel symbols of g = JᵀJ are Γ_{f,ab} = ∂_f f · ∂_a∂_b f",
            "ODDITY",
            parts=(
                Vanishing(
                    first_kind(f, a, b) - Tr(Partial(mu, f).H * Partial(mu, a, b)),
                    (f, a, b),
                    "first kind",
                ),
            ),
            expected="holds",
        ),
    ),
)
