"""The locally adaptive normal distribution (Arvanitidis, Hansen, Hauberg, arXiv 1606.02518).

Its data metric along a ray; the two metrics in which it is known in closed form; and geodesics as
the paper states them, and as they are widely implemented.
"""

from sympy import E, Matrix, Rational, Symbol, asinh, exp, pi, sqrt, symbols, zeros

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
        Claim("L2", "maximum entropy under the metric", "LAND", waits_for="LAND"),
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
            "the normaliser is the tangent-space integral as printed",
            "LAND",
            waits_for="geodesics",
        ),
        Claim(
            "L6",
            "mixtures of LANDs beat Gaussian mixtures on curved data",
            "LAND",
            waits_for="LAND",
        ),
    ),
)
