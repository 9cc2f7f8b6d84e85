"""Affine heads: how a Gaussian's mean and log variance depend on the last hidden layer.

A metric sees a head W [D, h] only through Gram products such as (W J)ᴴ(W J), J being the hidden
tangents. With W = QR these are those of R, which has min(D, h) rows: the widest matrix product of
a decoder costs h × h instead of D × h. A head of which only the real part counts,
Re(W h) = (Re W, -Im W)(Re h; Im h), has a real QR decomposition with min(D, 2h) rows, which keeps
the products without conjugates, (W J)ᵀ(W J), as well.

While weights are trained no decomposition is worth its time, and the Gram matrix WᴴW itself takes
its place: see :class:`kahler_verify.linear_algebra.planes.Image`.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

import torch
from torch import Tensor

__all__ = ["AffineHeads", "reduced", "reduced_real"]


@dataclass(frozen=True)
class AffineHeads:
    """The output layers of a Gaussian on C^D or R^D, behind h complex features of z [d].

    Attributes:
        mean: W [D, h] complex of the mean, in units of ``scale``; a real one is Re(W h) + ….
        log_variance: V [1 or D, h] complex of φ = Re(V h + b); None where Σ is constant.
        log_variance_bias: b [1 or D].
        constant: φ [D] where Σ is constant, else None.
        scale: of the data, real []: Σ is scale² e^φ.
        covariance: whether Σ is constant, or varies with one number or with D of them.
        real: whether the Gaussian is real.
        latent: d.
        widest: the most features of any layer, or D.
    """

    mean: Tensor
    log_variance: Tensor | None
    log_variance_bias: Tensor | None
    constant: Tensor | None
    scale: Tensor
    covariance: Literal["constant", "scalar", "diagonal"]
    real: bool
    latent: int
    widest: int


def reduced(weight: Tensor) -> Tensor:
    """R [min(D, h), h] with RᴴR = WᴴW, for complex W [D, h]."""
    return torch.linalg.qr(weight)[1]


def reduced_real(weight: Tensor) -> Tensor:
    """C [min(D, 2h), h] complex with |Re(C v)| = |Re(W v)| for all v."""
    triangle = torch.linalg.qr(torch.cat([weight.real, -weight.imag], -1))[1]
    x, y = triangle.chunk(2, dim=-1)
    return torch.complex(x, -y)
