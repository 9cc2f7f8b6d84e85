"""The locally adaptive normal distribution (Arvanitidis, Hansen, Hauberg, arXiv 1606.02518).

Its data metric along a ray; the two metrics in which it is known in closed form; and geodesics as
the paper states them, and as they are widely implemented.
"""

from sympy import (
    E,
    Expr,
    Integral,
    Matrix,
    Rational,
    Symbol,
    asinh,
    cos,
    cot,
    erf,
    exp,
    integrate,
    oo,
    pi,
    sin,
    sqrt,
    symbols,
    tan,
    zeros,
)

from kahler_verify.calculus import (
    Case,
    Claim,
    Formula,
    Jet,
    Positive,
    Vanishing,
    Witness,
    map_letters,
    paper,
)
from kahler_verify.calculus.claims import Comparison
from kahler_verify.derivations.geometry import real_geometry as levi_civita

# ---------------------------------------------------------------- the data metric on a ray (L1)

# M_i = 1/(Σ_n w_n (x_n - x)_i² + ρ), w_n = exp(-|x_n - x|²/(2σ²)), with σ² = ½ and ρ = 1/10, four
# points in the unit disc, and the ray x = (3/5, 4/5) R from its middle
R = Symbol("R", positive=True)
rho, sigma2 = Rational(1, 10), Rational(1, 2)
points = (
    (Rational(0), Rational(0)),
    (Rational(4, 5), Rational(1, 5)),
    (-Rational(1, 2), Rational(1, 2)),
    (Rational(1, 4), -Rational(3, 4)),
)
offsets = [(3 * R / 5 - p, 4 * R / 5 - q) for p, q in points]
spreads = [
    sum(exp(-(at[0] ** 2 + at[1] ** 2) / (2 * sigma2)) * at[i] ** 2 for at in offsets)
    for i in (0, 1)
]
metric = [1 / (spread + rho) for spread in spreads]
least = 1 / (rho + 2 * len(points) * sigma2 / E)  # since w t² ≤ 2σ²/e for any t

# w t² at t, and where it is largest
t, scale = symbols("t sigma", positive=True)
summand = t**2 * exp(-(t**2) / (2 * scale**2))

# ---------------------------------------------------------------- the normal as a limit (L3)


def constant(letter: Jet) -> Jet:
    """The metric's letter, declared constant."""
    if letter.field != levi_civita.G.field:
        return letter
    return Jet(letter.field.with_traits("constant"), letter.hol, letter.anti, letter.dagger)


# M = 1: geodesics are straight, Log_μ(x) = x - μ and √det M = 1; what is left is the integral of
# exp(-½ vᵀΣ⁻¹v), in coordinates v = Lw with LLᵀ = Σ
s11, s12, s22 = symbols("s_11 s_12 s_22", positive=True)
w1, w2 = symbols("w_1 w_2", real=True)
L = Matrix([[s11, 0], [s12, s22]])
Sigma = L * L.T
quadratic = ((L * Matrix([w1, w2])).T * Sigma.inv() * L * Matrix([w1, w2]))[0]
mass = 2 * pi * s11 * s22  # of exp(-½|w|²) dv, dv = det L dw

# σ → ∞: every weight is 1, and the metric is a product of metrics on lines
x, x1, x2, x3 = symbols("x x_1 x_2 x_3", real=True)
line = 1 / ((x1 - x) ** 2 + (x2 - x) ** 2 + (x3 - x) ** 2 + t)  # t in the place of ρ
m = (x1 + x2 + x3) / 3
variance = (x1**2 + x2**2 + x3**2) / 3 - m**2
length = asinh((x - m) / sqrt(variance + t / 3)) / sqrt(3)  # so x is Johnson's S_U

# ---------------------------------------------------------------- entropy (L2)

# log p = -log C - ½ vᵀΓv at v = Log_μ x, beside a law q: second moments of v in the plane
log_C, entropy_q = symbols("C H_q", real=True)
precision = Matrix(2, 2, symbols("g_11 g_12 g_12 g_22", real=True))
moments_p = Matrix(2, 2, symbols("p_11 p_12 p_12 p_22", real=True))
moments_q = Matrix(2, 2, symbols("q_11 q_12 q_12 q_22", real=True))


def cross_entropy(moments: Matrix) -> Expr:
    """-E log p under a law of these second moments."""
    return log_C + (precision * moments).trace() / 2


divergence = cross_entropy(moments_q) - entropy_q  # KL(q‖p)
shortfall = cross_entropy(moments_p) - entropy_q - divergence  # H(p) - H(q) - KL(q‖p)

# The sphere of radius R: E r² of the uniform law, and how E r² falls as Γ = γ1 grows
r, radius, gamma = symbols("r R gamma", positive=True)
uniform_moment = radius**2 * integrate(r**2 * sin(r), (r, 0, pi)) / 2
squares, atoms = symbols("r_1 r_2 r_3", positive=True), symbols("a_1 a_2 a_3", positive=True)
tilted = [a * exp(-gamma * q / 2) for a, q in zip(atoms, squares, strict=True)]
shares = [share / sum(tilted) for share in tilted]
tilted_moment = sum(p * q for p, q in zip(shares, squares, strict=True))
spread_of_squares = sum(
    shares[i] * shares[j] * (squares[i] - squares[j]) ** 2 for i in range(3) for j in range(i)
)

# ---------------------------------------------------------------- the normaliser (L4)

# On a line, M = m(x)² with m = 1 + m₁x + m₂x²/2 and μ = 0: Exp is the inverse of arc length
m1, m2, h = symbols("m_1 m_2 h", real=True)
root_of_M = 1 + m1 * x + m2 * x**2 / 2
arc = integrate(root_of_M, x)
Exp = h - m1 * h**2 / 2 + (m1**2 / 2 - m2 / 6) * h**3  # to third order


def order(expr: Expr, degree: int) -> Expr:
    """A coefficient of a polynomial in h."""
    return expr.expand().coeff(h, degree)


as_printed = root_of_M.subs(x, Exp)  # √M(Exp v), whose v² has the mean σ²
corrected = as_printed * Exp.diff(h)

# The sphere's charts around μ: ρ(r) = |x| and √det M, so that det D Exp is ρ′ρ/r
charts = {
    "stereographic": (2 * tan(r / 2), cos(r / 2) ** 4),
    "gnomonic": (tan(r), cos(r) ** 3),
    "equal-area": (2 * sin(r / 2), 1 + 0 * r),
    "normal": (r, sin(r) / r),
}
s2, half = Symbol("s", positive=True), Rational(1, 2)  # Σ = s1


def over_rings(density: Expr, low: Expr, high: Expr) -> Expr:
    """∫ of a density on rings r dr of the tangent plane."""
    return Integral(2 * pi * density * exp(-(r**2) / (2 * s2)), (r, low, high))


true_mass = over_rings(sin(r), 0, pi)
printed_masses = {
    "stereographic": (over_rings(r * cos(r / 2) ** 4, 0, pi), "1.6422517820427295"),
    "gnomonic": (over_rings(r * cos(r) ** 3, 0, pi / 2), "1.0160771475682149"),
}
beyond_the_cut = over_rings(-sin(r), pi, 2 * pi)


def digits(value: Expr, printed: str, at: Expr, what: str) -> tuple[Positive, Positive]:
    """That a value at s is the printed one, but for its last digit."""
    near = Rational(1, 10 ** (len(printed.partition(".")[2]) - 1))
    low, high = Rational(printed) - near, Rational(printed) + near
    return (
        Positive(value - low, {s2: (at, at)}, f"{what}: {printed} from below"),
        Positive(high - value, {s2: (at, at)}, f"{what}: {printed} from above"),
    )


# A cylinder of circumference 2l with its axis z: v = (±l, z) are one point
half_turn, height = symbols("l z", positive=True)


def log_density(angle: Expr, gamma_12: Expr) -> Expr:
    """-½ vᵀΓv at v = (angle, height)."""
    own = precision[0, 0] * angle**2 + precision[1, 1] * height**2
    return -own / 2 - gamma_12 * angle * height


form = (Matrix([[x, w1]]) * Sigma.inv() * Matrix([x, w1]))[0]
along_axis = integrate(exp(-form.expand() / 2), (w1, -oo, oo), manual=True)
around = integrate(exp(-(x**2) / (2 * s11**2)), (x, -pi, pi), manual=True)

# ---------------------------------------------------------------- its gradient (L4-grad)

# The sphere: μ = e₃ moves along e, x = (sin r, 0, cos r) stays; Log_μ x = r/sin r (x - cos r μ)
mean, point = Matrix([0, 0, 1]), Matrix([sin(r), 0, cos(r)])


def rate_of_log(direction: Matrix) -> Matrix:
    """How Log_μ x changes, in the tangent plane at μ."""
    rate_of_cosine = point.dot(direction)
    rate_of_r = -rate_of_cosine / sin(r)
    moved = (r / sin(r)).diff(r) * rate_of_r * (point - cos(r) * mean)
    moved -= r / sin(r) * (rate_of_cosine * mean + cos(r) * direction)
    return moved[:2, :]


ahead, aside = rate_of_log(Matrix([1, 0, 0])), rate_of_log(Matrix([0, 1, 0]))
curvature = Symbol("k", positive=True)
bent = sqrt(curvature) * r * cot(sqrt(curvature) * r)  # H across the ray, in curvature k
bent_to_second_order = bent.series(r, 0, 4).removeO().coeff(r, 2)

# ---------------------------------------------------------------- geodesics (L5)

# In two real dimensions, with the metric M, its derivatives ∂_kM and the velocity as free symbols:
# the equation is algebraic in them, so that nothing else matters.


def symmetric(name: str, size: int) -> Matrix:
    """A symmetric matrix of real symbols."""
    return Matrix(
        size, size, lambda i, j: Symbol(f"{name}_{min(i, j) + 1}{max(i, j) + 1}", real=True)
    )


def geodesics(size: int) -> tuple[Matrix, Matrix, Matrix, list[Matrix], Matrix]:
    """Accelerations: the geodesic's (Euler-Lagrange of ½ ẋᵀMẋ) and the implemented one's."""
    M = symmetric("M", size)
    dM = [symmetric(f"dM{k + 1}", size) for k in range(size)]  # ∂_kM
    v = Matrix([Symbol(f"v_{k + 1}", real=True) for k in range(size)])
    M_dot = sum((dM[k] * v[k] for k in range(size)), zeros(size))
    slope = Matrix([(v.T * dM[k] * v)[0] for k in range(size)])  # (∂vec M)ᵀ(ẋ ⊗ ẋ)
    geodesic = M.inv() * (slope / 2 - M_dot * v)
    implemented = -M.inv() * slope / 2
    return geodesic, implemented, M, dM, v


geodesic, implemented, M, dM, v = geodesics(2)
geodesic_1, implemented_1, *_ = geodesics(1)
M_dot = dM[0] * v[0] + dM[1] * v[1]


def work(acceleration: Matrix) -> Matrix:
    """2 ẋᵀMẍ: with ẋᵀṀẋ, the change of ẋᵀMẋ in time."""
    return (2 * v.T * M * acceleration)[0]


stretching = (v.T * M_dot * v)[0]

values = {s: 0 for k in dM for s in k.free_symbols}
values |= {M[0, 0]: 1, M[0, 1]: 0, M[1, 1]: 4, dM[0][1, 1]: 4, v[0]: 1, v[1]: Rational(1, 2)}

locally_adaptive_normal = paper(
    "locally_adaptive_normal",
    "The locally adaptive normal distribution",
    "Arvanitidis, Hansen, Hauberg, arXiv 1606.02518",
    claims=(
        Claim(
            "L5",
            "ẍ = -½ M⁻¹(∂vec M)ᵀ(ẋ ⊗ ẋ), as widely implemented, is the geodesic equation",
            "LAND",
            parts=(
                Formula(implemented[0], geodesic[0], "first component, D = 2"),
                Formula(implemented[1], geodesic[1], "second component, D = 2"),
            ),
            cases=(Case("D = 1", parts=(Formula(implemented_1[0], geodesic_1[0], "D = 1"),)),),
            witnesses=(
                Witness("polar coordinates M = diag(1, x₁²) at x₁ = 2, ẋ = (1, ½)", at=values),
            ),
            expected="refuted for D ≥ 2, and yet it conserves speed exactly",
        ),
        Claim(
            "L5-speed",
            "that equation conserves the speed ẋᵀMẋ, so that a test of speed cannot tell it apart",
            "LAND",
            parts=(
                Formula(work(implemented), -stretching, "the implemented equation, D = 2"),
                Formula(work(geodesic), -stretching, "the geodesic equation, D = 2"),
            ),
            expected="holds",
        ),
        Claim(
            "L1",
            "the kernel metric is smooth, 0 < 1/(ρ + 2Nσ²/e) ≤ M ≤ 1/ρ, and → 1/ρ far from data",
            "LAND",
            parts=(
                Positive(metric[0] - least, {R: (0, 6)}, "M_1 > 1/(ρ + 2Nσ²/e) on the ray"),
                Positive(metric[1] - least, {R: (0, 6)}, "M_2 > 1/(ρ + 2Nσ²/e) on the ray"),
                Positive(1 / rho - metric[0], {R: (0, 6)}, "M_1 < 1/ρ on the ray"),
                Positive(1 / rho - metric[1], {R: (0, 6)}, "M_2 < 1/ρ on the ray"),
                Positive(
                    Rational(1, 10**6) - spreads[0] - spreads[1],
                    {R: (6, 100)},
                    "1/M - ρ < 10⁻⁶ from R = 6 to 100",
                ),
                Formula(
                    summand.diff(t), summand * (2 / t - t / scale**2), "w t² turns at t² = 2σ²"
                ),
                Formula(summand.subs(t, sqrt(2) * scale), 2 * scale**2 / E, "where it is 2σ²/e"),
            ),
            assumptions=(
                "bounds of M are enclosed on one ray, for four points in the unit disc, σ² = ½, "
                "ρ = 1/10"
            ),
            expected="holds; the lower bound makes the metric complete",
        ),
        Claim(
            "L2",
            "of all laws with the mean μ it has the largest entropy under the metric: "
            "H(q) = H(p) - KL(q‖p)",
            "LAND",
            parts=(Formula(shortfall, 0 * log_C, "H(p) - H(q) - KL(q‖p) = 0"),),
            cases=(
                Case(
                    "the base measure is √det M dx, E[Log_μ x Log_μ xᵀ] = S is given, and a Γ "
                    "exists that has it",
                    parts=(
                        Formula(
                            shortfall.subs(dict(zip(moments_q, moments_p, strict=True))) + log_C,
                            log_C,
                            "H(p) - H(q) - KL(q‖p) = 0",
                        ),
                    ),
                ),
            ),
            witnesses=(
                Witness(
                    "Γ_11 = 1, moments 1 and ½",
                    at=dict.fromkeys((*precision, *moments_p, *moments_q), 0)
                    | {precision[0, 0]: 1, moments_p[0, 0]: 1, moments_q[0, 0]: half},
                ),
            ),
            expected="holds under A",
        ),
        Claim(
            "L2-sphere",
            "on the sphere of radius R no Γ ≽ 0 has E r² > R²(π² - 4)/2, that of the uniform law: "
            "for a larger second moment there is no locally adaptive normal law",
            "LAND",
            parts=(
                Formula(
                    uniform_moment, radius**2 * (pi**2 - 4) / 2, "E r² of the uniform law, Γ = 0"
                ),
                Formula(
                    tilted_moment.diff(gamma),
                    -spread_of_squares / 2,
                    "E r² falls as Γ grows, by ½ Var r²: three atoms on a ray",
                ),
                *digits((pi**2 - 4) / 2, "2.9348022005446793", half, "(π² - 4)/2"),
            ),
            expected="holds: E r² ≥ 2.9348022005446793 needs Γ ≤ 0",
        ),
        Claim(
            "L3",
            "the density reduces to the normal one for M = 1; for σ → ∞ it is Johnson's S_U, with "
            "arc length asinh((x - m)/a)/√N, a² = s² + ρ/N",
            "LAND",
            parts=(
                Vanishing(
                    map_letters(levi_civita.force, constant),
                    (levi_civita.f,),
                    "geodesics are straight",
                ),
                Formula(quadratic, w1**2 + w2**2, "vᵀΣ⁻¹v = |w|², D = 2"),
                Formula(mass**2, (2 * pi) ** 2 * Sigma.det(), "C = 2π √det Σ, D = 2"),
                Formula(length.diff(x) ** 2, line, "(du/dx)² = M, N = 3"),
            ),
            expected="holds",
        ),
        Claim(
            "L4",
            "the normaliser is the tangent-space integral of √det M(Exp_μ v) exp(-½ vᵀΣ⁻¹v)",
            "LAND",
            parts=(
                Formula(order(as_printed, 2), 0 * m1, "error of C in units of σ², on a line"),
                *digits(true_mass, "2.0090902504983395", Rational(9, 25), "C on the sphere"),
                *[
                    part
                    for name, (printed, value) in printed_masses.items()
                    for part in digits(printed, value, Rational(9, 25), f"printed, {name}")
                ],
            ),
            cases=(
                Case(
                    "det D Exp_μ(v) is put beside it; it is 1 in normal coordinates at μ",
                    parts=(
                        *[
                            Formula(
                                order(arc.subs(x, Exp), k) + m1,
                                m1 + int(k == 1),
                                f"u(Exp v), order {k}",
                            )
                            for k in (1, 2, 3)
                        ],
                        *[
                            Formula(
                                order(corrected, k) + m1, m1, f"error of √M det D Exp, order {k}"
                            )
                            for k in (1, 2)
                        ],
                        *[
                            Formula(
                                root * rho.diff(r) * rho / r,
                                sin(r) / r,
                                f"√det M det D Exp on the sphere, {name} chart",
                            )
                            for name, (rho, root) in charts.items()
                        ],
                    ),
                ),
            ),
            witnesses=(Witness("m = 1 + x²/2", at={m1: 0, m2: 1}),),
            expected="refuted as printed: det D Exp is missing; S², Σ = .36 1: 2.0091 for 1.6423",
        ),
        Claim(
            "L4-cut",
            "the density by the shortest Log is continuous",
            "LAND",
            parts=(
                Formula(
                    log_density(half_turn, precision[0, 1]),
                    log_density(-half_turn, precision[0, 1]),
                    "log p on both sides of a cylinder's cut locus",
                ),
                Formula(
                    along_axis,
                    sqrt(2 * pi) * s22 * exp(-(x**2) / (2 * s11**2)),
                    "C, along the axis",
                ),
                Formula(around, sqrt(2 * pi) * s11 * erf(pi / (sqrt(2) * s11)), "C, around it"),
                *digits(
                    exp(8 * pi * s2 / 3), "65.942965200064", half, "jump at Γ_12 = -2/3, z = 1"
                ),
                *digits(
                    sqrt(3) * pi * erf(pi * sqrt(s2)),
                    "5.4322548225939",
                    half,
                    "C of Σ = [[1, ½], [½, 1]]",
                ),
                Positive(
                    beyond_the_cut - Rational(9, 10),
                    {s2: (4, 4)},
                    "S², Σ = 4: what C has more over the whole plane",
                ),
            ),
            cases=(
                Case(
                    "Γ has no correlation across the cut",
                    parts=(
                        Formula(
                            log_density(half_turn, 0 * x),
                            log_density(-half_turn, 0 * x),
                            "log p on both sides",
                        ),
                    ),
                ),
            ),
            witnesses=(
                Witness(
                    "Σ = [[1, ½], [½, 1]], l = z = 1",
                    at={
                        precision[0, 0]: Rational(4, 3),
                        precision[0, 1]: -Rational(2, 3),
                        precision[1, 1]: Rational(4, 3),
                        half_turn: 1,
                        height: 1,
                    },
                ),
            ),
            expected="refuted for anisotropic Σ: it jumps by 65.942965200064 on the cylinder",
        ),
        Claim(
            "L4-grad",
            "the published gradient in μ, with ∂_e Log_μ x = -e, is the gradient",
            "LAND",
            parts=(
                Formula(
                    bent_to_second_order,
                    0 * curvature,
                    "H - 1 across the ray in units of r², H = Hess_μ ½d²",
                ),
            ),
            cases=(
                Case(
                    "M is flat; on the sphere ∂_e Log_μ x = -H e, H = 1 along the ray and r cot r "
                    "across it",
                    parts=(
                        Formula((bent * r).limit(curvature, 0), r, "H across the ray, k → 0"),
                        Formula(ahead[0] * r, -r, "∂Log along the ray"),
                        Formula(aside[1], -r * cot(r), "∂Log across the ray"),
                        Formula(ahead[1] + r, r, "∂Log along the ray, its other component"),
                        Formula(aside[0] + r, r, "∂Log across the ray, its other component"),
                    ),
                ),
            ),
            witnesses=(Witness("the unit sphere: H = 1 - r²/3 + …", at={curvature: 1}),),
            expected="refuted: ∇_μ ℓ = mean(HΓL) - E_p[HΓv]",
        ),
        Claim(
            "L6",
            "mixtures of LANDs beat Gaussian mixtures on curved data",
            "LAND",
            measured=Comparison(
                results="land_l6.json",
                command="python -m experiments.land",
                cell="free",
                baseline="mixture",
                arms=(("land", "mixtures of LANDs, K by validation"),),
                measures=(
                    ("semicircle", "a lower density on half a circle"),
                    ("moons", "a lower density on two moons"),
                    ("spirals", "a lower density on two spirals"),
                    ("gaussian", "a lower density on a Gaussian"),
                    ("digits", "a lower density on digits' codes"),
                ),
                references=(("either", "the better of both by validation"),),
            ),
        ),
    ),
)
