"""Analogies: a is to b as c is to what?"""

from __future__ import annotations

from typing import NamedTuple

import torch
from torch import Tensor

from kahler_verify.curves.connect import Solver, Starts, connect
from kahler_verify.curves.curve import Curve
from kahler_verify.curves.shoot import initial_velocity, shoot
from kahler_verify.curves.transport import transport
from kahler_verify.geometry.riemannian import RiemannianMetric


class Analogy(NamedTuple):
    """The answer of an analogy, and the curves that led to it.

    Attributes:
        point: [..., d].
        velocity: at c, of the geodesic that arrives at the answer at t = 1, [..., d].
        first: the geodesics from a to b.
        across: the geodesics from a to c, along which the velocity was carried.
    """

    point: Tensor
    velocity: Tensor
    first: Curve
    across: Curve


def analogy(
    metric: RiemannianMetric,
    a: Tensor,
    b: Tensor,
    c: Tensor,
    *,
    solver: Solver | None = None,
    starts: Starts | None = None,
) -> Analogy:
    """exp_c of log_a b, carried in parallel along the geodesic from a to c.

    In flat space it is c + (b - a), the analogy of vector arithmetic.

    Args:
        metric: of the latent space.
        a: [..., d].
        b: [..., d].
        c: [..., d].
        solver: see :func:`connect`.
        starts: see :func:`connect`.

    Raises:
        InputError: points are malformed.
        CurveError: a curve was not found, or the last one left the domain.

    Source: Shao, Kumar, Fletcher, arXiv 1711.08014, section 3; transport there is by projection,
    here by its equation.
    """
    with torch.no_grad():
        first = connect(metric, a, b, solver=solver, starts=starts)
        across = connect(metric, a, c, solver=solver, starts=starts)
        velocity = transport(across, initial_velocity(first)).vector
        return Analogy(shoot(metric, c, velocity).point, velocity, first, across)
