"""Complex layers, and the decoders that are made of them."""

from kahler_verify.networks.activations import ACTIVATIONS, Activation, get_activation
from kahler_verify.networks.config import DecoderConfig
from kahler_verify.networks.decoder import ComplexLinear, Decoder, Residual

__all__ = [
    "ACTIVATIONS",
    "Activation",
    "ComplexLinear",
    "Decoder",
    "DecoderConfig",
    "Residual",
    "get_activation",
]
