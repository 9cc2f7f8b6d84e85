"""From Points to Spheres (Shi, arXiv 2507.17255): variational autoencoders as balls of codes."""

from kahler_verify.derivations.geometry.reparametrisation import a, b, f, loss, metric, x
from sympy import Matrix, conjugate

from kahler_verify.calculus import (
    Bar,
    Case,
    Claim,
    Partial,
    Vanishing,
    Witness,
    adjoint,
    explicit_coordinates,
    paper,
    scalars,
)

printed_metric = scalars(
    adjoint(Partial(f, b)) * Partial(f, a) + adjoint(Partial(f, Bar(a))) * Partial(f, Bar(b))
)

(z1,) = explicit_coordinates("z1")

points_to_spheres = paper(
    "points_to_spheres",
    "From points to spheres",
    "Shi, arXiv 2507.17255",
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
        Claim("P2", "the KL term makes codes more uniform", "SPHERES", waits_for="the ablation"),
        Claim(
            "P3",
            "VQ-VAE is an autoencoder constrained to cluster centres",
            "SPHERES",
            waits_for="VQ-VAE",
        ),
        Claim(
            "P4",
            "a Gaussian ball's radius concentrates at √d σ",
            "SPHERES",
            waits_for="its derivation",
        ),
    ),
)
