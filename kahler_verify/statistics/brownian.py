"""Brownian motion of a Riemannian metric: the diffusion of generator ½ Laplace–Beltrami."""

from __future__ import annotations

from collections.abc import Callable
from enum import StrEnum

import torch
from torch import Tensor

from kahler_verify.curves import shoot
from kahler_verify.curves.energy import unchecked
from kahler_verify.errors import CurveError, InputError
from kahler_verify.geometry.riemannian import RiemannianMetric

NEAR = 1e-3  # of a metric unit: the distance of the differences that give ∇Scal


class BrownianScheme(StrEnum):
    """How a step of time h is made of v = √h g^{-½} ε, ε ~ N(0, I); the weak order beside it.

    Attributes:
        RETRACTION: z + v - ½Γ(v, v); 1.
        EULER: z + v + h · (-½ g^{ab}Γ_ab), Euler and Maruyama with the drift; 1.
        WALK: exp_z(v), the geodesic walk; 1, and it keeps the volume measure at every h.
        CORRECTED: the walk with covariance hI - h² Ric/6 and mean -h² ∇Scal/24; 2.
        WITHOUT_DRIFT: z + v, as printed in Latent Space Oddity.  No Brownian motion, unless
            ∂_j(√g g^{ij}) = 0: for comparison only.
    """

    RETRACTION = "retraction"
    EULER = "euler"
    WALK = "walk"
    CORRECTED = "corrected"
    WITHOUT_DRIFT = "without_drift"


def brownian_step(
    metric: RiemannianMetric,
    z: Tensor,
    noise: Tensor,
    h: float,
    scheme: BrownianScheme = BrownianScheme.RETRACTION,
) -> Tensor:
    """One step of time h from z with standard normal noise, [..., d] each, as [..., d].

    NaN where a geodesic did not arrive.

    Raises:
        InputError: an argument is malformed, or the metric is degenerate at z.

    Source: Jørgensen, Z. Wahrscheinlichkeitstheorie 32, 1975, for the walk; "corrected" has its
    coefficients from the heat kernel's expansion, -h Ric/6 and -h² ∇Scal/24.
    """
    z, noise = _like(metric, z, noise)
    metric.metric_matrix(z)  # refuses points where there is none
    return _stepper(unchecked(metric), _chosen(scheme), _positive("h", h))(z, noise)


def brownian_motion(
    metric: RiemannianMetric,
    z: Tensor,
    time: float,
    *,
    steps: int,
    scheme: BrownianScheme = BrownianScheme.RETRACTION,
    generator: torch.Generator | None = None,
    progress: Callable[[int, int], None] | None = None,
    raise_on_failure: bool = True,
) -> Tensor:
    """Paths of Brownian motion from z [..., d], as [..., steps + 1, d] with z first.

    Args:
        metric: of the latent space.
        z: where paths begin, one for each row.
        time: their length; E d² ≈ time · dimension for short ones.
        steps: of time/steps each.
        scheme: see :class:`BrownianScheme`.
        generator: of the noise; torch's own by default.
        progress: told how many steps are done, and of how many.
        raise_on_failure: with False, a path that left the domain where the metric is finite and
            positive definite is NaN from there on.

    Raises:
        InputError: an argument is malformed.
        CurveError: a path left the domain, and ``raise_on_failure``.
    """
    if not isinstance(steps, int) or isinstance(steps, bool) or steps < 1:
        raise InputError(f"steps: expected a positive integer, got {steps!r}")
    h = _positive("time", time) / steps
    z, _ = _like(metric, z, z)
    g = metric.metric_matrix(z)  # refuses points where there is none
    step = _stepper(unchecked(metric), _chosen(scheme), h)
    path = z.new_full((*z.shape[:-1], steps + 1, z.shape[-1]), torch.nan)
    rows, at = path.reshape(-1, steps + 1, z.shape[-1]), z.reshape(-1, z.shape[-1])
    rows[:, 0] = at
    going = g.reshape(len(at), -1).isfinite().all(-1)
    with torch.no_grad():
        for n in range(1, steps + 1):
            noise = torch.randn(at.shape, dtype=z.dtype, generator=generator).to(z.device)
            rows[going, n] = step(rows[going, n - 1], noise[going])
            going = going & _inside(metric, rows[:, n])
            rows[~going, n] = torch.nan
            if raise_on_failure and not bool(going.all()):
                raise CurveError(
                    f"{int((~going).sum())} of {len(at)} paths left the domain where the metric is "
                    f"finite and positive definite, at step {n} of {steps}; more steps may keep "
                    "them inside, and with raise_on_failure=False they are NaN from there on",
                    None,
                )
            if progress is not None:
                progress(n, steps)
    return path


def _stepper(
    metric: RiemannianMetric, scheme: BrownianScheme, h: float
) -> Callable[[Tensor, Tensor], Tensor]:
    def step(z: Tensor, noise: Tensor) -> Tensor:
        inverse = _inverse_factor(metric, z)
        if scheme == BrownianScheme.CORRECTED:
            return _corrected(metric, inverse, z, noise, h)
        v = h**0.5 * _times(inverse, noise)
        match scheme:
            case BrownianScheme.WITHOUT_DRIFT:
                return z + v
            case BrownianScheme.EULER:
                return z + v + h * metric.brownian_drift(z)
            case BrownianScheme.RETRACTION:
                return z + v + metric.geodesic_acceleration(z, v) / 2
            case _:
                return _arrived(metric, z, v)

    return step


def _corrected(
    metric: RiemannianMetric, inverse: Tensor, z: Tensor, noise: Tensor, h: float
) -> Tensor:
    """exp_z(v) of v with the covariance and the mean that the heat kernel has to order h²."""
    d = z.shape[-1]
    ricci = inverse.mT @ metric.ricci_tensor(z) @ inverse  # in the orthonormal frame
    covariance = h * torch.eye(d, dtype=z.dtype, device=z.device) - h * h / 6 * ricci
    root, info = torch.linalg.cholesky_ex(covariance)
    root = torch.where((info == 0)[..., None, None], root, torch.nan)
    mean = -h * h / 24 * _scalar_slope(metric, inverse, z)
    return _arrived(metric, z, _times(inverse, _times(root, noise) + mean))


def _arrived(metric: RiemannianMetric, z: Tensor, v: Tensor) -> Tensor:
    """exp_z(v); NaN where v is, or where the geodesic did not arrive."""
    known = v.isfinite().all(-1)
    out = torch.full_like(z, torch.nan)
    out[known] = shoot(metric, z[known], v[known], raise_on_failure=False).point
    return out


def _scalar_slope(metric: RiemannianMetric, inverse: Tensor, z: Tensor) -> Tensor:
    """∇Scal in the orthonormal frame, by central differences: their error is of order NEAR²."""
    frame = NEAR * inverse.mT  # rows are the frame's vectors
    ahead, behind = (metric.scalar_curvature(z.unsqueeze(-2) + s * frame) for s in (1, -1))
    return (ahead - behind) / (2 * NEAR)


def _inverse_factor(metric: RiemannianMetric, z: Tensor) -> Tensor:
    """L^{-T} of g = LLᵀ: its columns are orthonormal vectors; NaN where g is degenerate."""
    factor, info = torch.linalg.cholesky_ex(metric.metric_matrix(z))
    factor = torch.where((info == 0)[..., None, None], factor, torch.nan)
    identity = torch.eye(z.shape[-1], dtype=z.dtype, device=z.device).expand_as(factor)
    return torch.linalg.solve_triangular(factor.mT, identity, upper=True)


def _inside(metric: RiemannianMetric, z: Tensor) -> Tensor:
    """Where the metric is finite and positive definite, [B]."""
    inside = z.isfinite().all(-1)
    if bool(inside.any()):
        g = unchecked(metric).metric_matrix(z[inside])
        finite = g.isfinite().all(-1).all(-1)
        identity = torch.eye(z.shape[-1], dtype=z.dtype, device=z.device)
        good = torch.linalg.cholesky_ex(torch.where(finite[:, None, None], g, identity))[1] == 0
        inside[inside.clone()] = finite & good
    return inside


def _times(matrix: Tensor, vector: Tensor) -> Tensor:
    return (matrix @ vector.unsqueeze(-1)).squeeze(-1)


def _like(metric: RiemannianMetric, z: Tensor, noise: Tensor) -> tuple[Tensor, Tensor]:
    z = metric.space.check("z", z)
    if z.dtype not in (torch.float32, torch.float64):
        raise InputError(f"z: expected float32 or float64, got {z.dtype}")
    if not bool(z.isfinite().all()):
        raise InputError("z: expected finite points, got NaN or infinities")
    if not isinstance(noise, Tensor) or noise.shape != z.shape or noise.dtype != z.dtype:
        got = f"{noise.dtype} {list(noise.shape)}" if isinstance(noise, Tensor) else repr(noise)
        raise InputError(f"noise: expected {z.dtype} {list(z.shape)} as z, got {got}")
    return z.detach(), noise


def _chosen(scheme: BrownianScheme | str) -> BrownianScheme:
    try:
        return BrownianScheme(scheme)
    except ValueError:
        names = ", ".join(BrownianScheme)
        raise InputError(f"scheme: expected one of {names}, got {scheme!r}") from None


def _positive(name: str, value: float) -> float:
    if (
        isinstance(value, bool)
        or not isinstance(value, int | float)
        or not 0 < value < float("inf")
    ):
        raise InputError(f"{name}: expected a positive finite number, got {value!r}")
    return float(value)
