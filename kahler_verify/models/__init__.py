"""Variational autoencoders at complex and at real latents; their data, training, checkpoints."""

from kahler_verify.models.checkpoint import Checkpoint, load_checkpoint, save_checkpoint
from kahler_verify.models.data import Dataset, Split, load_data, to_images
from kahler_verify.models.marginal import MarginalLikelihood, marginal_log_likelihood
from kahler_verify.models.pretrained import from_pretrained, save_pretrained
from kahler_verify.models.quantised import (
    BallDivergence,
    Codebook,
    QuantisedVAE,
    QuantisedVAEConfig,
    ball_divergence,
)
from kahler_verify.models.real_vae import RealDecoder, RealVAE, RealVAEConfig
from kahler_verify.models.training import Progress, TrainingOptions, train
from kahler_verify.models.vae import ComplexVAE, VAEConfig

__all__ = [
    "BallDivergence",
    "Checkpoint",
    "Codebook",
    "ComplexVAE",
    "Dataset",
    "MarginalLikelihood",
    "Progress",
    "QuantisedVAE",
    "QuantisedVAEConfig",
    "RealDecoder",
    "RealVAE",
    "RealVAEConfig",
    "Split",
    "TrainingOptions",
    "VAEConfig",
    "ball_divergence",
    "from_pretrained",
    "load_checkpoint",
    "load_data",
    "marginal_log_likelihood",
    "save_checkpoint",
    "save_pretrained",
    "to_images",
    "train",
]
