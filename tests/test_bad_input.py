"""Bad input to the public API: each row is an error that names the argument, or a right answer."""

# ruff: noqa: E501 - tables read best with one row to a line

import math
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from sympy import conjugate, log
from torch import Tensor, nn
from torch.distributions import Independent, MultivariateNormal, Normal, kl_divergence

import kahler_verify
from kahler_verify import ComplexNormal, FisherMetric, MixtureMetric, PotentialMetric
from kahler_verify.calculus import coordinates, dimension, explicit_coordinates, parameter
from kahler_verify.errors import (
    CheckpointError,
    DerivationError,
    InputError,
    KahlerVerifyError,
)
from kahler_verify.jets.fields import decoder_jets
from kahler_verify.models.checkpoint import load_checkpoint, save_checkpoint
from kahler_verify.models.data import load_data, pack_kspace
from kahler_verify.models.training import TrainingOptions, train
from kahler_verify.models.vae import ComplexVAE, VAEConfig
from kahler_verify.networks.decoder import Decoder

pytestmark = pytest.mark.xdist_group("bad_input")  # one worker makes what the tests share

C = torch.complex128
LOC = torch.zeros(2, dtype=C)
EYE = torch.eye(2, dtype=C)
Z = torch.tensor([0.1 + 0.2j, -0.3 + 0.1j], dtype=C)
(Z1,) = explicit_coordinates("z1")
WIDE = torch.tensor([[1.0, 0.5j], [0.2, 1.0], [1j, 1.0]], dtype=C)  # D = 3, d = 2
WEIGHTS = torch.tensor([0.25, 0.75], dtype=torch.float64)
CENTRES = torch.tensor([[0.0, 0.0], [1.0, 1j]], dtype=C)
PRECISIONS = torch.stack([EYE, 2 * EYE])


def linear(z: Tensor) -> tuple[Tensor, Tensor]:
    """A holomorphic mean with Σ = I, so that g = WᵀW̄."""
    mean = z @ WIDE.mT.to(z.dtype)
    return mean, torch.zeros(mean.shape, dtype=z.real.dtype)


def fisher(change: Callable[[Tensor], Any], z: Tensor = Z, **options: Any) -> Tensor:
    return FisherMetric(change, **options).metric_matrix(z)


def mixture(
    weights: Tensor = WEIGHTS,
    centres: Tensor = CENTRES,
    precisions: Tensor = PRECISIONS,
    **options: Any,
) -> MixtureMetric:
    return MixtureMetric(weights, centres, precisions, **options)


def normal(**scale: Any) -> ComplexNormal:
    return ComplexNormal(LOC, **scale)


def nested(x: Any) -> Tensor:
    return torch.tensor(x, dtype=torch.float64)


def linear_metric() -> Tensor:
    return WIDE.mT @ WIDE.conj()


def compiled(name: str = "user", **parameters: Any) -> Any:
    z = coordinates("z", dimension("d"))
    return kahler_verify.compile(log(1 + z.H * z), name, **parameters)


def with_parameter() -> Any:
    d = dimension("d")
    z, width = coordinates("z", d), parameter("width", d, d, hermitian=True)
    return kahler_verify.compile(z.H * width * z)


class WithBatchNorm(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.norm = nn.BatchNorm1d(2).double()

    def forward(self, z: Tensor) -> tuple[Tensor, Tensor]:
        return linear(torch.complex(self.norm(z.real), z.imag))


class WithRelu(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.bend = nn.ReLU()

    def forward(self, z: Tensor) -> tuple[Tensor, Tensor]:
        mean, log_variance = linear(z)
        return torch.complex(self.bend(mean.real), mean.imag), log_variance


def bad_modulus(z: Tensor) -> tuple[Tensor, Tensor]:
    return linear(z)[0], z.abs().square().sum(-1, keepdim=True).expand(*z.shape[:-1], 3)


def sizeless(z: Tensor) -> tuple[Tensor, Tensor]:
    mean, log_variance = linear(z)
    return mean.sum(0), log_variance


def random_decoder(z: Tensor) -> tuple[Tensor, Tensor]:
    mean, log_variance = linear(z)
    return mean + torch.randn(mean.shape, dtype=C), log_variance


def mixing(z: Tensor) -> tuple[Tensor, Tensor]:
    return linear(z - z.reshape(-1, 2).mean(0) * (1 + z.reshape(-1, 2).shape[0]))


def steep(size: float) -> Callable[[Tensor], tuple[Tensor, Tensor]]:
    """Constant log variance ``size``."""

    def decoder(z: Tensor) -> tuple[Tensor, Tensor]:
        mean, log_variance = linear(z)
        return mean, log_variance + size

    return decoder


def small_config(**changes: Any) -> VAEConfig:
    return VAEConfig(**{"data_dim": 3, "latent_dim": 2, "hidden": (4,), **changes})


# (name, call, error, fragments that the message has to contain)
ERRORS: list[tuple[str, Callable[[], Any], type[KahlerVerifyError], tuple[str, ...]]] = [
    # ComplexNormal
    ("loc is a list", lambda: ComplexNormal([0, 0], scale=1.0), InputError, ("loc", "Tensor", "list")),
    ("loc is real", lambda: ComplexNormal(torch.zeros(2), scale=1.0), InputError, ("loc", "complex", "float32")),
    ("loc is half precision", lambda: ComplexNormal(torch.zeros(2, dtype=torch.complex32), scale=1.0), InputError, ("loc", "complex64", "complex32")),
    ("loc has no axis", lambda: ComplexNormal(LOC[0], scale=1.0), InputError, ("loc", "[..., D]", "[]")),
    ("loc is of size zero", lambda: ComplexNormal(LOC[:0], scale=1.0), InputError, ("loc", "D ≥ 1", "[0]")),
    ("loc is NaN", lambda: ComplexNormal(LOC * math.nan, scale=1.0), InputError, ("loc", "finite", "nan")),
    ("no scale", lambda: ComplexNormal(LOC), InputError, ("exactly one", "scale", "none")),
    ("two scales", lambda: normal(scale=1.0, scale_tril=EYE), InputError, ("exactly one", "scale_tril")),
    ("scale is negative", lambda: normal(scale=-0.3), InputError, ("scale", "positive", "-0.3")),
    ("scale is zero", lambda: normal(scale=0.0), InputError, ("scale", "positive", "0")),
    ("scale is infinite", lambda: normal(scale=math.inf), InputError, ("scale", "finite", "inf")),
    ("scale is a bool", lambda: normal(scale=True), InputError, ("scale", "bool")),
    ("scale is float32", lambda: normal(scale=torch.tensor(1.0)), InputError, ("scale", "float64", "float32")),
    ("scale per coordinate", lambda: ComplexNormal(torch.zeros(3, 2, dtype=C), scale=torch.ones(2, dtype=torch.float64)), InputError, ("scale", "broadcast", "scale_diag")),
    ("scale_diag is too long", lambda: normal(scale_diag=torch.ones(3, dtype=torch.float64)), InputError, ("scale_diag", "2", "[3]")),
    ("scale_diag is complex", lambda: normal(scale_diag=LOC + 1), InputError, ("scale_diag", "float64", "complex128")),
    ("scale_tril is not square", lambda: normal(scale_tril=torch.zeros(2, 3, dtype=C)), InputError, ("scale_tril", "[..., 2, 2]", "[2, 3]")),
    ("scale_tril is upper", lambda: normal(scale_tril=EYE + torch.ones(2, 2).triu(1)), InputError, ("scale_tril", "lower triangular")),
    ("scale_tril has a complex diagonal", lambda: normal(scale_tril=1j * EYE), InputError, ("scale_tril", "real positive diagonal")),
    ("scale_tril on another device", lambda: normal(scale_tril=EYE.to("meta")), InputError, ("scale_tril", "cpu", "meta")),
    ("Σ is not Hermitian", lambda: ComplexNormal.from_covariance(LOC, EYE + torch.ones(2, 2).triu(1)), InputError, ("covariance", "Hermitian", "1")),
    ("Σ is indefinite", lambda: ComplexNormal.from_covariance(LOC, torch.diag(torch.tensor([1, -2], dtype=C))), InputError, ("covariance", "positive definite", "-2")),
    ("Σ is not square", lambda: ComplexNormal.from_covariance(LOC, EYE[:1]), InputError, ("covariance", "[..., 2, 2]", "[1, 2]")),
    ("Σ is NaN", lambda: ComplexNormal.from_covariance(LOC, EYE * math.nan), InputError, ("covariance", "finite", "nan")),
    ("log_prob of real values", lambda: normal(scale=1.0).log_prob(torch.zeros(2)), InputError, ("value", "complex128", "float32")),
    ("log_prob of a wrong shape", lambda: normal(scale=1.0).log_prob(Z[:1]), InputError, ("value", "[..., 2]", "[1]")),
    ("KL of two dimensions", lambda: kl_divergence(normal(scale=1.0), ComplexNormal(torch.zeros(3, dtype=C), scale=1.0)), InputError, ("event_shape", "[2]", "[3]")),
    ("KL of two precisions", lambda: kl_divergence(normal(scale=1.0), ComplexNormal(LOC.to(torch.complex64), scale=1.0)), InputError, ("q.loc", "complex128", "complex64")),
    ("KL of batches that do not broadcast", lambda: kl_divergence(normal(scale=1.0).expand([2]), normal(scale=1.0).expand([3])), InputError, ("batch", "[2]", "[3]")),
    # FisherMetric and its decoders
    ("the decoder cannot be called", lambda: FisherMetric("decoder"), InputError, ("decoder", "callable", "str")),
    ("z is real", lambda: PotentialMetric("flat").metric_matrix(Z.real), InputError, ("z", "complex", "float64")),
    ("z is real, the weights complex", lambda: fisher(nn.Linear(2, 3, dtype=C), Z.real), InputError, ("z", "complex latents", "weight", "real", "float64")),
    ("z is complex, the weights real", lambda: fisher(nn.Linear(2, 3).double()), InputError, ("z", "real latents", "weight", "complex128")),
    ("z is whole numbers", lambda: fisher(linear, torch.ones(2, dtype=torch.long)), InputError, ("z", "complex", "real", "int64")),
    ("z is in half precision", lambda: fisher(nn.Tanh(), Z.real.half()), InputError, ("z", "float32 or float64", "float16")),
    ("Chern's curvature at real z", lambda: FisherMetric(nn.Tanh()).curvature_tensor(Z.real), InputError, ("z", "curvature_tensor", "complex latents alone", "float64")),
    ("geodesics at complex z", lambda: FisherMetric(linear).geodesic_acceleration(Z, Z), InputError, ("z", "geodesic_acceleration", "real latents alone", "complex128")),
    ("u is complex at real z", lambda: FisherMetric(nn.Tanh()).inner_product(Z, Z.real, Z.real), InputError, ("u", "real", "complex128")),
    ("real z is NaN", lambda: fisher(nn.Tanh(), Z.real * math.nan), InputError, ("z", "finite", "NaN")),
    ("real z is infinite", lambda: fisher(nn.Tanh(), Z.real / 0), InputError, ("z", "finite", "infinities")),
    ("a decoder of real z that returns None", lambda: fisher(lambda z: None, Z.real), InputError, ("decoder", "tensor", "NoneType")),
    ("a decoder of real z with a complex mean", lambda: fisher(lambda z: (z + 0j, z), Z.real), InputError, ("decoder", "real mean", "complex128")),
    ("a decoder of real z that mixes points", lambda: fisher(lambda z: z - z.mean(0), Z.real), InputError, ("decoder", "each point alone")),
    ("a rate of zero", lambda: fisher(lambda z: torch.distributions.Poisson(0 * z), Z.real), InputError, ("decoder", "finite", "Poisson")),
    ("d > D at real z", lambda: FisherMetric(lambda z: z[..., :1]).christoffels(Z.real), InputError, ("z", "positive definite", "d larger than the outputs")),
    ("z is an array", lambda: fisher(linear, Z.numpy()), InputError, ("z", "complex tensor", "ndarray")),
    ("z has no axis", lambda: fisher(linear, Z[0]), InputError, ("z", "[..., d]", "[]")),
    ("z is of size zero", lambda: fisher(linear, Z[:0]), InputError, ("z", "d ≥ 1", "[0]")),
    ("z is too short for the decoder", lambda: FisherMetric(ComplexVAE(small_config()).decoder).metric_matrix(Z[:1].to(torch.complex64)), InputError, ("z", "[..., 2]", "(1, 1)")),
    ("z is of another precision than the weights", lambda: FisherMetric(ComplexVAE(small_config()).decoder).metric_matrix(Z), InputError, ("z", "complex64", "complex128")),
    ("z is NaN", lambda: fisher(linear, Z * math.nan, check=False), InputError, ("z", "finite", "NaN")),
    ("z is infinite", lambda: FisherMetric(linear).metric_matrix(Z / 0), InputError, ("not finite",)),
    ("a decoder that returns None", lambda: fisher(lambda z: None), InputError, ("decoder", "ComplexNormal", "NoneType")),
    ("a decoder that returns a tensor", lambda: fisher(lambda z: linear(z)[0]), InputError, ("decoder", "pair", "Tensor")),
    ("a decoder that returns Normal without Independent", lambda: fisher(lambda z: Normal(z.real, 1.0)), InputError, ("decoder", "Independent", "Normal")),
    ("a decoder that returns numbers", lambda: fisher(lambda z: (0.0, 1.0)), InputError, ("decoder", "tensors", "float")),
    ("a decoder with complex log variance", lambda: fisher(lambda z: (z, z)), InputError, ("log variance", "real", "complex128")),
    ("a decoder that sums over the batch", lambda: fisher(sizeless), InputError, ("mean", "[1, 'D']", "(3,)")),
    ("a decoder that drops precision", lambda: fisher(lambda z: tuple(x.to(torch.complex64) if x.is_complex() else x.float() for x in linear(z))), InputError, ("precision", "float64", "complex64")),
    ("the connection of a ReLU decoder", lambda: FisherMetric(WithRelu()).christoffels(Z), InputError, ("C²", "ReLU", "kink")),
    ("the curvature of a decoder with abs()**2", lambda: FisherMetric(bad_modulus).scalar_curvature(Z), InputError, ("C²", "abs", "z*z.conj()")),
    ("a random decoder", lambda: fisher(random_decoder), InputError, ("random",)),
    ("a decoder that mixes points", lambda: fisher(mixing), InputError, ("batch",)),
    ("batch norm while training", lambda: fisher(WithBatchNorm()), InputError, ("norm", "eval()")),
    ("d > D: log det g", lambda: FisherMetric(lambda z: (z[..., :1], torch.zeros(z.shape[:-1]).double())).log_det_hermitian(Z), InputError, ("log_det_hermitian", "positive definite", "d larger than the outputs")),
    ("d > D: curvature", lambda: FisherMetric(lambda z: (z[..., :1], torch.zeros(z.shape[:-1]).double())).scalar_curvature(Z), InputError, ("positive definite", "d larger than the outputs")),
    ("u is real", lambda: FisherMetric(linear).inner_product(Z.real, Z, Z), InputError, ("u", "complex", "float64")),
    ("v has another dimension", lambda: FisherMetric(linear).inner_product(Z, Z[:1], Z), InputError, ("v", "2", "[1]")),
    ("u is a list", lambda: FisherMetric(linear).inner_product([1, 2], Z, Z), InputError, ("u", "tensor", "list")),
    ("u is of another precision", lambda: FisherMetric(linear).inner_product(Z.to(torch.complex64), Z, Z), InputError, ("u", "complex128", "complex64")),
    ("u does not broadcast", lambda: FisherMetric(linear).inner_product(Z.expand(3, 2), Z, Z.expand(2, 2)), InputError, ("u", "[3, 2]", "[2, 2]")),
    ("v = 0 has no curvature", lambda: PotentialMetric("flat").holomorphic_sectional_curvature(Z, 0 * Z), InputError, ("v", "0")),
    ("v of another batch", lambda: PotentialMetric("flat").holomorphic_sectional_curvature(Z.expand(2, 2), Z.expand(3, 2)), InputError, ("v", "[3, 2]", "[2, 2]")),
    ("exponents of +1e4", lambda: fisher(steep(1e4)), InputError, ("not finite",)),
    ("exponents of -1e4", lambda: fisher(steep(-1e4)), InputError, ("scale", "at z", "positive", "minimum of 0")),
    ("an unknown jet", lambda: decoder_jets(linear, Z, ["nu_d"]), InputError, ("names", "nu_d")),
    # PotentialMetric and compile
    ("an unknown module", lambda: PotentialMetric("no_such_potential"), InputError, ("kernels", "no_such_potential")),
    ("a module that is no potential", lambda: PotentialMetric("gaussian_kl"), InputError, ("kernels", "potential", "gaussian_kl", "metric_db")),
    ("kernels is a number", lambda: PotentialMetric(3), InputError, ("kernels", "int")),
    ("outside of the ball", lambda: PotentialMetric("complex_ball").log_det_hermitian(10 * Z), InputError, ("positive definite",)),
    ("on the edge of the ball", lambda: PotentialMetric("complex_ball").metric_matrix(LOC + nested([1, 0])), InputError, ("metric at z", "NaN or infinities")),
    ("a missing parameter", lambda: PotentialMetric(with_parameter()), InputError, ("parameters", "width", "none")),
    ("an unknown parameter", lambda: PotentialMetric("flat", width=EYE), InputError, ("parameters", "none", "width")),
    ("a parameter of another dtype", lambda: PotentialMetric(with_parameter(), width=EYE.real).metric_matrix(Z), InputError, ("parameters", "complex128", "float64")),
    ("a parameter of another shape", lambda: PotentialMetric(with_parameter(), width=torch.eye(3, dtype=C)).metric_matrix(Z), InputError, ("width", "[..., d, d]", "d = 2 as for z", "[3, 3]")),
    ("a parameter that is NaN", lambda: PotentialMetric(with_parameter(), width=EYE * math.nan).metric_matrix(Z), InputError, ("NaN",)),
    ("a parameter that is no tensor", lambda: PotentialMetric(with_parameter(), width=2.0), InputError, ("parameters", "width", "float")),
    ("a parameter on another device", lambda: PotentialMetric(with_parameter(), width=EYE.to("meta")).metric_matrix(Z), InputError, ("parameters", "width", "meta")),
    ("compile what has no coordinates", lambda: kahler_verify.compile(dimension("d") + 1), DerivationError, ("coordinates", "d")),
    ("compile what is no expression", lambda: kahler_verify.compile("log(1 + z)"), DerivationError, ("definition", "str")),
    ("compile under a name that is none", lambda: compiled("not a name"), DerivationError, ("name", "identifier", "not a name")),
    ("from_file of nothing", lambda: PotentialMetric.from_file("nowhere.py"), DerivationError, ("path", "nowhere.py", "not a file")),
    ("z longer than explicit coordinates", lambda: PotentialMetric(kahler_verify.compile(log(1 + Z1 * conjugate(Z1)), coordinates=(Z1,))).value(Z), InputError, ("z", "[..., 1]", "[2]")),
    # MixtureMetric
    ("weights that do not sum to one", lambda: mixture(WEIGHTS * 2), InputError, ("weights", "sum to one", "2")),
    ("a weight of zero", lambda: mixture(nested([0, 1])), InputError, ("weights", "positive", "0")),
    ("a negative weight", lambda: mixture(nested([-1, 2])), InputError, ("weights", "positive", "-1")),
    ("too few weights", lambda: mixture(WEIGHTS[:1]), InputError, ("weights", "[2]", "[1]")),
    ("complex weights", lambda: mixture(WEIGHTS.to(C)), InputError, ("weights", "float64", "complex128")),
    ("weights is a list", lambda: mixture([0.25, 0.75]), InputError, ("weights", "tensor", "list")),
    ("K = 0", lambda: mixture(WEIGHTS[:0], CENTRES[:0], PRECISIONS[:0]), InputError, ("centres", "K, d ≥ 1", "[0, 2]")),
    ("real centres", lambda: mixture(centres=CENTRES.real), InputError, ("centres", "complex", "float64")),
    ("NaN centres", lambda: mixture(centres=CENTRES * math.nan), InputError, ("centres", "finite")),
    ("centres on another device", lambda: mixture(centres=CENTRES.to("meta")), InputError, ("centres", "cpu", "meta")),
    ("precisions are not square", lambda: mixture(precisions=PRECISIONS[..., :1]), InputError, ("precisions", "[2, 2, 2]", "[2, 2, 1]")),
    ("precisions are not Hermitian", lambda: mixture(precisions=PRECISIONS + torch.ones(2, 2).triu(1)), InputError, ("precisions", "Hermitian", "1")),
    ("precisions are indefinite", lambda: mixture(precisions=PRECISIONS - 1.5 * EYE), InputError, ("precisions", "positive definite", "-0.5")),
    ("an unknown kind", lambda: mixture(kind="likelihood"), InputError, ("kind", "potential", "likelihood")),
    ("z of another dimension", lambda: mixture().metric_matrix(Z[:1]), InputError, ("z", "[..., 2]", "[1]")),
    ("z of another precision", lambda: mixture().metric_matrix(Z.to(torch.complex64)), InputError, ("z", "complex128", "complex64")),
    ("z so far that q overflows", lambda: mixture().metric_matrix(Z * 1e200), InputError, ("z", "finite")),
    ("a density between far components", lambda: mixture(centres=CENTRES * 8, precisions=torch.stack([EYE, EYE]), weights=WEIGHTS * 0 + 0.5, kind="density").log_det_hermitian(CENTRES[1] * 4), InputError, ("positive definite", "-")),
    # data, models, training
    ("data that is not there", lambda: load_data("no-such-data"), InputError, ("digits", "no-such-data")),
    ("images that are not square", lambda: pack_kspace(torch.zeros(8, 6)), InputError, ("[..., s, s]", "(8, 6)")),
    ("latent_dim of zero", lambda: small_config(latent_dim=0), InputError, ("latent_dim", "from 1", "0")),
    ("an unknown decoder family", lambda: small_config(decoder="linear"), InputError, ("decoder", "holomorphic", "linear")),
    ("a holomorphic decoder of real data", lambda: small_config(likelihood="real"), InputError, ("holomorphic", "real")),
    ("an activation with a branch cut", lambda: small_config(activation="log"), InputError, ("log",)),
    ("noise that is NaN", lambda: small_config(noise=math.nan), InputError, ("noise", "nan")),
    ("a seed that is negative", lambda: small_config(seed=-1), InputError, ("seed", "-1")),
    ("no epochs", lambda: TrainingOptions(epochs=0), InputError, ("epochs", "≥ 1", "0")),
    ("a learning rate of zero", lambda: TrainingOptions(learning_rate=0.0), InputError, ("learning_rate", "positive", "0")),
    ("a decoder given real z", lambda: Decoder(small_config())(Z.real.float()), InputError, ("z", "complex64", "float32")),
]  # fmt: skip


def real_normal(z: Tensor) -> MultivariateNormal:
    """Real outputs (Re Wz, Im Wz) with covariance 4 I."""
    mean = z @ WIDE.mT
    both = torch.cat([mean.real, mean.imag], -1)
    return MultivariateNormal(both, scale_tril=2 * torch.eye(6, dtype=torch.float64))


def independent(z: Tensor) -> Independent:
    mean = z @ WIDE.mT
    return Independent(
        Normal(torch.cat([mean.real, mean.imag], -1), 2 * torch.ones(()).double()), 1
    )


def one_component(kind: str) -> Tensor:
    return mixture(nested([1]), CENTRES[1:], PRECISIONS[1:], kind=kind).metric_matrix(Z)


def shifted_logits(size: float) -> Tensor:
    """Responsibilities where the exponents q are of the order of ``size``."""
    return mixture(centres=CENTRES * 0, precisions=torch.stack([EYE, EYE])).responsibilities(
        Z * (size / 0.15) ** 0.5
    )


# (name, call, expected): unusual input with a right answer
ANSWERS: list[tuple[str, Callable[[], Tensor], Any]] = [
    ("an empty batch of log_prob", lambda: normal(scale=1.0).log_prob(torch.zeros(0, 2, dtype=C)), torch.zeros(0).double()),
    ("an empty batch of Gaussians", lambda: ComplexNormal(torch.zeros(0, 2, dtype=C), scale=1.0).entropy(), torch.zeros(0).double()),
    ("KL of an empty batch", lambda: kl_divergence(normal(scale=1.0).expand([0]), normal(scale=2.0)), torch.zeros(0).double()),
    ("KL from itself at log scale -700", lambda: kl_divergence(normal(scale=math.exp(-700)), normal(scale=math.exp(-700))), 0.0),
    ("log_prob at the mean with scale 1e150", lambda: normal(scale=1e150).log_prob(LOC), -2 * math.log(math.pi) - 4 * 150 * math.log(10)),
    ("an empty batch of Fisher metrics", lambda: fisher(linear, Z.expand(0, 2)), torch.zeros(0, 2, 2, dtype=C)),
    ("an empty batch of two axes", lambda: FisherMetric(linear).log_volume(Z.expand(3, 0, 2)), torch.zeros(3, 0).double()),
    ("an empty batch of curvatures", lambda: PotentialMetric("fubini_study").curvature_tensor(Z.expand(0, 2)), torch.zeros(0, 2, 2, 2, 2, dtype=C)),
    ("an empty batch of a mixture", lambda: mixture().metric_matrix(Z.expand(0, 2)), torch.zeros(0, 2, 2, dtype=C)),
    ("a single point without batch", lambda: fisher(linear), linear_metric()),
    ("a scalar Σ at a single point", lambda: fisher(lambda z: (linear(z)[0], torch.zeros(z.shape[:-1]).double())), linear_metric()),
    ("a batch of two axes", lambda: fisher(linear, Z.expand(3, 1, 2)), linear_metric().expand(3, 1, 2, 2)),
    ("z in complex64", lambda: fisher(linear, Z.to(torch.complex64)).to(C), linear_metric()),
    ("log variance of 300", lambda: fisher(steep(300.0)) * math.exp(300), linear_metric()),
    ("log variance of -300", lambda: fisher(steep(-300.0)) * math.exp(-300), linear_metric()),
    ("a lazy conjugate", lambda: fisher(linear, Z.conj()), linear_metric()),
    ("a real likelihood has half the metric", lambda: fisher(real_normal), linear_metric() / 8),
    ("independent real normals", lambda: fisher(independent), linear_metric() / 8),
    ("D = 1 = d", lambda: fisher(lambda z: (2 * z, torch.zeros(z.shape).double()), Z[:1]), [[4.0]]),
    ("d > D: the metric is singular, not wrong", lambda: fisher(lambda z: (z[..., :1], torch.zeros(z.shape[:-1]).double())), [[1.0, 0.0], [0.0, 0.0]]),
    ("d > D: the volume is zero", lambda: FisherMetric(lambda z: (z[..., :1] + 0.5 * z[..., :1].conj(), torch.zeros(z.shape[:-1]).double())).log_volume(Z), -math.inf),
    ("a constant decoder", lambda: fisher(lambda z: (torch.zeros(3, dtype=C).expand(*z.shape[:-1], 3), torch.zeros(*z.shape[:-1], 3).double())), torch.zeros(2, 2)),
    ("a mean that does not depend on z, by broadcasting", lambda: FisherMetric(linear).complementary_part(Z), torch.zeros(2, 2)),
    ("u = 0 has length zero", lambda: FisherMetric(linear).inner_product(0 * Z, 0 * Z, Z), 0.0),
    ("u of a batch at one point", lambda: PotentialMetric("flat").inner_product(Z.expand(3, 2), Z, Z), [0.3] * 3),
    ("v of a batch at one point", lambda: PotentialMetric("fubini_study").holomorphic_sectional_curvature(Z, torch.stack([Z, 1j * Z, 5 * Z])), [2.0] * 3),
    ("Fubini-Study far away", lambda: PotentialMetric("fubini_study").log_det_hermitian(LOC + nested([1e4, 0])), -3 * math.log1p(1e8)),
    ("the centre of the ball", lambda: PotentialMetric("complex_ball").ricci_tensor(LOC), -3 * EYE),
    ("d = 1", lambda: PotentialMetric("fubini_study").scalar_curvature(Z[:1]), 2.0),
    ("K = 1 is flat, P transposed", lambda: one_component("potential"), 2 * EYE),
    ("K = 1 of a density", lambda: one_component("density"), 2 * EYE),
    ("exponents of +1e4", lambda: shifted_logits(1e4), WEIGHTS),
    ("exponents of -1e4: the nearest component decides", lambda: mixture(kind="density").metric_matrix(LOC + 100), EYE),
    ("exponents of +1e4: the farthest component decides", lambda: mixture(kind="potential").metric_matrix(LOC + 100), 2 * EYE),
    ("log-sum-exp of exponents of 1e4", lambda: mixture(centres=CENTRES * 0, precisions=torch.stack([EYE, EYE])).value(LOC + nested([100, 0])), 1e4),
]  # fmt: skip

# (name, call): with validate_args=False bad values give NaN, and no exception
NAN: list[tuple[str, Callable[[], Tensor]]] = [
    ("a negative scale", lambda: normal(scale=-0.3, validate_args=False).log_prob(Z)),
    ("an indefinite Σ", lambda: ComplexNormal.from_covariance(LOC, torch.diag(torch.tensor([1, -2], dtype=C)), validate_args=False).log_prob(Z)),
    ("a NaN mean", lambda: ComplexNormal(LOC * math.nan, scale=1.0, validate_args=False).entropy() + ComplexNormal(LOC * math.nan, scale=1.0, validate_args=False).log_prob(Z)),
    ("KL to a negative scale", lambda: kl_divergence(normal(scale=1.0), normal(scale=-1.0, validate_args=False))),
    ("z is NaN", lambda: fisher(lambda z: (z * z, z.real), Z * math.nan, check=False, validate_args=False)),
    ("z is infinite", lambda: FisherMetric(linear, check=False, validate_args=False).log_det_hermitian(Z * math.nan)),
    ("d > D", lambda: FisherMetric(lambda z: (z[..., :1], z[..., :1].real * 0), validate_args=False).log_det_hermitian(Z)),
    ("d > D, curvature", lambda: FisherMetric(lambda z: (z[..., :1] ** 2, z[..., :1].real * 0), validate_args=False).scalar_curvature(Z)),
    ("outside of the ball", lambda: PotentialMetric("complex_ball", validate_args=False).log_volume(10 * Z)),
    ("curvature outside of the ball", lambda: PotentialMetric("complex_ball", validate_args=False).scalar_curvature(10 * Z)),
    ("a zero vector", lambda: PotentialMetric("flat", validate_args=False).holomorphic_sectional_curvature(Z, 0 * Z)),
    ("a negative weight", lambda: mixture(nested([-1, 2]), validate_args=False).metric_matrix(Z)),
    ("indefinite precisions of a density", lambda: mixture(precisions=PRECISIONS - 1.5 * EYE, kind="density", validate_args=False).metric_matrix(Z)),
    ("z so far that q overflows", lambda: mixture(validate_args=False).metric_matrix(Z * 1e200)),
]  # fmt: skip


def rows(table: list[tuple]) -> list:
    return [pytest.param(*row[1:], id=row[0]) for row in table]


@pytest.mark.parametrize(("call", "error", "fragments"), rows(ERRORS))
def test_error(
    call: Callable[[], Any], error: type[KahlerVerifyError], fragments: tuple[str, ...]
) -> None:
    """The error is of its class and names the argument, what was expected and what came."""
    with pytest.raises(error) as caught:
        call()
    for fragment in fragments:
        assert fragment in str(caught.value)


@pytest.mark.parametrize(("call", "expected"), rows(ANSWERS))
def test_right_answer(call: Callable[[], Tensor], expected: Any) -> None:
    got = call()
    expected = torch.as_tensor(expected).to(got.dtype)
    assert got.shape == expected.shape
    torch.testing.assert_close(got, expected, rtol=1e-6, atol=1e-12)


@pytest.mark.parametrize("call", rows(NAN))
def test_unvalidated_input_gives_nan(call: Callable[[], Tensor]) -> None:
    assert bool(call().isnan().any())


FILES: list[tuple[str, str, Any, tuple[str, ...]]] = [
    ("a folder as data", "folder", load_data, ("folder",)),
    ("a data file that is empty", "empty.npy", load_data, ("empty.npy", ".npy")),
    ("data of objects", "objects.npy", load_data, ("objects.npy", "object arrays")),
    ("data with NaN", "nan.npy", load_data, ("nan.npy", "finite", "1 entries")),
    ("data of one axis", "flat.npy", load_data, ("flat.npy", "(5,)")),
    ("data of too few samples", "few.npy", load_data, ("few.npy", "at least 3")),
    ("data of text", "text.npy", load_data, ("text.npy", "numbers", "U")),
    ("a folder as checkpoint", "folder", load_checkpoint, ("checkpoint", "not a file")),
    ("no checkpoint", "nothing", load_checkpoint, ("checkpoint", "not there")),
    ("an empty checkpoint", "empty.npy", load_checkpoint, ("safetensors", "0 bytes")),
    ("a foreign checkpoint", "nan.npy", load_checkpoint, ("safetensors",)),
    ("a pickled checkpoint", "pickled", load_checkpoint, ("pickle",)),
    ("a truncated checkpoint", "cut", load_checkpoint, ("cut", "truncated")),
    ("a checkpoint of NaN", "with_nan", load_checkpoint, ("finite weights", "NaN")),
    ("a folder as derivation", "folder", PotentialMetric.from_file, ("path", "not a file")),
    ("a derivation file with an error", "wrong.py", PotentialMetric.from_file, ("wrong.py", "SyntaxError")),
    ("a derivation file without derivation", "empty.py", PotentialMetric.from_file, ("empty.py", "no Derivation")),
    ("a derivation file that is text", "notes.txt", PotentialMetric.from_file, ("path", ".py", "notes.txt")),
    ("two derivations in a file", "two.py", PotentialMetric.from_file, ("two.py", "one, two")),
]  # fmt: skip


@pytest.fixture(scope="module")
def files(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("bad")
    (folder / "folder").mkdir()
    (folder / "empty.npy").write_bytes(b"")
    (folder / "empty.py").write_text("x = 1\n")
    (folder / "wrong.py").write_text("x = = 1\n")
    (folder / "notes.txt").write_text("Φ = |z|²\n")
    (folder / "two.py").write_text(
        "from kahler_verify.calculus import coordinates, dimension, potential\n"
        "z = coordinates('z', dimension('d'))\n"
        "one, two = potential('one', z.H * z), potential('two', 2 * z.H * z)\n"
    )
    np.save(folder / "objects.npy", np.array([[{}], [{}]], dtype=object), allow_pickle=True)
    np.save(folder / "nan.npy", np.array([[math.nan, 1]] + [[1.0, 2.0]] * 9))
    np.save(folder / "flat.npy", np.zeros(5))
    np.save(folder / "few.npy", np.zeros((2, 4)))
    np.save(folder / "text.npy", np.array([["a"], ["b"], ["c"]]))
    torch.save({"x": torch.zeros(1)}, folder / "pickled")
    model = ComplexVAE(small_config())
    save_checkpoint(folder / "whole", model)
    whole = (folder / "whole").read_bytes()
    (folder / "cut").write_bytes(whole[: len(whole) // 2])
    (folder / "with_nan").write_bytes(whole[:-4] + np.float32(math.nan).tobytes())
    return folder


@pytest.mark.parametrize(("name", "read", "fragments"), rows(FILES))
def test_bad_file(
    files: Path, name: str, read: Callable[[Path], Any], fragments: tuple[str, ...]
) -> None:
    with pytest.raises((InputError, CheckpointError, DerivationError)) as caught:
        read(files / name)
    for fragment in fragments:
        assert fragment in str(caught.value)


def test_training_on_other_data_is_refused(tmp_path: Path) -> None:
    np.save(tmp_path / "x.npy", np.zeros((10, 4), dtype=complex))
    data = load_data(tmp_path / "x.npy")
    with pytest.raises(InputError, match=r"data_dim, likelihood, data.*but got \(3, 'complex'"):
        train(small_config(), data, tmp_path / "out")


def test_there_are_enough_rows() -> None:
    assert len(ERRORS) + len(ANSWERS) + len(NAN) + len(FILES) >= 60
