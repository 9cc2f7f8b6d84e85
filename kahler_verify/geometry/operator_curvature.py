"""Sectional curvature of one plane by Gauss' equation, without matrices.

K |u ∧ v|² = ⟨II(u, u), II(v, v)⟩ - |II(u, v)|², and II is what of H = D²f is normal to J's range:
⟨II_a, II_b⟩ = ⟨F H_a, H_b⟩ - c_a g⁻¹ c_b with c = Jᵀ F H.
"""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor

from kahler_verify.errors import InputError
from kahler_verify.geometry.linearised import Linearised
from kahler_verify.geometry.operator_results import Solved
from kahler_verify.jets import propagate

__all__ = ["sectional_curvature"]


def sectional_curvature(
    linear: Linearised, solve: Callable[[Tensor], Solved], u: Tensor, v: Tensor
) -> tuple[float, float, str]:
    """K of the plane of u and v [d], its estimated error, and how g⁻¹ was taken.

    Args:
        linear: at one point, of a law whose F is constant.
        solve: g⁻¹ of covectors [r, d].
        u: a vector.
        v: another.

    Raises:
        InputError: F varies, or u and v span no plane.
    """
    z = linear.z.detach()
    with torch.no_grad():
        jets = propagate(linear.metric._letters, z, 2, torch.stack([u, v])[None])
        linear.passes += 1 + 2 + 3
        law = linear._law
        if not law.flat or any(jet.varies for name, jet in jets.items() if name != "mu"):
            raise InputError(
                "metric: expected a Gaussian with a constant covariance, whose Fisher information "
                "is the same everywhere; for other laws see metric.sectional_curvature, at small d"
            )
        along = {name: jet.d[0] for name, jet in jets.items()}
        second = {name: jet.second[:, 0] for name, jet in jets.items()}  # uu, uv, vv
        uu, uv, vv = _products(along, law.lower(along))[[0, 0, 1], [0, 1, 1]].tolist()
        area = uu * vv - uv * uv
        if not area > 16 * torch.finfo(z.dtype).eps * uu * vv:
            raise InputError("u, v: expected vectors that span a plane of the metric")
        lowered = law.lower(second)
        covectors = linear.pull(lowered)
    solved = solve(covectors)
    normal = _products(second, lowered) - (covectors.double() @ solved.x.double().mT)
    value = (normal[0, 2] - normal[1, 1]).item() / area
    sizes = covectors.double().norm(dim=-1), solved.x.double().norm(dim=-1)
    # of c g⁻¹ c′, whose error is (g⁻¹ c) times the residual of c′
    rest = solved.residual * (sizes[1][0] * sizes[0][2] + sizes[1][1] * sizes[0][1]).item()
    rounding = torch.finfo(z.dtype).eps * _products(second, lowered).abs().max().item()
    return value, (rest + 8 * rounding) / area, f"Gauss' equation, {solved.how}"


def _products(a: dict[str, Tensor], b: dict[str, Tensor]) -> Tensor:
    """Σ over letters of a_i b_j, in double precision."""
    parts = [
        a[name].reshape(len(a[name]), -1).double() @ b[name].reshape(len(b[name]), -1).double().mT
        for name in a
    ]
    return torch.stack(parts).sum(0)
