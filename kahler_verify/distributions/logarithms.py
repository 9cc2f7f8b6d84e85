"""Logarithms that keep their digits: of ratios, and in excess of what is linear."""

import torch
from torch import Tensor

# Up to here y - log(1 + y) is summed as a series.
NEAR = 0.4


def log_excess(y: Tensor, logarithm: Tensor) -> Tensor:
    """``y - log(1 + y)``, ≥ 0, to full relative accuracy; ``logarithm`` is that of 1 + y.

    Near 0 it is ``u (y - 2 (u²/3 + u⁴/5 + …))`` with ``u = y / (2 + y)``, as log(1 + y) is
    2 artanh u; the logarithm is not used there.
    """
    near = y.detach().abs() < NEAR
    inner = torch.where(near, y, torch.zeros_like(y))
    u = inner / (2 + inner)
    square, series = u * u, torch.zeros_like(u)
    for k in reversed(range(13 if y.dtype == torch.float64 else 6)):
        series = series * square + 2 / (2 * k + 3)
    return torch.where(near, u * (inner - square * series), y - logarithm)


def log_ratio(a: Tensor, b: Tensor) -> Tensor:
    """``log(a / b)``, where the quotient leaves the range of numbers too."""
    ratio = a / b
    usual = (ratio > torch.finfo(ratio.dtype).tiny) & torch.isfinite(ratio)
    return torch.where(usual, torch.where(usual, ratio, 1.0).log(), a.log() - b.log())
