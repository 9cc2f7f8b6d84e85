"""Fisher-Rao metrics of laws of location and scale without a log-partition: Laplace, Student's t.

x = m + s e with a fixed law of e, of density f.  With the score h(e) = -f′(e)/f(e), the log density
has ∂ℓ = (h(e) ∂m + (e h(e) - 1) ∂s)/s, so that for an even f

    E[∂_aℓ ∂_bℓ] = (E[h²] ∂_am ∂_bm + E[(e h - 1)²] ∂_as ∂_bs)/s².

Two means of e are all that a family has of its own.  They are integrals that SymPy takes, not the
calculus: no divergence is differentiated here, since that of Student's t has no closed form and
that of Laplace's law is only twice differentiable at z = z₀.
"""

from sympy import Expr, Rational, exp, integrate, oo, rf, symbols

from kahler_verify.calculus import (
    Claim,
    Contract,
    Derivation,
    Entry,
    Formula,
    Kernel,
    Output,
    Partial,
    dimension,
    field,
    index,
    parameter,
)

n, d = dimension("n"), dimension("d")
a, b, c, e = index("a b c e", d, real=True)
(j,) = index("j", n, real=True)

location = field("location", n, real=True)
scale = field("scale", n, real=True, positive=True)


def slopes(letter: Expr) -> Expr:
    """∂_ax_j ∂_bx_j."""
    return Entry(Partial(letter, a), j) * Entry(Partial(letter, b), j)


def family(
    name: str,
    title: str,
    source: str,
    of_location: Expr,
    of_scale: Expr,
    claims: tuple[Claim, ...],
    assumptions: tuple[str, ...] = (),
) -> Derivation:
    """The metric with the means E[h²] and E[(e h - 1)²], and its derivatives."""
    per_output = of_location * slopes(location) + of_scale * slopes(scale)
    g = Contract(per_output / Entry(scale, j) ** 2, j)
    return Derivation(
        name=name,
        title=f"Fisher-Rao metric of {title}",
        source=source,
        assumptions=("location and scale are three times differentiable", *assumptions),
        latent=d,
        routes=("autograd", "mpmath", "exact"),
        kernels=(
            Kernel("fisher_metric", {"g": Output(g, (a, b))}),
            Kernel("fisher_metric_d", {"g_d": Output(Partial(g, c), (c, a, b))}),
            Kernel("fisher_metric_dd", {"g_dd": Output(Partial(g, c, e), (c, e, a, b))}),
        ),
        claims=claims,
    )


# Laplace's law, f = ½ exp(-|e|): h = sign e.  Means are taken over e > 0, twice; the density is
# given the width w, so that both sides of what is claimed are expressions.
r, w = symbols("r w", positive=True)


def laplace_mean(square: Expr) -> Expr:
    """E of an even function of e, written for e = r/w > 0."""
    return integrate(square * exp(-r / w) / w, (r, 0, oo))


laplace = family(
    "laplace",
    "Laplace outputs with location and scale",
    "Kotz, Kozubowski, Podgórski, The Laplace Distribution and Generalizations, 2001",
    Rational(1),
    Rational(1),
    claims=(
        Claim(
            "PB1-laplace",
            "the Fisher information of Laplace's law is 1/s² of its location and 1/s² of its scale",
            "PULLBACK",
            parts=(
                Formula(laplace_mean(1 / w**2), 1 / w**2, "E[h²]/s²"),
                Formula(laplace_mean((r / w - 1) ** 2 / w**2), 1 / w**2, "E[(e h - 1)²]/s²"),
            ),
            kernels=("fisher_metric", "fisher_metric_d", "fisher_metric_dd"),
            expected="holds",
        ),
    ),
)

# Student's t with ν degrees of freedom: h = (ν + 1) e/(ν + e²).  u = ν/(ν + e²) has the law
# Beta(ν/2, ½), in which h² = (ν + 1)² u (1 - u)/ν and e h - 1 = ν - (ν + 1) u.
nu = symbols("nu", positive=True)


def beta_moment(k: int, m: int) -> Expr:
    """E[u^k (1 - u)^m] over Beta(ν/2, ½)."""
    p, q = nu / 2, Rational(1, 2)
    return rf(p, k) * rf(q, m) / rf(p + q, k + m)


h2 = (nu + 1) ** 2 / nu * beta_moment(1, 1)
spread2 = nu**2 - 2 * nu * (nu + 1) * beta_moment(1, 0) + (nu + 1) ** 2 * beta_moment(2, 0)
freedom = Entry(parameter("nu", n, real=True, positive=True), j)

student_t = family(
    "student_t",
    "Student's t outputs with location and scale, nu degrees of freedom",
    "Lange, Little, Taylor, Robust statistical modeling using the t distribution, 1989",
    (freedom + 1) / (freedom + 3),
    2 * freedom / (freedom + 3),
    claims=(
        Claim(
            "PB1-student_t",
            "the Fisher information of Student's t is (ν + 1)/((ν + 3) s²) of its location and "
            "2ν/((ν + 3) s²) of its scale",
            "PULLBACK",
            parts=(
                Formula(h2, (nu + 1) / (nu + 3), "E[h²]"),
                Formula(spread2, 2 * nu / (nu + 3), "E[(e h - 1)²]"),
            ),
            kernels=("fisher_metric", "fisher_metric_d", "fisher_metric_dd"),
            expected="holds",
        ),
    ),
    assumptions=("degrees of freedom do not depend on z",),
)
