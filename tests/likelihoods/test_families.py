"""Every family: its metric is the Hessian of torch's KL, and its derivatives are differences."""

from math import pi

import pytest
import torch
from numpy.polynomial.legendre import leggauss
from torch import Tensor, nn
from torch import distributions as laws

from kahler_verify.distributions import ComplexNormal
from kahler_verify.errors import InputError
from kahler_verify.geometry.fisher import FisherMetric
from kahler_verify.geometry.fisher_rao import FisherRaoMetric
from kahler_verify.likelihoods import FAMILIES

D, N = 2, 4


def _net(outputs: int = N, seed: int = 0) -> nn.Module:
    with torch.random.fork_rng():
        torch.manual_seed(seed)
        return nn.Sequential(nn.Linear(D, 7), nn.Tanh(), nn.Linear(7, outputs)).double()


a, b, c = _net(), _net(seed=1), _net(N * N, seed=2)


def _matrix(z: Tensor) -> Tensor:
    return c(z).unflatten(-1, (N, N))


SCALE = torch.eye(N, dtype=torch.float64) + 0.25 * torch.ones(N, N, dtype=torch.float64).tril(-1)
ZOO = {
    "tensor": lambda z: a(z),
    "image": lambda z: a(z).unflatten(-1, (2, 2)),
    "pair": lambda z: (a(z), b(z)),
    "pair, one variance": lambda z: (a(z), b(z)[:, 0]),
    "Normal": lambda z: laws.Normal(a(z), b(z).exp()),
    "Independent Normal": lambda z: laws.Independent(laws.Normal(a(z), b(z).exp()), 1),
    "LogNormal": lambda z: laws.LogNormal(a(z), b(z).exp()),
    "MultivariateNormal": lambda z: laws.MultivariateNormal(
        a(z), scale_tril=_matrix(z).tril(-1) + torch.diag_embed(b(z).exp())
    ),
    "MultivariateNormal, one scale": lambda z: laws.MultivariateNormal(a(z), scale_tril=SCALE),
    "MultivariateNormal, one precision": lambda z: laws.MultivariateNormal(
        a(z), precision_matrix=SCALE @ SCALE.mT
    ),
    "LowRank": lambda z: laws.LowRankMultivariateNormal(a(z), _matrix(z)[..., :1], b(z).exp()),
    "Bernoulli": lambda z: laws.Bernoulli(logits=a(z)),
    "Bernoulli by probabilities": lambda z: laws.Bernoulli(probs=torch.sigmoid(a(z))),
    "Categorical": lambda z: laws.Categorical(logits=a(z)),
    "OneHotCategorical": lambda z: laws.OneHotCategorical(logits=a(z)),
    "several Categorical": lambda z: laws.Independent(laws.Categorical(logits=_matrix(z)), 1),
    "Poisson": lambda z: laws.Poisson(a(z).exp()),
    "NegativeBinomial": lambda z: laws.NegativeBinomial(
        torch.arange(1.0, N + 1).double(), logits=a(z)
    ),
    "Geometric": lambda z: laws.Geometric(logits=a(z)),
    "Exponential": lambda z: laws.Exponential(a(z).exp()),
    "Gamma": lambda z: laws.Gamma(a(z).exp(), b(z).exp()),
    "Beta": lambda z: laws.Beta(a(z).exp(), b(z).exp()),
    "Dirichlet": lambda z: laws.Dirichlet(a(z).exp()),
    "Laplace": lambda z: laws.Laplace(a(z), b(z).exp()),
    "StudentT": lambda z: laws.StudentT(DEGREES, a(z), b(z).exp()),
    "Cauchy": lambda z: laws.Cauchy(a(z), b(z).exp()),
    "VonMises": lambda z: laws.VonMises(a(z), b(z).exp()),
}
DEGREES = torch.arange(3.0, N + 3).double()
# KL of Student's t has no closed form, and that of Laplace's law is not smooth enough for autograd.
WITHOUT_DIVERGENCE = ("Laplace", "StudentT", "Cauchy")
Z = torch.randn(3, D, dtype=torch.float64, generator=torch.Generator().manual_seed(3))


def _divergence(p, q) -> Tensor:
    if isinstance(p, Tensor):
        return ((p - q) ** 2).sum() / 2
    if isinstance(p, tuple):
        p, q = (laws.Normal(m, (s.reshape(1, -1) / 2).exp().expand_as(m)) for m, s in (p, q))
    if isinstance(p, laws.NegativeBinomial):  # torch has no KL of these
        r, x, y = p.total_count, p.probs, q.probs
        both = torch.log1p(-x) - torch.log1p(-y) + x / (1 - x) * (x.log() - y.log())
        return (r * both).sum()
    if isinstance(p, laws.VonMises):  # nor of these
        r = p.concentration
        A = torch.special.i1e(r) / torch.special.i0e(r)
        k, turn = q.concentration, q.loc - p.loc
        both = torch.log(torch.special.i0(k)) - torch.log(torch.special.i0(r))
        return (both - A * (k * torch.cos(turn) - r)).sum()
    return laws.kl_divergence(p, q).sum() + _mended(q)


def _mended(q: laws.Distribution) -> Tensor | float:
    """What exchanges torch's lgamma for one whose second derivatives have all digits.

    ``torch.polygamma(1, x)``, the derivative of torch's digamma, is off by up to 5e-10 for small x.
    """

    def more(x: Tensor) -> Tensor:
        shifted = torch.lgamma(x + 40) - sum(torch.log(x + k) for k in range(40))
        return (shifted - torch.lgamma(x)).sum()

    if isinstance(q, laws.Gamma):
        return more(q.concentration)
    if isinstance(q, laws.Beta):
        a, b = q.concentration1, q.concentration0
        return more(a) + more(b) - more(a + b)
    if isinstance(q, laws.Dirichlet):
        return more(q.concentration) - more(q.concentration.sum(-1))
    return 0.0


def _hessian(decoder, z: Tensor) -> Tensor:
    """Reverse over reverse, in the second argument of KL(z‖·)."""
    with torch.no_grad():
        p = decoder(z[None])
    return torch.autograd.functional.hessian(lambda y: _divergence(p, decoder(y[None])), z)


def _information(decoder, z: Tensor) -> Tensor:
    """E[∂_aℓ ∂_bℓ] of torch's log density, by Gauss-Legendre over x = m + s tan φ, halves apart."""
    nodes, weights = (torch.from_numpy(x) for x in leggauss(400))
    angles = pi / 4 * (nodes + 1)
    t = torch.tan(angles)
    dt = pi / 4 * weights / torch.cos(angles) ** 2
    law = decoder(z[None])
    x = torch.cat([law.loc + law.scale * sign * t[:, None] for sign in (-1, 1)]).detach()
    dx = (law.scale * dt[:, None]).repeat(2, 1).detach()

    def log_density(y: Tensor) -> Tensor:
        return decoder(y[None]).log_prob(x)

    scores = torch.func.jacfwd(log_density)(z)
    density = log_density(z).exp().detach() * dx
    assert torch.allclose(density.sum(0), torch.ones(N, dtype=z.dtype), rtol=1e-11)
    return torch.einsum("xn,xna,xnb->ab", density, scores, scores)


@pytest.mark.sampled(1)
@pytest.mark.parametrize("name", WITHOUT_DIVERGENCE)
def test_the_metric_is_the_information_of_the_score(name: str) -> None:
    decoder = ZOO[name]
    g = FisherRaoMetric(decoder).metric_matrix(Z)
    expected = torch.stack([_information(decoder, z) for z in Z]).detach()
    assert torch.allclose(g, expected, rtol=1e-10)


@pytest.mark.parametrize("name", [name for name in ZOO if name not in WITHOUT_DIVERGENCE])
def test_the_metric_is_the_hessian_of_the_divergence(name: str) -> None:
    decoder = ZOO[name]
    g = FisherRaoMetric(decoder).metric_matrix(Z)
    expected = torch.stack([_hessian(decoder, z) for z in Z])
    assert torch.allclose(g, expected, rtol=1e-11, atol=1e-12 * expected.abs().max().item())


@pytest.mark.parametrize("name", ZOO)
def test_derivatives_are_those_of_the_metric(name: str) -> None:
    metric, step = FisherRaoMetric(ZOO[name]), 1e-5
    jet = metric.jet(Z, 2)
    assert jet.d is not None
    assert jet.dd is not None
    for axis in range(D):
        e = torch.zeros(D, dtype=Z.dtype)
        e[axis] = step
        ahead, behind = metric.jet(Z + e, 1), metric.jet(Z - e, 1)
        slope = (ahead.g - behind.g) / (2 * step)
        assert torch.allclose(
            jet.d[:, axis], slope, rtol=1e-7, atol=1e-7 * slope.abs().max().item()
        )
        bend = (ahead.d - behind.d) / (2 * step)
        assert torch.allclose(jet.dd[:, axis], bend, rtol=1e-7, atol=1e-7 * bend.abs().max().item())


def test_every_registered_family_is_in_the_zoo() -> None:
    with torch.no_grad():
        outputs = [decoder(Z) for decoder in ZOO.values()]
    seen = {type(law.base_dist if isinstance(law, laws.Independent) else law) for law in outputs}
    assert set(FAMILIES) <= seen


class ComplexOutputs(nn.Module):
    """A complex Gaussian of each structure, at real latents."""

    def __init__(self, structure: str, *, improper: bool = False):
        super().__init__()
        generator = torch.Generator().manual_seed(3)
        self.structure, self.improper = structure, improper
        self.weights = nn.Parameter(
            torch.randn(4, 3, D, dtype=torch.float64, generator=generator), requires_grad=False
        )

    def forward(self, z: Tensor) -> ComplexNormal:
        x, y, s, r = (torch.tanh(z @ w.mT) for w in self.weights)
        loc, scale = torch.complex(x, y), 0.5 + s * s
        relation = {}
        if self.improper:
            size = scale[..., 0] if self.structure == "scalar" else scale
            small = 0.1 * torch.complex(r, x)
            relation["relation"] = size**2 * (
                small[..., 0] if self.structure == "scalar" else small
            )
        if self.structure == "number":
            return ComplexNormal(loc, scale=0.3)
        if self.structure == "scalar":
            return ComplexNormal(loc, scale=scale[..., 0], **relation)
        if self.structure == "diagonal":
            return ComplexNormal(loc, scale_diag=scale, **relation)
        below = torch.complex(r, y)[..., None] * torch.ones(3, dtype=torch.complex128)
        return ComplexNormal(loc, scale_tril=torch.diag_embed(scale + 0j) + below.tril(-1))


@pytest.mark.parametrize(
    ("structure", "improper"),
    [
        ("number", False),
        ("scalar", False),
        ("diagonal", False),
        ("full", False),
        ("scalar", True),
        ("diagonal", True),
    ],
)
def test_complex_gaussians_at_real_latents(structure: str, improper: bool) -> None:
    """Their Fisher information, by (Re x, Im x): J^T P J + tr(P dS P dS)/2."""
    decoder = ComplexOutputs(structure, improper=improper)

    def parameters(x: Tensor) -> tuple[Tensor, Tensor]:
        law = decoder(x[None]).to_real()
        return law.loc[0], law.covariance_matrix[0]

    for metric in (FisherRaoMetric(decoder), FisherMetric(decoder)):
        got = metric.metric_matrix(Z[:3])
        for x, g in zip(Z[:3], got, strict=True):
            mean, spread = torch.autograd.functional.jacobian(parameters, x)
            precision = parameters(x)[1].inverse()
            whitened = torch.einsum("ij,jka->ika", precision, spread)
            own = mean.mT @ precision @ mean
            own = own + torch.einsum("ika,kic->ac", whitened, whitened) / 2
            assert torch.allclose(g, own, rtol=1e-12)
        assert metric.scalar_curvature(Z[:3]).isfinite().all()


def test_what_the_laws_are_of_does_not_matter() -> None:
    """Fisher-Rao is one metric, whatever the parameters: probabilities or logits, x or log x."""
    pairs = (
        ("Bernoulli", "Bernoulli by probabilities"),
        ("Normal", "LogNormal"),
        ("Normal", "Independent Normal"),
        ("Categorical", "OneHotCategorical"),
        ("tensor", "image"),
    )
    for one, other in pairs:
        g, h = (FisherRaoMetric(ZOO[name]).metric_matrix(Z) for name in (one, other))
        assert torch.allclose(g, h, rtol=1e-12), (one, other)


def test_a_binomial_like_pair_of_half_spaces() -> None:
    """Known curvatures: N(μ, σ²) is -½, a categorical law's simplex ¼."""
    half_plane = FisherRaoMetric(lambda z: laws.Normal(z[:, :1], z[:, 1:].exp()))
    u, v = torch.randn(2, 3, D, dtype=Z.dtype, generator=torch.Generator().manual_seed(5))
    minus = torch.full((3,), -0.5, dtype=Z.dtype)
    assert torch.allclose(half_plane.sectional_curvature(Z, u, v), minus)
    simplex = FisherRaoMetric(
        lambda z: laws.Categorical(logits=torch.cat([z, torch.zeros_like(z[:, :1])], -1))
    )
    assert torch.allclose(simplex.sectional_curvature(Z, u, v), -minus / 2)


def test_a_bernoulli_line_has_length_pi() -> None:
    metric = FisherRaoMetric(lambda z: laws.Bernoulli(probs=torch.sin(z / 2) ** 2))
    t = torch.linspace(0.1, 3.0, 7, dtype=torch.float64)[:, None]
    assert torch.allclose(metric.metric_matrix(t), torch.ones(7, 1, 1, dtype=torch.float64))


@pytest.mark.parametrize(
    ("decoder", "message"),
    [
        (lambda z: "text", "decoder: expected a tensor, a pair"),
        (lambda z: (a(z), b(z), b(z)), "decoder: expected a tensor, a pair"),
        (lambda z: (a(z), b(z)[:, :2]), "log variance of shape"),
        (lambda z: (a(z), 1.0), "log variance to be a tensor"),
        (lambda z: (a(z) + 0j, b(z)), "real mean and log variance"),
        (lambda z: a(z)[0], r"shape \[2, ...\] for 2 points"),
        (lambda z: laws.Gumbel(a(z), 1.0), "expected one of the families .*Poisson.*got Gumbel"),
        (
            lambda z: laws.StudentT(b(z).exp(), a(z), 1.0),
            "nu of a Student's t likelihood not to depend on z",
        ),
        (
            lambda z: laws.MixtureSameFamily(
                laws.Categorical(logits=a(z)), laws.Normal(a(z), b(z).exp())
            ),
            "a mixture's Fisher metric",
        ),
        (
            lambda z: laws.TransformedDistribution(
                laws.Normal(a(z), b(z).exp()), [laws.SigmoidTransform()]
            ),
            "return the base",
        ),
        (
            lambda z: laws.Bernoulli(probs=(a(z) > -9).double() + 0 * a(z)),
            "expected finite parameters, but eta of the Bernoulli",
        ),
        (
            lambda z: laws.NegativeBinomial(b(z).exp(), logits=a(z)),
            "count of a negative binomial likelihood not to depend on z",
        ),
    ],
)
def test_bad_decoders(decoder, message: str) -> None:
    with pytest.raises(InputError, match=message):
        FisherRaoMetric(decoder).metric_matrix(Z)
