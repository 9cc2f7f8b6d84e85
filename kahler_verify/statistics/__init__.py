"""Volumes, sampling and fits on latent spaces."""

from kahler_verify.statistics.adaptive_law import AdaptiveLaw, CutReport
from kahler_verify.statistics.adaptive_normal import AdaptiveNormal, AdaptiveNormalMixture
from kahler_verify.statistics.chains import run_chains
from kahler_verify.statistics.importance import importance_resample
from kahler_verify.statistics.proxy import Agreement, ProxyFit, agreement, fit_mixture
from kahler_verify.statistics.volume import Draws, ImproperTargetWarning, VolumeTarget

__all__ = [
    "AdaptiveLaw",
    "AdaptiveNormal",
    "AdaptiveNormalMixture",
    "Agreement",
    "CutReport",
    "Draws",
    "ImproperTargetWarning",
    "ProxyFit",
    "VolumeTarget",
    "agreement",
    "fit_mixture",
    "importance_resample",
    "run_chains",
]
