"""Pictures of latent spaces: maps, codes, geodesics, unit balls of the metric, decoded frames.

Every function takes matplotlib axes, or makes a figure of its own, and returns the axes that it
drew on; pyplot is never touched and nothing is remembered between calls.  What is drawn over a
latent space of many dimensions is drawn over a :class:`Plane` in it.
"""

from kahler_verify.geometry.quantities import QUANTITIES, Quantity
from kahler_verify.plots.codes import CLASSES, plot_codes
from kahler_verify.plots.curves import plot_geodesics
from kahler_verify.plots.frames import plot_frames
from kahler_verify.plots.indicatrices import plot_indicatrices
from kahler_verify.plots.maps import plot_field, plot_values
from kahler_verify.plots.plane import Plane

__all__ = [
    "CLASSES",
    "QUANTITIES",
    "Plane",
    "Quantity",
    "plot_codes",
    "plot_field",
    "plot_frames",
    "plot_geodesics",
    "plot_indicatrices",
    "plot_values",
]
