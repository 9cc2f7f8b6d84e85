"""Newton's method on discrete curve energies: a batch at once, each pair with its own damping."""

from __future__ import annotations

from typing import NamedTuple

import torch
from torch import Tensor

from kahler_verify.curves.elements import Mesh
from kahler_verify.curves.elimination import assembled, solve
from kahler_verify.curves.energy import Energy, Expansion

ARMIJO = 1e-3  # of the predicted decrease that a step has to reach
MOST_DAMPING = 1e7


class Descent(NamedTuple):
    """Where Newton's method ended, for each pair.

    Attributes:
        nodes: [B, n, d].
        inside: [B]: the metric was one at every node.
        converged: [B]: the last decrement was small, and the Hessian positive definite.
        saddle: [B]: the gradient vanishes, and the Hessian is not positive definite.
        gap: the start's, relative, [B]: how much longer it is than the minimum, a quarter of
            gᵀH⁻¹g/E; infinite where H was not positive definite.
        value: the energy at the end, [B]; infinite outside the domain.
        iterations: [B].
        evaluations: how many points the metric was asked for, [B].
    """

    nodes: Tensor
    inside: Tensor
    converged: Tensor
    saddle: Tensor
    gap: Tensor
    value: Tensor
    iterations: Tensor
    evaluations: Tensor


def damped_step(at: Expansion, damping: Tensor, d: int) -> tuple[Tensor, Tensor]:
    """A descent step [B, n - 2, d] to subtract, and where it is Newton's [B].

    Damping adds a multiple of the diagonal of the Gauss-Newton part (Levenberg-Marquardt); where
    the damped Hessian is not positive definite, the Gauss-Newton part alone takes its place.
    """
    diagonal = at.gauss_newton.diagonal(dim1=2, dim2=3)
    smallest = 16 * torch.finfo(diagonal.dtype).eps * diagonal.mean((1, 2))
    shift = damping[:, None, None] * diagonal + smallest[:, None, None]
    step, definite = solve(_shifted(at.hessian, shift), at.gradient, d)
    if not bool(definite.all()):
        bad = ~definite
        step[bad] = solve(_shifted(at.gauss_newton[bad], shift[bad]), at.gradient[bad], d)[0]
    return step, definite


def _shifted(matrix: Tensor, shift: Tensor) -> Tensor:
    matrix = matrix.clone()
    matrix.diagonal(dim1=2, dim2=3).add_(shift)
    return matrix


def slope_along(at: Expansion, step: Tensor, mesh: Mesh) -> Tensor:
    """The gradient times a step of the inner nodes, [B]."""
    fixed = step.new_zeros(len(step), 1, step.shape[-1])
    whole = torch.cat([fixed, step, fixed], 1)[:, mesh.index]
    return (at.gradient * whole.flatten(2)).sum((1, 2))


def descend(
    energy: Energy,
    nodes: Tensor,
    mesh: Mesh,
    *,
    tolerance: float,
    most_iterations: int,
    enough: Tensor | None = None,
) -> Descent:
    """Minimise the energy over the inner nodes.

    The last step, whose decrement is below the tolerance, is taken without another evaluation.

    Args:
        energy: of curves.
        nodes: the start, [B, n, d].
        mesh: of the nodes.
        tolerance: of the decrement gᵀH⁻¹g, relative to the energy.
        most_iterations: for each pair.
        enough: gaps [B] with which a start is done after the one step that found them; none by
            default.
    """
    nodes, (count, _, d) = nodes.clone(), nodes.shape
    rounding = 1e5 * torch.finfo(nodes.dtype).eps  # of E, below which a decrease cannot be seen
    tolerance = max(tolerance, rounding / 1e4)
    flags = torch.zeros(count, dtype=torch.bool, device=nodes.device)
    integers = torch.zeros_like(flags, dtype=torch.long)
    gap = nodes.new_full((count,), torch.inf)
    out = Descent(
        nodes,
        flags,
        flags.clone(),
        flags.clone(),
        gap,
        gap.clone(),
        integers,
        integers + mesh.size,
    )
    active = torch.arange(count, device=nodes.device)
    at = energy.expand(nodes, mesh)
    out.inside[:] = inside = at.value.isfinite() & at.gradient.isfinite().all(2).all(1)
    active, at = active[inside], at.chosen(inside)
    damping = at.value.new_zeros(len(active))
    for iteration in range(most_iterations):
        if len(active) == 0:
            break
        step, definite = damped_step(at, damping, d)
        slope = slope_along(at, step, mesh)
        definite &= damping == 0
        stationary = slope <= tolerance * at.value
        out.saddle[active] = stationary & ~definite & (damping == 0)
        settled = stationary & definite
        if iteration == 0:
            gap = slope.abs() / (4 * at.value)
            out.gap[active] = torch.where(definite, torch.where(slope == 0, 0, gap), torch.inf)
            if enough is not None:
                settled |= definite & (out.gap[active] <= enough[active])
        nodes[active[settled], 1:-1] -= step[settled]
        out.converged[active] = settled
        out.value[active] = torch.where(settled, at.value - slope / 2, at.value)
        out.iterations[active] += 1
        going = ~settled & ~out.saddle[active]
        if not bool(going.any()):
            break
        at = at.chosen(going)
        active, damping, step, slope = _chosen(going, active, damping, step, slope)
        trial = nodes[active]
        trial[:, 1:-1] -= step
        there = energy.expand(trial, mesh)
        out.evaluations[active] += mesh.size
        diagonal = damping[:, None, None] * at.gauss_newton.diagonal(dim1=2, dim2=3)
        predicted = slope / 2 + _weighted(diagonal, step, mesh) / 2
        gain = (at.value - there.value) / predicted.clamp_min(torch.finfo(nodes.dtype).tiny)
        unseen = slope < rounding * at.value
        accepted = (gain > ARMIJO) | (unseen & (there.value < at.value * (1 + 10 * rounding)))
        accepted &= there.value.isfinite() & there.gradient.isfinite().all(2).all(1)
        nodes[active[accepted]] = trial[accepted]
        out.value[active[accepted]] = there.value[accepted]
        at = there.where(accepted, at)
        damping = _next_damping(damping, gain, accepted, unseen)
        going = damping < MOST_DAMPING
        at, (active, damping) = at.chosen(going), _chosen(going, active, damping)
    return out


def _chosen(rows: Tensor, *parts: Tensor) -> tuple[Tensor, ...]:
    """Parts [B, ...] where ``rows`` [B] is true; themselves where all is."""
    return parts if bool(rows.all()) else tuple(part[rows] for part in parts)


def _weighted(diagonal: Tensor, step: Tensor, mesh: Mesh) -> Tensor:
    fixed = step.new_zeros(len(step), 1, step.shape[-1])
    whole = torch.cat([fixed, step, fixed], 1)[:, mesh.index].flatten(2)
    return (diagonal * whole * whole).sum((1, 2))


def _next_damping(damping: Tensor, gain: Tensor, accepted: Tensor, unseen: Tensor) -> Tensor:
    less = torch.where(damping < 1e-5, 0 * damping, damping / 8)
    out = torch.where(accepted & ((gain > 0.7) | unseen), less, damping)
    out = torch.where(accepted & (gain < 0.2) & ~unseen, (3 * damping).clamp_min(1e-3), out)
    return torch.where(accepted, out, (6 * damping).clamp_min(1e-2))


def escape(energy: Energy, nodes: Tensor, mesh: Mesh) -> Tensor:
    """Nodes [B, n, d] of lower energy than those of saddles, along the most negative curvature."""
    d = nodes.shape[-1]
    at = energy.expand(nodes, mesh)
    form = assembled(at.gauss_newton, d)
    scale = form.diagonal(dim1=1, dim2=2).sqrt().clamp_min(torch.finfo(nodes.dtype).tiny)
    hessian = assembled(at.hessian, d) / (scale[:, :, None] * scale[:, None, :])
    direction = torch.linalg.eigh(hessian)[1][..., 0] / scale
    size = torch.linalg.vecdot(direction, (form @ direction.unsqueeze(-1)).squeeze(-1)).sqrt()
    direction = (direction / size[:, None]).unflatten(1, (-1, d))
    best, lowest = nodes, at.value
    for fraction in (0.5, 0.1, 0.02, -0.5, -0.1, -0.02):
        trial = nodes.clone()
        trial[:, 1:-1] += fraction * (2 * at.value).sqrt()[:, None, None] * direction
        value = energy.value(trial, mesh)
        better = value < lowest  # False where it is NaN
        best = torch.where(better[:, None, None], trial, best)
        lowest = torch.where(better, value, lowest)
    return best
