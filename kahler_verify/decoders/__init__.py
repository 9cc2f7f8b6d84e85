"""Decoders and their jets; complex VAEs, their data, training and checkpoints.

A decoder is any callable from z [..., d] complex to a Gaussian; ``decoder_jets`` differentiates it
into what the kernels take, ``check_decoder`` makes sure that autograd is right about it.
"""

from kahler_verify.decoders.activations import ACTIVATIONS, Activation, get_activation
from kahler_verify.decoders.checkpoint import Checkpoint, load_checkpoint, save_checkpoint
from kahler_verify.decoders.data import Dataset, Split, load_data, to_images
from kahler_verify.decoders.jets import (
    LikelihoodStructure,
    check_decoder,
    decoder_jets,
    likelihood_structure,
)
from kahler_verify.decoders.models import ComplexLinear, ComplexVAE, Decoder, Residual, VAEConfig
from kahler_verify.decoders.propagation import routes
from kahler_verify.decoders.real_vae import RealDecoder, RealVAE, RealVAEConfig
from kahler_verify.decoders.training import Progress, TrainingOptions, train

__all__ = [
    "ACTIVATIONS",
    "Activation",
    "Checkpoint",
    "ComplexLinear",
    "ComplexVAE",
    "Dataset",
    "Decoder",
    "LikelihoodStructure",
    "Progress",
    "RealDecoder",
    "RealVAE",
    "RealVAEConfig",
    "Residual",
    "Split",
    "TrainingOptions",
    "VAEConfig",
    "check_decoder",
    "decoder_jets",
    "get_activation",
    "likelihood_structure",
    "load_checkpoint",
    "load_data",
    "routes",
    "save_checkpoint",
    "to_images",
    "train",
]
