"""Derivatives of geodesics by their end points and by a metric's parameters.

The inner nodes z of a converged curve solve ∂E/∂z = 0, so that they move by
dz = -H⁻¹ d(∂E/∂z): the search itself is not differentiated.
"""

from __future__ import annotations

import torch
from torch import Tensor

from kahler_verify.curves.elements import Mesh
from kahler_verify.curves.elimination import solve
from kahler_verify.curves.energy import Energy


def depends(energy: Energy, nodes: Tensor, mesh: Mesh, *ends: Tensor) -> bool:
    """Whether curves have derivatives that somebody may ask for: by end points or parameters."""
    if not torch.is_grad_enabled():
        return False
    return any(x.requires_grad for x in ends) or energy.value(nodes[:1], mesh).requires_grad


def attached(energy: Energy, nodes: Tensor, mesh: Mesh, a: Tensor, b: Tensor) -> Tensor:
    """The same nodes [B, n, d], with first derivatives by a and b [B, d] and by parameters.

    (Second derivatives are not those of the curves.)  Curves that are NaN have none.
    """
    with torch.no_grad():
        known = nodes.isfinite().all(-1).all(-1) & (nodes != nodes[:, :1]).any(-1).any(-1)
    rows = known.nonzero().squeeze(-1)
    ends = [torch.where(nodes[:, k].isnan(), nodes[:, k], x) for k, x in ((0, a), (-1, b))]
    if len(rows) == 0:
        return torch.cat([ends[0][:, None], nodes[:, 1:-1], ends[1][:, None]], 1)
    own, d = nodes[rows], nodes.shape[-1]
    with torch.no_grad():
        hessian = energy.expand(own, mesh).hessian
    inner = own[:, 1:-1].detach().requires_grad_()
    whole = torch.cat([ends[0][rows, None], inner, ends[1][rows, None]], 1)
    slope = torch.autograd.grad(energy.value(whole, mesh).sum(), inner, create_graph=True)[0]
    nothing = torch.zeros_like(slope[:, :1])
    by_elements = torch.cat([slope, nothing], 1).unflatten(1, (mesh.elements, mesh.degree))
    first = torch.zeros_like(by_elements[:, :, :1])  # a shared node counts for the one before it
    right = torch.cat([first, by_elements], 2).flatten(2)
    step = solve(hessian, right, d)[0]
    moved = nodes[:, 1:-1].index_copy(0, rows, inner.detach() - (step - step.detach()))
    return torch.cat([ends[0][:, None], moved, ends[1][:, None]], 1)
