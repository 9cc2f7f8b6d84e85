"""LAND's data metric with full matrices: the inverse of a local covariance about z.

G⁻¹(z) = Σ_k w_k r_k r_kᵀ + ρ 1 with r_k = z - x_k and w_k = exp(-s |r_k|²).
"""

from sympy import exp

from kahler_verify.calculus import (
    Derivation,
    Entry,
    Kernel,
    Output,
    Partial,
    Total,
    coordinates,
    dimension,
    index,
    parameter,
    scalars,
)

d = dimension("d")
p, q, a, b = index("p q a b", d, real=True)
z = coordinates("z", d, real=True)
r = coordinates("r", d, real=True, component=True)  # z - x_k
s, rho = parameter("s", real=True), parameter("rho", real=True)

identity = Entry(z.partial(p, bar=False), q)
cometric = Total(exp(-s * scalars(r.H * r)) * Entry(r, p) * Entry(r, q)) + rho * identity

local_covariance = Derivation(
    name="local_covariance",
    title="The data metric of locally adaptive normal distributions, full: its inverse",
    source="Arvanitidis, Hansen, Hauberg, arXiv 1606.02518; s = 1/(2σ²)",
    assumptions=("s > 0 and ρ > 0",),
    latent=d,
    routes=("autograd", "mpmath", "exact"),
    kernels=(
        Kernel("cometric", {"C": Output(cometric, (p, q))}),
        Kernel("cometric_d", {"C_d": Output(Partial(cometric, a), (a, p, q))}),
        Kernel("cometric_dd", {"C_dd": Output(Partial(cometric, a, b), (a, b, p, q))}),
    ),
)
