"""Metrics as objects: what users call."""

from kahler_verify.geometry.base import Metric, MetricJet
from kahler_verify.geometry.constant import ConstantMetric
from kahler_verify.geometry.data_metrics import LocalVarianceMetric, PrecisionWeightedMetric
from kahler_verify.geometry.diagnosis import Diagnosis, diagnose
from kahler_verify.geometry.fisher import FisherMetric
from kahler_verify.geometry.fisher_rao import FisherRaoMetric
from kahler_verify.geometry.metric import HermitianJet, HermitianMetric
from kahler_verify.geometry.mixture import MixtureMetric
from kahler_verify.geometry.potential import PotentialMetric
from kahler_verify.geometry.pulled_back import ExpectedMetric, PulledBackMetric
from kahler_verify.geometry.riemannian import RiemannianMetric
from kahler_verify.geometry.rounding import RoundingWarning
from kahler_verify.geometry.tabulated import TabulatedMetric, table_about
from kahler_verify.moved import moved_names

__getattr__ = moved_names(
    __name__,
    {
        "Agreement": "statistics",
        "KernelSet": "running.kernel_set",
        "ProxyFit": "statistics",
        "agreement": "statistics",
        "compile_kernel": "running.kernel_set",
        "fit_mixture": "statistics",
    },
)

__all__ = [
    "ConstantMetric",
    "Diagnosis",
    "ExpectedMetric",
    "FisherMetric",
    "FisherRaoMetric",
    "HermitianJet",
    "HermitianMetric",
    "LocalVarianceMetric",
    "Metric",
    "MetricJet",
    "MixtureMetric",
    "PotentialMetric",
    "PrecisionWeightedMetric",
    "PulledBackMetric",
    "RiemannianMetric",
    "RoundingWarning",
    "TabulatedMetric",
    "diagnose",
    "table_about",
]
