"""Metrics and precisions that data give: LAND, radial basis functions, weighted precisions.

Sums run over data points or centres x_k; r_k = z - x_k, and w_k = exp(-s_k |r_k|²).
"""

from sympy import Expr, Symbol, exp

from kahler_verify.calculus import (
    Derivation,
    Entry,
    Kernel,
    Output,
    Partial,
    Total,
    Tr,
    coordinates,
    dimension,
    index,
    let,
    parameter,
    scalars,
)

n, d = dimension("n"), dimension("d")
i, p, q, a, b, c = index("i p q a b c", d, real=True)
(j,) = index("j", n, real=True)

z = coordinates("z", d, real=True)
r = coordinates("r", d, real=True, component=True)  # z - x_k
s = parameter("s", real=True)
rho = parameter("rho", real=True)
bandwidth = parameter("bandwidth", real=True, component=True)
distance = scalars(r.H * r)


def jets(
    name: str, symbol: str, expr: Expr, own: tuple[Symbol, ...], order: int, *, upper: bool = False
) -> tuple[Kernel, ...]:
    """The expression and its derivatives to an order, indices of derivatives first."""
    kernels = []
    for m in range(order + 1):
        mark, by = "_" + "d" * m if m else "", (a, b, c)[:m]
        out = Output(Partial(expr, *by), (*by, *own), upper=own if upper else ())
        kernels.append(Kernel(name + mark, {symbol + mark: out}))
    return tuple(kernels)


# LAND: M_i(z) = 1/(Σ_k w_k (z - x_k)_i² + ρ)
spread = let("spread", Total(exp(-s * distance) * Entry(r, i) ** 2) + rho, of=(i,))
local_variance = Derivation(
    name="local_variance",
    title="The data metric of locally adaptive normal distributions, diagonal",
    source="Arvanitidis, Hansen, Hauberg, arXiv 1606.02518; s = 1/(2σ²)",
    assumptions=("s > 0 and ρ > 0",),
    latent=d,
    routes=("autograd", "mpmath", "exact"),
    kernels=jets("metric", "M", 1 / spread(i), (i,), 2),
)

# A precision that grows towards centres: β_j(z) = Σ_k W_kj exp(-λ_k |z - x_k|²) + ζ_j
W = parameter("W", n, real=True, component=True)
zeta = parameter("zeta", n, real=True)
precision = Total(exp(-bandwidth * distance) * Entry(W, j)) + Entry(zeta, j)
rbf_precision = Derivation(
    name="rbf_precision",
    title="A precision of radial basis functions, and its derivatives",
    source="Arvanitidis, Hansen, Hauberg, arXiv 1710.11379",
    assumptions=("bandwidths are positive, W and ζ not negative",),
    latent=d,
    routes=("autograd", "mpmath", "exact"),
    kernels=jets("precision", "beta", precision, (j,), 3),
)

# An inverse metric that data weigh: G⁻¹(z) = Σ_k L_kL_kᵀ ω_k(z) + λ e^{-τ|z|²} 1
C = parameter("C", d, d, symmetric=True, component=True)  # L_kL_kᵀ
tau, scale = parameter("tau", real=True), parameter("scale", real=True)
identity = Entry(z.partial(p, bar=False), q)
cometric = Total(exp(-bandwidth * distance) * Entry(C, p, q))
cometric += scale * exp(-tau * Tr(z.H * z)) * identity
precision_weighted = Derivation(
    name="precision_weighted",
    title="An inverse metric of weighted precisions, and its derivatives",
    source="Chadebec, Thibeau-Sutre, Burgos, Allassonnière, arXiv 2105.00026",
    assumptions=("bandwidths and τ are positive, scale > 0",),
    latent=d,
    routes=("autograd", "mpmath", "exact"),
    kernels=jets("cometric", "h", cometric, (p, q), 2, upper=True),
)
