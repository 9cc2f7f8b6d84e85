"""What fixes the shape of a complex decoder."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal, get_args

from kahler_verify.errors import InputError
from kahler_verify.networks.activations import get_activation

__all__ = ["Covariance", "DecoderConfig", "DecoderFamily", "Likelihood", "require_width"]

DecoderFamily = Literal["holomorphic", "split", "modulus"]
Covariance = Literal["constant", "scalar", "diagonal"]
Likelihood = Literal["complex", "real"]

# Entire, not meromorphic: near a pole |μ| grows like 1/r, so E|x-μ|² diverges under any posterior
# with a density, and the evidence lower bound of a holomorphic tanh decoder is -∞ (seen as rare,
# enormous held-out losses).
_DEFAULT_ACTIVATION = {
    "holomorphic": "cubic",
    "split": "split_tanh",
    "modulus": "modulus_sigmoid",
}
_LARGEST_WIDTH = 1 << 20  # a checkpoint must not make us allocate without end


@dataclass(frozen=True, kw_only=True)
class DecoderConfig:
    """The shape of a complex decoder.

    Attributes:
        data_dim: the dimension D of the data.
        latent_dim: the dimension d of the latent space.
        hidden: widths of the decoder's hidden layers.
        decoder: the family of the decoder.
        activation: a key of ``ACTIVATIONS``; "" takes the family's default. Those with poles are
            admitted for a holomorphic decoder, but its expected loss is infinite in theory and
            erratic in practice.
        covariance: Σ is a constant diagonal matrix, a scalar function of z times I, or a diagonal
            function of z.
        likelihood: CN(μ, Σ) on C^D, or N(μ, Σ) on R^D (which a holomorphic mean cannot serve: a
            real holomorphic function is constant).
    """

    data_dim: int = 32
    latent_dim: int = 4
    hidden: tuple[int, ...] = (64, 64)
    decoder: DecoderFamily = "holomorphic"
    activation: str = ""
    covariance: Covariance = "diagonal"
    likelihood: Likelihood = "complex"

    def __post_init__(self) -> None:
        for name in ("data_dim", "latent_dim"):
            require_width(name, getattr(self, name))
        if not isinstance(self.hidden, tuple) or not 1 <= len(self.hidden) <= 64:
            raise InputError(
                f"expected hidden to be a tuple of 1 to 64 widths, but got {self.hidden!r}"
            )
        for width in self.hidden:
            require_width("hidden", width)
        for name, kind in (
            ("decoder", DecoderFamily),
            ("covariance", Covariance),
            ("likelihood", Likelihood),
        ):
            if getattr(self, name) not in get_args(kind):
                raise InputError(
                    f"expected {name} among {', '.join(get_args(kind))}, "
                    f"but got {getattr(self, name)!r}"
                )
        if not isinstance(self.activation, str):
            raise InputError("expected activation to be a string")
        if self.decoder == "holomorphic" and self.likelihood == "real":
            raise InputError(
                "a holomorphic decoder cannot serve a real likelihood: a real-valued holomorphic "
                "function is constant. Take decoder='split' or 'modulus', or complex data"
            )
        if not self.activation:
            object.__setattr__(self, "activation", _DEFAULT_ACTIVATION[self.decoder])
        get_activation(self.activation, holomorphic=self.decoder == "holomorphic")
        if self.decoder != "holomorphic" and not self.activation.startswith(self.decoder):
            raise InputError(
                f"expected decoder={self.decoder!r} to have a {self.decoder}_… activation, "
                f"but got {self.activation!r}"
            )


def require_width(name: str, value: object) -> None:
    """Is it a width that a decoder may have?"""
    if type(value) is not int or not 1 <= value <= _LARGEST_WIDTH:
        raise InputError(
            f"expected {name} to be a whole number from 1 to {_LARGEST_WIDTH}, but got {value!r}"
        )
