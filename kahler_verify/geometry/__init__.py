"""Metrics as objects: what users call."""

from kahler_verify.geometry.diagnosis import Diagnosis, diagnose
from kahler_verify.geometry.fisher import FisherMetric
from kahler_verify.geometry.kernel_set import KernelSet, compile_kernel
from kahler_verify.geometry.metric import HermitianMetric
from kahler_verify.geometry.potential import MixtureMetric, PotentialMetric
from kahler_verify.geometry.proxy import Agreement, ProxyFit, agreement, fit_mixture
from kahler_verify.geometry.rounding import RoundingWarning

__all__ = [
    "Agreement",
    "Diagnosis",
    "FisherMetric",
    "HermitianMetric",
    "KernelSet",
    "MixtureMetric",
    "PotentialMetric",
    "ProxyFit",
    "RoundingWarning",
    "agreement",
    "compile_kernel",
    "diagnose",
    "fit_mixture",
]
