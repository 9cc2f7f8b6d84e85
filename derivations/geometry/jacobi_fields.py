"""What turns and what bends fields that are carried along a geodesic with velocity v.

In a frame E that is carried in parallel, Ė = -T E with T^e_c = Γ^e_ac v^a, a Jacobi field has the
components y of w = E y, and ÿ = -(Eᵀ R_v E) y with the symmetric form (R_v)_fc = ⟨R(∂_c, v)v, ∂_f⟩:
no index is raised.  Along a unit v in two dimensions R_v is K times the square of the normal part.
"""

from kahler_verify.calculus import Contract, Derivation, Entry, Kernel, Output
from kahler_verify.derivations.geometry.real_geometry import (
    G,
    a,
    b,
    c,
    d,
    e,
    f,
    first_kind,
    let,
    riemann,
    v,
)

turn = let("turn", Contract(Entry(v, a) * first_kind(f, a, c), a), of=(c,), rows=f)
tide = Contract((riemann * Entry(v, b) * Entry(v, e)).xreplace({a: f}), b, e)

jacobi_fields = Derivation(
    name="jacobi_fields",
    title="The rates of frames and Jacobi fields along a geodesic",
    source="do Carmo, Riemannian Geometry, ch. 5; signs so that spheres curve positively",
    assumptions=("g is symmetric, positive definite and twice differentiable",),
    latent=d,
    routes=("autograd", "mpmath", "exact"),
    kernels=(
        Kernel("turning", {"turning": Output(Entry(G**-1 * turn(c), e), (e, c), upper=(e,))}),
        Kernel("tidal_form", {"tide": Output(tide, (f, c))}),
    ),
)
