"""Geodesics, exponential and logarithmic maps, transport and distances, on any metric."""

from kahler_verify.curves.analogy import Analogy, analogy
from kahler_verify.curves.certify import SecondVariation, measure, second_variation
from kahler_verify.curves.connect import (
    STRAIGHT,
    Collocation,
    Nearby,
    Polygon,
    Relaxation,
    Solver,
    Spectral,
    Spline,
    Starts,
    connect,
)
from kahler_verify.curves.curve import Curve
from kahler_verify.curves.distances import Distances, distance, distances
from kahler_verify.curves.elements import Mesh
from kahler_verify.curves.jacobi import JacobiFields, jacobi_fields
from kahler_verify.curves.mean import Mean, mean
from kahler_verify.curves.proved.bounds import Bounds, bounds
from kahler_verify.curves.proved.certificate import certificate
from kahler_verify.curves.proved.dual import DualBound, dual_bound
from kahler_verify.curves.regularised import regularised
from kahler_verify.curves.report import CurveReport, Status
from kahler_verify.curves.shoot import Shot, initial_velocity, shoot
from kahler_verify.curves.smoothness import SmoothnessWarning
from kahler_verify.curves.transport import Carried, transport

__all__ = [
    "STRAIGHT",
    "Analogy",
    "Bounds",
    "Carried",
    "Collocation",
    "Curve",
    "CurveReport",
    "Distances",
    "DualBound",
    "JacobiFields",
    "Mean",
    "Mesh",
    "Nearby",
    "Polygon",
    "Relaxation",
    "SecondVariation",
    "Shot",
    "SmoothnessWarning",
    "Solver",
    "Spectral",
    "Spline",
    "Starts",
    "Status",
    "analogy",
    "bounds",
    "certificate",
    "connect",
    "distance",
    "distances",
    "dual_bound",
    "initial_velocity",
    "jacobi_fields",
    "mean",
    "measure",
    "regularised",
    "second_variation",
    "shoot",
    "transport",
]
