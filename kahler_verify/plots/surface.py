"""The axes that are drawn on, and the plane that a metric is drawn over."""

from __future__ import annotations

from typing import TYPE_CHECKING

from kahler_verify.errors import InputError
from kahler_verify.geometry.fisher import FisherMetric
from kahler_verify.geometry.metric import HermitianMetric
from kahler_verify.geometry.quantities import AnyMetric
from kahler_verify.geometry.riemannian import RiemannianMetric
from kahler_verify.plots.plane import Plane
from kahler_verify.spaces import Space

if TYPE_CHECKING:
    from matplotlib.axes import Axes


def axes_or_new(axes: Axes | None, size: tuple[float, float] = (4.8, 4.2)) -> Axes:
    """The axes, or those of a figure of their own.

    Raises:
        InputError: they are no matplotlib axes.
    """
    if axes is None:
        from matplotlib.figure import Figure

        return Figure(figsize=size, layout="constrained").subplots()
    if not hasattr(axes, "pcolormesh"):
        raise InputError(f"axes: expected matplotlib axes, got {type(axes).__name__}")
    return axes


def require_plane(metric: AnyMetric, plane: Plane | None) -> Plane:
    """The plane, or the whole latent space where that is one.

    Raises:
        InputError: no metric, or a plane of another latent space; or none where none is known.
    """
    if not isinstance(metric, (HermitianMetric, RiemannianMetric)):
        raise InputError(f"metric: expected a metric, got {type(metric).__name__}")
    d = metric.space.dimension
    both = isinstance(metric, FisherMetric)  # it answers real and complex latents
    if plane is None:
        if metric.space == Space(complex=True, dimension=1) and not both:
            return Plane.complex_coordinate(1)
        if not metric.space.complex and d in (None, 2):
            return Plane.coordinates(2)
        raise InputError(
            "plane: expected one where the latent space is not known to be a plane, such as "
            "Plane.of(codes), Plane.coordinates(d) or Plane.complex_coordinate(d)"
        )
    if not isinstance(plane, Plane):
        raise InputError(f"plane: expected a Plane, got {type(plane).__name__}")
    if not both:
        metric.space.check("plane", plane.origin)
    return plane


def named(axes: Axes, plane: Plane) -> Axes:
    """Labels, limits and an equal scale of a plane."""
    left, right, bottom, top = plane.extent
    axes.set_xlabel(plane.names[0])
    axes.set_ylabel(plane.names[1])
    axes.set_xlim(left, right)
    axes.set_ylim(bottom, top)
    axes.set_aspect("equal")
    return axes
