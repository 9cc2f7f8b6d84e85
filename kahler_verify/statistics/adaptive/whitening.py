"""Where a law's mass is spread evenly over directions, by what its rays carry.

On a ray in direction u the law has the mass ∫ exp(-½ r² uᵀΓu) det W/r dr, as a flat one of the
precision γ(u) has.  The quadratic form that is nearest to γ is Γ with the mean effect of curvature
(Γ + Ric/3 for small laws): where its inverse is whitened, few rays do for many dimensions.
"""

from __future__ import annotations

import math

import torch
from torch import Tensor

from kahler_verify.statistics.adaptive.draws import panel_masses
from kahler_verify.statistics.adaptive.fans import Fan

LEAST = 0.05  # of the form in each direction, over what the fan is whitened by


def evened(fan: Fan, precision: Tensor) -> Tensor:
    """The covariance [d, d] to spread rays anew by, of a law with the precision Γ [d, d].

    Args:
        fan: of rays that are spread by another, such as Γ⁻¹.
        precision: Γ in its frame.
    """
    d = len(fan.mean)
    masses = panel_masses(fan.rays, fan.ends, precision)[0].sum(-1)
    alone = 2 ** (d / 2 - 1) * math.gamma(d / 2)  # of a flat law with the precision 1
    white = torch.linalg.solve_triangular(fan.root, fan.rays.directions.mT, upper=False).mT
    size = white.norm(dim=-1)
    gamma = (alone / masses) ** (2 / d) / size**2
    sound = gamma.isfinite()
    a = (white / size[:, None])[sound]
    rows, columns = torch.tril_indices(d, d)
    features = a[:, rows] * a[:, columns]  # of the least change that does
    change = torch.linalg.pinv(features) @ (gamma[sound] - 1)
    half = torch.zeros(d, d).to(a)
    half[rows, columns] = change / 2
    values, vectors = torch.linalg.eigh(torch.eye(d).to(a) + half + half.mT)
    root = fan.root @ vectors / values.clamp_min(LEAST).sqrt()
    return root @ root.mT
