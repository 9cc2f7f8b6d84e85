"""A metric whose inverse is given: g = C⁻¹ and its derivatives from those of the cometric C.

∂_c g = -C⁻¹ ∂_cC C⁻¹, and so on; the metrics that data weigh are given so.
"""

from kahler_verify.calculus import (
    Derivation,
    Entry,
    Kernel,
    Output,
    Partial,
    dimension,
    field,
    index,
)

d = dimension("d")
a, b, c, e = index("a b c e", d, real=True)
C = field("C", d, d, symmetric=True, positive=True)
g = Entry(C**-1, a, b)

inverse_metric = Derivation(
    name="inverse_metric",
    title="A metric and its derivatives from its inverse",
    source="the derivative of a matrix inverse",
    assumptions=("C is symmetric, positive definite and twice differentiable",),
    latent=d,
    routes=("autograd", "mpmath", "exact"),
    kernels=(
        Kernel("metric", {"g": Output(g, (a, b))}),
        Kernel("metric_d", {"g_d": Output(Partial(g, c), (c, a, b))}),
        Kernel("metric_dd", {"g_dd": Output(Partial(g, c, e), (c, e, a, b))}),
    ),
)
