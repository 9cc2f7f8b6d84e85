"""From Points to Spheres: what reparametrisation noise adds to a reconstruction loss.

L(z) = |x - f(z)|².  For circular noise ε with E|ε_a|² = σ² the loss grows by σ² Σ_a ∂_a∂_āL +
O(σ⁴), so that the mixed Hessian of L is what has to be compared with the pulled-back metric.
"""

from sympy import Matrix, conjugate

from kahler_verify.calculus import (
    Bar,
    Case,
    Claim,
    Derivation,
    OnDiagonal,
    Partial,
    Vanishing,
    Witness,
    adjoint,
    dimension,
    explicit_coordinates,
    field,
    index,
    scalars,
)

n, d = dimension("n"), dimension("d")
a, b = index("a b")
f = field("f", n)
x = field("x", n, constant=True)
f0 = f.at_base()

loss = scalars(adjoint(x - f) * (x - f))
# the pulled-back metric: the mixed Hessian of |f(z₀) - f(z)|² at z₀ = z, which is
# (∂_bf)ᴴ∂_af + (∂_āf)ᴴ∂_b̄f
metric = OnDiagonal(Partial(scalars(adjoint(f0 - f) * (f0 - f)), a, Bar(b)))
printed_metric = scalars(
    adjoint(Partial(f, b)) * Partial(f, a) + adjoint(Partial(f, Bar(a))) * Partial(f, Bar(b))
)

(z1,) = explicit_coordinates("z1")

reparametrisation = Derivation(
    name="reparametrisation",
    title="Reparametrisation noise and the pulled-back metric",
    source="Shi, arXiv 2507.17255",
    latent=d,
    kernels=(),
    definition=loss,
    claims=(
        Claim(
            "P1",
            "to second order, reparametrisation noise adds the trace of the pulled-back "
            "metric to the "
            "reconstruction loss",
            "SPHERES",
            parts=(
                Vanishing(Partial(loss, a, Bar(b)) - metric, (a, b), "∂∂̄ of the loss = metric"),
            ),
            cases=(
                Case("f holomorphic, circular noise", ((f, "holomorphic"),)),
                Case(
                    "zero residual, where the metric is (∂_bf)ᴴ∂_af + (∂_āf)ᴴ∂_b̄f",
                    parts=(Vanishing(metric - printed_metric, (a, b), "∂∂̄ of the loss at x = f"),),
                ),
            ),
            witnesses=(
                Witness(
                    "f = (|z|², Re z), x = (5, 1) at z = 1",
                    coordinates=(z1,),
                    fields={
                        f: Matrix([z1 * conjugate(z1), (z1 + conjugate(z1)) / 2]),
                        x: Matrix([5, 1]),
                    },
                    at={z1: 1},
                ),
            ),
            expected="holds under zero residual, or for holomorphic f with circular noise",
        ),
        *[
            Claim(name, statement, source, waits_for=waits)
            for name, statement, source, waits in (
                ("P2", "the KL term makes codes more uniform", "SPHERES", "the ablation"),
                (
                    "P3",
                    "VQ-VAE is an autoencoder constrained to cluster centres",
                    "SPHERES",
                    "VQ-VAE",
                ),
                (
                    "P4",
                    "a Gaussian ball's radius concentrates at √d σ",
                    "SPHERES",
                    "its derivation",
                ),
                ("S1", "the discrete curve energy's gradient", "RGDGM", "curves"),
                ("S2", "the encoder's Jacobian keeps a descent direction", "RGDGM", "curves"),
                ("S3", "parallel transport by projection converges", "RGDGM", "curves"),
                ("S4", "learned manifolds are nearly flat", "RGDGM", "curves"),
                ("S5", "energy minimisers have constant speed and L² ≤ 2E", "RGDGM", "curves"),
                ("C1", "√det G sampling has finite volume iff τ > 0", "GPVAE", "samplers"),
                ("C2", "the widely used HMC sampler targets √det G", "GPVAE", "samplers"),
            )
        ],
    ),
)
