"""LAND: geodesics as the paper states them, and as they are widely implemented.

In two real dimensions, with the metric M, its derivatives ∂_kM and the velocity as free symbols:
the equation is algebraic in them, so that nothing else matters.
"""

from sympy import Matrix, Rational, Symbol, zeros

from kahler_verify.calculus import Case, Claim, Formula, Witness, paper


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
        *[
            Claim(name, statement, "LAND", waits_for=waits)
            for name, statement, waits in (
                ("L1", "the kernel metric is smooth, 0 < M ≤ 1/ρ, and → 1/ρ far from data", "LAND"),
                ("L2", "maximum entropy under the metric", "LAND"),
                ("L3", "reduces to the normal distribution for M = I", "LAND"),
                ("L4", "the normaliser is the tangent-space integral as printed", "geodesics"),
                ("L6", "mixtures of LANDs beat Gaussian mixtures on curved data", "LAND"),
            )
        ],
    ),
)
