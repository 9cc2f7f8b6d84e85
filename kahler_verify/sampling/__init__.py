"""Latents drawn in proportion to the volume element of a metric."""

from kahler_verify.sampling.chains import run_chains
from kahler_verify.sampling.importance import importance_resample
from kahler_verify.sampling.target import Draws, ImproperTargetWarning, VolumeTarget

__all__ = [
    "Draws",
    "ImproperTargetWarning",
    "VolumeTarget",
    "importance_resample",
    "run_chains",
]
