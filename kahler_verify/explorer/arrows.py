"""What begins with a vector: balls, exponential maps, parallel transport, analogies."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from kahler_verify.curves import (
    Curve,
    Spectral,
    Status,
    connect,
    initial_velocity,
    shoot,
    transport,
)
from kahler_verify.curves.energy import unchecked
from kahler_verify.errors import InputError
from kahler_verify.explorer.reading import Plane
from kahler_verify.geometry.riemannian import RiemannianMetric

RAYS = 48  # of a ball
RINGS = (1 / 3, 2 / 3, 1.0)  # of its radius
TIMES = 49  # of a geodesic that is shot
STOPS = 9  # of a vector that is carried
TOLERANCE = 1e-6
STEPS = 200  # of one geodesic, at most: what takes more saturates, and means little


def ball(metric: RiemannianMetric, centre: Tensor, radius: float, plane: Plane) -> dict[str, Any]:
    """Where geodesics of some lengths end that begin in a plane, evenly by the metric's angles."""
    g = unchecked(metric).metric_matrix(centre[None])
    root, info = torch.linalg.cholesky_ex(plane.pulled_back(g)[0])
    if int(info) or not bool(root.isfinite().all()):
        raise InputError("centre: the metric is not positive definite there")
    angle = 2 * torch.pi * torch.arange(RAYS, dtype=torch.float64) / RAYS
    even = torch.stack([angle.cos(), angle.sin()], -1)
    directions = torch.linalg.solve_triangular(root.mT, even.mT, upper=True).mT @ plane.axes
    steps = torch.cat([radius * ring * directions for ring in RINGS])
    shot = shoot(
        metric,
        centre.expand(len(steps), -1),
        steps,
        tolerance=TOLERANCE,
        most_steps=STEPS,
        raise_on_failure=False,
    )
    arrived = shot.point.isfinite().all(-1)
    rings = shot.point.unflatten(0, (len(RINGS), RAYS))
    return {
        "centre": centre.tolist(),
        "radius": radius,
        "rings": rings.tolist(),
        "radii": [radius * ring for ring in RINGS],
        "lost": int((~arrived[-RAYS:]).sum()),
        "rays": RAYS,
    }


def exponential(metric: RiemannianMetric, z: Tensor, v: Tensor) -> dict[str, Any]:
    """The geodesic from z with velocity v, until t = 1."""
    length = float(unchecked(metric).norm(v[None], z[None]))
    times = torch.linspace(0, 1, TIMES, dtype=torch.float64)[1:, None]
    shot = shoot(
        metric,
        z.expand(TIMES - 1, -1),
        times * v,
        tolerance=TOLERANCE,
        most_steps=STEPS,
        raise_on_failure=False,
    )
    if not bool(shot.point[-1].isfinite().all()):
        left = int(shot.status[-1]) == Status.LEFT_DOMAIN
        raise InputError(
            "vector: the geodesic "
            + (
                "leaves the domain where the metric is positive definite"
                if left
                else "takes too many steps"
            )
            + ""
        )
    points = torch.cat([z[None], shot.point])
    return {"points": points, "end": shot.point[-1], "length": length}


def carried(curve: Curve, vector: Tensor) -> dict[str, Any]:
    """A vector carried along a curve, at a few of its points, with its norm there."""
    if not bool(curve.nodes.isfinite().all()):
        raise InputError("transport: there is no geodesic from a to b to carry the vector along")
    shares = torch.linspace(0, 1, STOPS, dtype=torch.float64)[1:]
    parts = torch.stack([curve(share * curve.mesh.times) for share in shares])
    result = transport(Curve(curve.metric, curve.mesh, parts), vector.expand(len(parts), -1))
    points = torch.cat([curve.nodes[:1], parts[:, -1]])
    vectors = torch.cat([vector[None], result.vector])
    norms = unchecked(curve.metric).norm(vectors, points)
    return {
        "points": points,
        "vectors": vectors,
        "norms": norms,
        "error": float(result.error[-1]),
        "straight": vector,
    }


def answered(metric: RiemannianMetric, a: Tensor, b: Tensor, c: Tensor) -> dict[str, Any]:
    """exp_c of log_a b, carried from a to c; with the curves, and c + b - a beside it."""
    solver = Spectral(tolerance=1e-6)
    curves = [connect(metric, a, end, solver=solver) for end in (b, c)]
    times = torch.linspace(0, 1, 97, dtype=torch.float64)
    velocity = transport(curves[1], initial_velocity(curves[0])).vector
    found: dict[str, Any] = {
        "answer": None,
        "last": None,
        "arithmetic": c + b - a,
        "first": curves[0](times),
        "across": curves[1](times),
        "lengths": {"first": float(curves[0].length), "across": float(curves[1].length)},
        "words": "",
    }
    try:
        last = exponential(metric, c, velocity)
    except InputError as error:
        return found | {"words": f"No answer: {str(error).removeprefix('vector: ')}."}
    found["lengths"]["last"] = last["length"]
    return found | {"answer": last["end"], "last": last["points"]}
