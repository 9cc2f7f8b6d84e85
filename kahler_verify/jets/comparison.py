"""Autograd's derivatives in one mode against differences, and against reverse mode."""

from __future__ import annotations

import torch
from torch import Tensor

from kahler_verify.errors import InputError
from kahler_verify.jets.differences import Difference, differences, gap_of
from kahler_verify.jets.differentiation import Mode
from kahler_verify.jets.directions import FIELDS, Unsupported, Work, seeded_normal
from kahler_verify.jets.severed import severed_by


class Contradiction(InputError):
    """Derivatives that differences refute."""

    def __init__(self, message: str, order: int) -> None:
        super().__init__(message)
        self.order = order


def compare(work: Work, order: int, mode: Mode) -> None:
    """Make sure that a mode is right up to an order, each order by the one below.

    Raises:
        Contradiction: differences, or reverse mode, refute it.
        Unsupported: torch has no rule for what the mode needs.
    """
    levels = work.derivatives(work.points, order, mode)
    for n in range(1, order + 1):
        ours = levels[n] if n == 1 else tuple(field.mean(-1, keepdim=True) for field in levels[n])
        for index, difference in enumerate(differences(work, ours, n, mode)):
            _compare_level(work, ours[index], difference, index, n, mode)
    if mode == "forward":
        _compare_with_reverse(work, levels[1])


def _compare_level(
    work: Work, ours: Tensor, difference: Difference, index: int, order: int, mode: Mode
) -> None:
    field = FIELDS[index]
    finite = torch.isfinite(ours.flatten(1)).all(-1)
    if not bool(finite.all()):
        raise Contradiction(
            f"the derivatives of order {order} of the decoder's {field} by {mode} mode are not "
            f"finite at point {int(torch.nonzero(~finite)[0, 0])}. {_causes(work, order)}",
            order,
        )
    gap, size, tolerance = gap_of(ours, difference)
    wrong = ~(gap <= tolerance) & ~difference.confirmed
    if bool(wrong.any()):
        point = int(torch.nonzero(wrong)[0, 0])
        raise Contradiction(
            f"autograd contradicts itself on this decoder: the derivatives of order {order} of its "
            f"{field} by {mode} mode and by central differences differ by {float(gap[point]):.1e}, "
            f"where they reach {float(size[point]):.1e}, at z = {_shown(work.points[point])}. "
            f"{_causes(work, order)}",
            order,
        )
    vague = (difference.error > 0.05 * size) & (size > difference.noise)
    if bool(vague.any()):
        point = int(torch.nonzero(vague)[0, 0])
        raise Contradiction(
            f"differences of order {order} of the decoder's {field} do not settle at z = "
            f"{_shown(work.points[point])}, whatever their step, so that its derivatives cannot be "
            "confirmed: is it smooth there, and is its precision enough for what it computes?",
            order,
        )


def _compare_with_reverse(work: Work, first: tuple[Tensor, ...]) -> None:
    """First derivatives in forward mode against reverse mode's, of one weighted sum of outputs."""
    weights = tuple(
        seeded_normal(work.points, *field.shape[1:-1], seed=2 + n).real.to(field)
        for n, field in enumerate(first)
    )
    try:
        reverse = work.gradients(weights)
    except Unsupported:
        cause = severed_by(work.decoder, work.points[-1:])
        if cause:
            raise Contradiction(f"the decoder cannot be differentiated: {cause}", 1) from None
        return  # no second opinion, but that of differences
    terms = [
        (w[..., None] * field).reshape(len(field), -1, field.shape[-1])
        for w, field in zip(weights, first, strict=True)
    ]
    forward = sum((term.sum(1) for term in terms), torch.zeros_like(reverse))
    size = sum((term.abs().sum(1) for term in terms), torch.zeros_like(reverse)).amax(-1)
    gap = (forward - reverse).abs().amax(-1)
    wrong = ~(gap <= 1e4 * torch.finfo(reverse.dtype).eps * size)
    if bool(wrong.any()):
        point = int(torch.nonzero(wrong)[0, 0])
        raise Contradiction(
            "autograd contradicts itself on this decoder: first derivatives by forward mode and by "
            f"reverse mode differ by {float(gap[point]):.1e}, where they reach "
            f"{float(size[point]):.1e}. {_causes(work, 1)}",
            1,
        )


def _causes(work: Work, order: int) -> str:
    cause = severed_by(work.decoder, work.points[-1:])
    if cause:
        return f"The cause: {cause}"
    layers = "" if order == 1 else "layer_norm in forward mode (write it out), "
    return (
        "Known causes: .detach() or torch.no_grad inside it, linalg.solve, det, slogdet and "
        f"cholesky_inverse (use cholesky and solve_triangular), {layers}abs(z)**2 (use "
        "z*z.conj()), a kink at this very point, or a custom backward"
    )


def _shown(z: Tensor) -> str:
    head = ", ".join(f"{value:.3g}" for value in z[:3].tolist())
    return f"[{head}{', …' if len(z) > 3 else ''}]"
