"""Bad input at real latents: each row is an error of one line that names the argument."""

# ruff: noqa: E501 - tables read best with one row to a line

import math
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor, nn
from torch.distributions import (
    Bernoulli,
    Beta,
    Categorical,
    Dirichlet,
    Exponential,
    Gamma,
    LogNormal,
    MixtureSameFamily,
    MultivariateNormal,
    NegativeBinomial,
    Normal,
    OneHotCategorical,
    Pareto,
    Poisson,
    StudentT,
    TransformedDistribution,
    VonMises,
    constraints,
)
from torch.distributions.transforms import ExpTransform

from kahler_verify import FisherMetric, RiemannianMetric
from kahler_verify.errors import InputError, KahlerVerifyError
from kahler_verify.geometry.data_metrics import LocalVarianceMetric, PrecisionWeightedMetric
from kahler_verify.geometry.fisher_rao import FisherRaoMetric
from kahler_verify.geometry.pulled_back import ExpectedMetric, PulledBackMetric
from kahler_verify.models import RealVAE, RealVAEConfig, VAEConfig
from kahler_verify.models.data import load_data
from kahler_verify.networks.decoder import Decoder

R = torch.float64
Z = torch.tensor([[0.1, -0.3], [0.4, 0.2]], dtype=R)
X = torch.tensor([[0.0, 0.0], [1.0, 0.5], [0.3, -1.0]], dtype=R)
EYE = torch.eye(2, dtype=R)


def fisher(decoder: Any, z: Tensor = Z, **options: Any) -> Tensor:
    return FisherMetric(decoder, **options).metric_matrix(z)


def law(make: Callable[[Tensor], Any]) -> Callable[[], Tensor]:
    """The metric of a decoder that returns this law of z."""
    return lambda: fisher(make)


def changing(z: Tensor) -> Any:
    return Bernoulli(logits=z) if bool((z[:, 0] > 0.2).any()) else Poisson(z.exp())


def changing_output(z: Tensor) -> Any:
    return z if bool((z[:, 0] > 0.2).any()) else (z, z)


class Own(torch.distributions.Distribution):
    """A law of somebody's own."""

    arg_constraints: dict[str, constraints.Constraint] = {}  # noqa: RUF012

    def __init__(self, loc: Tensor) -> None:
        self.loc = loc
        super().__init__(loc.shape, validate_args=False)


def local(
    data: Tensor = X, sigma: Any = 1.0, rho: Any = 1.0, **options: Any
) -> LocalVarianceMetric:
    return LocalVarianceMetric(data, sigma, rho, **options)


def vae(**changes: Any) -> RealVAE:
    return RealVAE(RealVAEConfig(**{"data_dim": 3, "hidden": (4,), **changes}))


# (name, call, fragments that the message has to contain)
ERRORS: list[tuple[str, Callable[[], Any], tuple[str, ...]]] = [
    # latents
    ("real z to a complex decoder", lambda: fisher(Decoder(VAEConfig(data_dim=3, latent_dim=2, hidden=(4,))), Z.float()), ("z", "complex64", "float32")),
    ("complex z to a real decoder", lambda: fisher(vae().decoder, Z.to(torch.complex64)), ("z", "float32", "complex64", "real latents")),
    ("whole numbers as z", lambda: FisherRaoMetric(nn.Tanh()).metric_matrix(torch.ones(2, 2, dtype=torch.long)), ("z", "real", "int64")),
    ("truth values as z", lambda: FisherRaoMetric(nn.Tanh()).metric_matrix(Z > 0), ("z", "real", "bool")),
    ("z is a list", lambda: FisherRaoMetric(nn.Tanh()).metric_matrix([[0.1, 0.2]]), ("z", "real", "list")),
    ("z has no axis", lambda: fisher(nn.Tanh(), Z[0, 0]), ("z", "[..., d]", "[]")),
    ("z is of size zero", lambda: fisher(nn.Tanh(), Z[:, :0]), ("z", "d ≥ 1", "[2, 0]")),
    ("z of another dimension", lambda: FisherRaoMetric(nn.Tanh(), 3).metric_matrix(Z), ("z", "[..., 3]", "[2, 2]")),
    ("z longer than the decoder takes", lambda: fisher(vae().decoder, torch.zeros(1, 3)), ("z", "[..., 2]", "3)")),
    ("z of another precision than the weights", lambda: fisher(vae().decoder, Z), ("z", "float32", "float64")),
    ("z of another precision than a user's weights", lambda: fisher(nn.Linear(2, 3)), ("z", "float32", "float64", "cast either")),
    ("z of bfloat16", lambda: fisher(nn.Tanh(), Z.bfloat16()), ("z", "float32 or float64", "bfloat16")),
    ("a dimension that is none", lambda: FisherRaoMetric(nn.Tanh(), 2).christoffels(Z[:, :1]), ("z", "[..., 2]", "[2, 1]")),
    ("curvature that no memory holds", lambda: FisherMetric(nn.Tanh()).scalar_curvature(torch.zeros(1, 3000, dtype=R)), ("memory_budget", "second derivatives of g", "d = 3000", "metric_vector_product, inner_product and norm")),
    ("a connection that no memory holds", lambda: FisherRaoMetric(nn.Tanh(), memory_budget=2**20).christoffels(torch.zeros(1, 10**5, dtype=R)), ("memory_budget", "derivatives of g", "d = 100000")),
    ("a memory budget of nothing", lambda: FisherRaoMetric(nn.Tanh(), memory_budget=0), ("memory_budget", "bytes > 0", "0")),
    # what a decoder returns
    ("a law that changes its family with z", lambda: fisher(changing), ("decoder", "each point alone", "same family", "Bernoulli", "Poisson")),
    ("an output that changes its kind with z", lambda: fisher(changing_output), ("decoder", "each point alone")),
    ("a law that nobody derived", law(lambda z: Pareto(torch.ones_like(z), z.exp())), ("decoder", "Bernoulli", "VonMises", "Pareto")),
    ("a law of somebody's own", law(Own), ("decoder", "Normal", "Poisson", "Own")),
    ("a transformed law", law(lambda z: TransformedDistribution(Normal(z, 1.0), [ExpTransform()])), ("decoder", "return the base")),
    ("a mixture", law(lambda z: MixtureSameFamily(Categorical(logits=z), Normal(z, 1.0))), ("decoder", "no closed form", "one component")),
    ("a list of three", law(lambda z: (z, z, z)), ("decoder", "pair", "tuple")),
    ("a dictionary", law(lambda z: {"mean": z}), ("decoder", "distribution", "dict")),
    ("a pair of a mean and a number", law(lambda z: (z, 0.0)), ("decoder", "log variance", "float")),
    ("a log variance of another shape", law(lambda z: (z, z[:, :1])), ("decoder", "log variance", "[2, 2]", "[2, 1]")),
    ("a sum over the batch", law(lambda z: z.sum(0)), ("decoder", "...]", "points", "[2]")),
    ("a law without a batch", law(lambda z: Normal(z.sum(), 1.0)), ("decoder", "[2, ...]")),
    ("a complex law at real latents", law(lambda z: (torch.complex(z, z), z)), ("decoder", "real mean", "complex128")),
    # parameters outside of their domain
    ("a probability of 1", law(lambda z: Bernoulli(probs=torch.ones_like(z) + 0 * z)), ("decoder", "finite", "probability of 0 or 1")),
    ("a probability of 0", law(lambda z: Bernoulli(probs=0 * z)), ("decoder", "finite", "probability of 0 or 1")),
    ("a probability of 2", law(lambda z: Bernoulli(probs=2 + 0 * z, validate_args=False)), ("decoder", "finite", "probability")),
    ("an infinite logit", law(lambda z: Bernoulli(logits=z * math.inf)), ("decoder", "finite", "Bernoulli")),
    ("a class of probability 0", law(lambda z: Categorical(probs=torch.stack([1 + 0 * z, 0 * z], -1))), ("decoder", "finite", "ategorical")),
    ("a one-hot class of probability 0", law(lambda z: OneHotCategorical(probs=torch.stack([1 + 0 * z, 0 * z], -1))), ("decoder", "finite", "ategorical")),
    ("a negative rate", law(lambda z: Poisson(-z.exp(), validate_args=False)), ("decoder", "finite", "Poisson", "rate")),
    ("a rate of 0", law(lambda z: Exponential(0 * z, validate_args=False)), ("decoder", "positive rate", "exponential")),
    ("a variance of 0", law(lambda z: Normal(z, 0 * z, validate_args=False)), ("decoder", "positive Sigma", "Gaussian", "variance")),
    ("an infinite variance", law(lambda z: Normal(z, (1000 + z).exp())), ("decoder", "finite", "Sigma", "Gaussian")),
    ("a log-normal's scale of 0", law(lambda z: LogNormal(z, 0 * z, validate_args=False)), ("decoder", "positive Sigma", "log-normal")),
    ("a negative concentration", law(lambda z: Gamma(-z.exp(), z.exp(), validate_args=False)), ("decoder", "positive alpha", "Gamma", "-1.")),
    ("a Beta's concentration of 0", law(lambda z: Beta(0 * z, z.exp(), validate_args=False)), ("decoder", "positive alpha", "Beta", "got 0")),
    ("a Dirichlet's concentration of 0", law(lambda z: Dirichlet(0 * z.exp(), validate_args=False)), ("decoder", "positive alpha", "Dirichlet", "got 0")),
    ("a negative count of failures", law(lambda z: NegativeBinomial(-1.0, logits=z, validate_args=False)), ("decoder", "positive count", "negative binomial", "-1")),
    ("a count of failures that depends on z", law(lambda z: NegativeBinomial(z.exp(), logits=z)), ("decoder", "not to depend on z")),
    ("degrees of freedom that depend on z", law(lambda z: StudentT(z.exp(), z, 1.0)), ("decoder", "not to depend on z")),
    ("a negative concentration of an angle", law(lambda z: VonMises(z, -z.exp(), validate_args=False)), ("decoder", "positive concentration", "von Mises")),
    ("a covariance that is singular", law(lambda z: MultivariateNormal(z, scale_tril=0 * z[:, :, None] * EYE, validate_args=False)), ("decoder", "positive definite", "full covariance")),
    # metrics of data
    ("no data", lambda: local(X[:0]), ("data", "at least one point", "[0, 2]")),
    ("data of no coordinates", lambda: local(X[:, :0]), ("data", "one coordinate", "[3, 0]")),
    ("data of one axis", lambda: local(X[0]), ("data", "[N, d]", "[2]")),
    ("complex data", lambda: local(X.to(torch.complex128)), ("data", "real", "complex128")),
    ("data as an array", lambda: local(X.numpy()), ("data", "tensor", "ndarray")),
    ("ρ = 0", lambda: local(rho=0.0), ("rho", "positive", "0")),
    ("ρ is NaN", lambda: local(rho=math.nan), ("rho", "finite", "nan")),
    ("ρ is a text", lambda: local(rho="1"), ("rho", "number", "'1'")),
    ("σ = 0", lambda: local(sigma=0), ("sigma", "positive", "0")),
    ("σ is infinite", lambda: local(sigma=math.inf), ("sigma", "finite", "inf")),
    ("z of another precision than data", lambda: local().metric_matrix(Z.float()), ("z", "float64", "float32")),
    ("z of another dimension than data", lambda: local().metric_matrix(Z[:, :1]), ("z", "[..., 2]", "[2, 1]")),
    ("factors of another dimension", lambda: PrecisionWeightedMetric(X, EYE[None, :1].expand(3, 1, 2)), ("factors", "[3, 2, 2]", "[3, 1, 2]")),
    ("factors that are NaN", lambda: PrecisionWeightedMetric(X, EYE.expand(3, 2, 2) * math.nan), ("factors", "finite")),
    # functions
    ("a metric that is no function", lambda: RiemannianMetric.from_function(EYE), ("function", "callable", "Tensor")),
    ("a metric of another shape", lambda: RiemannianMetric.from_function(lambda z: z).metric_matrix(Z), ("function", "[3, 2, 2]", "[3, 2]")),
    ("a metric that is not symmetric", lambda: RiemannianMetric.from_function(lambda z: (EYE + torch.ones(2, 2).triu(1)).expand(len(z), 2, 2)).metric_matrix(Z), ("function", "symmetric")),
    ("an embedding that is no function", lambda: PulledBackMetric(3), ("function", "callable", "int")),
    ("an embedding into complex numbers", lambda: PulledBackMetric(lambda z: z + 0j).metric_matrix(Z), ("function", "real", "complex128")),
    ("an expected metric of a Bernoulli law", lambda: ExpectedMetric(lambda z: Bernoulli(logits=z)).metric_matrix(Z), ("decoder", "pair", "Bernoulli")),
    ("an expected metric of a full covariance", lambda: ExpectedMetric(lambda z: MultivariateNormal(z, EYE.expand(len(z), 2, 2))).metric_matrix(Z), ("decoder", "pair", "Gaussian")),
    # vectors and planes
    ("v is whole numbers", lambda: FisherRaoMetric(nn.Tanh()).norm(torch.ones(2, dtype=torch.long), Z), ("v", "real", "int64")),
    ("v of another dimension", lambda: FisherRaoMetric(nn.Tanh()).geodesic_acceleration(Z[:, :1], Z), ("v", "[..., 1]", "[2, 2]")),
    ("a plane of one direction", lambda: FisherRaoMetric(nn.Tanh()).sectional_curvature(Z, Z, Z), ("plane",)),
    ("d = 1 has no sectional curvature", lambda: FisherRaoMetric(nn.Tanh()).sectional_curvature(Z[:, :1], Z[:, :1], Z[:, :1]), ("plane",)),
    # models
    ("one data sample", lambda: vae().standardise(torch.ones(1, 3)), ("samples", "all equal")),
    ("repeated data", lambda: vae().standardise(torch.ones(9, 3)), ("samples", "all equal")),
    ("fewer data than centres", lambda: vae(variance="rbf", centres=9).standardise(torch.rand(5, 3)), ("centres", "5", "9")),
    ("x of another dimension", lambda: vae().encoder(torch.ones(2, 4)), ("x", "[..., 3]", "(2, 4)")),
    ("negative counts", lambda: vae(likelihood="poisson").standardise(torch.tensor([[-1.0, 0, 1]])), ("data", "counts")),
]  # fmt: skip


@pytest.mark.parametrize(
    ("call", "fragments"), [pytest.param(*row[1:], id=row[0]) for row in ERRORS]
)
def test_error(call: Callable[[], Any], fragments: tuple[str, ...]) -> None:
    """One line that names the argument, what was expected and what came."""
    with pytest.raises(KahlerVerifyError) as caught:
        call()
    assert isinstance(caught.value, InputError)
    message = str(caught.value)
    assert "\n" not in message
    for fragment in fragments:
        assert fragment in message


def test_complex_data_at_real_latents(tmp_path: Path) -> None:
    np.save(tmp_path / "x.npy", np.zeros((10, 3), dtype=complex) + np.arange(3) * 1j)
    data = load_data(tmp_path / "x.npy")
    from kahler_verify.models.training import train

    with pytest.raises(InputError, match=r"data_dim, likelihood, data.*'real'"):
        train(RealVAEConfig(data_dim=3), data, tmp_path / "out")


def test_products_need_no_matrix() -> None:
    """What the message of too large a d advises: d² numbers would be 80 GB."""
    z = torch.zeros(1, 10**5, dtype=R)
    metric = FisherRaoMetric(lambda z: (z * z + z)[:, :50])
    u = torch.ones_like(z)
    assert metric.inner_product(u, u, z).item() == 50
    assert metric.norm(u, z).item() == pytest.approx(50**0.5)
    assert metric.metric_vector_product(u, z).sum().item() == 50


def test_there_are_enough_rows() -> None:
    assert len({row[0] for row in ERRORS}) == len(ERRORS) >= 60
