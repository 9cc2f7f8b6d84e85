"""What reparametrisation noise adds to a reconstruction loss, and the metric it is compared with.

L(z) = |x - f(z)|².  For circular noise ε with E|ε_a|² = σ² the loss grows by σ² Σ_a ∂_a∂_āL +
O(σ⁴), so that the mixed Hessian of L is what has to be compared with the pulled-back metric.
"""

from kahler_verify.calculus import (
    Bar,
    Derivation,
    OnDiagonal,
    Partial,
    adjoint,
    dimension,
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

reparametrisation = Derivation(
    name="reparametrisation",
    title="Reparametrisation noise and the pulled-back metric",
    source="Shi, arXiv 2507.17255",
    latent=d,
    kernels=(),
    definition=loss,
)
