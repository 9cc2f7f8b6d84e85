"""The Riemannian geometry of deep generative models (Shao, Kumar, Fletcher, arXiv 1711.08014)."""

from sympy import symbols

from kahler_verify.calculus import (
    Claim,
    Formula,
    Partial,
    Tr,
    Vanishing,
    adjoint,
    dimension,
    field,
    index,
    paper,
    parameter,
    scalars,
)

# The energy (T/2) Σ_i |x_{i+1} - x_i|² of the curve x_i = f(z_i), as a function of one point z:
# the segment from the point p before it, and the one to the point q behind it.
n, d = dimension("n"), dimension("d")
(a,) = index("a", d, real=True)
f = field("f", n, real=True)
p, q = (field(name, n, real=True, constant=True) for name in ("p", "q"))
T = parameter("T", real=True)
before = scalars(T * adjoint(f - p) * (f - p) / 2)
behind = scalars(T * adjoint(q - f) * (q - f) / 2)
slope = adjoint(Partial(f, a))

# Chords of four segments, by Lagrange's identity
chords = symbols("l_1 l_2 l_3 l_4", positive=True)
twice_energy = len(chords) * sum(x**2 for x in chords)
spread = sum((x - y) ** 2 for i, x in enumerate(chords) for y in chords[:i])

deep_generative_models = paper(
    "deep_generative_models",
    "The Riemannian geometry of deep generative models",
    "Shao, Kumar, Fletcher, arXiv 1711.08014",
    claims=(
        Claim(
            "S1",
            "the discrete curve energy's gradient is -T Jᵀ(x_{i+1} - 2x_i + x_{i-1}), by segments "
            "T Jᵀ(x_i - x_{i-1}) and -T Jᵀ(x_{i+1} - x_i)",
            "RGDGM",
            parts=(
                Vanishing(Partial(before, a) - T * Tr(slope * (f - p)), (a,), "segment before"),
                Vanishing(Partial(behind, a) + T * Tr(slope * (q - f)), (a,), "segment behind"),
                Vanishing(
                    Partial(before + behind, a) + T * Tr(slope * (q - 2 * f + p)), (a,), "both"
                ),
            ),
            expected="holds",
        ),
        Claim(
            "S2", "the encoder's Jacobian keeps a descent direction", "RGDGM", waits_for="curves"
        ),
        Claim("S3", "parallel transport by projection converges", "RGDGM", waits_for="curves"),
        Claim("S4", "learned manifolds are nearly flat", "RGDGM", waits_for="curves"),
        Claim(
            "S5", "energy minimisers have constant speed and L² ≤ 2E", "RGDGM", waits_for="curves"
        ),
        Claim(
            "S5-discrete",
            "2E - L² = Σ_{i<j} (l_i - l_j)² for the chords l_i: L² ≤ 2E, with equality at constant "
            "speed alone",
            "RGDGM",
            parts=(Formula(twice_energy - sum(chords) ** 2, spread, "four segments"),),
            expected="holds",
        ),
    ),
)
