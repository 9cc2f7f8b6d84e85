"""The Riemannian geometry of deep generative models (Shao, Kumar, Fletcher, arXiv 1711.08014)."""

from functools import partial
from itertools import product

from sympy import Matrix, Rational, cos, eye, pi, simplify, sin, symbols, zeros

from kahler_verify.calculus import (
    Case,
    Claim,
    Contract,
    Entry,
    Formula,
    Partial,
    Positive,
    Tr,
    Vanishing,
    Witness,
    adjoint,
    dimension,
    field,
    index,
    paper,
    parameter,
    scalars,
)
from kahler_verify.calculus.claims import Comparison
from kahler_verify.derivations.geometry import real_geometry as levi_civita

half = Rational(1, 2)

flatness = partial(
    Comparison,
    baseline="flat",
    arms=(("mean", "the mean's pull-back"), ("expected", "the expected metric, RBF σ")),
    measures=(("excess", "shorter straight lines"), ("curvature", "less curvature")),
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

# ---------------------------------------------------------------- the encoder's Jacobian (S2)

# f = (z₁, z₂, |z|²/2) with the encoders h = (x₁ + c (x₃ - (x₁² + x₂²)/2), x₂), for which h∘f is the
# identity whatever c is.  s is the length of a step: x_{i+1} - 2x_i + x_{i-1} on a straight line.
z1, z2, c, s = symbols("z_1 z_2 c s", real=True)
paraboloid = Matrix([z1, z2, (z1**2 + z2**2) / 2])
J = paraboloid.jacobian([z1, z2])
x1, x2, x3 = symbols("x_1 x_2 x_3", real=True)
encoder = Matrix([x1 + c * (x3 - (x1**2 + x2**2) / 2), x2])
on_manifold = dict(zip((x1, x2, x3), paraboloid, strict=True))
J_h = encoder.jacobian([x1, x2, x3]).subs(on_manifold)
on_line = [paraboloid.subs({z1: z1 + k * s}, simultaneous=True) for k in (-1, 0, 1)]
bend = (on_line[2] - 2 * on_line[1] + on_line[0]).expand()

# Any Jacobian, of two coordinates and three outputs: descent along J⁺y, in multiples of det JᵀJ
any_J = Matrix(3, 2, symbols("j_11 j_12 j_21 j_22 j_31 j_32", real=True))
y = Matrix(symbols("y_1 y_2 y_3", real=True))
gram, slopes = any_J.T * any_J, any_J.T * y
descent = slopes.dot(gram.adjugate() * slopes)  # ⟨J⁺y, Jᵀy⟩ det JᵀJ
turned = any_J * Matrix([[0, 1], [-1, 0]]) * slopes

# ---------------------------------------------------------------- transport by projection (S3)

# An orthonormal frame U(t) of the tangent planes of a surface in R³: U = (e₁, e₂) at t = 0, and UᵀU
# = 1 to second order.  U′ = (ω; p, q) turns and leaves the plane; U″ then is -U′ᵀU′ and a turn.
omega, eta, p_out, q_out, r_out, u_out = symbols("omega eta p q r u", real=True)
turn = Matrix([[0, -1], [1, 0]])
flat, out = omega * turn, Matrix([[p_out, q_out]])
U1 = Matrix.vstack(flat, out)
U2 = Matrix.vstack(eta * turn - U1.T * U1, Matrix([[r_out, u_out]]))
U0 = Matrix.vstack(eye(2), zeros(1, 2))
connection = -U0.T * U1  # U w stays parallel if Uᵀ(U w)′ = 0: w′ = -UᵀU′ w
its_rate = -U1.T * U1 - U0.T * U2
exact = [eye(2), connection, (connection**2 + its_rate) / 2]  # coefficients of 1, ε, ε²
projected = [eye(2), U1.T * U0, U2.T * U0 / 2]  # of U(ε)ᵀU(0)
missing = out.T * out / 2


def polar(step: list[Matrix]) -> list[Matrix]:
    """M (MᵀM)^{-½} to second order, of M with an orthogonal part to first order."""
    excess = step[2] + step[2].T + step[1].T * step[1]  # MᵀM = 1 + ε² excess
    return [step[0], step[1], step[2] - excess / 2]


def rescaled(step: list[Matrix], w: Matrix) -> Matrix:
    """The second order of M w |w|/|M w|."""
    longer = (w.T * (step[2] + step[2].T + step[1].T * step[1]) * w)[0] / w.dot(w)
    return step[2] * w - longer / 2 * w


w = Matrix(symbols("w_1 w_2", real=True))
error_of_rescaled = (exact[2] * w - rescaled(projected, w)).applyfunc(simplify)
printed_error = missing * w - w.dot(missing * w) / w.dot(w) * w
normal = Matrix(symbols("n_1 n_2 n_3", real=True))
vector = Matrix(symbols("v_1 v_2 v_3", real=True))
along = vector - normal.dot(vector) / normal.dot(normal) * normal

# A latitude circle of the sphere, frame (e_θ, e_φ): how fast the frame turns against transport
theta, phi = symbols("theta phi", real=True)
sphere = Matrix([sin(theta) * cos(phi), sin(theta) * sin(phi), cos(theta)])
e_theta = sphere.diff(theta)
e_phi = Matrix([-sin(phi), cos(phi), 0])
rate = simplify(e_theta.diff(phi).dot(e_phi))

# ---------------------------------------------------------------- minimisers (S5)

times, speeds = symbols("t_1 t_2", positive=True), symbols("v_1 v_2", positive=True)

G, v, a0, a1, a2 = (levi_civita.G, levi_civita.v, levi_civita.a, levi_civita.b, levi_civita.f)
speed_rate = Contract(
    Entry(v, a0) * Entry(v, a1) * Entry(v, a2) * Entry(Partial(G, a2), a0, a1), a0, a1, a2
) - 2 * Contract(Entry(v, a2) * levi_civita.force, a2)  # ẋᵀṀẋ + 2 ẋᵀMẍ with Mẍ = -force

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
            "S2",
            "the encoder's Jacobian J_h in the place of Jᵀ keeps a descent direction: "
            "⟨J_h y, Jᵀy⟩ > 0 for y = x_{i+1} - 2x_i + x_{i-1}",
            "RGDGM",
            parts=(
                Positive(
                    (J_h * bend).dot(J.T * bend),
                    {z1: (half, 1), z2: (0, 1), c: (-4, 4), s: (half, 1)},
                    "straight lines on the paraboloid, encoders of parameter c",
                ),
            ),
            cases=(
                Case(
                    "J_h = J⁺, where ⟨J⁺y, Jᵀy⟩ is |y|² of y's part along the manifold",
                    parts=(
                        Formula(
                            descent,
                            turned.dot(turned),
                            "⟨J⁺y, Jᵀy⟩ det JᵀJ = |J_1 (Jᵀy)_2 - J_2 (Jᵀy)_1|², n = 3, d = 2",
                        ),
                    ),
                ),
            ),
            witnesses=(
                Witness("c = -3 at z = (1, 0): it climbs", at={z1: 1, z2: 0, c: -3, s: 1}),
                Witness(
                    "c = 0 at z = (1, 0): every straight line passes for a geodesic",
                    at={z1: 1, z2: 0, c: 0, s: 1},
                ),
            ),
            expected="refuted in general, though h∘f = 1; holds if J_h = J⁺",
        ),
        Claim(
            "S2-trained",
            "on trained models the encoder's Jacobian points downhill",
            "RGDGM",
            measured=Comparison(
                results="rgdgm.json",
                command="python -m experiments.rgdgm",
                cell="directions",
                baseline="inverse",
                arms=(("encoder", "the encoder's Jacobian"),),
                measures=(("climbing", "fewer nodes that climb"),),
            ),
        ),
        Claim(
            "S2-inverse",
            "these encoders invert the decoder: h∘f = 1 and J_h J = 1, for every c",
            "RGDGM",
            parts=(
                *[Formula((J_h * J)[k, k] * s, s, "J_h J, on its diagonal") for k in (0, 1)],
                *[Formula(s + (J_h * J)[k, 1 - k], s, "J_h J, beside it") for k in (0, 1)],
                Formula(encoder.subs(on_manifold)[0], z1, "h∘f, first coordinate"),
                Formula(encoder.subs(on_manifold)[1], z2, "h∘f, second coordinate"),
            ),
            expected="holds",
        ),
        Claim(
            "S3",
            "parallel transport by projection, with rescaling, preserves length and converges, of "
            "order 1: a step of size ε errs by ½ε² KKᵀw, K the second fundamental form along it",
            "RGDGM",
            parts=(
                *[
                    Formula(
                        s + projected[1][i, j], s + exact[1][i, j], f"order ε, entry {i + 1}{j + 1}"
                    )
                    for i, j in product((0, 1), repeat=2)
                ],
                *[
                    Formula(
                        s + (exact[2] - projected[2])[i, j],
                        s + missing[i, j],
                        f"order ε², entry {i + 1}{j + 1}",
                    )
                    for i, j in product((0, 1), repeat=2)
                ],
                *[
                    Formula(error_of_rescaled[i], printed_error[i], f"rescaled, entry {i + 1}")
                    for i in (0, 1)
                ],
                Formula(
                    vector.dot(vector) - along.dot(along),
                    normal.dot(vector) ** 2 / normal.dot(normal),
                    "a projection shortens: errors of steps do not grow",
                ),
                Formula(s + 2 * pi * (1 - rate), s + 2 * pi * (1 - cos(theta)), "holonomy"),
            ),
            assumptions=(
                "surfaces in R³; of steps' errors of order ε² that do not grow, 1/ε add up to ε"
            ),
            expected="holds, order 1",
        ),
        Claim(
            "S3-order",
            "with rescaling it is of order 2",
            "RGDGM",
            parts=(Formula(error_of_rescaled[0], 0 * w[0], "error of a step at order ε²"),),
            cases=(
                Case(
                    "the polar factor of U_{i+1}ᵀU_i in its place",
                    parts=tuple(
                        Formula(
                            s + polar(projected)[2][i, j],
                            s + exact[2][i, j],
                            f"order ε², entry {i + 1}{j + 1}",
                        )
                        for i, j in product((0, 1), repeat=2)
                    ),
                ),
            ),
            witnesses=(
                Witness("K = (1, 0), w = (1, 1)", at={p_out: 1, q_out: 0, w[0]: 1, w[1]: 1}),
            ),
            expected="refuted; the polar factor has order 2. Latitude circles hide it by symmetry",
        ),
        Claim(
            "S4",
            "learned manifolds are nearly flat",
            "RGDGM",
            measured=flatness(
                results="generators.json",
                command="python -m experiments.generators",
                cell="flatness",
            ),
        ),
        Claim(
            "S4-convolutional",
            "those of convolutional decoders are nearly flat",
            "RGDGM",
            measured=flatness(
                results="rgdgm.json", command="python -m experiments.rgdgm", cell="convolutional"
            ),
        ),
        Claim(
            "S5",
            "energy minimisers have constant speed and L² ≤ 2E",
            "RGDGM",
            parts=(
                Vanishing(speed_rate, (), "d/dt ẋᵀM(x)ẋ = 0 along ẍ = -Γẋẋ"),
                Formula(
                    times[0] * times[1] * (speeds[0] - speeds[1]) ** 2,
                    sum(times) * sum(x * y**2 for x, y in zip(times, speeds, strict=True))
                    - sum(x * y for x, y in zip(times, speeds, strict=True)) ** 2,
                    "2E - L² for a speed of two values, at times t_1 + t_2 = 1",
                ),
            ),
            assumptions="L² ≤ 2E is Cauchy's and Schwarz' inequality, from step functions",
            expected="holds in the continuum",
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
