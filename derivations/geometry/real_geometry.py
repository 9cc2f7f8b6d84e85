"""Levi-Civita geometry of a real metric, from its derivatives (g, ∂g, ∂∂g).

Γ_{f,ab} = ½(∂_a g_fb + ∂_b g_fa - ∂_f g_ab) and Γ^e_ab = g^{ef} Γ_{f,ab};
R_abce = ⟨R(∂_c, ∂_e)∂_b, ∂_a⟩, so that the round sphere has R_abab > 0; Ric_be = g^{ac} R_abce.
Geodesics, transport and the drift of Brownian motion contract Γ first: it is never formed for them.
"""

from sympy import Expr, Symbol

from kahler_verify.calculus import (
    Claim,
    Contract,
    Derivation,
    Entry,
    Jet,
    Kernel,
    LogDet,
    Output,
    Partial,
    Tr,
    Vanishing,
    dimension,
    field,
    index,
    let,
)

d = dimension("d")
a, b, c, e, f, h = index("a b c e f h", d, real=True)
G = field("g", d, d, symmetric=True, positive=True)
v, w = (field(name, d, real=True, constant=True) for name in ("v", "w"))


def first_kind(f: Symbol, a: Symbol, b: Symbol) -> Expr:
    """Γ_{f,ab}."""
    return (
        Entry(Partial(G, a), f, b) + Entry(Partial(G, b), f, a) - Entry(Partial(G, f), a, b)
    ) / 2


def raised(name: str, covector: Expr) -> Expr:
    """The vector g^{ef} x_f of a covector x with the free index f."""
    return G**-1 * let(name, covector, rows=f)


def second(a: Symbol, b: Symbol, c: Symbol, e: Symbol) -> Expr:
    """∂_a∂_b g_ce."""
    return Entry(Partial(G, a, b), c, e)


Gamma = let("Gamma", first_kind(f, a, b), of=(a, b), rows=f)  # the covector Γ_{·,ab}


def product(x: Jet, y: Jet) -> Expr:
    """⟨x, y⟩ of covectors."""
    return Tr(x.H * G**-1 * y)


riemann = (second(b, c, a, e) + second(a, e, b, c) - second(a, c, b, e) - second(b, e, a, c)) / 2
riemann += product(Gamma(b, c), Gamma(a, e)) - product(Gamma(a, c), Gamma(b, e))

ricci = Contract(Entry(G**-1, a, c) * riemann, a, c)
vwvw = Entry(v, a) * Entry(w, b) * Entry(v, c) * Entry(w, e)
area = Tr(v.H * G * v) * Tr(w.H * G * w) - Tr(v.H * G * w) ** 2  # of the parallelogram, squared

force = Contract(Entry(v, a) * Entry(v, b) * first_kind(f, a, b), a, b)
along = Contract(Entry(v, a) * Entry(w, b) * first_kind(f, a, b), a, b)
trace = Contract(Entry(G**-1, a, b) * first_kind(f, a, b), a, b)
tidal = Contract(
    (riemann * Entry(v, b) * Entry(w, c) * Entry(v, e)).xreplace({a: f}), b, c, e
)  # ⟨R(w, v)v, ∂_f⟩
log_volume = LogDet(G) / 2

real_geometry = Derivation(
    name="real_geometry",
    title="Levi-Civita connection and curvature of a real metric",
    source="do Carmo, Riemannian Geometry, ch. 2-5; signs so that spheres curve positively",
    assumptions=("g is symmetric, positive definite and twice differentiable",),
    latent=d,
    routes=("autograd", "mpmath", "exact"),
    kernels=(
        Kernel(
            "christoffel", {"gamma": Output(Entry(G**-1 * Gamma(a, b), e), (e, a, b), upper=(e,))}
        ),
        Kernel(
            "geodesic_acceleration",
            {"acceleration": Output(-Entry(raised("force", force), e), (e,), upper=(e,))},
        ),
        Kernel(
            "transport_rate",
            {"rate": Output(-Entry(raised("along", along), e), (e,), upper=(e,))},
        ),
        Kernel(
            "brownian_drift",
            {"drift": Output(-Entry(raised("trace", trace), e) / 2, (e,), upper=(e,))},
        ),
        Kernel("log_volume_gradient", {"gradient": Output(Partial(log_volume, a), (a,))}),
        Kernel("riemann", {"R": Output(riemann, (a, b, c, e))}),
        Kernel("ricci", {"ricci": Output(ricci, (b, e))}),
        Kernel("scalar_curvature", {"scalar": Output(Contract(Entry(G**-1, b, e) * ricci, b, e))}),
        Kernel(
            "sectional_curvature",
            {"curvature": Output(Contract(riemann * vwvw, a, b, c, e) / area)},
            least={"d": 2},
        ),
        Kernel(
            "jacobi_acceleration",
            {"acceleration": Output(-Entry(raised("tidal", tidal), e), (e,), upper=(e,))},
        ),
    ),
    claims=(
        Claim(
            "R2",
            "the Levi-Civita connection is metric: ∂_c g_ab = Γ_{a,cb} + Γ_{b,ca}, and its trace "
            "is ∂ log √g",
            "LAND",
            parts=(
                Vanishing(
                    Entry(Partial(G, c), a, b) - first_kind(a, c, b) - first_kind(b, c, a),
                    (a, b, c),
                    "metric",
                ),
                Vanishing(
                    Partial(log_volume, c)
                    - Contract(Entry(G**-1, a, b) * first_kind(a, b, c), a, b),
                    (c,),
                    "Γ^a_ac = ∂_c log √g",
                    normal_form=False,
                ),
            ),
            expected="holds",
        ),
    ),
)
