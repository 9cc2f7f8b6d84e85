"""Variational autoencoders at complex and at real latents; their data, training, checkpoints."""

from kahler_verify.models.balls import (
    Balls,
    NoiseCost,
    RadiusLaw,
    Uniformity,
    balls_of,
    coverage,
    diagnose_balls,
    noise_cost,
    overlaps,
    radius_law,
    uniformity,
)
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
    "Balls",
    "Checkpoint",
    "Codebook",
    "ComplexVAE",
    "Dataset",
    "MarginalLikelihood",
    "NoiseCost",
    "Progress",
    "QuantisedVAE",
    "QuantisedVAEConfig",
    "RadiusLaw",
    "RealDecoder",
    "RealVAE",
    "RealVAEConfig",
    "Split",
    "TrainingOptions",
    "Uniformity",
    "VAEConfig",
    "ball_divergence",
    "balls_of",
    "coverage",
    "diagnose_balls",
    "from_pretrained",
    "load_checkpoint",
    "load_data",
    "marginal_log_likelihood",
    "noise_cost",
    "overlaps",
    "radius_law",
    "save_checkpoint",
    "save_pretrained",
    "to_images",
    "train",
    "uniformity",
]
