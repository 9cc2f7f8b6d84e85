"""Volumes, sampling and fits on latent spaces."""

from kahler_verify.statistics.brownian import BrownianScheme, brownian_motion, brownian_step
from kahler_verify.statistics.chains import run_chains
from kahler_verify.statistics.clustering import RiemannianKMeans
from kahler_verify.statistics.importance import importance_resample
from kahler_verify.statistics.neighbours import NearestNeighbourDensity
from kahler_verify.statistics.proxy import Agreement, ProxyFit, agreement, fit_mixture
from kahler_verify.statistics.tangent_pca import TangentPCA
from kahler_verify.statistics.volume import Draws, ImproperTargetWarning, VolumeTarget

__all__ = [
    "Agreement",
    "BrownianScheme",
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
    "fit_mixture",
    "importance_resample",
    "run_chains",
]
