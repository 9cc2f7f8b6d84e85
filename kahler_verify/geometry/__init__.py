"""Metrics as objects: what users call."""

from kahler_verify.geometry.base import Metric, MetricJet
from kahler_verify.geometry.data_metrics import LocalVarianceMetric, PrecisionWeightedMetric
from kahler_verify.geometry.diagnosis import Diagnosis, diagnose
from kahler_verify.geometry.fisher import FisherMetric
from kahler_verify.geometry.fisher_rao import FisherRaoMetric
from kahler_verify.geometry.kernel_set import KernelSet, compile_kernel
from kahler_verify.geometry.metric import HermitianMetric
from kahler_verify.geometry.potential import MixtureMetric, PotentialMetric
from kahler_verify.geometry.proxy import Agreement, ProxyFit, agreement, fit_mixture
from kahler_verify.geometry.pulled_back import ExpectedMetric, PulledBackMetric
from kahler_verify.geometry.riemannian import RiemannianMetric
from kahler_verify.geometry.rounding import RoundingWarning

__all__ = [
    "Agreement",
    "Diagnosis",
    "ExpectedMetric",
    "FisherMetric",
    "FisherRaoMetric",
    "HermitianMetric",
    "KernelSet",
    "LocalVarianceMetric",
    "Metric",
    "MetricJet",
    "MixtureMetric",
    "PotentialMetric",
    "PrecisionWeightedMetric",
    "ProxyFit",
    "PulledBackMetric",
    "RiemannianMetric",
    "RoundingWarning",
    "agreement",
    "compile_kernel",
    "diagnose",
    "fit_mixture",
]
