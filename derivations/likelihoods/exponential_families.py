"""Fisher-Rao metrics of exponential families, of outputs that are independent given z.

In natural parameters η, KL(η₀ ‖ η) = A(η) - A(η₀) - ⟨∇A(η₀), η - η₀⟩, the Bregman divergence of the
log-partition A; its Hessian at η = η₀ pulls A″ back.  One family is one A, written in natural
parameters or, since linear maps change nothing, in their negatives where those are positive.
``log1pexp(t)`` is log(1 + eᵗ).
"""

from sympy import Expr, exp, log, loggamma

from kahler_verify.calculus import (
    Claim,
    Contract,
    Derivation,
    Entry,
    Jet,
    Kernel,
    LogSumExp,
    OnDiagonal,
    Output,
    Partial,
    Vanishing,
    bregman,
    dimension,
    field,
    index,
    parameter,
)
from kahler_verify.calculus.pointwise import log1pexp, logistic

n, d = dimension("n"), dimension("d")
a, b, c, e = index("a b c e", d, real=True)
(j,) = index("j", n, real=True)


def over(term: Expr) -> Expr:
    """Σ_j over the outputs."""
    return Contract(term, j)


def family(name: str, title: str, partition: Expr, *natural: Jet) -> Derivation:
    """The metric of a family with log-partition A and its derivatives."""
    return of_divergence(name, title, bregman(partition, *natural))


def of_divergence(name: str, title: str, KL: Expr) -> Derivation:
    """The metric of a family whose divergence is given, and its derivatives."""
    g = OnDiagonal(Partial(KL, a, b))
    return Derivation(
        name=name,
        title=f"Fisher-Rao metric of {title}",
        source="Barndorff-Nielsen, Information and Exponential Families, 1978",
        assumptions=("natural parameters are three times differentiable and inside their domain",),
        latent=d,
        definition=KL,
        routes=("autograd", "mpmath", "exact"),
        kernels=(
            Kernel("fisher_metric", {"g": Output(g, (a, b))}),
            Kernel("fisher_metric_d", {"g_d": Output(Partial(g, c), (c, a, b))}),
            Kernel("fisher_metric_dd", {"g_dd": Output(Partial(g, c, e), (c, e, a, b))}),
        ),
        claims=(
            Claim(
                f"PB1-{name}",
                "KL between neighbouring outputs gives the pulled-back Fisher metric to second "
                f"order ({title})",
                "PULLBACK",
                parts=(
                    Vanishing(OnDiagonal(KL), (), "KL(z‖z) = 0"),
                    Vanishing(OnDiagonal(Partial(KL, a)), (a,), "∂KL(z‖z) = 0"),
                ),
                kernels=("fisher_metric",),
                expected="holds",
            ),
        ),
    )


eta = field("eta", n, real=True)
alpha, beta, rate = (field(name, n, real=True, positive=True) for name in ("alpha", "beta", "rate"))
mean = field("alpha", n, real=True)  # of any sign, in units of the variance
t, x, y = Entry(eta, j), Entry(alpha, j), Entry(beta, j)
logits = field("eta", real=True, component=True)

bernoulli = family("bernoulli", "Bernoulli outputs with logits eta", over(log1pexp(t)), eta)
categorical = family(
    "categorical", "a categorical output with logits eta", LogSumExp(logits), logits
)
poisson = family("poisson", "Poisson outputs with log rates eta", over(exp(t)), eta)
exponential = family(
    "exponential", "exponential outputs with rates", over(-log(Entry(rate, j))), rate
)
gamma = family(
    "gamma",
    "Gamma outputs with shape alpha and rate beta",
    over(loggamma(x) - x * log(y)),
    alpha,
    beta,
)
beta_outputs = family(
    "beta",
    "Beta outputs with concentrations alpha and beta",
    over(loggamma(x) + loggamma(y) - loggamma(x + y)),
    alpha,
    beta,
)
dirichlet = family(
    "dirichlet",
    "a Dirichlet output with concentrations alpha",
    over(loggamma(x)) - loggamma(over(x)),
    alpha,
)
# η = log p has the log-partition -count log(1 - p); in the logit t, of which decoders are made,
# ∇A = count p/(1-p) and η = -log1pexp(-t).
count = Entry(parameter("count", n, real=True, positive=True), j)
t0 = t.subs(eta, eta.at_base())
odds0 = logistic(t0) / logistic(-t0)
negative_binomial = of_divergence(
    "negative_binomial",
    "negative binomial outputs with logits eta of success, count failures",
    over(count * (log1pexp(t) - log1pexp(t0)) + count * odds0 * (log1pexp(-t) - log1pexp(-t0))),
)
gaussian_natural = family(
    "gaussian_natural",
    "independent Gaussian outputs with alpha = μ/σ² and beta = 1/σ²",
    over(Entry(mean, j) ** 2 / (2 * y) - log(y) / 2),
    mean,
    beta,
)
