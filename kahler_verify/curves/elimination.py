"""Block elimination for Hessians of energies: first inside each element, then along the curve."""

from __future__ import annotations

import torch
from torch import Tensor

# Hessians come by elements, [B, E, (p + 1) d, (p + 1) d], to be added at shared nodes; the two end
# points of a curve are held fixed.

# Products up to which one matrix of all shared nodes is faster than many small ones, each with its
# calls: twenty times for one curve at d = 2, as fast for 128 at d = 8.
AT_ONCE = 3e7


class _Condensed:
    """Elements without their inner nodes: Schur complements on the two ends of each."""

    def __init__(self, hessian: Tensor, d: int):
        size = hessian.shape[-1]
        self.d, self.inner = d, slice(d, size - d)
        first, last = slice(0, d), slice(size - d, size)
        self.block = hessian[..., self.inner, self.inner]
        self.across = torch.cat(
            [hessian[..., self.inner, first], hessian[..., self.inner, last]], -1
        )
        ends = torch.cat([hessian[..., first], hessian[..., last]], -1)
        self.outer = torch.cat([ends[..., first, :], ends[..., last, :]], -2)

    def chain(self, outer: Tensor) -> tuple[Tensor, Tensor]:
        """Blocks [B, E - 1, d, d] of the shared nodes, and those to the next [B, E - 2, d, d]."""
        d = self.d
        diagonal = outer[:, :-1, d:, d:] + outer[:, 1:, :d, :d]
        return diagonal, outer[:, 1:-1, :d, d:]


def solve(hessian: Tensor, gradient: Tensor, d: int) -> tuple[Tensor, Tensor]:
    """H⁻¹ times the gradient, and where H is positive definite.

    Args:
        hessian: by elements, [B, E, (p + 1) d, (p + 1) d].
        gradient: by elements, [B, E, (p + 1) d].
        d: coordinates of a node.

    Returns:
        The inner nodes' [B, E p - 1, d], without meaning where H is not positive definite, and the
        flags [B].
    """
    count, elements = hessian.shape[:2]
    parts = _Condensed(hessian, d)
    ends = torch.cat([gradient[..., :d], gradient[..., -d:]], -1)
    outer, inner = parts.outer, None
    broken = hessian.new_zeros(count, dtype=torch.int32)
    if parts.block.shape[-1]:
        right = torch.cat([parts.across, gradient[..., parts.inner, None]], -1)
        factor, info = torch.linalg.cholesky_ex(parts.block)
        inner = torch.cholesky_solve(right, factor)
        broken = info.amax(1)
        removed = parts.across.mT @ inner
        outer, ends = outer - removed[..., :-1], ends - removed[..., -1]
    diagonal, beyond = parts.chain(outer)
    right = ends[:, :-1, d:] + ends[:, 1:, :d]
    along = _at_once if count * ((elements - 1) * d) ** 3 <= AT_ONCE else _one_by_one
    shared, info = along(diagonal, beyond, right)
    broken = torch.maximum(broken, info)
    ends = torch.nn.functional.pad(shared, (0, 0, 1, 1))
    step = ends[:, 1:, None, :]
    if inner is not None:
        sides = torch.cat([ends[:, :-1], ends[:, 1:]], -1).unsqueeze(-1)
        own = (inner[..., -1:] - inner[..., :-1] @ sides).reshape(count, elements, -1, d)
        step = torch.cat([own, step], 2)
    return step.reshape(count, -1, d)[:, :-1], broken == 0


def _at_once(diagonal: Tensor, beyond: Tensor, right: Tensor) -> tuple[Tensor, Tensor]:
    """The shared nodes' [B, E - 1, d] by one matrix, and zeros [B] where it is definite."""
    count, nodes, d = right.shape
    form = right.new_zeros(count, nodes, d, nodes, d)
    form.diagonal(dim1=1, dim2=3).copy_(diagonal.movedim(1, -1))
    form.diagonal(-1, dim1=1, dim2=3).copy_(beyond.mT.movedim(1, -1))  # the lower half is read
    factor, info = torch.linalg.cholesky_ex(form.view(count, nodes * d, nodes * d))
    return torch.cholesky_solve(right.reshape(count, -1, 1), factor).view(right.shape), info


def _one_by_one(diagonal: Tensor, beyond: Tensor, right: Tensor) -> tuple[Tensor, Tensor]:
    """The same, node after node."""
    nodes = right.shape[1]
    broken = right.new_zeros(len(right), dtype=torch.int32)
    kept, pivot, rest = [], diagonal[:, 0], right[:, 0]
    for k in range(nodes):
        factor, info = torch.linalg.cholesky_ex(pivot)
        broken = torch.maximum(broken, info)
        kept.append((factor, rest))
        if k < nodes - 1:
            ahead = torch.cat([beyond[:, k], rest.unsqueeze(-1)], -1)
            removed = beyond[:, k].mT @ torch.cholesky_solve(ahead, factor)
            pivot = diagonal[:, k + 1] - removed[..., :-1]
            rest = right[:, k + 1] - removed[..., -1]
    back: list[Tensor] = []
    for k in reversed(range(nodes)):
        factor, rest = kept[k]
        if back:
            rest = rest - (beyond[:, k] @ back[-1].unsqueeze(-1)).squeeze(-1)
        back.append(torch.cholesky_solve(rest.unsqueeze(-1), factor).squeeze(-1))
    return torch.stack(back[::-1], 1), broken


def negative_eigenvalues(hessian: Tensor, d: int) -> Tensor:
    """How many eigenvalues of H are negative, [B]: by Sylvester's law, block after block.

    Inertias of a block and of its Schur complement add up (Haynsworth 1968).
    """
    parts = _Condensed(hessian, d)
    outer = parts.outer
    count = hessian.new_zeros(len(hessian), dtype=torch.long)
    if parts.block.shape[-1]:
        count += (torch.linalg.eigvalsh(parts.block) < 0).sum((1, 2))
        outer = outer - parts.across.mT @ torch.linalg.solve(parts.block, parts.across)
    diagonal, beyond = parts.chain(outer)
    pivot = diagonal[:, 0] if diagonal.shape[1] else None
    for k in range(diagonal.shape[1]):
        count += (torch.linalg.eigvalsh(pivot) < 0).sum(-1)
        if k < diagonal.shape[1] - 1:
            pivot = diagonal[:, k + 1] - beyond[:, k].mT @ torch.linalg.solve(pivot, beyond[:, k])
    return count


def assembled(hessian: Tensor, d: int) -> Tensor:
    """The whole matrix [B, m, m] of the inner nodes, m = (E p - 1) d."""
    count, elements, size, _ = hessian.shape
    stride = size - d
    out = hessian.new_zeros(count, elements * stride + d, elements * stride + d)
    for k in range(elements):
        own = slice(k * stride, k * stride + size)
        out[:, own, own] += hessian[:, k]
    return out[:, d:-d, d:-d]
