"""A small metric of each kind, for tests of what surrounds a call: threads, autocast, copies."""

from collections.abc import Callable

import torch
from torch import Tensor, nn

import kahler_verify
from kahler_verify import ComplexNormal, FisherMetric, MixtureMetric, PotentialMetric
from kahler_verify.calculus import coordinates, dimension, parameter
from kahler_verify.geometry.metric import HermitianMetric
from kahler_verify.models.vae import ComplexVAE, VAEConfig
from kahler_verify.networks.decoder import ComplexLinear, Decoder

d = 2


def numbers(*shape: int, seed: int = 0, dtype: torch.dtype = torch.complex128) -> Tensor:
    """Standard normal."""
    return torch.randn(shape, dtype=dtype, generator=torch.Generator().manual_seed(seed))


Z = 0.3 * numbers(5, d)


def decoder(activation: str = "split_tanh", **options: object) -> Decoder:
    """A Decoder in double precision with D = 24."""
    family = {"cubic": "holomorphic", "tanh": "holomorphic"}.get(activation, "split")
    options = {"data_dim": 24, "hidden": (8, 7), "covariance": "diagonal", "seed": 1, **options}
    config = VAEConfig(latent_dim=d, decoder=family, activation=activation, **options)
    return ComplexVAE(config).decoder.double()


class RealNetwork(nn.Module):
    """A user's decoder, of real layers on (x, y): autocast acts on each of them."""

    def __init__(self, outputs: int = 6) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.layers = nn.Sequential(nn.Linear(2 * d, 16), nn.Tanh(), nn.Linear(16, 3 * outputs))

    def forward(self, z: Tensor) -> ComplexNormal:
        """CN(mean, diag)."""
        x, y, s = self.layers(torch.cat([z.real, z.imag], -1)).chunk(3, -1)
        return ComplexNormal(torch.complex(x, y), scale_diag=nn.functional.softplus(s) + 0.1)


class RealLikelihood(RealNetwork):
    """The same, to a distribution of torch's that validates its arguments."""

    def forward(self, z: Tensor) -> torch.distributions.Independent:
        """Independent normals."""
        x, _, s = self.layers(torch.cat([z.real, z.imag], -1)).chunk(3, -1)
        scale = nn.functional.softplus(s) + 0.1
        return torch.distributions.Independent(torch.distributions.Normal(x, scale), 1)


class ComplexWeights(nn.Module):
    """A user's decoder with complex parameters and buffers."""

    def __init__(self) -> None:
        super().__init__()
        self.first = nn.Linear(d, 5, dtype=torch.complex64)
        self.weight = nn.Parameter(numbers(6, 5, dtype=torch.complex64))
        self.register_buffer("shift", numbers(6, seed=2, dtype=torch.complex64))
        self.register_buffer("gain", torch.tensor(0.7))
        self.register_buffer("steps", torch.tensor(3))

    def forward(self, z: Tensor) -> ComplexNormal:
        """CN(mean, scale² I)."""
        h = self.first(z)
        mean = (h * h) @ self.weight.mT + self.shift
        return ComplexNormal(mean, scale=self.gain.expand(mean.shape[:-1]))


def with_unknown_layer() -> Decoder:
    """A Decoder one of whose layers is differentiated by autograd."""

    class Layer(nn.Module):
        def forward(self, h: Tensor) -> Tensor:
            return h + 0.1 * (h * h).sin()

    known = decoder("cubic")
    known.layers[1] = Layer()
    return known


def mixture(*, diagonal: bool = False, compile: bool = False) -> MixtureMetric:  # noqa: A002
    """Three components."""
    root = numbers(3, d, d, seed=3)
    precisions = root @ root.mH + torch.eye(d)
    precisions = (precisions + precisions.mH) / 2
    if diagonal:
        precisions = precisions.diagonal(dim1=-2, dim2=-1).real.contiguous()
    weights = torch.tensor([0.2, 0.3, 0.5], dtype=torch.float64)
    return MixtureMetric(weights, numbers(3, d, seed=4), precisions, compile=compile)


def potential(*, compile: bool = False) -> PotentialMetric:  # noqa: A002
    """log(1 + zᴴPz) + |z|², compiled in a notebook."""
    n = dimension("d")
    z, p = coordinates("z", n), parameter("P", n, n, hermitian=True, positive=True)
    from sympy import log

    kernels = kahler_verify.compile(log(1 + z.H * p * z) + z.H * z)
    root = numbers(d, d, seed=5)
    return PotentialMetric(kernels, P=root @ root.mH + torch.eye(d), compile=compile)


METRICS: dict[str, Callable[[], HermitianMetric]] = {
    "closed form, not holomorphic": lambda: FisherMetric(decoder()),
    "closed form, holomorphic": lambda: FisherMetric(decoder("cubic", covariance="constant")),
    "closed form, real data": lambda: FisherMetric(decoder(likelihood="real")),
    "a layer by autograd": lambda: FisherMetric(with_unknown_layer()),
    "a user's decoder": lambda: FisherMetric(RealNetwork().double()),
    "a user's decoder that validates": lambda: FisherMetric(RealLikelihood().double()),
    "mixture": mixture,
    "diagonal mixture": lambda: mixture(diagonal=True),
    "potential": potential,
    "shipped potential": lambda: PotentialMetric("fubini_study"),
}


def single(metric: HermitianMetric) -> HermitianMetric:
    """In single precision; without parameters it serves both."""
    bare = isinstance(metric, PotentialMetric) and not metric.parameters
    return metric if bare else metric.to(dtype=torch.complex64)


def answers(metric: HermitianMetric, z: Tensor) -> dict[str, Tensor]:
    """What each public method says at z."""
    v = z.flip(-1) + 1
    out = {
        name: getattr(metric, name)(z)
        for name in (
            "metric_matrix",
            "complementary_part",
            "real_metric_matrix",
            "log_volume",
            "log_det_hermitian",
            "christoffels",
            "curvature_tensor",
            "ricci_tensor",
            "scalar_curvature",
            "kahler_defect",
        )
    }
    out["inner_product"] = metric.inner_product(v, z, z)
    out["metric_vector_product"] = metric.metric_vector_product(v, z)
    out["holomorphic_sectional_curvature"] = metric.holomorphic_sectional_curvature(z, v)
    for name in ("value", "responsibilities"):
        if hasattr(metric, name):
            out[name] = getattr(metric, name)(z)
    return out


__all__ = ["METRICS", "ComplexLinear", "answers", "decoder", "mixture", "numbers", "potential"]
