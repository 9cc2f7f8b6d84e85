"""Metrics as objects: what users call."""

from kahler_verify.geometry.diagnosis import Diagnosis, diagnose
from kahler_verify.geometry.fisher import FisherMetric
from kahler_verify.geometry.kernel_set import KernelSet, compile_kernel
from kahler_verify.geometry.metric import HermitianMetric
from kahler_verify.geometry.potential import MixtureMetric, PotentialMetric

__all__ = [
    "Diagnosis",
    "FisherMetric",
    "HermitianMetric",
    "KernelSet",
    "MixtureMetric",
    "PotentialMetric",
    "compile_kernel",
    "diagnose",
]
