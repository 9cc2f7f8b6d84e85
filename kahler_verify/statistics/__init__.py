"""Volumes, sampling and fits on latent spaces."""

from kahler_verify.statistics.adaptive.fit import AdaptiveNormal, AdaptiveNormalMixture
from kahler_verify.statistics.adaptive.law import AdaptiveLaw, CutReport
from kahler_verify.statistics.adaptive.portrait import portrait
from kahler_verify.statistics.adaptive.selection import Candidate, candidates, data_metric
from kahler_verify.statistics.brownian import BrownianScheme, brownian_motion, brownian_step
from kahler_verify.statistics.chains import run_chains
from kahler_verify.statistics.clustering import RiemannianKMeans
from kahler_verify.statistics.importance import importance_resample
from kahler_verify.statistics.neighbours import NearestNeighbourDensity
from kahler_verify.statistics.proxy import Agreement, ProxyFit, agreement, fit_mixture
from kahler_verify.statistics.tangent_pca import TangentPCA
from kahler_verify.statistics.vectorised import vectorised_chains
from kahler_verify.statistics.volume import Draws, ImproperTargetWarning, VolumeTarget

__all__ = [
    "AdaptiveLaw",
    "AdaptiveNormal",
    "AdaptiveNormalMixture",
    "Agreement",
    "BrownianScheme",
    "Candidate",
    "CutReport",
    "Draws",
    "ImproperTargetWarning",
    "NearestNeighbourDensity",
    "ProxyFit",
    "RiemannianKMeans",
    "TangentPCA",
    "VolumeTarget",
    "agreement",
    "brownian_motion",
    "brownian_step",
    "candidates",
    "data_metric",
    "fit_mixture",
    "importance_resample",
    "portrait",
    "run_chains",
    "vectorised_chains",
]
