"""What a decoder returns, read as the fields of a Gaussian: mean, covariance and its factor."""

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any, Literal, NamedTuple

from torch import Tensor, nn
from torch.distributions import Distribution, Independent, MultivariateNormal, Normal

from kahler_verify.distributions import ComplexNormal, Structure
from kahler_verify.errors import InputError
from kahler_verify.jets.decoders import has_linear_heads
from kahler_verify.jets.layers import is_holomorphic
from kahler_verify.jets.recognition import is_propagated
from kahler_verify.networks.decoder import Decoder
from kahler_verify.torch_state import outside_autocast, without_validation

__all__ = [
    "DecoderFunction",
    "Fields",
    "LikelihoodStructure",
    "at_least_one",
    "at_point",
    "evaluate",
    "explained",
    "is_autoencoder",
    "likelihood_structure",
    "points_of",
    "require_decoder",
]

DecoderFunction = Callable[[Tensor], Any]
_WANTS_THE_DECODER = (
    "it is the decoder that is wanted, from z to the law of x, and this module has an encoder "
    "beside its decoder; pass module.decoder"
)


@dataclass(frozen=True)
class LikelihoodStructure:
    """What kind of Gaussian a decoder returns.

    Attributes:
        likelihood: CN(μ, Σ) on C^D, or N(μ, Σ) on R^D. A real Gaussian's Fisher metric is half of
            what the complex formula gives for the same fields.
        covariance: the structure of Σ(z).
        data_dim: D; for an improper ``ComplexNormal``, which is taken as the real Gaussian on
            R^(2D) that it is, 2D.
        holomorphic_mean: ∂̄μ = 0 is known from the decoder's construction.
        constant_covariance: ∂Σ = 0 is known from the decoder's construction.
    """

    likelihood: Literal["complex", "real"]
    covariance: Structure
    data_dim: int
    holomorphic_mean: bool = False
    constant_covariance: bool = False


class Fields(NamedTuple):
    """The mean and the covariance's factor at [..., d], in their structure's shapes."""

    structure: LikelihoodStructure
    mu: Tensor
    factor: Tensor

    @property
    def sigma(self) -> Tensor:
        """Σ = L Lᴴ, or the variances."""
        if self.structure.covariance == "full":
            return self.factor @ self.factor.mH
        return self.factor * self.factor


def _structure_of(decoder: Decoder) -> LikelihoodStructure:
    config = decoder.config
    return LikelihoodStructure(
        config.likelihood,
        "scalar" if config.covariance == "scalar" else "diagonal",
        decoder.mean_head.out_features,
        is_holomorphic(decoder.layers) and config.likelihood == "complex",
        config.covariance == "constant",
    )


@outside_autocast()
def likelihood_structure(decoder: DecoderFunction, z: Tensor) -> LikelihoodStructure:
    """The kind of Gaussian that ``decoder`` returns at z [..., d].

    Raises:
        InputError: it returns something else.
    """
    points = points_of(z)
    if has_linear_heads(decoder):
        decoder._check(at_least_one(points)[:1])
        return _structure_of(decoder)
    return evaluate(decoder, at_least_one(points)[:1]).structure


def is_autoencoder(module: Any) -> bool:
    """Has it an encoder and a decoder of its own?"""
    return isinstance(module, nn.Module) and all(
        callable(getattr(module, part, None)) for part in ("encoder", "decoder")
    )


def require_decoder(decoder: Any) -> None:
    """Refuse what cannot be called, and a whole VAE that has no call of its own.

    Raises:
        InputError: says what is wanted in its place.
    """
    if not callable(decoder):
        raise InputError(
            "decoder: expected a module or another callable from z to a distribution, "
            f"got {type(decoder).__name__}"
        )
    if isinstance(decoder, nn.Module) and (
        getattr(type(decoder), "forward", None) is nn.Module.forward
        and "forward" not in vars(decoder)
    ):
        what = _WANTS_THE_DECODER if is_autoencoder(decoder) else "it has no forward"
        raise InputError(f"decoder: {type(decoder).__name__} cannot be called: {what}")


def points_of(z: Tensor) -> Tensor:
    """The points z [..., d] as rows."""
    if not isinstance(z, Tensor) or not z.is_complex() or z.ndim == 0 or z.shape[-1] == 0:
        got = f"{z.dtype} of shape {tuple(z.shape)}" if isinstance(z, Tensor) else repr(type(z))
        raise InputError(f"expected z to be a complex tensor [..., d] with d ≥ 1, but got {got}")
    return z.reshape(-1, z.shape[-1])


def at_least_one(points: Tensor) -> Tensor:
    """The points, or one that stands for none."""
    return points if len(points) else points.new_zeros(1, points.shape[1])


def at_point(decoder: DecoderFunction, z: Tensor) -> Fields:
    """The fields at one point z [d], as a batch of one: some layers take nothing but batches."""
    structure, mu, factor = evaluate(decoder, z[None])
    return Fields(structure, mu[0], factor[0])


def evaluate(decoder: DecoderFunction, z: Tensor) -> Fields:
    """The fields at z [..., d]; knows every output that a decoder may have."""
    holomorphic = constant = False
    if is_propagated(decoder):
        if has_linear_heads(decoder):
            known = _structure_of(decoder)
            holomorphic, constant = known.holomorphic_mean, known.constant_covariance
        output: Any = decoder.parameters_at(z)
    else:  # whatever a call of it computes: its own forward, and hooks
        output = _called(decoder, z)
    batch = z.shape[:-1]
    likelihood: Literal["complex", "real"] = "complex"
    covariance: Structure = "diagonal"
    if isinstance(output, ComplexNormal) and not output.is_circular:
        output = output.to_real()  # the same law, as a real Gaussian on R^(2D)
    if isinstance(output, ComplexNormal):
        mean, covariance = output.loc, output.structure
        given = {
            "scalar": output.scale,
            "diagonal": output.scale_diag,
            "full": output.scale_tril if covariance == "full" else None,
        }[covariance]
        assert given is not None
        factor = given
    elif isinstance(output, MultivariateNormal):
        likelihood, covariance = "real", "full"
        mean, factor = output.loc, output.scale_tril
    elif (
        isinstance(output, Independent)
        and isinstance(output.base_dist, Normal)
        and output.reinterpreted_batch_ndims == 1
    ):
        likelihood = "real"
        mean, factor = output.base_dist.loc, output.base_dist.scale
    elif isinstance(output, tuple | list) and len(output) == 2:
        mean, log_variance = output
        if not isinstance(mean, Tensor) or not isinstance(log_variance, Tensor):
            raise InputError(
                "expected a decoder's pair (mean, log variance) to be tensors, but got "
                f"{type(mean).__name__} and {type(log_variance).__name__}"
            )
        _check_mean(mean, z)
        if log_variance.is_complex() or log_variance.shape not in (batch, mean.shape):
            raise InputError(
                "expected a decoder's log variance to be real, of shape "
                f"{tuple(mean.shape)} or {tuple(batch)}, but got {log_variance.dtype} of shape "
                f"{tuple(log_variance.shape)}"
            )
        likelihood = "complex" if mean.is_complex() else "real"
        covariance = "scalar" if log_variance.ndim < mean.ndim else "diagonal"
        factor = (log_variance / 2).exp()
    else:
        hint = f": {_WANTS_THE_DECODER}" if is_autoencoder(decoder) else ""
        raise InputError(
            "expected a decoder to return a ComplexNormal, an Independent(Normal, 1), a "
            "MultivariateNormal or a pair (mean, log variance), but got "
            f"{type(output).__name__}{hint}"
        )
    named = isinstance(output, Distribution) and likelihood == "real"
    if named and (mean.is_complex() or factor.is_complex()):
        kind = "MultivariateNormal" if covariance == "full" else "Normal"
        raise InputError(
            f"expected a decoder's {kind} to have a real mean and scale, but got {mean.dtype} and "
            f"{factor.dtype}: the law of complex data is a ComplexNormal"
        )
    _check_mean(mean, z)
    real, expected = mean.real if mean.is_complex() else mean, z.real
    if real.dtype != expected.dtype or real.device != expected.device:
        raise InputError(
            f"expected a decoder to keep the precision and device of z ({expected.dtype}, "
            f"{expected.device}), but its mean is {mean.dtype} on {mean.device}"
        )
    structure = LikelihoodStructure(likelihood, covariance, mean.shape[-1], holomorphic, constant)
    return Fields(structure, mean, factor)


def _called(decoder: DecoderFunction, z: Tensor) -> Any:
    """The decoder's output; its distributions do not look at values."""
    with explained(decoder, z), without_validation():
        return decoder(z)


@contextmanager
def explained(decoder: Any, z: Tensor) -> Iterator[None]:
    """An error of torch's inside, for want of one dtype, kind of number or device, is said to be.

    Raises:
        InputError: in its place.
    """
    try:
        yield
    except RuntimeError as error:
        if isinstance(error, InputError):
            raise
        module = decoder if isinstance(decoder, nn.Module) else nn.Module()
        tensors = {
            name: x
            for name, x in (*module.named_parameters(), *module.named_buffers())
            if x.is_floating_point() or x.is_complex() or x.device != z.device
        }
        for name, x in tensors.items():
            if x.device != z.device or x.dtype.to_real() != z.dtype.to_real():
                raise InputError(
                    f"z: expected the precision and device of the decoder's {name} "
                    f"({x.dtype}, {x.device}), got {z.dtype} on {z.device}: torch says "
                    f"{error}; cast either"
                ) from error
        if is_autoencoder(decoder):
            raise InputError(f"decoder: {_WANTS_THE_DECODER}; its own call says {error}") from error
        others = [name for name, x in tensors.items() if x.is_complex() != z.is_complex()]
        about = any(word in str(error) for word in ("dtype", "scalar type"))
        if about and others and (not z.is_complex() or len(others) == len(tensors)):
            wanted, got = ("real", "complex") if z.is_complex() else ("complex", "real")
            raise InputError(
                f"z: expected {wanted} latents, of the same kind as the decoder's {others[0]} "
                f"({tensors[others[0]].dtype}), got {got} ones, {z.dtype}: torch says {error}"
            ) from error
        shaped = getattr(decoder, "latent_shape", None) is not None
        convolves = any(isinstance(m, nn.modules.conv._ConvNd) for m in module.modules())
        if convolves and not shaped:
            raise InputError(
                f"z: the decoder does not take rows {list(z.shape)}: torch says {error}; where its "
                "latents are images, say latent_shape=(channels, height, width)"
            ) from error
        raise


def _check_mean(mean: Tensor, z: Tensor) -> None:
    if mean.ndim != z.ndim or mean.shape[:-1] != z.shape[:-1]:
        raise InputError(
            f"expected a decoder's mean to be {[*z.shape[:-1], 'D']} for z of shape "
            f"{tuple(z.shape)}, but got {tuple(mean.shape)}"
        )
