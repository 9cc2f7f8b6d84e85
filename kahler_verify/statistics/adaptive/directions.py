"""Directions of a fan's rays, spread evenly: by angle in the plane, else quasi-random."""

from __future__ import annotations

import math

import torch
from torch import Tensor

OFFSET = 0.3819660112501051  # of the first ray, between axes: charts' singularities lie on these
BALANCINGS = 300


def spread(d: int, count: int, seed: int) -> Tensor:
    """Unit vectors [count, d]: a regular polygon, or quasi-random ones, balanced and reflected."""
    if d == 1:
        return torch.tensor([[1.0], [-1.0]], dtype=torch.float64)
    if d == 2:
        angle = angles(torch.arange(count, dtype=torch.float64), count)
        return torch.stack([angle.cos(), angle.sin()], -1)
    half = -(-count // 2)
    uniform = torch.quasirandom.SobolEngine(d, scramble=True, seed=seed).draw(
        half, dtype=torch.float64
    )
    normal = torch.special.ndtri(uniform.clamp(1e-12, 1 - 1e-12))
    unit = balanced(normal / normal.norm(dim=-1, keepdim=True))
    return torch.cat([unit, -unit])


def balanced(unit: Tensor) -> Tensor:
    """Unit vectors [B, d] moved until their mean u uᵀ is 1/d: Tyler's fixed point.

    With their reflections they are exact for polynomials of degree 3, and so is a law's second
    moment in a flat space.  Fewer than d of them cannot be.
    """
    count, d = unit.shape
    if count < d:
        return unit
    one = torch.eye(d).to(unit)
    for _ in range(BALANCINGS):
        second = d / count * unit.mT @ unit
        if float((second - one).abs().max()) < 1e-14:
            break
        moved = torch.linalg.solve_triangular(torch.linalg.cholesky(second), unit.mT, upper=False)
        unit = (moved / moved.norm(dim=0)).mT
    return unit


def angles(index: Tensor, count: int) -> Tensor:
    """Angles of rays by their numbers, whole or not."""
    return 2 * math.pi * (index + OFFSET) / count


def turned(root: Tensor, angle: Tensor) -> tuple[Tensor, Tensor]:
    """u = A a/|A a| and du/dα at angles α [M], [M, 2]."""
    a = torch.stack([angle.cos(), angle.sin()], -1)
    moved, aside = a @ root.mT, torch.stack([-a[:, 1], a[:, 0]], -1) @ root.mT
    size = moved.norm(dim=-1, keepdim=True)
    u = moved / size
    return u, (aside - u * (u * aside).sum(-1, keepdim=True)) / size
