"""One step of a mean uphill on its profile likelihood: scoring, then quasi-Newton, with Armijo."""

from __future__ import annotations

from typing import NamedTuple

import torch
from torch import Tensor
from torch.linalg import LinAlgError  # type: ignore[attr-defined]

from kahler_verify.errors import CurveError, InputError
from kahler_verify.geometry.riemannian import RiemannianMetric
from kahler_verify.statistics.adaptive.component import Component, Settings, fitting, gradient
from kahler_verify.statistics.adaptive.together import Work

ARMIJO = 1e-4
LONGEST = 1.0  # step, in the largest standard deviation
SHORTER = 0.4  # after a step that was not enough
HALVINGS = 7


class Step(NamedTuple):
    """What a step came to.

    Attributes:
        component: at the new mean, or the old one where nothing was gained.
        decrement: ∇ℓᵀB∇ℓ at the old mean: about twice what was left to gain.
        moved: whether the mean is new.
        inverse: B [d, d] for the next step, in the chart.
        slope: ∇ℓ [d] in the chart at ``component``'s mean, where it was moved.
    """

    component: Component
    decrement: float
    moved: bool
    inverse: Tensor | None
    slope: Tensor | None


def in_chart(fitted: Component, weights: Tensor) -> tuple[Tensor, Tensor]:
    """∇ℓ [d] by the mean's coordinates, and the inverse information [d, d]."""
    slope, information = gradient(fitted, weights)
    frame = fitted.fan.frame
    ridge = 1e-9 * information.diagonal().mean() * torch.eye(len(slope)).to(slope)
    values, vectors = torch.linalg.eigh(information + ridge)
    values = values.clamp_min(1e-6 * float(values[-1]))
    inverse = (vectors / values) @ vectors.mT
    return torch.linalg.solve(frame.mT, slope), frame @ inverse @ frame.mT


def ascending(
    metric: RiemannianMetric,
    x: Tensor,
    weights: Tensor,
    old: Component,
    settings: Settings,
    *,
    inverse: Tensor | None = None,
    slope: Tensor | None = None,
    tolerance: float = 1e-9,
    needed: Tensor | None = None,
) -> Work[Step]:
    """Move the mean of a component that was fitted to these weights.

    Args:
        metric: of the latent space.
        x: points [N, d].
        weights: [N].
        old: the component.
        settings: see :class:`Settings`.
        inverse: of minus the Hessian, in the chart; the inverse information by default.
        slope: the gradient in the chart, where it is known.
        tolerance: of the decrement, below which nothing is done.
        needed: see :func:`fitting`.
    """
    if inverse is None or slope is None:
        slope, inverse = in_chart(old, weights)
    step = inverse @ slope
    gain = float(slope @ step)
    if not gain > tolerance:
        return Step(old, gain, False, inverse, slope)
    frame, mean = old.fan.frame, old.fan.mean
    spread = float(torch.linalg.eigvalsh(old.covariance)[-1]) ** 0.5
    length = float(torch.linalg.solve(frame, step).norm())
    size = min(1.0, LONGEST * spread / length)
    farthest = 1.1 * float(old.logs.v[old.logs.found & (weights > 0)].norm(dim=-1).max())
    for _ in range(HALVINGS):
        try:
            there = yield from fitting(
                metric,
                x,
                weights,
                mean + size * step,
                old.moments,
                settings,
                reach=max(old.reach, farthest),
                guess=_carried(old, mean + size * step),
                needed=needed,
                strict=False,
            )
            new_slope, information = in_chart(there, weights)
        except (CurveError, InputError, LinAlgError):
            # too far: outside of the domain, or no law there
            size *= SHORTER
            continue
        if float(there.value - old.value) >= ARMIJO * size * gain:
            curved = _updated(inverse, size * step, slope - new_slope)
            return Step(there, gain, True, information if curved is None else curved, new_slope)
        size *= SHORTER
    return Step(old, gain, False, None, None)


def _updated(inverse: Tensor, moved: Tensor, change: Tensor) -> Tensor | None:
    """The formula of Broyden, Fletcher, Goldfarb and Shanno, where the curvature is positive."""
    bent = float(moved @ change)
    if not bent > 1e-10 * float(moved.norm() * change.norm()):
        return None
    left = torch.eye(len(moved)).to(moved) - torch.outer(moved, change) / bent
    return left @ inverse @ left.mT + torch.outer(moved, moved) / bent


def _carried(old: Component, mean: Tensor) -> Tensor | None:
    """First guesses of logarithms at a mean nearby, without patches: d Log_μ x = -H dμ."""
    if old.fan.patches is not None:
        return None
    moved = torch.linalg.solve(old.fan.frame, mean - old.fan.mean)
    return old.logs.v - torch.einsum("nij,j->ni", old.logs.hessians, moved)
