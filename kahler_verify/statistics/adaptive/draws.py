"""Points drawn from an adaptive normal law: a ray by rejection, then a radius on that ray.

Nothing is linearised: each draw has a geodesic of its own, and in the plane one that the fan knows
a shorter way to is drawn anew.
"""

from __future__ import annotations

import torch
from torch import Tensor

from kahler_verify.curves.elements import gauss
from kahler_verify.statistics.adaptive.fans import IN_A_PANEL, Fan, domain, interpolated, shifts
from kahler_verify.statistics.adaptive.rays import Rays, orthonormal_frame, trace

MARGIN = 1.2  # of the largest mass of a ray in the fan, that bounds those of other rays
ROUNDS = 1000


def draw(fan: Fan, precision: Tensor, count: int, generator: torch.Generator) -> Tensor:
    """Points [count, d] with the density exp(-½ vᵀΓv)/C by the Riemannian volume."""
    bound = MARGIN * float(_mass_of_rays(fan, precision).max())
    kept: list[Tensor] = []
    while sum(map(len, kept)) < count:
        missing = count - sum(map(len, kept))
        rays, ends, jacobian = _proposed(fan, 2 * missing + 8, generator)
        panels, where = panel_masses(rays, ends, precision)
        mass = panels.sum(-1) * jacobian
        if float(mass.max()) > bound:  # too low a bound: all that was drawn is drawn anew
            bound, kept = MARGIN * float(mass.max()), []
            continue
        chosen = torch.rand(len(mass), generator=generator, dtype=mass.dtype) * bound < mass
        some = chosen.nonzero().squeeze(-1)
        if len(some):
            x, r = _points(rays, some, panels[some], where[some], precision, generator)
            kept.append(x[_shortest(fan, x, r)][:missing])
    return torch.cat(kept)


def _shortest(fan: Fan, x: Tensor, r: Tensor) -> Tensor:
    """Whether the fan knows no way to points x [N, d] that is shorter than r [N]."""
    if fan.patches is None:
        return torch.ones_like(r, dtype=torch.bool)
    coframes = torch.linalg.inv(orthonormal_frame(fan.metric, x))
    least = r.clone()
    for shift in shifts(fan.periods, x):
        found = fan.patches.locate(x + shift, coframes)
        least = least.scatter_reduce(0, found.point, found.radius, "amin")
    return least > r * (1 - 1e-4)


def _mass_of_rays(fan: Fan, precision: Tensor) -> Tensor:
    panels, _ = panel_masses(fan.rays, domain(fan.rays)[0], precision)
    size = torch.linalg.solve_triangular(fan.root, fan.rays.directions.mT, upper=False).norm(dim=0)
    # u = A a/|A a|: |A a| = 1/|A⁻¹u|
    d = len(fan.mean)
    return panels.sum(-1) * torch.linalg.det(fan.root) * size**d


def _proposed(fan: Fan, count: int, generator: torch.Generator) -> tuple[Rays, Tensor, Tensor]:
    """Rays in directions that are uniform when whitened, their ends, and dω over that law."""
    d = len(fan.mean)
    a = torch.randn(count, d, generator=generator, dtype=torch.float64).to(fan.mean)
    a = a / a.norm(dim=-1, keepdim=True)
    moved = a @ fan.root.mT
    size = moved.norm(dim=-1)
    times = fan.rays.times[fan.rays.left.logical_not().to(torch.uint8).argmax()]
    rays = trace(
        fan.metric, fan.mean, fan.frame, moved / size[:, None], times, tolerance=fan.tolerance
    )
    ends, _ = domain(rays)
    return rays, ends, torch.linalg.det(fan.root) / size**d


def panel_masses(rays: Rays, ends: Tensor, precision: Tensor) -> tuple[Tensor, Tensor]:
    """∫ exp(-½ r² uᵀΓu) det W/r dr over each panel [B, T], and what part of it is inside [B, T]."""
    whole = rays.times[:, 1:] - rays.times[:, :-1]
    inside = (ends[:, None] - rays.times[:, :-1]) / whole.clamp_min(1e-300)
    inside = torch.where(rays.states[:, 1:].isfinite().all(-1), inside.clamp(0, 1), 0)
    row, panel = (inside > 0).nonzero().unbind(-1)
    points, weights = (x.to(ends) for x in gauss(IN_A_PANEL))
    many = (row.repeat_interleave(IN_A_PANEL), panel.repeat_interleave(IN_A_PANEL))
    s = (inside[row, panel][:, None] * points).flatten()
    values = _density(rays, *many, s, precision).unflatten(0, (-1, IN_A_PANEL)) @ weights
    masses = torch.zeros_like(inside)
    masses[row, panel] = values * inside[row, panel] * whole[row, panel]
    return masses, inside


def _density(rays: Rays, row: Tensor, panel: Tensor, s: Tensor, precision: Tensor) -> Tensor:
    """exp(-½ r² uᵀΓu) det W/r at parts s of panels, [M]."""
    spread = interpolated(rays, row, panel, s)[0]
    r = torch.lerp(rays.times[row, panel], rays.times[row, panel + 1], s)
    u = rays.directions[row]
    exponent = -(r**2) * ((u @ precision) * u).sum(-1) / 2
    return exponent.exp() * torch.linalg.det(spread).clamp_min(0) / r


def _points(
    rays: Rays,
    rows: Tensor,
    masses: Tensor,
    inside: Tensor,
    precision: Tensor,
    generator: torch.Generator,
) -> tuple[Tensor, Tensor]:
    """A point on each of the rays ``rows``, by a panel's mass and rejection in it; and its r."""
    panel = torch.multinomial(masses, 1, generator=generator).squeeze(-1)
    part = inside.gather(1, panel[:, None]).squeeze(-1)
    grid = torch.linspace(0.01, 1, 12, dtype=part.dtype)
    heights = torch.stack([_density(rays, rows, panel, part * g, precision) for g in grid])
    bound = MARGIN * heights.amax(0)
    s, open_ = torch.zeros_like(part), torch.ones_like(part, dtype=torch.bool)
    for _ in range(ROUNDS):
        some = open_.nonzero().squeeze(-1)
        if not len(some):
            break
        u = torch.rand(2, len(some), generator=generator, dtype=part.dtype).to(part)
        trial = part[some] * (1 - u[0])
        height = _density(rays, rows[some], panel[some], trial, precision)
        taken = u[1] * bound[some] < height
        s[some[taken]] = trial[taken]
        open_[some[taken]] = False
    r = torch.lerp(rays.times[rows, panel], rays.times[rows, panel + 1], s)
    return interpolated(rays, rows, panel, s)[2], r
