"""When a Fisher metric is closed: identities in natural parameters, as equal normal forms."""

from sympy import Expr

from kahler_verify.calculus import (
    Bar,
    Partial,
    Tr,
    adjoint,
    assume,
    derive,
    index,
    scalars,
    wirtinger,
)
from kahler_verify.calculus.definition import at_base
from kahler_verify.codegen.registry import shipped

a, b, c = index("a b c")
source = shipped()["gaussian_kl"]
KL = source.definition


def _letter(name: str) -> Expr:
    from kahler_verify.calculus import Jet

    return next(
        j
        for j in derive(KL).atoms(Jet)
        if j.field.name == name and "frozen" not in j.field.traits and not j.dagger
    )


mu, Sigma = _letter("mu"), _letter("Sigma")
g = next(k for k in source.kernels if k.name == "fisher_metric_full").derived()["g"]
theta_1, theta_2 = Sigma**-1 * mu, -(Sigma**-1)  # natural parameters: Pμ pairs with x, -P with xxᴴ
eta_1, eta_2 = mu, Sigma + mu * mu.H


def pairing(by_theta: tuple, by_eta: tuple) -> Expr:
    """⟨∂^… θ, ∂^… η⟩."""

    def d(expr: Expr, by: tuple) -> Expr:
        for i in by:
            expr = wirtinger(expr, i.index, True) if isinstance(i, Bar) else wirtinger(expr, i)
        return expr

    return scalars(
        Tr(d(adjoint(theta_1), by_theta) * d(eta_1, by_eta))
        + Tr(d(adjoint(eta_1), by_eta) * d(theta_1, by_theta))
        + Tr(d(theta_2, by_theta) * d(eta_2, by_eta))
    ).expand()


def swapped(expr: Expr, one: Expr, other: Expr) -> Expr:
    """∂_c g_{ab̄} and ∂_a g_{cb̄} from one another."""
    return expr.subs({one: other, other: one}, simultaneous=True)


def test_the_metric_pairs_natural_and_mean_parameters() -> None:
    assert pairing((a,), (Bar(b),)) == g == pairing((Bar(b),), (a,))


def test_closedness_defect_in_natural_parameters() -> None:
    g_cb = pairing((c,), (Bar(b),))
    defect = wirtinger(g, c) - wirtinger(g_cb, a)
    expected = pairing((c, Bar(b)), (a,)) - pairing((a, Bar(b)), (c,))
    assert (defect - expected).expand() == 0
    assert defect.expand() != 0


def test_holomorphic_mean_and_constant_covariance_are_closed() -> None:
    flat = ((mu, "holomorphic"), (Sigma, "constant"))
    g_cb = pairing((c,), (Bar(b),))
    assert assume(wirtinger(g, c) - wirtinger(g_cb, a), *flat) == 0
    k = next(x for x in source.kernels if x.name == "fisher_metric_full").derived()["k"]
    assert assume(k, *flat) == 0


def test_divergence_from_a_point_as_a_potential() -> None:
    """∂_a∂_b̄ KL(z₀‖z) - g = ⟨∂_a∂_b̄ θ(z), η(z) - η(z₀)⟩."""
    defect = derive(Partial(KL, a, Bar(b))) - g
    both = pairing((a, Bar(b)), ())

    d_theta_1 = wirtinger(wirtinger(theta_1, a), b, True)
    d_theta_1_bar = wirtinger(wirtinger(adjoint(theta_1), a), b, True)
    d_theta_2 = wirtinger(wirtinger(theta_2, a), b, True)
    mu0, Sigma0 = at_base(mu), at_base(Sigma)
    base = Tr(d_theta_1_bar * mu0) + Tr(mu0.H * d_theta_1)
    base += Tr(d_theta_2 * (Sigma0 + mu0 * mu0.H))
    assert (defect - both + base).expand() == 0
    assert assume(defect, (mu, "holomorphic"), (Sigma, "constant")) == 0
